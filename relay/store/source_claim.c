/*
 * source_claim - BEGIN, and the statements that lock rows: of outbox.message, of outbox.scheduled, or one
 * suspect.
 *
 * Order by key rests on lanes: a lane is a set of keys, and whoever holds its advisory lock, taken in a
 * statement of its own, alone claims rows of these keys until COMMIT. The claim behind it has a newer
 * snapshot, in which all that earlier holders did is done, and takes nothing but the lanes that were really
 * obtained (outbox.lanes).
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "store/source_state.h"
#include "store/sql.h"

enum { PROMOTE_AGAIN_MS = 1000, PROMOTE_DOUBLINGS = 6 };
enum { CURSORS_MAX_BYTES = 24 * SCHEMA_MAX_LANES };

static const char PROMOTED_AT_ONCE[] = "1000";

static size_t limit_of(const struct source *source, const struct source_request *request)
{
    bool bounded = !request->of_few && source->limit < request->max_messages;
    return bounded ? source->limit : request->max_messages;
}

/* splitmix64; fairness needs no more */
static uint64_t next_random(struct source *source)
{
    uint64_t mixed = source->random += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

static int64_t random_lane(struct source *source)
{
    return (int64_t)(next_random(source) % (uint64_t)source->order.lanes);
}

static struct walk *walk_of(struct source *source, const struct source_request *request)
{
    return &source->walks[request->only ? WALK_NAMED : WALK_ALL];
}

/* Behind those that were taken, so that each has its turn, however few are taken at once; at random where
 * none was to be had, so that workers do not follow each other. */
static void choose_first_lane(struct source *source, struct walk *walk)
{
    walk->first_lane =
        walk->last_lane >= 0 ? (walk->last_lane + 1) % source->order.lanes : random_lane(source);
}

void source_scatter(struct source *source)
{
    for (size_t one = 0; one < WALKS && source->order.lanes > 0; one++) {
        struct walk *walk = &source->walks[one];
        for (int64_t lane = 0; lane < source->order.lanes; lane++) {
            walk->cursors[lane] = (struct cursor){(int64_t)next_random(source), (int64_t)next_random(source)};
        }
        walk->first_lane = random_lane(source);
    }
}

/* The cursors as two bigint[] literals. */
static void put_cursors(const struct walk *walk, int64_t lanes, struct text *channels, struct text *keys)
{
    for (int64_t lane = 0; lane < lanes; lane++) {
        text_add(channels, lane > 0 ? "," : "{");
        text_add_number(channels, walk->cursors[lane].channel_hash);
        text_add(keys, lane > 0 ? "," : "{");
        text_add_number(keys, walk->cursors[lane].key_hash);
    }
    text_add(channels, "}");
    text_add(keys, "}");
}

/* "lane,channel hash,key hash,lane,..." */
static void move_cursors(struct walk *walk, int64_t lanes, const char *walked)
{
    const char *from = walked;
    int64_t numbers[3]; /* lane, channel hash, key hash */
    for (size_t at = 0; *from; at++) {
        char *end = NULL;
        numbers[at % 3] = strtoll(from, &end, 10);
        if (end == from) {
            return; /* not ours: the cursors stay */
        }
        from = *end == ',' ? end + 1 : end;
        if (at % 3 == 2 && numbers[0] >= 0 && numbers[0] < lanes) {
            walk->cursors[numbers[0]] = (struct cursor){numbers[1], numbers[2]};
        }
    }
}

static int read_walked(struct source *source, struct walk *walk, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        return -1;
    }
    move_cursors(walk, source->order.lanes, pg_text(rows, 0, 0));
    pg_rows_free(rows);
    return 0;
}

/* Notes the last of the lanes that were obtained ("{7,8}"), or -1. */
static int read_lanes(struct source *source, struct walk *walk, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        return -1;
    }
    const char *lanes = pg_text(rows, 0, 0);
    const char *last = strrchr(lanes, ',');
    last = last ? last + 1 : lanes + (lanes[0] == '{');
    char *end = NULL;
    long long lane = strtoll(last, &end, 10);
    walk->last_lane = end == last ? -1 : lane;
    pg_rows_free(rows);
    return 0;
}

/* Takes the lanes of what is to be claimed. Twice as many sharers as workers: other processes want some, too.
 */
