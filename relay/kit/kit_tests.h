/* kit_tests - the tests of the conformance kit. Each runs in a process of its own and ends it by kit_fail(),
 * or returns. */
#ifndef RELAY_KIT_TESTS_H
#define RELAY_KIT_TESTS_H

#include "kit/kit_stage.h"

struct kit_test {
    const char *name; /* what must be true */
    void (*run)(struct kit_stage *stage);
    int64_t limit_ms; /* for the whole test */
};

extern const struct kit_test kit_contract_tests[]; /* a table that ends with a zeroed row; likewise below */
extern const struct kit_test kit_resource_tests[];
extern const struct kit_test kit_fault_tests[]; /* need stage->proxy */

/* A life for a test: open and one connected session; and its end. */
void kit_begin(struct kit_stage *stage, struct kit_session *session);
void kit_end(struct kit_stage *stage, struct kit_session *session);

/* Messages of one shape, NULL = plain ones. */
void kit_make(struct kit_stage *stage, struct kit_messages *messages, size_t count,
              const struct kit_shape *shape);

/* Publishes plain messages and expects them confirmed. */
void kit_publish_plain(struct kit_session *session, size_t count, const char *what);

/* Open descriptors of this process. */
int kit_count_descriptors(void);

/* If not, says so beside the result. */
bool kit_has_interrupt(struct kit_stage *stage);

#endif
