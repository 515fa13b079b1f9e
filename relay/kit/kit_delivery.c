/* kit_delivery - what is confirmed went to the broker: looked for, message by message, in what the proxy
 * carried. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kit/kit_tests.h"

enum {
    PUBLISH_MS = 10000,
    LOST_MS = 1000,
    ARRIVES_MS = 3000,
    LARGE_BATCH = 600,
    LARGE_MS = 60000,
    SESSIONS = 4,
    ROUNDS = 15,
    BATCH = 50,
    DEATHS = 6
};

/* ---- looking ---- */

/* TLS, compression and encodings hide what the kit looks for; then the test says so and proves less. */
static bool can_look(struct kit_session *session)
{
    struct kit_messages messages;
    struct kit_batch batch;
    bool heard[1] = {false};
    kit_proxy_listen(session->stage->proxy);
    kit_make(session->stage, &messages, 1, NULL);
    kit_publish(&batch, session, &messages, PUBLISH_MS);
    kit_expect_confirmed(&batch, session, "a message");
    bool whole = kit_proxy_heard(session->stage->proxy, messages.first_mark, 1, heard);
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    if (!heard[0] || !whole) {
        kit_note(session->stage, "no payload can be found in what goes to the broker (TLS, compression?), so "
                                 "confirmed messages were not looked for");
    }
    return heard[0] && whole;
}

/* Each message that was confirmed has gone to the broker, over a connection that carried it there. */
static void expect_heard(const struct kit_batch *batch, const struct kit_messages *messages, const char *what)
{
    struct kit_stage *stage = batch->stage;
    bool *heard = calloc(messages->count + 1, sizeof *heard);
    if (!heard) {
        kit_fail(stage, "the kit is out of memory");
    }
    bool whole = kit_proxy_heard(stage->proxy, messages->first_mark, messages->count, heard);
    size_t lost = 0;
    size_t first = 0;
    for (size_t at = messages->count; at-- > 0;) {
        if (batch->answers[at].settled && batch->answers[at].verdict == OUTBOX_CONFIRMED && !heard[at]) {
            lost++;
            first = at + 1;
        }
    }
    free(heard);
    if (whole && lost > 0) {
        kit_fail(
            stage,
            "%s: %zu of %zu messages were CONFIRMED and never reached the broker, message %zu the first: "
            "they would be lost",
            what, lost, messages->count, first);
    }
}

