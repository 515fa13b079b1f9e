/* What has arrived on a connection before a request is sent on it. */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockets.h"

static struct sockets sockets;
static int ours;
static int theirs;
static int port;

static void setup(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ours = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(sockets_add(&sockets, ours), 0);
    cr_assert_eq(connect(ours, (struct sockaddr *)&address, sizeof address), 0);
    theirs = accept(listener, NULL, NULL);
    cr_assert_eq(getsockname(ours, (struct sockaddr *)&address, &size), 0);
    port = ntohs(address.sin_port);
    (void)close(listener);
}

static void teardown(void)
{
    (void)close(ours);
    (void)close(theirs);
    sockets_finish(&sockets);
}

TestSuite(sockets, .init = setup, .fini = teardown);

static void await_news(void)
{
    struct pollfd news = {.fd = ours, .events = POLLIN};
    cr_assert_eq(poll(&news, 1, 5000), 1);
}

static void speak(void)
{
    cr_assert_eq(write(theirs, "HTTP/1.1 200 OK\r\n", 17), 17);
    await_news();
}

static bool are_quiet(bool tls)
{
    bool used = false;
    return sockets_are_quiet(&sockets, port, tls, &used);
}

Test(sockets, are_quiet_as_long_as_nothing_has_arrived)
{
    bool used = true;
    cr_expect(sockets_are_quiet(&sockets, port, false, &used) && !used);
    cr_expect(sockets_are_quiet(&sockets, port, false, &used) && used, "it has served now");
}

Test(sockets, a_connection_that_speaks_before_the_first_request_is_not_quiet)
{
    speak();
    cr_expect(!are_quiet(false));
}

Test(sockets, a_connection_that_speaks_between_two_requests_is_not_quiet)
{
    cr_expect(are_quiet(false));
    speak();
    cr_expect(!are_quiet(false));
}

Test(sockets, what_a_handshake_leaves_behind_is_no_answer_and_what_comes_later_may_be_one)
{
    speak();
    cr_expect(are_quiet(true));
    cr_expect(!are_quiet(true));
}

Test(sockets, with_http_2_answers_have_names_and_frames_may_come_at_any_time)
{
    cr_expect(are_quiet(true));
    sockets_set_multiplexed(&sockets, port);
    speak();
    cr_expect(are_quiet(true));
}

Test(sockets, an_end_is_no_answer)
{
    (void)shutdown(theirs, SHUT_WR);
    await_news();
    cr_expect(are_quiet(false));
}

Test(sockets, that_were_closed_are_forgotten_and_others_are_not)
{
    int other = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(sockets_add(&sockets, other), 0);
    speak();
    sockets_remove(&sockets, ours);
    cr_expect(are_quiet(false), "nothing is known of that port");
    cr_expect_eq(sockets.count, 1);
    cr_expect_eq(sockets.list[0].fd, other);
    (void)close(other);
}
