/*
 * mark - the low watermark: no live row of outbox.message has a seq below it.
 *
 * A claim that starts at the mark does not wade through the dead rows in front of the first live one, which
 * VACUUM cannot remove while somebody holds an old snapshot. It comes from snapshots, never from what a
 * worker claimed:
 *
 *   1. read C, the highest seq handed out, and only then take a transaction id X of our own. A row takes its
 * xid before its seq, so every seq <= C belongs to a xid < X. (A snapshot's xmax would not do: it is the last
 * *completed* xid + 1, and the transaction that holds seq C may well be that one, or a later one.)
 *   2. in a later snapshot with xmin >= X, all of those transactions have ended: every row with seq <= C that
 * will ever live is visible now, so mark = the first seq <= C, or C + 1. The same C is good in every snapshot
 * behind that one, since xmin never falls: it is settled, until a later one is
 *
 * Further marks do the same for the rows outside the channels that rest, and outside those and the channels
 * that crowd, so that those cost nothing either; each is valid for the filter it was read with. Whoever asks
 * for one of them need not be the one who finds that a C is settled. One object per process, shared by the
 * workers.
 */
#ifndef RELAY_MARK_H
#define RELAY_MARK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* No seq is below the one or above the other: rows that were numbered by hand may have any. */
#define MARK_LEAST INT64_MIN
#define MARK_NONE  INT64_MAX

/* Of the rows that a filter lets through. */
struct mark_filtered {
    int64_t first;
    uint64_t filter; /* its hash */
};

/* Claims of two kinds take turns, and the filter of one may be new each time; what others are seen through is
 * not worth remembering. */
enum mark_place { MARK_ORDINARY, MARK_OTHERS, MARK_NOWHERE };
enum { MARK_FILTERS = MARK_NOWHERE };

struct mark {
    pthread_mutex_t lock;
    unsigned generation; /* raised by a reset; answers asked for before it are forgotten */
    int64_t all;
    struct mark_filtered filtered[MARK_FILTERS];
    int64_t settled; /* C; 0 = none yet */
    bool pending;
    int64_t pending_highest;
    int64_t pending_xid;
    int64_t next_refresh_ms[MARK_FILTERS];
    int64_t next_idle_refresh_ms;
    int64_t next_full_ms;
};

/* What one refresh asks the database, and what it may do with the answer. */
struct mark_question {
    unsigned generation;
    enum mark_place place;
    uint64_t filter;
    int64_t all;
    int64_t filtered;
    int64_t settled;
    int64_t highest; /* the pending C, or the settled one, which is not above it; 0 = none yet */
};

struct mark_answer {
    int64_t highest; /* C, read before `xid` was taken, 0 = none was handed out; -1 = unusable */
    int64_t xid;     /* our own transaction's id; 0 = it was taken before C was read */
    int64_t xmin;
    int64_t first;          /* first seq in [all, highest asked for]; MARK_NONE */
    int64_t first_filtered; /* likewise in [filtered, ...] */
};

void mark_init(struct mark *mark);
void mark_finish(struct mark *mark);

/* A new connection may be to another server: start from nothing. */
void mark_reset(struct mark *mark);

/*
 * Where a claim with this filter starts; without `filtered`, one that sees all rows. Once a minute 0, a full
 * poll, as an alarm: *full is set then. NULL: not this one.
 */
int64_t mark_start(struct mark *mark, uint64_t filter, bool filtered, int64_t now_ms, bool *full);

/*
 * True when it is this caller's turn to refresh. idle: an unlocked look; a refresh costs it a transaction id,
 * so it is due only if there may be something to learn.
 */
bool mark_ask(struct mark *mark, enum mark_place place, uint64_t filter, bool idle, int64_t now_ms,
              struct mark_question *question);
void mark_learn(struct mark *mark, const struct mark_question *question, const struct mark_answer *answer);

/* True, and the mark is reset, if a row that a full poll found should not exist. */
bool mark_contradicted(struct mark *mark, int64_t seq);

#endif
