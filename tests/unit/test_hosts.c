#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/secrets.h"
#include "postgres/pg_conninfo.h"
#include "postgres/pg_hosts.h"

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

static void read_list(const char *conninfo, size_t count, int64_t timeout_ms)
{
    cr_assert_eq(pg_hosts_read(&hosts, conninfo, &err), 0, "%s", err.text);
    cr_expect_eq(hosts.count, count, "%s", conninfo);
    cr_expect_eq(hosts.timeout_ms, timeout_ms, "%s", conninfo);
}

/* libpq sees the connection string as it is. */
static void expect_left_to_libpq(const char *conninfo)
{
    read_list(conninfo, 1, 0);
    expect(0, "", "", "");
    pg_hosts_finish(&hosts);
}

Test(hosts, each_of_a_list_has_its_port)
{
    read_list("host=a,b,c port=1,2,3 dbname=d", 3, 0);
    expect(0, "a", "", "1");
    expect(1, "b", "", "2");
    expect(2, "c", "", "3");
}

Test(hosts, one_port_is_for_all)
{
    read_list("host=a,b port=7 connect_timeout=3", 2, 3000);
    expect(0, "a", "", "7");
    expect(1, "b", "", "7");
}

Test(hosts, addresses_go_with_their_names)
{
    read_list("host=a,b hostaddr=10.0.0.1,::1", 2, 0);
    expect(0, "a", "10.0.0.1", "5432");
    expect(1, "b", "::1", "5432");
}

Test(hosts, an_empty_port_is_the_usual_one)
{
    read_list("postgresql://one,two:7/d", 2, 0);
    expect(0, "one", "", "5432");
    expect(1, "two", "", "7");
}

Test(hosts, a_name_server_is_asked_for_names_and_for_nothing_else)
{
    read_list("host=a,/run/postgresql,@abstract port=1", 3, 0);
    cr_expect_str_eq(hosts.list[0].lookup, "a");
    cr_expect_str_eq(hosts.list[1].lookup, "");
    cr_expect_str_eq(hosts.list[2].lookup, "");
    pg_hosts_finish(&hosts);
    read_list("host=a dbname=d", 1, 0);
    cr_expect_str_eq(hosts.list[0].lookup, "a");
    pg_hosts_finish(&hosts);
    read_list("host=a hostaddr=10.0.0.1", 1, 0);
    cr_expect_str_eq(hosts.list[0].lookup, "");
    pg_hosts_finish(&hosts);
    read_list("orders", 1, 0);
    cr_expect_str_eq(hosts.list[0].lookup, "");
}

Test(hosts, a_uri_may_name_several)
{
    read_list("postgresql://u@a:1,b:2/d?connect_timeout=10", 2, 10000);
    expect(0, "a", "", "1");
    expect(1, "b", "", "2");
}

Test(hosts, the_environment_counts_unless_the_text_or_its_service_says_otherwise)
{
    (void)setenv("PGHOST", "e,f", 1);
    (void)setenv("PGPORT", "5,6", 1);
    read_list("orders", 2, 0);
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
    cr_expect_str_eq(err.text,
                     "database: there is a word without '=' (in a URL, special characters of user name and "
                     "password are written %XX; in key=value, a value with spaces stands in single quotes)");
}

static void expect_shown(const char *conninfo, const char *shown)
{
    struct text out;
    text_init(&out, 4096);
    pg_describe(&out, conninfo);
    cr_expect_str_eq(text_get(&out), shown, "%s: %s", conninfo, text_get(&out));
    text_finish(&out);
}

Test(hosts, a_url_of_which_a_piece_may_belong_to_its_password_is_refused_and_nothing_of_it_is_told)
{
    static const char *const ambiguous[] = {"postgres://app:p@SECRETWORD@127.0.0.1:1/x",
                                            "postgres://app:p/SECRETWORD@127.0.0.1:1/x",
                                            "postgresql://app:5432/SECRETWORD@h/x",
                                            "postgres://app:S@h1:1,app:SECRETWORD@h2:1/x",
                                            "postgres://app:p@SECRETWORD@h/x?connect_timeout=3",
                                            "postgres://u@h/d@SECRETWORD",
                                            "postgres://app:p?s@SECRETWORD@127.0.0.1:1/x",
                                            "postgres://app:p?SECRETWORD@127.0.0.1:1/x",
                                            "postgres://127.0.0.1?password=p@SECRETWORD"};
    for (size_t at = 0; at < sizeof ambiguous / sizeof *ambiguous; at++) {
        err_clear(&err);
        cr_assert_eq(pg_hosts_read(&hosts, ambiguous[at], &err), -1, "%s", ambiguous[at]);
        cr_expect_eq(err.class, ERR_CONFIG);
        cr_expect(strstr(err.text, "it is not clear which '@' ends the password") &&
                      !strstr(err.text, "SECRETWORD"),
                  "%s", err.text);
        pg_hosts_finish(&hosts);
        expect_shown(ambiguous[at], "(unreadable)");
    }
}

Test(hosts, a_url_with_one_at_sign_or_more_of_them_in_its_query_is_none_of_those)
{
    read_list("postgresql://u:p,w:x@a/d", 1, 0);
    pg_hosts_finish(&hosts);
    read_list("postgresql://u%40x:p%2Fw@a:1/d%40e?application_name=me@here", 1, 0);
    pg_hosts_finish(&hosts);
    read_list("postgresql:///d?host=@abstract", 1, 0);
    pg_hosts_finish(&hosts);
    read_list("host=a password=p@/w user=u@x", 1, 0);
}

Test(hosts, passwords_and_options_of_the_session_are_not_shown)
{
    expect_shown("host=h password=p options='-c some.token=t' application_name=a",
                 "password=*** host=h options=*** application_name=a");
    expect_shown("postgresql://u:p@h:5/d?sslpassword=s&sslkey=/key",
                 "user=u password=*** dbname=d host=h port=5 "
                 "sslkey=/key sslpassword=***");
}
