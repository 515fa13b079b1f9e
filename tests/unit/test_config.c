#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "config/config_print.h"

static struct config config;
static struct err err;
static char path[] = "/tmp/outbox-config-XXXXXX";

static void teardown(void)
{
    config_finish(&config);
    (void)unlink(path);
}

TestSuite(config, .fini = teardown);

static const char *write_file(const char *text)
{
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
    return path;
}

static int load(const char *text, const char *const *environment, const struct config_override *overrides,
                size_t count)
{
    return config_load(&config, text ? write_file(text) : "/dev/null", environment, overrides, count,
                       CONFIG_LOADS_PLUGIN, &err);
}

static void expect_fault(const char *place, const char *text)
{
    char wanted[300];
    (void)snprintf(wanted, sizeof wanted, "%s:%s", path, place);
    cr_expect(strstr(text_get(&config.faults), wanted), "no fault at %s in:\n%s", wanted,
              text_get(&config.faults));
    cr_expect(strstr(text_get(&config.faults), text), "no '%s' in:\n%s", text, text_get(&config.faults));
}

Test(config, flags_win_over_environment_over_file_over_default)
{
    static const char *const environment[] = {"OUTBOX_WORKERS=5", "OUTBOX_BATCH__MAX_MESSAGES=70",
                                              "PATH=/bin", NULL};
    static const struct config_override overrides[] = {{"workers", "6", "-o"}};
    cr_assert_eq(
        load("workers: 4\nbatch: { max_messages: 60 }\npoll:\n  max: 2s\n", environment, overrides, 1), 0,
        "%s", text_get(&config.faults));
    cr_expect_eq(config_number(&config, "workers"), 6);
    cr_expect_eq(config_number(&config, "batch.max_messages"), 70);
    cr_expect_eq(config_number(&config, "poll.max"), 2000);
    cr_expect_eq(config_number(&config, "poll.min"), 5);
    cr_expect_eq(config_value(&config, "workers")->origin, OPTION_FLAG);
    cr_expect_eq(config_value(&config, "poll.max")->origin, OPTION_FILE);
}

Test(config, all_mistakes_are_reported_at_once_with_place_and_suggestion)
{
    cr_assert_eq(load("wrokers: 2\nworkers: 0\npoll:\n  max: 1x\n  max: 2s\nbreaker: 5\namqp:\n  urls: [a]\n",
                      NULL, NULL, 0),
                 -1);
    cr_expect_eq(err.class, ERR_CONFIG);
    cr_expect_eq(config.fault_count, 6);
    expect_fault("1:1", "unknown key 'wrokers'; did you mean 'workers'?");
    expect_fault("2:10", "workers: '0' is out of bounds: allowed is 1 to 64");
    expect_fault("4:8", "poll.max: '1x' is not a duration");
    expect_fault("5:3", "key 'poll.max' stands there twice");
    expect_fault("6:1", "'breaker' is a section");
    expect_fault("8:3", "unknown key 'amqp.urls'; did you mean 'amqp.url'?");
}

Test(config, the_same_key_in_two_spellings_or_two_documents_is_a_mistake)
{
    static const char *const environment[] = {"OUTBOX_DATABASE=a", "OUTBOX_DATABASE_FILE=/dev/null", NULL};
    cr_assert_eq(load("poll.max: 1s\npoll: { max: 2s }\namqp.url: [\"amqp://a\"]\namqp: { url: "
                      "[\"amqp://b\"] }\n---\nworkers: 9\n",
                      environment, NULL, 0),
                 -1);
    expect_fault("2:14", "key 'poll.max' stands there twice");
    expect_fault("4:14", "key 'amqp.url' stands there twice");
    expect_fault("6:1", "a second YAML document");
    cr_expect(strstr(text_get(&config.faults), "OUTBOX_DATABASE_FILE: key 'database' stands there twice"));
}

Test(config, broken_yaml_is_told_with_its_place)
{
    cr_assert_eq(load("workers: 2\namqp: { url: [\"a\"\n", NULL, NULL, 0), -1);
    cr_expect(strstr(text_get(&config.faults), "not valid YAML"), "%s", text_get(&config.faults));
    cr_expect(strstr(text_get(&config.faults), ":3:1: "), "%s", text_get(&config.faults));
}

Test(config, a_fault_that_quotes_line_breaks_stays_one_line)
{
    cr_assert_eq(load("\"wor\\nkers\": 1\nlog.level: \"\\e[31mde\\nbug\"\n", NULL, NULL, 0), -1);
    expect_fault("1:1", "unknown key 'wor\\nkers'");
    expect_fault("2:12", "log.level: '\\u001b[31mde\\nbug' is not one of");
}

