#include <criterion/criterion.h>
#include <stdlib.h>

#include "pg_hosts.h"

static struct pg_hosts hosts;
static struct err err;

static void setup(void)
{
    static const char *const names[] = {"PGHOST",    "PGHOSTADDR",        "PGPORT",
                                        "PGSERVICE", "PGCONNECT_TIMEOUT", "PGSERVICEFILE"};
    for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
        (void)unsetenv(names[at]);
    }
    err_clear(&err);
}

static void teardown(void)
{
    pg_hosts_finish(&hosts);
}

TestSuite(hosts, .init = setup, .fini = teardown);

static void expect(size_t at, const char *name, const char *address, const char *port)
{
    cr_assert_lt(at, hosts.count);
    cr_expect_str_eq(hosts.list[at].name, name);
    cr_expect_str_eq(hosts.list[at].address, address);
    cr_expect_str_eq(hosts.list[at].port, port);
}

/* libpq sees the connection string as it is. */
static void expect_left_to_libpq(const char *conninfo)
{
    cr_assert_eq(pg_hosts_read(&hosts, conninfo, &err), 0, "%s", err.text);
    cr_expect_eq(hosts.count, 1, "%s", conninfo);
    expect(0, "", "", "");
    pg_hosts_finish(&hosts);
}

Test(hosts, each_of_a_list_has_its_port)
{
    cr_assert_eq(pg_hosts_read(&hosts, "host=a,b,c port=1,2,3 dbname=d", &err), 0);
    cr_expect_eq(hosts.count, 3);
    expect(0, "a", "", "1");
    expect(1, "b", "", "2");
    expect(2, "c", "", "3");
    cr_expect_eq(hosts.timeout_ms, 0);
}

Test(hosts, one_port_is_for_all)
{
    cr_assert_eq(pg_hosts_read(&hosts, "host=a,b port=7 connect_timeout=3", &err), 0);
    cr_expect_eq(hosts.count, 2);
    expect(0, "a", "", "7");
    expect(1, "b", "", "7");
    cr_expect_eq(hosts.timeout_ms, 3000);
}

Test(hosts, addresses_go_with_their_names)
{
    cr_assert_eq(pg_hosts_read(&hosts, "host=a,b hostaddr=10.0.0.1,::1", &err), 0);
    cr_expect_eq(hosts.count, 2);
    expect(0, "a", "10.0.0.1", "5432");
    expect(1, "b", "::1", "5432");
}

Test(hosts, a_uri_may_name_several)
{
    cr_assert_eq(pg_hosts_read(&hosts, "postgresql://u@a:1,b:2/d?connect_timeout=10", &err), 0);
    cr_expect_eq(hosts.count, 2);
    expect(0, "a", "", "1");
    expect(1, "b", "", "2");
    cr_expect_eq(hosts.timeout_ms, 10000);
}

Test(hosts, the_environment_counts_unless_the_text_or_its_service_says_otherwise)
{
    (void)setenv("PGHOST", "e,f", 1);
    (void)setenv("PGPORT", "5,6", 1);
    cr_assert_eq(pg_hosts_read(&hosts, "orders", &err), 0);
    cr_expect_eq(hosts.count, 2);
    expect(1, "f", "", "6");
    pg_hosts_finish(&hosts);
    expect_left_to_libpq("host=a port=1 dbname=d");
    expect_left_to_libpq("service=s");
}

Test(hosts, what_is_one_host_or_no_list_of_hosts_is_left_to_libpq)
{
    expect_left_to_libpq("");
    expect_left_to_libpq("orders");
    expect_left_to_libpq("host=a dbname=d");
    expect_left_to_libpq("postgresql://u@a:1/d");
    expect_left_to_libpq("host=a,,b");           /* an empty place is the default socket */
    expect_left_to_libpq("host=a,b port=1,2,3"); /* libpq has a sentence for that */
    expect_left_to_libpq("host=a,b hostaddr=10.0.0.1");
}

Test(hosts, a_text_that_libpq_cannot_read_is_told)
{
    cr_assert_eq(pg_hosts_read(&hosts, "host=a nonsense", &err), -1);
    cr_expect_eq(err.class, ERR_CONFIG);
    cr_expect_str_eq(err.text, "database: missing \"=\" after \"nonsense\" in connection info string");
}