static void publish_and_look(struct kit_session *session, bool look, size_t count,
                             const struct kit_shape *shape, const char *what)
{
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, count, shape);
    kit_publish(&batch, session, &messages, count < LARGE_BATCH ? PUBLISH_MS : LARGE_MS);
    kit_expect_confirmed(&batch, session, what);
    if (look) {
        expect_heard(&batch, &messages, what);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

/* Where a destination may refuse them: what it has confirmed went to it all the same. */
static void look_at_confirmed(struct kit_session *session, bool look, const struct kit_shape *shape,
                              const char *what)
{
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, 5, shape);
    kit_publish(&batch, session, &messages, PUBLISH_MS);
    if (batch.state == OUTBOX_SESSION_LOST) {
        kit_fail(session->stage, "%s cost the session: %s", what, session->error.text);
    }
    if (look) {
        expect_heard(&batch, &messages, what);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

/* The last numbers that there are: no message of the kit's own gets so far. */
#define HEAD_MARK   KIT_MARK "fffffff0"
#define TAIL_MARK   KIT_MARK "fffffff1"
#define HEAD_NUMBER 0xfffffff0u

/* Rows that somebody might leave out. */
static const char *const odd_rows[] = {"messages that are older than a month", "replies",
                                       "messages with a reply_to", "messages without a key"};
enum { KINDS_OF_ROWS = sizeof odd_rows / sizeof odd_rows[0] };

static void put_odd_row(struct outbox_message *message, size_t index, size_t round)
{
    static const char address[] = "kit-answers";
    (void)index;
    if (round == 0) {
        message->created_at_us -= (int64_t)40 * 86400 * 1000000;
    } else if (round == 3) {
        message->key = (struct outbox_bytes){"", 0};
    } else {
        message->kind = round == 1 ? OUTBOX_REPLY : OUTBOX_COMMAND;
        message->reply_to = (struct outbox_bytes){address, sizeof address - 1};
    }
}

static void all_went(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    bool look = can_look(&session);
    publish_and_look(&session, look, 1, NULL, "a batch of one");
    publish_and_look(&session, look, LARGE_BATCH, NULL, "a batch of 600");
    for (size_t round = 0; round < KINDS_OF_ROWS; round++) {
        const struct kit_shape odd = {.alter = put_odd_row, .round = round};
        look_at_confirmed(&session, look, &odd, odd_rows[round]);
    }
    const struct kit_shape bare = {.bare = true};
    publish_and_look(&session, look, 5, &bare, "messages without key, ids and headers");
    kit_end(stage, &session);
}

/* ---- whole ---- */

/* Two marks that no message of the kit's own bears, in front and at the end. */
static void whole(struct kit_stage *stage)
{
    static const size_t sizes[] = {64, 70001, 1300007};
    struct kit_session session;
    kit_begin(stage, &session);
    for (size_t at = 0; at < sizeof sizes / sizeof sizes[0]; at++) {
        struct kit_messages messages;
        struct kit_batch batch;
        char *text = malloc(sizes[at]);
        bool heard[2] = {false, false};
        if (!text) {
            kit_fail(stage, "the kit is out of memory");
        }
        memset(text, 'y', sizes[at]);
        memcpy(text, HEAD_MARK, sizeof HEAD_MARK - 1);
        memcpy(text + sizes[at] - (sizeof TAIL_MARK - 1), TAIL_MARK, sizeof TAIL_MARK - 1);
        text[sizeof HEAD_MARK] = at == 0 ? '\0' : 'y';
        const struct kit_shape shape = {.payload = {text, sizes[at]}};
        kit_proxy_listen(stage->proxy);
        kit_make(stage, &messages, 1, &shape);
        kit_publish(&batch, &session, &messages, PUBLISH_MS);
        bool all = kit_proxy_heard(stage->proxy, HEAD_NUMBER, 2, heard);
        for (int wait = 0; all && heard[0] && !heard[1] && wait < ARRIVES_MS; wait += 50) {
            (void)usleep(
                50000); /* a receiver may answer before it has read all, and the rest is on its way */
            all = kit_proxy_heard(stage->proxy, HEAD_NUMBER, 2, heard);
        }
        if (all && heard[0] && !heard[1] && kit_count(&batch, OUTBOX_CONFIRMED) == 1) {
            kit_fail(stage, "a payload of %zu bytes%s was CONFIRMED, and its end never reached the broker",
                     sizes[at], at == 0 ? " with a NUL in it" : "");
        }
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
        free(text);
    }
    kit_end(stage, &session);
}

/* ---- again ---- */

enum { FIRST_SEQ = 7000000, ALTERED = 30 };

/* A row keeps its seq and id; others' are higher and lower, with gaps. */
static void put_seq(struct outbox_message *message, size_t index, size_t round)
{
    static char ids[ALTERED][40];
    static const int64_t steps[] = {-1, 500, 1};
    (void)snprintf(ids[index], sizeof ids[index], "00000000-0000-4000-9000-%012zx", index);
    message->seq = FIRST_SEQ * (int64_t)(round + 1) + (int64_t)index * steps[round];
    message->id = (struct outbox_bytes){ids[index], strlen(ids[index])};
}

static void again(struct kit_stage *stage)
{
    const struct kit_shape same = {.alter = put_seq, .round = 2};
    struct kit_session session;
    kit_begin(stage, &session);
    bool look = can_look(&session);
    for (size_t round = 0; round < 2; round++) {
        const struct kit_shape shape = {.alter = put_seq, .round = round};
        publish_and_look(&session, look, ALTERED, &shape,
                         round == 0 ? "messages of falling seqs (they rise within a key only)"
                                    : "messages of seqs with gaps");
    }
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(stage, &messages, ALTERED, &same);
    kit_proxy_set(stage->proxy, KIT_MUTE);
    kit_publish(&batch, &session, &messages, LOST_MS);
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_proxy_set(stage->proxy, KIT_REFUSE);
    kit_proxy_set(stage->proxy, KIT_PASS);
    kit_disconnect(&session);
    kit_connect(&session);
    publish_and_look(&session, look, ALTERED, &same,
                     "messages that were given before to a session that was lost");
    kit_end(stage, &session);
}

/* ---- each its own ---- */

enum { OWN = 3, OWN_BATCH = 2 * OWN, KINDS = 3 };

#define OWN_TEXTS(name, text)                                                                                \
    {                                                                                                        \
#name, offsetof(struct outbox_message, name),                                                        \
        {                                                                                                    \
            text "a1", text "b2", text "c3"                                                                  \
        }                                                                                                    \
    }
static const struct {
    const char *name;
    size_t offset;
    const char *texts[OWN];
} attributes[] = {
    OWN_TEXTS(channel, "kit-channel-"),
    OWN_TEXTS(type, "kit.type."),
    OWN_TEXTS(key, "kit-own-key-"),
    OWN_TEXTS(id, "00000000-0000-4000-8000-0000000000"),
    OWN_TEXTS(correlation_id, "kit-correlates-"),
    OWN_TEXTS(causation_id, "kit-causes-"),
    OWN_TEXTS(reply_to, "kit-reply-"),
};
enum { ATTRIBUTES = sizeof attributes / sizeof attributes[0] };

static void put_own(struct outbox_message *message, size_t index, size_t round)
{
    static const enum outbox_kind kinds[KINDS] = {OUTBOX_EVENT, OUTBOX_COMMAND, OUTBOX_REPLY};
    message->kind = kinds[round]; /* what one kind carries, another may not */
    for (size_t at = 0; at < ATTRIBUTES; at++) {
        const char *text = attributes[at].texts[index % OWN];
        *(struct outbox_bytes *)(void *)((char *)message + attributes[at].offset) =
            (struct outbox_bytes){text, strlen(text)};
    }
}

/* Whoever carries an attribute of one message carries that of each. */
static void expect_own(const struct kit_batch *batch, size_t attribute)
{
    struct kit_stage *stage = batch->stage;
    size_t heard = 0;
    size_t missing = OWN;
    for (size_t at = 0; at < OWN; at++) {
        const char *text = attributes[attribute].texts[at];
        bool confirmed = batch->answers[at].verdict == OUTBOX_CONFIRMED;
        bool there = kit_proxy_heard_text(stage->proxy, text, strlen(text));
        heard += there;
        missing = confirmed && !there ? at : missing;
    }
    if (heard > 0 && missing < OWN) {
        kit_fail(stage,
                 "the %s of message %zu is nowhere in what went to the broker, although that of another is: "
                 "each message of a batch has its own",
                 attributes[attribute].name, missing + 1);
    }
}

/* A destination may not know such channels: then it is enough that it says so, message by message. */
static void publish_own(struct kit_session *session, size_t kind)
{
    const struct kit_shape own = {.alter = put_own, .round = kind};
    struct kit_messages messages;
    struct kit_batch batch;
    kit_proxy_listen(session->stage->proxy);
    kit_make(session->stage, &messages, OWN_BATCH, &own);
    kit_publish(&batch, session, &messages, PUBLISH_MS);
    if (batch.state == OUTBOX_SESSION_LOST) {
        kit_fail(session->stage, "messages of several channels and types in one batch cost the session: %s",
                 session->error.text);
    }
    for (size_t at = 0; at < ATTRIBUTES; at++) {
        expect_own(&batch, at);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

static void each_its_own(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (size_t kind = 0; kind < KINDS; kind++) {
        publish_own(&session, kind);
    }
    kit_publish_plain(&session, 2, "messages of one channel after those of several");
    kit_end(stage, &session);
}

/* Rows that were inserted twice, or by a producer that has ids of its own: each is a message. */
static void same_id(struct kit_stage *stage)
{
    static const char id[] = "00000000-0000-4000-8000-000000000001";
    const struct kit_shape shape = {.id = {id, sizeof id - 1}};
    struct kit_session session;
    kit_begin(stage, &session);
    bool look = can_look(&session);
    for (int round = 0; round < 2; round++) {
        publish_and_look(&session, look, 20, &shape, "messages of one id");
    }
    kit_end(stage, &session);
}

static void empty_ones_too(struct kit_stage *stage)
{
    enum { COUNT = 50, LEAST_BYTES = 5 };
    const struct kit_shape empty = {.payload = {"", 0}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    uint64_t before = kit_proxy_bytes(stage->proxy);
    kit_make(stage, &messages, COUNT, &empty);
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    uint64_t carried = kit_proxy_bytes(stage->proxy) - before;
    uint64_t confirmed = kit_count(&batch, OUTBOX_CONFIRMED);
    if (carried < confirmed * LEAST_BYTES) {
        kit_fail(
            stage,
            "%llu messages without a payload were CONFIRMED, and %llu bytes went to the broker: they were "
            "not sent",
            (unsigned long long)confirmed, (unsigned long long)carried);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

/* The next connection works at once: whoever makes one inside publish() must begin again with what it sent.
 */
static void dies_once(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    bool look = can_look(&session);
    for (int death = 0; death < DEATHS; death++) {
        struct kit_messages messages;
        struct kit_batch batch;
        kit_publish_plain(&session, 2, "messages before a connection dies");
        kit_make(stage, &messages, 200, NULL);
        kit_proxy_set_once(stage->proxy, death % 2 == 0 ? KIT_DROP : KIT_RESET);
        kit_publish(&batch, &session, &messages, PUBLISH_MS);
        if (look && death % 2 == 0) {
            expect_heard(&batch, &messages, "after a connection that died with what was sent over it");
        }
        if (kit_count(&batch, OUTBOX_REJECTED) > 0) {
            kit_fail(stage, "messages were REJECTED because a connection died: that is no message's fault");
        }
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
        kit_expect_recovery(&session, "messages after a connection that died");
    }
    kit_end(stage, &session);
}

/* ---- sessions side by side ---- */

struct neighbour {
    struct kit_session session;
    pthread_t thread;
    bool looks;
    bool comes_and_goes;
};

static void *publish_beside_others(void *object)
{
    struct neighbour *one = object;
    struct kit_session *session = &one->session;
    kit_session_new(session, session->stage);
    kit_connect(session);
    for (int round = 0; round < ROUNDS; round++) {
        publish_and_look(session, one->looks, BATCH, NULL,
                         "sessions side by side, of which one comes and goes");
        if (one->comes_and_goes) {
            kit_disconnect(session);
            kit_connect(session);
        }
    }
    kit_disconnect(session);
    kit_session_free(session);
    return NULL;
}

static void side_by_side(struct kit_stage *stage)
{
    struct neighbour all[SESSIONS];
    struct kit_session first;
    kit_begin(stage, &first);
    bool look = can_look(&first);
    for (size_t at = 0; at < SESSIONS; at++) {
        all[at] = (struct neighbour){.session = {.stage = stage}, .looks = look, .comes_and_goes = at == 0};
        if (pthread_create(&all[at].thread, NULL, publish_beside_others, &all[at]) != 0) {
            kit_fail(stage, "the kit cannot start a thread");
        }
    }
    for (size_t at = 0; at < SESSIONS; at++) {
        (void)pthread_join(all[at].thread, NULL);
    }
    kit_publish_plain(&first, 2, "messages of a session that stood by");
    kit_end(stage, &first);
}

/* ---- what the destination refuses ---- */

static void refusal(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_open(stage);
    kit_session_new(&session, stage);
    if (kit_try_connect(&session, PUBLISH_MS) == 0) {
        kit_make(stage, &messages, 20, NULL);
        kit_publish(&batch, &session, &messages, PUBLISH_MS);
        if (kit_count(&batch, OUTBOX_CONFIRMED) > 0) {
            kit_fail(stage,
                     "%zu of 20 messages were CONFIRMED that the destination refused: an answer is no "
                     "confirmation before it is read to its end",
                     kit_count(&batch, OUTBOX_CONFIRMED));
        }
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
    }
    kit_end(stage, &session);
}

const struct kit_test kit_delivery_tests[] = {
    {"what is confirmed went to the broker, message by message", all_went, 90000, true, false},
    {"payloads go whole, to their last byte", whole, 40000, true, false},
    {"messages of any seq are sent, and again after a session that was lost", again, 40000, true, false},
    {"each message of a batch keeps its own channel, type, key and ids", each_its_own, 40000, true, false},
    {"messages of one id are messages each", same_id, 40000, true, false},
    {"a message without a payload is sent, too", empty_ones_too, 40000, true, false},
    {"of a connection that dies nothing is confirmed, whatever the next one says", dies_once, 120000, true,
     false},
    {"four sessions side by side lose nothing, while another comes and goes", side_by_side, 120000, true,
     false},
    {"what the destination refuses is not confirmed", refusal, 40000, false, true},
    {NULL, NULL, 0, false, false},
};
