#include "service/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/printable.h"
#include "store/inspect.h"
#include "store/limits.h"
#include "store/schema.h"

enum {
    FILTER_MAX_BYTES = 1 << 20,
    HOLDS_MAX_BYTES = 128 << 10,
    CONNECT_MS = 30000,
    TRY_MS = 5000,
    STAY_TOLD_MS = 30000
};

static void name_instance(struct program *program)
{
    const char *configured = config_text(&program->config, "instance");
    char host[128] = "unknown";
    if (configured && configured[0]) {
        printable_copy(program->instance, sizeof program->instance, bytes_of(configured));
    } else {
        (void)gethostname(host, sizeof host - 1);
        (void)snprintf(program->instance, sizeof program->instance, "%s-%ld", host, (long)getpid());
    }
    (void)snprintf(program->client_name, sizeof program->client_name, "outbox-relay/%s", program->instance);
}

/* Channel patterns as a text[] literal of LIKE patterns. */
static void add_patterns(struct text *out, const struct option_value *list)
{
    text_add(out, "{");
    for (size_t item = 0; item < list->count; item++) {
        struct text like;
        text_init(&like, FILTER_MAX_BYTES);
        text_add_like(&like, list->items[item]);
        text_add(out, item > 0 ? "," : "");
        text_add_quoted(out, bytes_of(text_get(&like)));
        text_finish(&like);
    }
    text_add(out, "}");
}

static bool takes_all(const struct option_value *include)
{
    return include->count == 0 || (include->count == 1 && strcmp(include->items[0], "*") == 0);
}

static enum log_level level_of(const char *word)
{
    enum log_level level = LOG_ERROR;
    while (level < LOG_DEBUG && strcmp(log_level_name(level), word) != 0) {
        level++;
    }
    return level;
}

static enum log_format format_of(const char *word)
{
    if (strcmp(word, "json") == 0) {
        return LOG_FORMAT_JSON;
    }
    return strcmp(word, "logfmt") == 0 ? LOG_FORMAT_LOGFMT : LOG_FORMAT_TEXT;
}

static int start_signals(struct program *program, struct err *err)
{
    if (wake_init(&program->wake, err) != 0) {
        return -1;
    }
    program->has_wake = true;
    if (signals_start(&program->signals, &program->wake, err) != 0) {
        return -1;
    }
    program->has_signals = true;
    return 0;
}

int program_init(struct program *program, struct config *config, struct err *err)
{
    *program = (struct program){.config = *config, .log = {.fd = STDERR_FILENO}};
    *config = (struct config){0};
    program->log.level = level_of(config_text(&program->config, "log.level"));
    program->log.format = format_of(config_text(&program->config, "log.format"));
    name_instance(program);
    text_init(&program->include, FILTER_MAX_BYTES);
    text_init(&program->exclude, FILTER_MAX_BYTES);
    if (!takes_all(config_value(&program->config, "channels.include"))) {
        add_patterns(&program->include, config_value(&program->config, "channels.include"));
    }
    if (config_value(&program->config, "channels.exclude")->count > 0) {
        add_patterns(&program->exclude, config_value(&program->config, "channels.exclude"));
    }
    if (!program->config.backend) {
        return err_set(err, ERR_CONFIG,
                       "backend is not set: write backend: amqp, or --backend stdout to look around");
    }
    return start_signals(program, err);
}

static bool is_ordered(const struct config *config)
{
    return strcmp(config_text(config, "order"), "key") == 0;
}

bool program_is_ordered(const struct program *program)
{
    return is_ordered(&program->config);
}

static const char *or_null(const struct text *text)
{
    return text->len > 0 ? text_get(text) : NULL;
}

const char *program_included(const struct program *program)
{
    return or_null(&program->include);
}

const char *program_excluded(const struct program *program)
{
    return or_null(&program->exclude);
}

