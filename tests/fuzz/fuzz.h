/* fuzz - what every fuzzer shares: libFuzzer's entry, and a check that dies where a promise is broken. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* libFuzzer keeps the input of a run that aborts. */
#define PROMISE(condition, what)                                                                             \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, (what));                \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
