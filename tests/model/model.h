/* model - a state of the protocol, the steps that lead out of it, and who defines them. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* DESIGN picks one. All but GOOD are known to be wrong, and the search must find out. */
enum design {
    GOOD,
    BAD_LOCK_AND_READ_IN_ONE_STATEMENT,  /* the lanes are locked after the snapshot that reads their rows */
    BAD_LOCK_AND_READ_WITHOUT_ROW_LOCKS, /* likewise, and the lanes are the only lock */
    BAD_UNLOCKED_RUN,                    /* no lanes: a key's head is locked, what follows it is just read */
    BAD_CLAIM_NOT_CONDITIONAL,           /* claims from the lanes it asked for, got or not */
    BAD_NO_GAP_CUT,                      /* claims on behind a row that a stranger has locked */
    BAD_PROMOTE_WITHOUT_LANES,           /* a delayed message gets its seq while others claim its key */
    BAD_SCHEDULED_DOES_NOT_BLOCK,        /* a key goes on while its head waits in outbox.scheduled */
    BAD_RETRY_BLOCKS_FOR_EVER,           /* a row in outbox.scheduled blocks its key, and is never claimed */
    BAD_NO_WAVES,                        /* all messages of a key in flight at once */
    BAD_DELETE_BEFORE_CONFIRM,           /* what was written to the socket counts as delivered */
    BAD_LEASE_OUTLIVES_SESSION,          /* a lane is a column, not a lock: a crash does not free it */
    BAD_SEQ_BEFORE_KEY_LOCK,             /* producers take the seq before they wait for each other */
    BAD_SEQ_BEFORE_XID,                  /* producers take the seq before their xid */
    BAD_MARK_FROM_CLAIMS,                /* the mark is the first seq that a claim got */
    BAD_MARK_FROM_XMAX,                  /* X is a snapshot's xmax, not a transaction id of our own */
    BAD_MARK_XID_BEFORE_HIGHEST          /* X is taken before C is read */
};

#ifndef DESIGN
#define DESIGN GOOD
#endif

enum { ROWS_MAX = 4, WORKERS_MAX = 3, KEYS_MAX = 2, ALL_ROWS = 0xff };

enum row_place {
    ROW_ABSENT,      /* its producer has not begun */
    ROW_BEGUN,       /* the producer's transaction has an xid, and no seq yet */
    ROW_UNCOMMITTED, /* inserted; nobody else sees it */
    ROW_MESSAGE,     /* in outbox.message */
    ROW_WAITING,     /* in outbox.scheduled, not due */
    ROW_DUE,         /* in outbox.scheduled, due */
    ROW_DELAYED,     /* in outbox.scheduled, due, and without a seq yet */
    ROW_PROMOTED,    /* on its way from there to outbox.message; nobody else sees it */
    ROW_DELETED,
    ROW_ROLLED_BACK
};

enum worker_phase {
    WORKER_IDLE,       /* no transaction */
    WORKER_HAS_LANES,  /* BEGIN, and the statement that tries the lane locks */
    WORKER_HAS_READ,   /* the claim's snapshot is taken, its rows are not locked yet */
    WORKER_PUBLISHING, /* the batch is open */
    WORKER_PROMOTING,  /* a delayed message has its seq, COMMIT is not yet */
    WORKER_SETTLED     /* DELETE and the moves are done, COMMIT is not */
};

enum mark_phase { MARK_IDLE, MARK_HALF_ASKED, MARK_PENDING };

enum { LOCKER_NONE = 0, LOCKER_STRANGER = 9 }; /* worker n locks as n + 1 */

/* Sets of rows and of lanes are bits. All members are bytes: a state has no padding and compares as memory.
 */
struct row {
    uint8_t place;
    uint8_t seq;
    uint8_t xid; /* of the producer; 0 = it has ended */
    uint8_t locker;
};

struct worker {
    uint8_t phase;
    uint8_t lanes;        /* whose locks it holds */
    uint8_t from;         /* lanes that its claim reads; in a sound design those that it holds */
    uint8_t read_message; /* what the claim's snapshot showed of outbox.message */
    uint8_t read_due;     /* and of outbox.scheduled */
    uint8_t batch;
    uint8_t confirmed;
    uint8_t refused;
    uint8_t session_lost; /* the broker's: nothing more is sent */
    uint8_t zombie;       /* its database session has ended, and it does not know */
};