static void fill_options(const struct program *program, int64_t budget, struct pool_options *options)
{
    const struct config *config = &program->config;
    int64_t publish_timeout_ms = config_number(config, "publish_timeout");
    *options = (struct pool_options){
        .worker =
            {
                .source =
                    {
                        .conninfo = config_text(config, "database"),
                        .client_name = program->client_name,
                        .backend = config->backend->name,
                        .include = program_included(program),
                        .exclude = program_excluded(program),
                        .ordered = program_is_ordered(program),
                        .workers = config_number(config, "workers"),
                        .max_bytes = config_number(config, "batch.max_bytes"),
                        .max_message_bytes = config_number(config, "batch.max_message_bytes"),
                        .transaction_ms = publish_timeout_ms + 5000,
                        .log = &program->log,
                    },
                .rules =
                    {
                        .max_attempts = (uint32_t)config_number(config, "retry.max_attempts"),
                        .give_up_after_ms = config_number(config, "retry.give_up_after"),
                        .hold_max_ms = config_number(config, "breaker.open_max"),
                    },
                .batch_messages = (size_t)config_number(config, "batch.max_messages"),
                .poll_min_ms = config_number(config, "poll.min"),
                .poll_max_ms = config_number(config, "poll.max"),
                .publish_timeout_ms = publish_timeout_ms,
                .retry_min_ms = config_number(config, "retry.backoff_min"),
                .retry_max_ms = config_number(config, "retry.backoff_max"),
                .reconnect_max_ms = config_number(config, "breaker.open_max"),
            },
        .workers = (unsigned)config_number(config, "workers"),
        .breaker_failures = (unsigned)config_number(config, "breaker.failures"),
        .breaker_open_min_ms = config_number(config, "breaker.open_min"),
        .breaker_open_max_ms = config_number(config, "breaker.open_max"),
        .shutdown_timeout_ms = config_number(config, "shutdown_timeout"),
        .budget = budget,
    };
}

int program_open(struct program *program, struct err *err)
{
    const struct outbox_backend *backend = program->config.backend;
    return backend_open(&program->backend, backend, config_section(&program->config, backend->name),
                        program->client_name, &program->log, err);
}

int program_start(struct program *program, int64_t budget, bool hasty, struct err *err)
{
    struct pool_options options;
    fill_options(program, budget, &options);
    options.worker.rules.hasty = hasty;
    const struct ledger_options ledger = {config_text(&program->config, "database"),
                                          program->client_name,
                                          program->instance,
                                          backend_name(program->backend),
                                          program->wake.stop_fd,
                                          &program->log};
    if (ledger_new(&program->ledger, &ledger, err) != 0) {
        return -1;
    }
    return pool_start(&program->pool, &options, program->backend, &program->wake, &program->log, err);
}

bool program_stop(struct program *program)
{
    bool clean = true;
    if (program->has_wake) {
        wake_stop(&program->wake);
    }
    if (program->pool) {
        clean = pool_join(program->pool) && !wake_is_halting(&program->wake);
    }
    return clean;
}

void program_finish(struct program *program)
{
    pool_free(program->pool);
    ledger_free(program->ledger);
    backend_close(program->backend);
    if (program->has_signals) {
        signals_finish(&program->signals);
    }
    if (program->has_wake) {
        wake_finish(&program->wake);
    }
    text_finish(&program->include);
    text_finish(&program->exclude);
    config_finish(&program->config);
}

static int connect_to(const struct pg_options *options, int64_t deadline_ms, struct pg **out, struct err *err)
{
    if (limits_open(out, options, NULL, deadline_ms, err) != 0) {
        return -1;
    }
    if (limits_check(*out, deadline_ms, err) != 0 || schema_check(*out, err) != 0) {
        pg_close(*out);
        *out = NULL;
        return -1;
    }
    return 0;
}