static int send_lanes(struct source *source, const struct source_request *request, const char *start,
                      const char *limit, struct err *err)
{
    char first[NUMBER_BYTES];
    char sharers[NUMBER_BYTES];
    char suspect[NUMBER_BYTES];
    char channel_hash[NUMBER_BYTES];
    char key_hash[NUMBER_BYTES];
    const char *include = source->options.include;
    const char *exclude = source->options.exclude;
    source_put_number(first, request->kind == CLAIM_KEYED ? walk_of(source, request)->first_lane
                                                          : random_lane(source));
    source_put_number(sharers, (request->of_few ? -1 : 2) * source->options.workers);
    source_put_number(suspect, request->suspect_seq);
    source_put_number(channel_hash, (int64_t)next_random(source));
    source_put_number(key_hash, (int64_t)next_random(source));
    const char *const for_suspect[] = {source->mask, suspect};
    const char *const for_keyed[] = {source->mask,     first,   sharers, start,
                                     request->resting, include, exclude, request->only};
    const char *const for_retries[] = {source->mask, first,   sharers,      limit,    request->resting,
                                       include,      exclude, channel_hash, key_hash, request->only};
    switch (request->kind) {
    case CLAIM_SCHEDULED:
        return pg_send(source->pg, sql_lanes_scheduled, 10, for_retries, false, err);
    case CLAIM_SUSPECT:
        return pg_send(source->pg, sql_lanes_suspect, 2, for_suspect, false, err);
    case CLAIM_KEYED:
        return pg_send(source->pg, sql_lanes, 8, for_keyed, false, err);
    case CLAIM_MESSAGES:
        break;
    }
    return 0;
}

static bool needs_lanes(const struct source *source, const struct source_request *request)
{
    return source->options.ordered && request->kind != CLAIM_MESSAGES;
}

static int send_keyed(struct source *source, const struct source_request *request, const char *start,
                      const char *limit, const char *max_bytes, struct err *err)
{
    struct text channels;
    struct text keys;
    text_init(&channels, CURSORS_MAX_BYTES);
    text_init(&keys, CURSORS_MAX_BYTES);
    put_cursors(walk_of(source, request), source->order.lanes, &channels, &keys);
    const char *const values[] = {start,
                                  limit,
                                  max_bytes,
                                  request->resting,
                                  source->options.include,
                                  source->options.exclude,
                                  source->mask,
                                  text_get(&channels),
                                  text_get(&keys),
                                  source->max_message,
                                  request->only};
    int result = pg_send(source->pg, sql_claim_keyed, 11, values, true, err);
    if (result == 0) {
        result = pg_send(source->pg, sql_walked, 0, NULL, false, err);
    }
    text_finish(&channels);
    text_finish(&keys);
    return result;
}

static int send_unkeyed(struct source *source, const struct source_request *request, const char *start,
                        const char *limit, const char *max_bytes, struct err *err)
{
    char suspect[NUMBER_BYTES];
    source_put_number(suspect, request->suspect_seq);
    const char *const values[] = {start,
                                  limit,
                                  max_bytes,
                                  request->resting,
                                  source->options.include,
                                  source->options.exclude,
                                  source->options.ordered ? source->mask : NULL,
                                  request->kind == CLAIM_SUSPECT ? suspect : NULL,
                                  source->max_message,
                                  request->only};
    return pg_send(source->pg, sql_claim, 10, values, true, err);
}

/* Of outbox.message, with the questions about the mark around it. */
static int send_claim_message(struct source *source, const struct source_request *request, struct err *err)
{
    uint64_t filter = source_filter(source, request);
    bool keyed = request->kind == CLAIM_KEYED;
    source->asking = false;
    source->full_poll = false;
    int64_t mark = mark_start(source->options.mark, filter, !keyed, clock_now_ms(),
                              request->of_few ? NULL : &source->full_poll);
    char start[NUMBER_BYTES];
    char limit[NUMBER_BYTES];
    char max_bytes[NUMBER_BYTES];
    source_put_number(start, request->kind == CLAIM_SUSPECT ? MARK_LEAST : mark);
    source_put_number(limit, (int64_t)limit_of(source, request));
    source_put_number(max_bytes, source->options.max_bytes);
    if ((needs_lanes(source, request) && send_lanes(source, request, start, limit, err) != 0) ||
        (request->place != MARK_NOWHERE &&
         source_send_mark_sequence(source, request->place, filter, false, err) != 0) ||
        (keyed ? send_keyed : send_unkeyed)(source, request, start, limit, max_bytes, err) != 0) {
        return -1;
    }
    return source_send_mark_rows(source, request, err);
}

/* A transaction of its own: what is due must not wait, unseen, for the retries that are published next. */
static int send_promote(struct source *source, struct err *err)
{
    char max_bytes[NUMBER_BYTES];
    source_put_number(max_bytes, source->options.max_bytes);
    const char *const promote[] = {PROMOTED_AT_ONCE, max_bytes, source->options.ordered ? source->mask : NULL,
                                   text_get(&source->promote_from)};
    if (source_send_begin(source, err) != 0 ||
        pg_send(source->pg, sql_promote, 4, promote, false, err) != 0) {
        return -1;
    }
    return pg_send(source->pg, "COMMIT", 0, NULL, false, err);
}

static int send_claim_scheduled(struct source *source, const struct source_request *request, struct err *err)
{
    char limit[NUMBER_BYTES];
    char max_bytes[NUMBER_BYTES];
    source_put_number(limit, (int64_t)limit_of(source, request));
    source_put_number(max_bytes, source->options.max_bytes);
    source->asking = false;
    source->full_poll = false;
    if (needs_lanes(source, request)) {
        const char *const values[] = {limit, max_bytes, source->mask, source->max_message};
        return send_lanes(source, request, NULL, limit, err) != 0
                   ? -1
                   : pg_send(source->pg, sql_claim_scheduled_keyed, 4, values, true, err);
    }
    const char *const values[] = {limit,
                                  max_bytes,
                                  request->resting,
                                  source->options.include,
                                  source->options.exclude,
                                  source->max_message,
                                  request->only};
    return pg_send(source->pg, sql_claim_scheduled, 7, values, true, err);
}

