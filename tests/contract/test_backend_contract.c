/* What the host makes of backends that behave, and of those that do not. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "plugin/backend.h"

static const struct log quiet = {.level = LOG_ERROR, .fd = STDERR_FILENO};
static enum {
    WELL,
    OK_BUT_UNSETTLED,
    SETTLES_TWICE,
    UNKNOWN_STATE,
    BUSY,
    REFUSES,
    SENDS_ONE,
    SENDS_NOTHING
} behaviour;
static int disconnects;

static int fake_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                     struct outbox_error *error)
{
    (void)error;
    *backend = (void *)host;
    return strcmp(host->get_string(settings, "word"), "x") == 0 ? 0 : -1;
}

static void fake_close(void *backend)
{
    (void)backend;
}

static int fake_session_new(void *backend, void **session, struct outbox_error *error)
{
    (void)error;
    *session = backend;
    return 0;
}

static void fake_session_free(void *session)
{
    (void)session;
}

static int fake_connect(void *session, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session;
    (void)deadline_ms;
    if (behaviour == REFUSES) {
        error->kind = OUTBOX_ERROR_REFUSED;
        strcpy(error->text, "wrong\npassword");
        return -1;
    }
    return 0;
}

static void fake_disconnect(void *session)
{
    (void)session;
    disconnects++;
}

static enum outbox_session_state fake_publish(void *session, struct outbox_batch *batch, int64_t deadline_ms,
                                              struct outbox_error *error)
{
    (void)session;
    (void)deadline_ms;
    for (size_t at = 0; at < batch->count; at++) {
        bool unsent = behaviour == SENDS_NOTHING || (behaviour == SENDS_ONE && at > 0);
        if (unsent) {
            batch->settle(batch, at, OUTBOX_UNSETTLED, "no time was left", 0);
        } else if (behaviour != OK_BUT_UNSETTLED || at > 0) {
            batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
        }
        for (int again = 0; again < 2 && behaviour == SETTLES_TWICE; again++) {
            batch->settle(batch, at, again == 0 ? OUTBOX_REJECTED : OUTBOX_CONFIRMED, "again", 0);
        }
    }
    error->retry_after_ms = 1234;
    return behaviour == BUSY            ? OUTBOX_SESSION_BUSY
           : behaviour == UNKNOWN_STATE ? (enum outbox_session_state)42
                                        : OUTBOX_SESSION_OK;
}

static const struct outbox_option options[] = {{"word", OUTBOX_OPT_STRING, 0, "x", NULL, 0, 0, ""}, {0}};
static const struct outbox_backend fake = {.size = sizeof fake,
                                           .name = "fake",
                                           .version = "0",
                                           .options = options,
                                           .open = fake_open,
                                           .close = fake_close,
                                           .session_new = fake_session_new,
                                           .session_free = fake_session_free,
                                           .connect = fake_connect,
                                           .disconnect = fake_disconnect,
                                           .publish = fake_publish};

static struct option_set settings;
static struct backend *backend;
static struct session *session;
static struct batch batch;
static struct err err;
static int64_t retry_after_ms;

static void setup(void)
{
    cr_assert_eq(option_set_init(&settings, "fake", options, 0, &err), 0);
    cr_assert_eq(backend_open(&backend, &fake, &settings, "client", &quiet, &err), 0);
    cr_assert_eq(backend_session_new(&session, backend, &err), 0);
    cr_assert_eq(batch_init(&batch, 2, &err), 0);
    (void)batch_add(&batch);
    (void)batch_add(&batch);
}

static void teardown(void)
{
    backend_session_free(session);
    backend_close(backend);
    batch_finish(&batch);
    option_set_finish(&settings);
}

TestSuite(contract, .init = setup, .fini = teardown);

static enum outbox_session_state publish(void)
{
    return backend_publish(session, &batch, clock_now_ms() + 1000, &retry_after_ms, &err);
}

Test(contract, a_session_that_says_ok_keeps_its_verdicts)
{
    cr_expect_eq(publish(), OUTBOX_SESSION_OK);
    cr_expect_eq(batch_count_verdict(&batch, OUTBOX_CONFIRMED), 2);
}

Test(contract, ok_with_a_message_left_unsettled_is_lost)
{
    behaviour = OK_BUT_UNSETTLED;
    cr_expect_eq(publish(), OUTBOX_SESSION_LOST);
    cr_expect(strstr(err.text, "fake"), "%s", err.text);
    cr_expect_eq(batch_count_verdict(&batch, OUTBOX_CONFIRMED), 1);
}

Test(contract, settling_twice_or_more_is_lost_and_leaves_the_message_unsettled)
{
    behaviour = SETTLES_TWICE;
    cr_expect_eq(publish(), OUTBOX_SESSION_LOST);
    cr_expect_eq(batch_count_verdict(&batch, OUTBOX_UNSETTLED), 2);
}

Test(contract, what_was_not_sent_may_say_so_and_is_no_possible_duplicate)
{
    behaviour = SENDS_ONE;
    cr_expect_eq(publish(), OUTBOX_SESSION_OK);
    cr_expect_eq(batch_count_verdict(&batch, OUTBOX_CONFIRMED), 1);
    cr_expect_eq(batch_count_not_sent(&batch), 1);
    cr_expect_eq(batch_count_unknown(&batch), 0);
}

Test(contract, ok_with_nothing_sent_is_lost_lest_it_is_asked_for_ever)
{
    behaviour = SENDS_NOTHING;
    cr_expect_eq(publish(), OUTBOX_SESSION_LOST);
    cr_expect(strstr(err.text, "sent nothing"), "%s", err.text);
}

Test(contract, a_state_that_does_not_exist_is_lost)
{
    behaviour = UNKNOWN_STATE;
    cr_expect_eq(publish(), OUTBOX_SESSION_LOST);
}

Test(contract, busy_hands_over_when_to_try_again)
{
    behaviour = BUSY;
    cr_expect_eq(publish(), OUTBOX_SESSION_BUSY);
    cr_expect_eq(retry_after_ms, 1234);
}

Test(contract, an_empty_batch_is_published_like_any_other)
{
    batch_clear(&batch);
    cr_expect_eq(publish(), OUTBOX_SESSION_OK);
}

Test(contract, a_missing_check_means_ok)
{
    cr_expect_eq(backend_check(session, clock_now_ms(), &retry_after_ms, &err), OUTBOX_SESSION_OK);
}

Test(contract, a_refused_connect_says_who_must_act_in_one_line)
{
    behaviour = REFUSES;
    cr_expect_eq(backend_connect(session, clock_now_ms(), &err), -1);
    cr_expect_eq(err.class, ERR_REFUSED);
    cr_expect_str_eq(err.text, "wrong\\npassword");
    cr_expect(!backend_is_connected(session));
}

Test(contract, a_session_is_disconnected_once_and_only_if_it_was_connected)
{
    backend_disconnect(session);
    cr_expect_eq(disconnects, 0);
    cr_expect_eq(backend_connect(session, clock_now_ms(), &err), 0);
    backend_disconnect(session);
    backend_disconnect(session);
    cr_expect_eq(disconnects, 1);
}

Test(contract, every_built_in_backend_declares_a_complete_table)
{
    for (const char *const *name = backend_names(); *name; name++) {
        const struct outbox_backend *table = backend_find(*name);
        cr_assert_not_null(table, "%s", *name);
        cr_expect_str_eq(table->name, *name);
        cr_expect(table->size >= offsetof(struct outbox_backend, check));
        cr_expect(table->options && table->open && table->close && table->session_new &&
                      table->session_free && table->connect && table->disconnect && table->publish,
                  "%s", *name);
    }
    cr_expect_null(backend_find("nonesuch"));
}

Test(contract, headers_are_found_whatever_size_the_host_or_the_backend_gives_them)
{
    struct {
        struct outbox_header header;
        int64_t grown[3];
    } rows[] = {{{{"a", 1}, {"1", 1}, OUTBOX_VALUE_INT}, {0}}, {{{"b", 1}, {"2", 1}, OUTBOX_VALUE_INT}, {0}}};
    const struct outbox_header plain[] = {rows[0].header, rows[1].header};
    struct outbox_message newer = {
        .size = sizeof newer + 8, .headers = &rows[0].header, .header_size = sizeof rows[0]};
    struct outbox_message older = {
        .size = offsetof(struct outbox_message, header_size), .headers = plain, .header_size = 1};
    for (size_t at = 0; at < 2; at++) {
        cr_assert_eq(outbox_header_at(&newer, at)->name.ptr[0], "ab"[at]);
        cr_assert_eq(outbox_header_at(&older, at)->name.ptr[0], "ab"[at]);
    }
}
