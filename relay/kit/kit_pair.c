#define _GNU_SOURCE /* memmem */
#include "kit/kit_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "kit/kit_message.h"

enum { FIRST_ROOM = 64 << 10, MOST_ROOM = 64 << 20 }; /* of a tape, in bytes */
enum { BUFFER_BYTES = 64 << 10, SLOW_BYTES = 512, BEFORE_CLOSE_BYTES = 200, DROP_MS = 50, DRIP_MS = 100 };

/* ---- the tape ---- */

static bool make_room(struct kit_tape *tape, size_t len)
{
    size_t room = tape->room ? tape->room : FIRST_ROOM;
    while (room - tape->len < len && room < MOST_ROOM) {
        room *= 2;
    }
    if (room - tape->len < len) {
        return false;
    }
    char *bytes = room == tape->room ? tape->bytes : realloc(tape->bytes, room);
    if (!bytes) {
        return false;
    }
    tape->bytes = bytes;
    tape->room = room;
    return true;
}

static void record(struct kit_tape *tape, const char *bytes, size_t len)
{
    if (len == 0 || tape->full) {
        return;
    }
    if (!make_room(tape, len)) {
        tape->full = true;
        return;
    }
    memcpy(tape->bytes + tape->len, bytes, len);
    tape->len += len;
}

/* The hexadecimal digits behind a mark's beginning; false if they are none. */
static bool read_number(const char *text, unsigned *number)
{
    static const char digits[] = "0123456789abcdef";
    *number = 0;
    for (size_t at = 0; at < KIT_MARK_DIGITS; at++) {
        const char *digit = memchr(digits, text[at], sizeof digits - 1);
        if (!digit) {
            return false;
        }
        *number = *number * 16 + (unsigned)(digit - digits);
    }
    return true;
}

void kit_tape_find_marks(const struct kit_tape *tape, unsigned first, size_t count, bool *heard)
{
    static const char begin[] = KIT_MARK;
    const size_t begin_len = sizeof begin - 1;
    const char *at = tape->bytes;
    const char *end = tape->bytes ? tape->bytes + tape->len : NULL;
    while (at && (at = memmem(at, (size_t)(end - at), begin, begin_len)) != NULL) {
        unsigned number = 0;
        at += begin_len;
        if ((size_t)(end - at) >= KIT_MARK_DIGITS && read_number(at, &number) && number >= first &&
            number - first < count) {
            heard[number - first] = true;
        }
    }
}

bool kit_tape_holds(const struct kit_tape *tape, const char *text, size_t len)
{
    return tape->len >= len && memmem(tape->bytes, tape->len, text, len) != NULL;
}

void kit_tape_finish(struct kit_tape *tape)
{
    free(tape->bytes);
    *tape = (struct kit_tape){0};
}

/* ---- its life ---- */