Test(config, lists_maps_and_nested_sections_bind)
{
    cr_assert_eq(load("channels: { include: [\"a\", \"b*\"] }\namqp:\n  url:\n    - amqp://one\n    - "
                      "amqp://two\n  tls: { ca_file: /x }\n",
                      NULL, NULL, 0),
                 0, "%s", text_get(&config.faults));
    cr_expect_eq(config_value(&config, "channels.include")->count, 2);
    cr_expect_str_eq(config_value(&config, "channels.include")->items[1], "b*");
    const struct option_set *amqp = config_section(&config, "amqp");
    cr_expect_eq(option_get(amqp, "url")->count, 2);
    cr_expect_str_eq(option_text(amqp, "tls.ca_file"), "/x");
}

Test(config, near_misses_in_the_environment_are_mistakes_and_strangers_are_not)
{
    static const char *const environment[] = {"OUTBOX_WORKRES=5", "OUTBOX_RELAY_SERVICE_PORT_HTTP=80", NULL};
    cr_assert_eq(load(NULL, environment, NULL, 0), -1);
    cr_expect_eq(config.fault_count, 1, "%s", text_get(&config.faults));
    cr_expect(
        strstr(text_get(&config.faults), "OUTBOX_WORKRES: unknown key 'workres'; did you mean 'workers'?"));
}

Test(config, secrets_can_come_from_a_file_of_their_own)
{
    struct config_override overrides[] = {{"database_file", NULL, "-o"}};
    overrides[0].value = write_file("postgresql://u:secret@host/db\n");
    cr_assert_eq(config_load(&config, "/dev/null", NULL, overrides, 1, CONFIG_LOADS_PLUGIN, &err), 0, "%s",
                 text_get(&config.faults));
    cr_expect_str_eq(config_text(&config, "database"), "postgresql://u:secret@host/db");
}

Test(config, a_secret_file_that_cannot_be_read_is_a_mistake)
{
    static const struct config_override overrides[] = {{"database_file", "/nonexistent/secret", "-o"}};
    cr_assert_eq(load(NULL, NULL, overrides, 1), -1);
    cr_expect(strstr(text_get(&config.faults), "database_file: cannot read that file: No such file"));
}

Test(config, contradictions_between_values_are_mistakes)
{
    cr_assert_eq(load("poll: { min: 2s, max: 1s }\n", NULL, NULL, 0), -1);
    cr_expect(strstr(text_get(&config.faults), "poll.min is above poll.max"));
}

Test(config, showing_redacts_passwords)
{
    static const struct config_override overrides[] = {{"database", "postgresql://u:secret@host/db", "-o"},
                                                       {"amqp.url", "amqp://me:hidden@broker/", "-o"},
                                                       {"backend", "amqp", "-o"}};
    struct text out;
    text_init(&out, 100000);
    cr_assert_eq(load(NULL, NULL, overrides, 3), 0, "%s", text_get(&config.faults));
    config_print_values(&config, &out);
    cr_expect_null(strstr(text_get(&out), "secret"), "%s", text_get(&out));
    cr_expect_null(strstr(text_get(&out), "hidden"), "%s", text_get(&out));
    cr_expect(strstr(text_get(&out), "amqp://***@broker/"), "%s", text_get(&out));
    cr_expect(strstr(text_get(&out), "host=host"), "%s", text_get(&out));
    text_finish(&out);
}

/* k0, k1 ... */
static int load_keys(int count)
{
    struct text content;
    text_init(&content, 1 << 20);
    for (int key = 0; key < count; key++) {
        text_addf(&content, "k%d: 1\n", key);
    }
    cr_assert(!content.overflow);
    int result = load(text_get(&content), NULL, NULL, 0);
    text_finish(&content);
    return result;
}

Test(config, a_file_of_very_many_keys_is_refused_without_looking_at_each)
{
    cr_expect_eq(load_keys(40000), -1);
    cr_expect_eq(config.fault_count, 1, "%s", text_get(&config.faults));
    cr_expect(strstr(text_get(&config.faults), "more than 1000 keys in one mapping"));
}

Test(config, of_very_many_mistakes_the_first_hundred_are_told)
{
    cr_expect_eq(load_keys(500), -1);
    cr_expect_eq(config.fault_count, 100);
}

Test(config, an_empty_file_and_a_missing_file_are_told_apart)
{
    cr_expect_eq(load("", NULL, NULL, 0), 0, "%s", text_get(&config.faults));
    config_finish(&config);
    cr_expect_eq(config_load(&config, "/nonexistent.yaml", NULL, NULL, 0, CONFIG_LOADS_PLUGIN, &err), -1);
    cr_expect(strstr(text_get(&config.faults), "/nonexistent.yaml: cannot read the configuration file"));
}
