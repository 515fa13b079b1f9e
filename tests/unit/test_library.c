#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker.h"
#include "library.h"

static const char *described(const char *version, const char *package)
{
    static char out[1024];
    library_describe(version, package, out, sizeof out);
    return out;
}

static unsigned warnings(const char *version, const char *package)
{
    unsigned count = 0;
    for (const char *at = described(version, package); (at = strstr(at, "\nwarning: ")); at++) {
        count++;
    }
    return count;
}

Test(library, tells_what_each_version_is_known_for)
{
    cr_assert_eq(warnings("0.11.0", ""), 3);
    cr_assert_eq(warnings("0.15.0", ""), 3);
    cr_assert_eq(warnings("0.16.0", ""), 2);
    cr_assert_eq(warnings("0.17.0", ""), 1);
    cr_assert_eq(warnings("0.18.1", ""), 0);
    cr_assert_eq(warnings("1.0.0", ""), 0);
}

Test(library, knows_what_debian_has_mended)
{
    cr_assert_eq(warnings("0.11.0", "0.11.0-1"), 3);
    cr_assert_eq(warnings("0.11.0", "0.11.0-1+deb12u1"), 3);
    cr_assert_eq(warnings("0.11.0", "0.11.0-1+deb12u2"), 2);
    cr_assert_eq(warnings("0.11.0", "0.11.0-1+deb12u3"), 1);
    cr_assert_eq(warnings("0.15.0", "0.15.0-1+deb13u1"), 2);
    cr_assert_eq(warnings("0.15.0", "0.15.0-1+deb13u2"), 1);
    cr_assert_str_eq(described("0.18.1", "0.18.1-1"), "librabbitmq 0.18.1 (Debian 0.18.1-1)");
}

Test(library, does_not_believe_the_package_where_another_version_runs)
{
    cr_assert_eq(warnings("0.15.0", "0.11.0-1+deb12u3"), 3);
    cr_assert_eq(warnings("0.1", "0.11.0-1+deb12u3"), 3, "0.1 is no 0.11");
    cr_assert_null(strstr(described("0.15.0", "0.11.0-1+deb12u3"), "Debian"));
}

static const char *package_of(const char *status)
{
    static char out[64];
    char path[] = "/tmp/outbox-status-XXXXXX";
    int file = mkstemp(path);
    cr_assert_eq(write(file, status, strlen(status)), (ssize_t)strlen(status));
    close(file);
    library_read_package(path, out, sizeof out);
    unlink(path);
    return out;
}

#define INSTALLED "Status: install ok installed\n"

Test(library, finds_its_package_among_others)
{
    cr_assert_str_eq(package_of("Package: a\nVersion: 1\n\nPackage: librabbitmq4\n" INSTALLED
                                "Source: librabbitmq\nVersion: 0.11.0-1+deb12u3\n\nPackage: z\nVersion: 2\n"),
                     "0.11.0-1+deb12u3");
    cr_assert_str_eq(
        package_of("Package: librabbitmq4\nStatus: deinstall ok config-files\nVersion: 0.11.0-1\n\n"
                   "Package: librabbitmq4\n" INSTALLED "Architecture: i386\nVersion: 0.11.0-2\n"),
        "0.11.0-2", "what is installed, not what was");
    cr_assert_str_eq(package_of("Package: librabbitmq4\n" INSTALLED "Version: 1\033[2J\n"), "1",
                     "no escapes");
    cr_assert_str_eq(package_of("Package: librabbitmq4-dbg\n" INSTALLED "Version: 1\n"), "");
    cr_assert_str_eq(package_of("Package: librabbitmq4\n" INSTALLED "\nVersion: 2\n"), "");
    cr_assert_str_eq(package_of(""), "");
}

Test(library, has_no_package_where_there_is_no_dpkg)
{
    char out[64] = "#";
    library_read_package("/nonexistent/status", out, sizeof out);
    cr_assert_str_eq(out, "");
}

Test(library, never_writes_beyond_the_buffer)
{
    char out[1024];
    for (size_t size = 1; size < sizeof out; size++) {
        memset(out, '#', sizeof out);
        library_describe("0.11.0", "", out, size);
        cr_assert(memchr(out, '\0', size) && out[size] == '#', "of %zu bytes", size);
    }
}

static struct broker greeted(const char *product, const char *version)
{
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("product"),
         {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(product)}},
        {amqp_cstring_bytes("version"),
         {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(version)}}};
    const amqp_table_t properties = {2, entries};
    struct broker broker;
    broker_read(&broker, &properties);
    return broker;
}

Test(broker, takes_as_much_as_its_version_does)
{
    const int64_t mib = 1 << 20;
    cr_assert_eq(greeted("RabbitMQ", "3.10.8").max_message_bytes, 128 * mib);
    cr_assert_eq(greeted("RabbitMQ", "3.13.7").max_message_bytes, 128 * mib);
    cr_assert_eq(greeted("RabbitMQ", "4.0.5").max_message_bytes, 16 * mib);
    cr_assert_eq(greeted("RabbitMQ", "4.3.6").max_message_bytes, 16 * mib);
    cr_assert_eq(greeted("RabbitMQ", "10.0").max_message_bytes, 16 * mib);
    cr_assert_eq(greeted("RabbitMQ", "x").max_message_bytes, 128 * mib);
    cr_assert_eq(greeted("LavinMQ", "4.1").max_message_bytes, 128 * mib, "another product counts otherwise");
    cr_assert_str_eq(greeted("RabbitMQ", "4.0.5").name, "RabbitMQ 4.0.5");
}

Test(broker, may_say_nothing_or_something_else)
{
    struct broker broker;
    broker_read(&broker, NULL);
    cr_assert_str_eq(broker.name, "");
    cr_assert_eq(broker.max_message_bytes, 128 << 20);
    amqp_table_entry_t number = {amqp_cstring_bytes("product"),
                                 {.kind = AMQP_FIELD_KIND_I32, .value.i32 = 7}};
    const amqp_table_t properties = {1, &number};
    broker_read(&broker, &properties);
    cr_assert_str_eq(broker.name, "");
}