void kit_pair_close(struct kit_pair *pair, bool reset)
{
    const struct linger hard = {1, 0};
    if (reset) {
        (void)setsockopt(pair->client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    (void)close(pair->client);
    (void)close(pair->server);
    free(pair->up.buffer);
    free(pair->down.buffer);
    *pair = (struct kit_pair){.client = -1, .server = -1};
}

bool kit_pair_open(struct kit_pair *pair, int client, const struct sockaddr *target, socklen_t target_len)
{
    int server = socket(target->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *pair = (struct kit_pair){.client = client,
                              .server = server,
                              .up = {.buffer = malloc(BUFFER_BYTES)},
                              .down = {.buffer = malloc(BUFFER_BYTES)}};
    /* The broker is near: a connect that blocks for a moment does no harm here. */
    if (server < 0 || !pair->up.buffer || !pair->down.buffer || connect(server, target, target_len) != 0) {
        kit_pair_close(pair, true);
        return false;
    }
    (void)fcntl(client, F_SETFL, O_NONBLOCK);
    (void)fcntl(client, F_SETFD, FD_CLOEXEC);
    (void)fcntl(server, F_SETFL, O_NONBLOCK);
    return true;
}

static void fill(struct kit_pipe *pipe, int fd)
{
    if (pipe->len > 0 || pipe->ended) {
        return;
    }
    ssize_t got = recv(fd, pipe->buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (got > 0) {
        pipe->from = 0;
        pipe->len = (size_t)got;
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        pipe->ended = true;
    }
}

/* Bytes that went; at most `most` of them. */
static size_t empty(struct kit_pipe *pipe, int fd, size_t most, struct kit_tape *tape)
{
    size_t len = pipe->len < most ? pipe->len : most;
    ssize_t sent = len > 0 ? send(fd, pipe->buffer + pipe->from, len, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (sent < 0) {
        pipe->ended = pipe->ended || (errno != EAGAIN && errno != EINTR);
        return 0;
    }
    if (tape) {
        record(tape, pipe->buffer + pipe->from, (size_t)sent);
    }
    pipe->from += (size_t)sent;
    pipe->len -= (size_t)sent;
    return (size_t)sent;
}

/* How many of the broker's bytes go through before the connection breaks; SIZE_MAX = all of them. */
static size_t before_break(enum kit_fault fault)
{
    return fault == KIT_RESET ? 0 : fault == KIT_CUT ? 1 : fault == KIT_CLOSE ? BEFORE_CLOSE_BYTES : SIZE_MAX;
}

/* Carries what the broker says; true if the connection is to break now. */
static bool carry_down(struct kit_pair *pair, enum kit_fault fault, size_t most)
{
    size_t limit = before_break(fault);
    fill(&pair->down, pair->server);
    if (fault == KIT_GARBAGE) {
        memset(pair->down.buffer + pair->down.from, 'z', pair->down.len);
    }
    if (limit == SIZE_MAX) {
        pair->down_bytes = 0;
        (void)empty(&pair->down, pair->client, most, NULL);
        return false;
    }
    bool answered = pair->down.len > 0;
    size_t left = limit > pair->down_bytes ? limit - pair->down_bytes : 0;
    pair->down_bytes += empty(&pair->down, pair->client, left < most ? left : most, NULL);
    return answered && pair->down_bytes >= limit;
}

/* Ends it as a peer does that closes: FIN, not RST, whatever the backend is still sending. */
static void end_politely(struct kit_pair *pair)
{
    (void)shutdown(pair->client, SHUT_WR);
    (void)shutdown(pair->server, SHUT_RDWR);
    pair->ended = true;
}

/* What the backend says after that goes nowhere. */
static void outlive(struct kit_pair *pair)
{
    fill(&pair->up, pair->client);
    pair->up.len = 0;
    if (pair->up.ended) {
        kit_pair_close(pair, false);
    }
}

/* Takes what the backend says, and is found dead a little later. */
static void drop(struct kit_pair *pair)
{
    fill(&pair->up, pair->client);
    if (pair->dropped_ms == 0 && pair->up.len > 0) {
        pair->dropped_ms = clock_now_ms();
    }
    pair->up.len = 0;
    if (pair->up.ended || (pair->dropped_ms != 0 && clock_now_ms() - pair->dropped_ms >= DROP_MS)) {
        kit_pair_close(pair, true);
    }
}

/* How much of the broker's bytes may go now. */
static size_t pace(struct kit_pair *pair, enum kit_fault fault)
{
    if (fault != KIT_DRIP) {
        return fault == KIT_SLOW ? SLOW_BYTES : BUFFER_BYTES;
    }
    if (clock_now_ms() - pair->drip_ms < DRIP_MS) {
        return 0;
    }
    pair->drip_ms = clock_now_ms();
    return 1;
}

static size_t carry(struct kit_pair *pair, enum kit_fault fault)
{
    size_t went = 0;
    bool broken = false;
    if (fault != KIT_MUTE) {
        fill(&pair->up, pair->client);
        went = empty(&pair->up, pair->server, fault == KIT_SLOW ? SLOW_BYTES : BUFFER_BYTES, pair->tape);
    }
    if (fault != KIT_DEAF) {
        broken = carry_down(pair, fault, pace(pair, fault));
    }
    if (broken && fault == KIT_RESET) {
        kit_pair_close(pair, true);
    } else if (broken || (pair->down.ended && pair->down.len == 0)) {
        end_politely(pair);
    } else if (pair->up.ended && pair->up.len == 0) {
        kit_pair_close(pair, false);
    }
    return went;
}

size_t kit_pair_serve(struct kit_pair *pair, enum kit_fault fault)
{
    fault = pair->own != KIT_PASS ? pair->own : fault;
    if (pair->ended) {
        outlive(pair);
        return 0;
    }
    if (fault == KIT_REFUSE) {
        kit_pair_close(pair, true);
        return 0;
    }
    if (fault == KIT_END) {
        end_politely(pair);
        return 0;
    }
    if (fault == KIT_DROP) {
        drop(pair);
        return 0;
    }
    return fault == KIT_SILENCE || fault == KIT_HOLE ? 0 : carry(pair, fault);
}

void kit_pair_poll(const struct kit_pair *pair, enum kit_fault fault, struct pollfd fds[2])
{
    bool hears = fault != KIT_DEAF && fault != KIT_DRIP;
    bool deaf_ear = pair->ended || pair->own == KIT_DROP || fault == KIT_DROP;
    fds[0] = (struct pollfd){
        .fd = pair->ended ? -1 : pair->client,
        .events = (short)((pair->up.len == 0 ? POLLIN : 0) | (pair->down.len > 0 && hears ? POLLOUT : 0))};
    fds[1] = (struct pollfd){
        .fd = deaf_ear ? -1 : pair->server,
        .events = (short)((pair->down.len == 0 && hears ? POLLIN : 0) | (pair->up.len > 0 ? POLLOUT : 0))};
}
