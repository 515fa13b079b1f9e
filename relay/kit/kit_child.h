/*
 * kit_child - a test in a process of its own: the same program begun anew, so that the backend is loaded
 * there, and whatever it starts, changes or breaks ends with the test.
 *
 * fork() would not do: of a library that starts threads when it is loaded, only the caller's would live on.
 */
#ifndef RELAY_KIT_CHILD_H
#define RELAY_KIT_CHILD_H

#include <stdbool.h>

#include "base/bytes.h"
#include "kit/kit.h"
#include "kit/kit_tests.h"

struct kit_outcome {
    bool failed;
    bool skipped;
    bool hung;          /* it had to be killed */
    bool past;          /* the data went past the proxy: no test of the network means anything */
    bool reached, away; /* as on the board */
    char text[KIT_TEXT_BYTES + 200];
};

/* Runs test `number` of the list and judges it; what it wrote to standard error is added to `said`. -1: there
 * can be no such process. */
int kit_child_run(const struct kit_options *options, const struct kit_test *test, unsigned number,
                  struct kit_outcome *outcome, struct text *said, struct err *err) MUST_CHECK;

/* In such a process: the number of its test, and 0 in any other. The log is the test's from then on. */
unsigned kit_child_number(void);
/* Runs it; does not return. */
void kit_child_begin(const struct kit_options *options, const struct kit_test *test)
    __attribute__((noreturn));

#endif
