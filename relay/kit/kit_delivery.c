/* kit_delivery - what is confirmed went to the broker: looked for, message by message, in what the proxy
 * carried. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kit/kit_tests.h"

enum { PUBLISH_MS = 10000, SESSIONS = 4, ROUNDS = 15, BATCH = 50, DEATHS = 6 };

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
    kit_publish(&batch, session, &messages, PUBLISH_MS);
    kit_expect_confirmed(&batch, session, what);
    if (look) {
        expect_heard(&batch, &messages, what);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

/* ---- the tests ---- */

static void all_went(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    bool look = can_look(&session);
    publish_and_look(&session, look, 1, NULL, "a batch of one");
    publish_and_look(&session, look, 300, NULL, "a batch of 300");
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
    kit_expect_confirmed(&batch, &session, "messages without a payload");
    uint64_t carried = kit_proxy_bytes(stage->proxy) - before;
    if (carried < (uint64_t)COUNT * LEAST_BYTES) {
        kit_fail(stage,
                 "%d messages without a payload were CONFIRMED, and %llu bytes went to the broker: they were "
                 "not sent",
                 COUNT, (unsigned long long)carried);
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
    {"what is confirmed went to the broker, message by message", all_went, 40000, true, false},
    {"messages of one id are messages each", same_id, 40000, true, false},
    {"a message without a payload is sent, too", empty_ones_too, 40000, true, false},
    {"of a connection that dies nothing is confirmed, whatever the next one says", dies_once, 120000, true,
     false},
    {"four sessions side by side lose nothing, while another comes and goes", side_by_side, 120000, true,
     false},
    {"what the destination refuses is not confirmed", refusal, 40000, false, true},
    {NULL, NULL, 0, false, false},
};