struct state {
    struct row rows[ROWS_MAX];
    struct worker workers[WORKERS_MAX];
    uint8_t last_seq;
    uint8_t last_xid;
    uint8_t completed_xid; /* the highest that has ended */
    uint8_t mark;
    uint8_t mark_phase;
    uint8_t mark_highest; /* C */
    uint8_t mark_xid;     /* X */
    uint8_t delivered;    /* what the broker took at least once */
    uint8_t adrift;       /* sent, and not confirmed: the broker may yet take it, or never */
    uint8_t faults;       /* these four are what is left of the configuration's budgets */
    uint8_t refusals;
    uint8_t strangers;
    uint8_t looks;
    uint8_t unused[5];
};
_Static_assert(sizeof(struct state) == 64, "a state has no padding, and hashes as eight words");

struct config {
    const char *name;
    uint8_t workers;
    uint8_t rows;
    uint8_t key_of_row[ROWS_MAX];
    uint8_t lane_of_key[KEYS_MAX];
    uint8_t run_max;   /* rows of one key in a batch */
    bool serialised;   /* producers of one key wait for each other before they take a seq */
    bool by_lanes;     /* a claim takes lanes, and reads those alone that it got */
    bool cut_at_gaps;  /* a row of the run that could not be locked ends the run */
    uint8_t faults;    /* crashes, lost sessions, lost answers to COMMIT */
    uint8_t refusals;  /* messages that have to wait in outbox.scheduled */
    uint8_t strangers; /* times somebody else locks a row */
    uint8_t looks;     /* times the low watermark is asked for; 0 = without mark and xids */
    uint8_t delayed;   /* the rows that are delayed messages */
};

enum what {
    PRODUCER_BEGIN,
    PRODUCER_INSERT,
    PRODUCER_COMMIT,
    PRODUCER_ROLLBACK,
    STRANGER_LOCKS,
    STRANGER_LETS_GO,
    TIME_PASSES,
    SOURCE_PROMOTES,
    PROMOTE_COMMITS,
    SOURCE_TAKE_LANES,
    SOURCE_CLAIM_READS,
    SOURCE_CLAIM_LOCKS,
    PUBLISH_CONFIRMED,
    PUBLISH_REFUSED,
    PUBLISH_LOST,
    PUBLISH_LOST_MOVES,
    BROKER_TAKES,
    SOURCE_SETTLE,
    SOURCE_COMMIT,
    COMMIT_LOST,
    SOURCE_LOST,
    CRASH,
    MARK_HIGHEST,
    MARK_XID,
    MARK_LEARN
};

struct step {
    uint8_t what; /* enum what */
    uint8_t who;  /* worker */
    uint8_t row;
    bool calm; /* no fault, no refusal, no new work: what happens if nothing else happens */
};

/* A step and where it leads; `violation` = the property it broke, and how. */
struct move {
    struct step step;
    struct state after;
    const char *violation;
};

/* The state that steps are taken from, and where they are handed to. */
struct search;
struct scene {
    const struct config *config;
    const struct state *before;
    struct search *search;
};

/* search.c: a way out of the state before. The first calm one is its calm continuation. */
void search_add(struct search *search, const struct move *move);

/* world.c: all that is not a worker, and what they have in common. */
void world_begin(const struct config *config, struct state *state);
void world_steps(const struct scene *scene);
void broker_takes(const struct scene *scene, struct move *move, unsigned row);
struct move move_of(const struct scene *scene, enum what what, unsigned who, unsigned row, bool calm);
bool is_stored(const struct row *row);
bool is_running(const struct row *row); /* its producer */

/* A producer of the row's key is under way, and producers wait for each other. */
bool must_wait_for_key(const struct scene *scene, unsigned row);

/* The next of `rows` with this key in the order of seq, behind `seq`; ROWS_MAX = none. */
unsigned next_of_key(const struct config *config, const struct state *state, unsigned rows, unsigned key,
                     unsigned seq);

static inline unsigned bit(unsigned number)
{
    return 1U << number;
}

static inline void add_bits(uint8_t *set, unsigned bits)
{
    *set = (uint8_t)(*set | bits);
}

static inline void remove_bits(uint8_t *set, unsigned bits)
{
    *set = (uint8_t)(*set & ~bits);
}

/* model.c: the workers. */
void model_steps(const struct scene *scene);

/* properties.c: a property that `state` itself breaks, or NULL. */
const char *model_check(const struct config *config, const struct state *state);

/* Everything that was committed is delivered and gone, and nobody holds anything. */
bool model_is_done(const struct config *config, const struct state *state);

/* What is broken by a state whose calm continuation never gets done. */
const char *model_blame(const struct config *config, const struct state *state);

/* main.c */
extern const char *const model_design;
void print_step(FILE *out, const struct config *config, const struct step *step, const struct state *after);

#endif
