/* drain_tell - the progress of a drain, and its summary. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/output.h"
#include "command/document.h"
#include "command/drain.h"

enum { PROGRESS_EVERY_MS = 10000 };

static int64_t published(const struct drain *drain)
{
    struct pool *pool = drain->program->pool;
    return pool ? (int64_t)metrics_get(&pool_shared(pool)->metrics.published) : 0;
}

void drain_show_progress(struct drain *drain)
{
    bool tty = isatty(STDERR_FILENO);
    if (!drain->show_progress || clock_now_ms() < drain->progress_at_ms) {
        return;
    }
    drain->progress_at_ms = clock_now_ms() + (tty ? DRAIN_TICK_MS : PROGRESS_EVERY_MS);
    int64_t done = published(drain);
    int percent = drain->total > 0 && done < drain->total ? (int)(done * 100 / drain->total) : 100;
    if (tty) {
        output_passing(stderr, "[%-40.*s] %3d %%  %" PRId64 " of %" PRId64, percent * 40 / 100,
                       "########################################", percent, done, drain->total);
    } else {
        LOG(&drain->program->log, LOG_INFO, "draining", log_number("published", done),
            log_number("of", drain->total));
    }
}

static int tell_text(const struct drain *drain, const struct metrics *metrics, double seconds,
                     struct err *err)
{
    char left[120] = "";
    (void)err;
    if (drain->looked) {
        (void)snprintf(left, sizeof left, ", %" PRId64 " left, %" PRId64 " on hold, %" PRId64 " wait",
                       drain->left.messages + drain->left.due, drain->left.resting, drain->left.waiting);
    }
    output_line(stderr, "outbox-relay: drained %" PRIu64 " in %.1f s, %" PRIu64 " dead-lettered%s: %s",
                metrics_get(&metrics->published), seconds, metrics_get(&metrics->dead_lettered), left,
                drain->result);
    return 0;
}

/* A figure of what is left: null where nobody could look. */
static json_t *figure(const struct drain *drain, int64_t number)
{
    return drain->looked ? json_integer((json_int_t)number) : json_null();
}

static int tell_json(const struct drain *drain, const struct metrics *metrics, double seconds,
                     struct err *err)
{
    json_t *summary = json_pack(
        "{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:f, s:s, s:i}", "published",
        (json_int_t)metrics_get(&metrics->published), "retried", (json_int_t)metrics_get(&metrics->retried),
        "dead_lettered", (json_int_t)metrics_get(&metrics->dead_lettered), "possible_duplicates",
        (json_int_t)metrics_get(&metrics->possible_duplicates), "left",
        figure(drain, drain->left.messages + drain->left.due), "on_hold", figure(drain, drain->left.resting),
        "waiting", figure(drain, drain->left.waiting), "seconds", seconds, "result", drain->result,
        "exit_code", drain->code);
    int result = document_print(summary, JSON_REAL_PRECISION(6), err);
    json_decref(summary);
    return result;
}

int drain_tell(struct drain *drain, bool json, struct err *err)
{
    static const struct metrics none;
    const struct metrics *metrics =
        drain->program->pool ? &pool_shared(drain->program->pool)->metrics : &none;
    double seconds = (double)(clock_now_ms() - drain->began_ms) / 1000;
    if (drain->show_progress && isatty(STDERR_FILENO)) {
        output_text(stderr, bytes_of("\n"));
    }
    return (json ? tell_json : tell_text)(drain, metrics, seconds, err);
}
