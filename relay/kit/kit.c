#include "kit/kit.h"

#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/printable.h"
#include "kit/kit_child.h"
#include "kit/kit_tests.h"

enum { HANGS_AT_MOST = 3, SAID_MAX_BYTES = 64 << 10, LINES_AT_MOST = 20, LINE_BYTES = 300 };

static const struct kit_test *const tables[] = {kit_contract_tests, kit_content_tests, kit_resource_tests,
                                                kit_manner_tests,   kit_fault_tests,   kit_outage_tests,
                                                kit_delivery_tests};

/* The test of that number, counted from 1 through all tables; NULL behind the last. */
static const struct kit_test *test_at(unsigned number)
{
    for (size_t table = 0; table < sizeof tables / sizeof tables[0]; table++) {
        for (const struct kit_test *test = tables[table]; test->name; test++) {
            if (--number == 0) {
                return test;
            }
        }
    }
    return NULL;
}

void kit_list(FILE *out)
{
    const struct kit_test *test = NULL;
    for (unsigned number = 1; (test = test_at(number)) != NULL; number++) {
        output_line(out, "%2u  %s%s", number, test->name,
                    test->needs_proxy      ? " (needs --proxy)"
                    : test->needs_refusing ? " (only with --refusing)"
                                           : "");
    }
}

void kit_run_in_child(const struct kit_options *options)
{
    unsigned number = kit_child_number();
    const struct kit_test *test = number > 0 ? test_at(number) : NULL;
    if (test) {
        kit_child_begin(options, test);
    }
}

static bool is_chosen(const struct kit_options *options, unsigned number)
{
    const struct kit_test *test = test_at(number);
    if (test->needs_refusing && !options->refusing) {
        return false;
    }
    if (!options->only) {
        return true;
    }
    bool digits = options->only[strspn(options->only, "0123456789")] == '\0';
    return digits ? strtoul(options->only, NULL, 10) == number : strstr(test->name, options->only) != NULL;
}

/* ---- TAP ---- */

struct tally {
    unsigned number;
    unsigned failed;
    unsigned skipped;
    unsigned hung;
    bool past;
    bool reached; /* the destination, by some test */
    bool away;    /* by none, and one has tried */
};

/* What the test's process wrote to standard error: a line if all is well, and the beginning of it if not. */
static void print_said(FILE *out, const struct text *said, bool failed)
{
    unsigned lines = 0;
    unsigned shown = failed ? LINES_AT_MOST : 1;
    for (const char *at = text_get(said); *at; lines++) {
        size_t len = strcspn(at, "\n");
        at += len + (at[len] == '\n');
    }
    if (lines > 0) {
        output_line(out, "# its standard error, %u line%s:", lines, lines == 1 ? "" : "s");
    }
    for (const char *at = text_get(said); *at && shown > 0; shown--) {
        char clean[LINE_BYTES];
        size_t len = strcspn(at, "\n");
        printable_copy(clean, sizeof clean, (struct bytes){at, len});
        output_line(out, "#   %s", clean);
        at += len + (at[len] == '\n');
    }
}

static const char *reason_to_skip(const struct kit_options *options, const struct kit_test *test,
                                  const struct tally *tally)
{
    return test->needs_proxy && !options->proxy_option ? "needs --proxy OPTION"
           : test->needs_proxy && tally->past          ? "the data goes past the proxy"
           : tally->away                               ? "not begun: the destination does not answer"
           : tally->hung >= HANGS_AT_MOST              ? "not begun: too many hang"
                                                       : NULL;
}

static int run_one(const struct kit_options *options, unsigned number, FILE *out, struct tally *tally,
                   struct err *err)
{
    const struct kit_test *test = test_at(number);
    const char *reason = reason_to_skip(options, test, tally);
    struct kit_outcome outcome;
    struct text said;
    tally->number++;
    if (reason) {
        tally->skipped++;
        output_line(out, "ok %u - %s # SKIP %s", tally->number, test->name, reason);
        return 0;
    }
    (void)fflush(out);
    text_init(&said, SAID_MAX_BYTES);
    int result = kit_child_run(options, test, number, &outcome, &said, err);
    if (result == 0) {
        tally->failed += outcome.failed;
        tally->skipped += outcome.skipped;
        tally->hung += outcome.hung;
        tally->past = tally->past || outcome.past;
        tally->reached = tally->reached || outcome.reached;
        tally->away = tally->away || (outcome.away && !tally->reached);
        output_line(out, "%sok %u - %s%s%s", outcome.failed ? "not " : "", tally->number, test->name,
                    outcome.skipped ? " # SKIP " : "", outcome.skipped ? outcome.text : "");
        if (!outcome.skipped && outcome.text[0]) {
            output_line(out, "# %s", outcome.text);
        }
        if (outcome.failed && options->only) {
            output_line(out, "# this is number %u of --list", number);
        }
        print_said(out, &said, outcome.failed);
    }
    text_finish(&said);
    return result;
}

int kit_run(const struct kit_options *options, FILE *out, enum kit_verdict *verdict, struct err *err)
{
    static const char *const words[] = {"conformant", "partial", "NOT conformant"};
    struct tally tally = {0};
    unsigned chosen = 0;
    for (unsigned number = 1; test_at(number); number++) {
        chosen += is_chosen(options, number);
    }
    if (chosen == 0) {
        return err_set(err, ERR_USAGE,
                       "--only %s: no test has that number or those words in its name: --list names them",
                       options->only);
    }
    output_line(out, "TAP version 14");
    output_line(out, "1..%u", chosen);
    for (unsigned number = 1; test_at(number); number++) {
        if (is_chosen(options, number) && run_one(options, number, out, &tally, err) != 0) {
            return -1;
        }
    }
    if (!options->refusing && !options->only) {
        output_line(
            out,
            "# not asked: is an error answer taken for a confirm? --refusing KEY=VALUE asks, with a setting "
            "of which the destination refuses each message");
    }
    *verdict = tally.failed > 0                     ? KIT_NOT_CONFORMANT
               : tally.skipped > 0 || options->only ? KIT_PARTIAL
                                                    : KIT_CONFORMANT;
    output_line(out, "# %u tests, %u failed, %u skipped", tally.number, tally.failed, tally.skipped);
    output_line(out, "# %s %s (%s), backend ABI %u.%u: %s", options->table->name, options->table->version,
                options->place, OUTBOX_BACKEND_ABI_MAJOR, OUTBOX_BACKEND_ABI_MINOR, words[*verdict]);
    return 0;
}
