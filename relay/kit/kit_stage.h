/*
 * kit_stage - one test of the conformance kit: a backend called in a process of its own, every call watched.
 *
 * The process that runs a test tells the one that judges it through shared memory: which call is running, by
 * when it must return, and what went wrong. So a crash, an exit or a hang inside a backend is a finding like
 * any other.
 */
#ifndef RELAY_KIT_STAGE_H
#define RELAY_KIT_STAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kit/kit_message.h"
#include "kit/kit_proxy.h"
#include "outbox_backend.h"
#include "plugin/host.h"

enum { KIT_LATE_MS = 1000, KIT_HANG_MS = 8000, KIT_SOON_MS = 1000, KIT_TEXT_BYTES = 700 };

/* Which function of the backend is running. */
enum kit_call {
    CALL_NONE = 0,
    CALL_OPEN,
    CALL_CLOSE,
    CALL_SESSION_NEW,
    CALL_SESSION_FREE,
    CALL_CONNECT,
    CALL_DISCONNECT,
    CALL_CHECK,
    CALL_PUBLISH,
    CALL_EXPLAIN,
    CALL_LIBRARY,
    CALL_EXIT, /* of the process: destructors, atexit() */
    CALLS
};
const char *kit_call_name(enum kit_call call); /* "publish()" */

/* Shared with the judging process, in memory of their own. */
struct kit_board {
    atomic_int call;             /* enum kit_call */
    _Atomic int64_t must_end_ms; /* by when it must have returned; 0 = no call */
    atomic_bool begun;
    atomic_bool finished;
    atomic_bool failed;
    atomic_bool skipped;
    atomic_bool past;          /* the data went past the proxy */
    atomic_bool reached;       /* connect() worked once */
    atomic_bool away;          /* it failed, with nothing of the kit in between */
    char note[KIT_TEXT_BYTES]; /* told beside a test that passed */
    char hint[KIT_TEXT_BYTES]; /* what a crash would be about */
    char text[KIT_TEXT_BYTES];
};

struct kit_stage {
    struct kit_board *board;
    const struct outbox_backend *table;
    struct option_set *settings;
    struct host host;
    void *backend;
    struct kit_proxy *proxy; /* NULL without --proxy */
    const char *proxy_option;
    char renamed[256]; /* the broker's name, where the proxy's address took its place; else "" */
};

/* One session and what happened in its last publish(). */
struct kit_session {
    struct kit_stage *stage;
    void *object;
    struct outbox_error error;
    pthread_mutex_t lock; /* held where a call begins and ends, and around interrupt() */
    bool connected;
    bool in_call; /* connect(), check() or publish() is running */
};

/* A batch as the host lends it, with an eye on every settle(). */
struct kit_batch {
    struct outbox_batch lent; /* first, so that settle() finds its way back */
    struct kit_stage *stage;
    struct kit_messages *messages;
    pthread_t thread;
    atomic_bool running; /* publish() has not returned */
    struct kit_answer {
        bool settled;
        enum outbox_verdict verdict;
        char reason[200];
    } * answers;
    enum outbox_session_state state;
    int64_t wait_ms; /* how long it had */
};

/* An option's value as it was written, of a list its first; NULL if there is none. */
const char *kit_option_text(const struct option_set *settings, size_t index);

/* Ends the test as failed. The first finding is the one that is told. */
void kit_fail(struct kit_stage *stage, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* Ends the test as skipped: it cannot be run here. */
void kit_skip(struct kit_stage *stage, const char *why) __attribute__((noreturn));

/* Ends the process as a program ends, destructors and all, and the test as passed if that works. */
void kit_leave(struct kit_stage *stage) __attribute__((noreturn));

/* Says something beside the result. */
void kit_note(struct kit_stage *stage, const char *text);

/* What a crash would be about from now on; "" = anything. */
void kit_hint(struct kit_stage *stage, const char *text);

/* Ends the test as skipped, and with it all that need the proxy: the data goes another way. */
void kit_skip_past(struct kit_stage *stage, const char *why) __attribute__((noreturn));

/* The same because the broker's name is not the proxy's. */
void kit_skip_renamed(struct kit_stage *stage, const char *why) __attribute__((noreturn));

/* Each ends the test if the call crashes, comes back too late, or breaks the contract. */
void kit_open(struct kit_stage *stage);
int kit_try_open(struct kit_stage *stage); /* 0 or -1; an error without a text ends the test */
void kit_close(struct kit_stage *stage);
void kit_session_new(struct kit_session *session, struct kit_stage *stage);
void kit_session_free(struct kit_session *session);

/* 0 or -1; an error without a text ends the test. */
int kit_try_connect(struct kit_session *session, int64_t wait_ms);
void kit_connect(struct kit_session *session); /* must succeed */
void kit_disconnect(struct kit_session *session);
enum outbox_session_state kit_check(struct kit_session *session, int64_t wait_ms);

/* The optional ones that write a text: neither beyond its end nor without one. False if there is no such
 * function. */
bool kit_explain(struct kit_stage *stage, const struct outbox_message *message, char *out, size_t out_bytes);
bool kit_library(struct kit_stage *stage, char *out, size_t out_bytes);

/* Publishes the messages; they may not be read any more when it has returned. Freed by kit_batch_finish(). */
void kit_publish(struct kit_batch *batch, struct kit_session *session, struct kit_messages *messages,
                 int64_t wait_ms);
void kit_batch_finish(struct kit_batch *batch);

size_t kit_count(const struct kit_batch *batch, enum outbox_verdict verdict);

/* All confirmed, and the session OK; `what` names the messages in the finding. */
void kit_expect_confirmed(const struct kit_batch *batch, const struct kit_session *session, const char *what);

/* Calls interrupt() from another thread, `after_ms` into the next call, and again while that has not
 * returned. */
struct kit_interrupt {
    pthread_t thread;
    struct kit_session *session;
    int64_t after_ms;
    int64_t called_ms; /* the first time; 0 = not yet */
    atomic_bool over;
};
void kit_interrupt_begin(struct kit_interrupt *interrupt, struct kit_session *session, int64_t after_ms);
void kit_interrupt_end(struct kit_interrupt *interrupt);

#endif