int source_send_claim(struct source *source, const struct source_request *request, struct err *err)
{
    bool scheduled = request->kind == CLAIM_SCHEDULED;
    source->promotes = scheduled && clock_now_ms() >= atomic_load(&source->options.promotion->not_before_ms);
    if ((source->promotes && send_promote(source, err) != 0) || source_send_begin(source, err) != 0) {
        return -1;
    }
    if (pg_send(source->pg, sql_table_locks, 0, NULL, false, err) != 0) {
        return -1;
    }
    return scheduled ? send_claim_scheduled(source, request, err) : send_claim_message(source, request, err);
}

bool source_was_cut(const struct source *source)
{
    return source->cut;
}

/* Locks without payloads are cheap, but not free: after a claim that the byte bound cut, ask for about what
 * fits. */
static void adapt_limit(struct source *source, const struct source_request *request,
                        const struct batch *batch)
{
    uint64_t bytes = 0;
    for (size_t at = 0; at < batch->count; at++) {
        bytes += batch->rows[at].message.payload.len;
    }
    bool near_bound = bytes > (uint64_t)source->options.max_bytes / 2;
    source->cut = near_bound || batch->count >= limit_of(source, request);
    if (!request->of_few) { /* which are not those that it was learnt of */
        source->limit = near_bound ? batch->count * 2 : SIZE_MAX;
    }
}

/* What the server refuses once, such as a row that a constraint does not let in, it will refuse again:
 * retries and all that is in outbox.message go on without it meanwhile. */
static void put_off_promotion(struct source *source, struct err *why)
{
    struct promotion *promotion = source->options.promotion;
    if (why->class == ERR_CONNECTION || why->class == ERR_STOPPED) {
        return;
    }
    unsigned failures = atomic_fetch_add(&promotion->failures, 1);
    int64_t wait_ms = (int64_t)PROMOTE_AGAIN_MS
                      << (failures < PROMOTE_DOUBLINGS ? failures : PROMOTE_DOUBLINGS);
    atomic_store(&promotion->not_before_ms, clock_now_ms() + wait_ms);
    LOG(source->options.log, LOG_ERROR, "delayed messages that are due cannot enter outbox.message and wait",
        log_number("next_try_in_ms", wait_ms), log_text("error", why->text));
    why->class = ERR_RETRY; /* the next claim goes without it */
}

/* Of a transaction of its own. */
static int read_promoted(struct source *source, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (source_read_begin(source, err) != 0) {
        return -1;
    }
    if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        put_off_promotion(source, err);
        return -1;
    }
    atomic_store(&source->options.promotion->failures, 0);
    source->promoted = (size_t)pg_number(rows, 0, 0, 0);
    text_clear(&source->promote_from);
    text_add_bytes(&source->promote_from, pg_value(rows, 0, 1));
    pg_rows_free(rows);
    return source_skip_answers(source, 1, err);
}

/* Reads what stands in front of the claim's own answer. */
static int read_preludes(struct source *source, const struct source_request *request, struct err *err)
{
    source->promoted = 0;
    if (source->promotes && read_promoted(source, err) != 0) {
        return -1;
    }
    if (source_read_begin(source, err) != 0) {
        return -1;
    }
    if (source_skip_answers(source, 1, err) != 0) {
        return -1;
    }
    if (!needs_lanes(source, request)) {
        return 0;
    }
    return request->kind == CLAIM_KEYED ? read_lanes(source, walk_of(source, request), err)
                                        : source_skip_answers(source, 1, err);
}

int source_read_claim(struct source *source, const struct source_request *request, struct batch *batch,
                      struct err *err)
{
    struct pg_rows *rows = NULL;
    int64_t highest = 0;
    if (read_preludes(source, request, err) != 0 || source_read_mark_sequence(source, &highest, err) != 0) {
        return -1;
    }
    batch->claimed_ms = clock_now_ms(); /* what is left of each row's life is told from now on */
    if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0 ||
        source_read_rows(batch, rows, source->options.max_message_bytes, err) != 0 ||
        (source->options.ordered && batch_order_by_key(batch, err) != 0) ||
        (request->kind == CLAIM_KEYED && read_walked(source, walk_of(source, request), err) != 0)) {
        return -1;
    }
    if (batch->count > 0 && failpoint("after_claim")) {
        return err_set(err, ERR_CONNECTION, "failpoint after_claim");
    }
    if (request->kind == CLAIM_KEYED) {
        choose_first_lane(source, walk_of(source, request));
    }
    adapt_limit(source, request, batch);
    source_check_full_poll(source, batch->count > 0 ? batch->rows[0].message.seq : MARK_NONE);
    return source_read_mark_rows(source, highest, err);
}