int program_connect(struct program *program, int cancel_fd, int64_t by_ms, struct pg **out, struct err *err)
{
    int64_t latest_ms = clock_now_ms() + CONNECT_MS;
    const struct pg_options options = {config_text(&program->config, "database"), program->client_name,
                                       cancel_fd};
    if (connect_to(&options, by_ms < latest_ms ? by_ms : latest_ms, out, err) != 0) {
        return -1;
    }
    if (pg_is_in_clear(*out) && !program->told_of_clear_text) {
        LOG_PLAIN(
            &program->log, LOG_WARNING,
            "the database is on another host, and the connection without TLS: whoever is on the way reads "
            "all messages, and changes them; add sslmode=verify-full to the connection string");
        program->told_of_clear_text = true;
    }
    return 0;
}

int program_try(const struct config *config, int cancel_fd, struct err *err)
{
    const struct pg_options options = {config_text(config, "database"), "outbox-relay", cancel_fd};
    struct pg *pg = NULL;
    if (connect_to(&options, clock_now_ms() + TRY_MS, &pg, err) != 0) {
        return -1;
    }
    int result = program_check_outbox(config, pg, NULL, err);
    pg_close(pg);
    return result;
}

int program_check_outbox(const struct config *config, struct pg *pg, int64_t *lanes, struct err *err)
{
    struct schema_order order;
    if (inspect_privileges(pg, err) != 0 || schema_read_order(pg, &order, err) != 0) {
        return -1;
    }
    if (lanes) {
        *lanes = order.lanes;
    }
    return schema_check_order(&order, is_ordered(config), err);
}

/* ---- what the process says about itself ---- */

struct holds {
    struct text text;
    uint64_t hash; /* without the times: they change by themselves */
};

static void add_hold(void *context, const struct channel_rest *rest)
{
    struct holds *told = context;
    struct text *holds = &told->text;
    char name[PRINTABLE_NAME_BYTES]; /* who looks into the table has a terminal, too */
    printable_copy(name, sizeof name, bytes_of(rest->channel));
    told->hash =
        (told->hash * 31 + bytes_hash(bytes_of(rest->channel))) * 31 + bytes_hash(bytes_of(rest->reason));
    if (holds->len + strlen(name) * 2 + strlen(rest->reason) * 6 + 64 >= holds->max_bytes) {
        return; /* the first ones tell enough */
    }
    text_add(holds, holds->len > 1 ? ",{\"channel\":" : "{\"channel\":");
    text_add_json(holds, bytes_of(name));
    text_add(holds, ",\"reason\":");
    text_add_json(holds, bytes_of(rest->reason));
    text_addf(holds, ",\"next_try_in_s\":%lld}", (long long)(rest->rests_for_ms + 999) / 1000);
}

/* What is wrong, worst first; NULL if nothing is. While the breaker is open, no worker asks the database:
 * then the ledger's word counts. */
static const char *trouble(const struct program *program, const struct health_view *database,
                           const struct health_view *backend, const struct breaker_view *breaker)
{
    bool unasked = breaker->state != BREAKER_CLOSED && ledger_is_connected(program->ledger);
    if (database->failing_for_ms > 0 && !unasked) {
        return database->last.text;
    }
    if (breaker->state != BREAKER_CLOSED && breaker->reason[0]) {
        return breaker->reason;
    }
    return backend->failing_for_ms > 0 ? backend->last.text : NULL;
}

/* A worker that no deadline and no interrupt brought back: a fault of a plugin, or of ours. Told once. */
static bool find_stuck(struct program *program, int64_t now_ms, char *out, size_t out_bytes)
{
    int64_t silent_ms = 0;
    int worker = pool_stuck_worker(program->pool, now_ms, &silent_ms);
    if (worker >= 0) {
        (void)snprintf(out, out_bytes, "worker %d has made no progress for %lld s: restart the relay", worker,
                       (long long)(silent_ms / 1000));
        if (!program->told_of_stuck) {
            LOG(&program->log, LOG_ERROR, "a worker makes no progress", log_number("worker", worker),
                log_number("for_s", silent_ms / 1000));
        }
    }
    program->told_of_stuck = worker >= 0;
    return worker >= 0;
}

