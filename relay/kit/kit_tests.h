/* kit_tests - the tests of the conformance kit. Each runs in a process of its own and ends it by kit_fail(),
 * or returns. */
#ifndef RELAY_KIT_TESTS_H
#define RELAY_KIT_TESTS_H

#include "kit/kit_stage.h"

struct kit_test {
    const char *name; /* what must be true */
    void (*run)(struct kit_stage *stage);
    int64_t limit_ms;    /* for the whole test */
    bool needs_proxy;    /* stage->proxy is there */
    bool needs_refusing; /* the settings are those with which the destination refuses */
};

extern const struct kit_test kit_contract_tests[]; /* a table that ends with a zeroed row; likewise below */
extern const struct kit_test kit_content_tests[];
extern const struct kit_test kit_resource_tests[];
extern const struct kit_test kit_manner_tests[];
extern const struct kit_test kit_fault_tests[];
extern const struct kit_test kit_outage_tests[];
extern const struct kit_test kit_delivery_tests[];

/* A life for a test: open and one connected session; and its end. */
void kit_begin(struct kit_stage *stage, struct kit_session *session);
void kit_end(struct kit_stage *stage, struct kit_session *session);

/* Messages of one shape, NULL = plain ones. */
void kit_make(struct kit_stage *stage, struct kit_messages *messages, size_t count,
              const struct kit_shape *shape);

/* Publishes messages of one shape and expects them confirmed; the latter plain ones, in 10 s. */
void kit_publish_confirmed(struct kit_session *session, size_t count, const struct kit_shape *shape,
                           int64_t wait_ms, const char *what);
void kit_publish_plain(struct kit_session *session, size_t count, const char *what);

/* Open descriptors of this process; bytes that it has allocated. */
int kit_count_descriptors(void);
int64_t kit_count_bytes(void);

/* The network is well again: the same session must be, after disconnect() and connect(). */
void kit_expect_recovery(struct kit_session *session, const char *after);

/* Under `fault`, nothing may be called done or impossible. Returns what publish() said of the session. */
enum outbox_session_state kit_expect_no_verdict(struct kit_session *session, size_t count, const char *fault);

/* What the process is like, before a backend is loaded: it is compared with that. */
void kit_look_around(void);

/* If not, says so beside the result. */
bool kit_has_interrupt(struct kit_stage *stage);

#endif