/* Lately, as often as workers come upon them. */
static bool rows_stay(struct shared *shared, int64_t now_ms)
{
    int64_t at_ms = atomic_load(&shared->rows_stayed_ms);
    return at_ms > 0 && now_ms - at_ms < STAY_TOLD_MS + 2 * shared->options.poll_max_ms;
}

static const char *breaker_name(enum breaker_state state)
{
    static const char *const names[] = {
        [BREAKER_CLOSED] = "closed", [BREAKER_OPEN] = "open", [BREAKER_HALF_OPEN] = "half-open"};
    return names[state];
}

static void dump(struct program *program, const struct ledger_entry *entry, enum breaker_state breaker)
{
    const struct metrics *metrics = &pool_shared(program->pool)->metrics;
    LOG(&program->log, LOG_INFO, "state", log_text("state", entry->state),
        log_text("reason", entry->reason ? entry->reason : ""), log_text("breaker", breaker_name(breaker)),
        log_text("holds", entry->holds), log_number("published", (int64_t)metrics_get(&metrics->published)),
        log_number("retried", (int64_t)metrics_get(&metrics->retried)),
        log_number("dead_lettered", (int64_t)metrics_get(&metrics->dead_lettered)),
        log_number("possible_duplicates", (int64_t)metrics_get(&metrics->possible_duplicates)),
        log_number("kept", (int64_t)metrics_get(&metrics->kept)),
        log_number("stuck", (int64_t)metrics_get(&metrics->stuck)),
        log_number("batches", (int64_t)metrics_get(&metrics->batches)),
        log_number("database_connects", (int64_t)metrics_get(&metrics->database_connects)),
        log_number("backend_connects", (int64_t)metrics_get(&metrics->backend_connects)));
}

void program_tick(struct program *program)
{
    struct shared *shared = pool_shared(program->pool);
    int64_t now_ms = clock_now_ms();
    struct health_view database;
    struct health_view backend;
    struct breaker_view breaker;
    struct holds holds = {.hash = 0};
    health_look(&shared->health, HEALTH_DATABASE, now_ms, &database);
    health_look(&shared->health, HEALTH_BACKEND, now_ms, &backend);
    breaker_look(&shared->breaker, now_ms, &breaker);
    text_init(&holds.text, HOLDS_MAX_BYTES);
    text_add(&holds.text, "[");
    channels_each_rest(shared->channels, now_ms, add_hold, &holds);
    text_add(&holds.text, "]");
    char stuck[120];
    bool is_stuck = find_stuck(program, now_ms, stuck, sizeof stuck);
    const char *reason = is_stuck ? stuck : trouble(program, &database, &backend, &breaker);
    if (!reason && rows_stay(shared, now_ms)) {
        reason =
            "messages that were sent, or are to be set aside, stay where they are and are sent again: "
            "does a trigger, a rule, a policy or a constraint of schema outbox keep them? The log says more";
    }
    if (!reason && atomic_load(&shared->promotion.not_before_ms) > now_ms) {
        reason = "delayed messages that are due cannot enter outbox.message and wait; the log says why";
    }
    bool blocked = reason || breaker.state != BREAKER_CLOSED;
    const struct ledger_entry entry = {
        .state = wake_is_stopping(&program->wake) ? "stopping"
                 : blocked                        ? "blocked"
                                                  : "running",
        .reason = reason,
        .holds = text_get(&holds.text),
        .held = holds.hash,
        .last_error = reason,
        .next_try_in_ms = breaker.state == BREAKER_OPEN ? breaker.next_try_in_ms : -1,
    };
    ledger_write(program->ledger, &entry);
    ledger_look_around(program->ledger);
    if (atomic_exchange(&program->signals.dump, false)) {
        dump(program, &entry, breaker.state);
    }
    text_finish(&holds.text);
}
