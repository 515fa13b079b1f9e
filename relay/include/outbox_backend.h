/*
 * outbox_backend.h - all that the author of an outbox-relay backend needs.
 *
 *     cc -std=c11 -shared -fPIC -fvisibility=hidden my.c -o my.so $(pkg-config --cflags outbox-backend)
 *
 * "outbox-relay backends new my" writes a project that builds, and
 * 'outbox-relay backends test "$PWD/my.so"' says whether it keeps what is written here.
 *
 * A backend carries messages from the relay to one broker. It exports one function, made by OUTBOX_BACKEND(),
 * that returns a constant table; it links against nothing of the relay. The core owns the database,
 * transactions, retries, dead letters, the breaker and the threads; a backend owns its connection and answers
 * two questions, kept apart: what became of each MESSAGE (a verdict), and what is left of the SESSION (a
 * state).
 *
 * Rules that hold everywhere:
 *   - Zero is the safe value of every enum: a message that nobody settled stays in the table.
 *   - CONFIRMED means that the broker took responsibility, never merely "written to a socket".
 *   - One session belongs to one worker thread: no locks are needed in a backend. interrupt() is the one
 * exception.
 *   - Deadlines are absolute milliseconds of CLOCK_MONOTONIC. A call returns by its deadline.
 *   - What the core hands over is borrowed for the length of the call; what a backend allocates, it frees.
 *   - Structs that cross the border start with their size and grow only at the tail.
 *   - Texts are UTF-8. Never put payloads, header values or secrets into a text: it reaches logs.
 *
 * Includes nothing but <stddef.h> and <stdint.h>; valid C11 and C++17 (GNU attributes).
 */
#ifndef OUTBOX_BACKEND_H
#define OUTBOX_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OUTBOX_BACKEND_ABI_MAJOR 1u
#define OUTBOX_BACKEND_ABI_MINOR 4u

/*
 * What a backend needs of it: a relay of that minor version or a newer one takes it. Defined before this
 * header is included, 0 means that nothing is used which stands here with "since ABI 1.1" or later (a tail of
 * the table that an older relay does not know does no harm), so that older relays take it, too.
 */
#ifndef OUTBOX_BACKEND_USES_MINOR
#define OUTBOX_BACKEND_USES_MINOR OUTBOX_BACKEND_ABI_MINOR
#elif OUTBOX_BACKEND_USES_MINOR > OUTBOX_BACKEND_ABI_MINOR
#error "OUTBOX_BACKEND_USES_MINOR is newer than this header"
#endif

/* A view into memory that somebody else owns; may hold NUL bytes, is not NUL-terminated. */
struct outbox_bytes {
    const char *ptr;
    size_t len;
};

/* What the broker said about ONE MESSAGE. */
enum outbox_verdict {
    /* Nothing known: the row stays, no attempt is counted. Said by settle(): it was not sent (no time was
     * left, say), and cannot have arrived. */
    OUTBOX_UNSETTLED = 0,
    OUTBOX_CONFIRMED = 1, /* the broker took responsibility: the row is deleted */
    /* The destination of this channel cannot take it now: no attempt is counted. Where most of the channel's
     * messages of the batch say so, or one with retry_after, the channel rests; few wait on their own. */
    OUTBOX_HOLD = 2,
    OUTBOX_RETRY =
        3, /* this message was refused, perhaps by its own fault: counted only while its channel works */
    OUTBOX_REJECTED = 4 /* will never be taken: the row becomes a dead letter */
};

/* What is left of THE SESSION after a call; says nothing about messages. */
enum outbox_session_state {
    OUTBOX_SESSION_LOST = 0, /* the core disconnects, and connects anew after a backoff */
    OUTBOX_SESSION_OK =
        1, /* settle() was called for every message, and not for all of them with UNSETTLED (else LOST) */
    OUTBOX_SESSION_BUSY = 2 /* alive, but asks for a pause (alarm, throttling): see error->retry_after_ms */
};

enum outbox_log_level {
    OUTBOX_LOG_ERROR = 0,
    OUTBOX_LOG_WARNING = 1,
    OUTBOX_LOG_INFO = 2,
    OUTBOX_LOG_DEBUG = 3
};

enum outbox_kind { OUTBOX_EVENT = 0, OUTBOX_COMMAND = 1, OUTBOX_REPLY = 2 };

enum outbox_value_type {
    OUTBOX_VALUE_STRING = 0,
    OUTBOX_VALUE_INT = 1,
    OUTBOX_VALUE_DOUBLE = 2,
    OUTBOX_VALUE_BOOL = 3,
    OUTBOX_VALUE_NULL = 4
};

struct outbox_header {
    struct outbox_bytes name;
    struct outbox_bytes value; /* as text, whatever the type: "42", "true", "" for null */
    enum outbox_value_type type;
};

/* In outbox_message.flags: the payload is JSON (RFC 8259) in UTF-8, whatever content_type says: PostgreSQL
 * has parsed it. Without it, content_type is no more than what the producer says: bytes that call themselves
 * JSON would add members to an envelope that takes them in as they are. */
#define OUTBOX_MESSAGE_IS_JSON 0x1u

struct outbox_message {
    uint32_t size;
    enum outbox_kind kind;
    int64_t seq;            /* unique per row; rises within a key */
    struct outbox_bytes id; /* stable over retries: consumers recognise duplicates by it */
    struct outbox_bytes channel;
    struct outbox_bytes type;
    struct outbox_bytes key; /* order and sharding; len 0 = none; likewise below */
    struct outbox_bytes correlation_id;
    struct outbox_bytes causation_id;
    struct outbox_bytes reply_to;
    struct outbox_bytes content_type;    /* never empty */
    struct outbox_bytes payload;         /* may be empty */
    const struct outbox_header *headers; /* read them by outbox_header_at() */
    size_t header_count;
    int64_t created_at_us; /* Unix time, microseconds */
    /* What was left when publish() was called, by the database's clock; -1 = never expires. What has expired
     * by the time it would be sent is not sent: settle it as UNSETTLED. */
    int64_t ttl_ms;
    uint32_t attempt; /* 1 for the first */
    /* From one header to the next, in bytes: the host's sizeof(struct outbox_header), which may be more than
     * yours. Since ABI 1.3. */
    size_t header_size;
    uint32_t flags; /* OUTBOX_MESSAGE_..., bits that you do not know mean nothing to you. Since ABI 1.4. */
};

/* headers[index], whichever of host and backend was built later; index < header_count. */
static inline const struct outbox_header *outbox_header_at(const struct outbox_message *message, size_t index)
{
    size_t each = message->size >= offsetof(struct outbox_message, header_size) + sizeof message->header_size
                      ? message->header_size
                      : sizeof(struct outbox_header);
    return (const struct outbox_header *)(const void *)((const char *)message->headers + index * each);
}

/* Lent to publish() for the length of that call. Pointers, so that the message struct may grow. */
struct outbox_batch {
    uint32_t size;
    size_t count;
    const struct outbox_message *const *messages;
    /*
     * Says what became of messages[index]: at most once per index, from inside publish(), on its thread.
     * Never blocks. `reason` (NULL for CONFIRMED) is copied, one sentence naming cause and fix.
     * retry_after_ms: 0 = the core's own backoff, at most 24 h; used with HOLD and RETRY.
     */
    void (*settle)(struct outbox_batch *batch, size_t index, enum outbox_verdict verdict, const char *reason,
                   int64_t retry_after_ms);
};

enum outbox_option_type {
    OUTBOX_OPT_STRING = 0,
    OUTBOX_OPT_INT = 1,
    OUTBOX_OPT_BOOL = 2,
    OUTBOX_OPT_DURATION_MS = 3, /* "250ms" "10s" "5m" "1h" "2d"; a bare 0 */
    OUTBOX_OPT_BYTES = 4,       /* "512" "64KiB" "8MiB" "1GiB" */
    OUTBOX_OPT_CHOICE = 5,
    OUTBOX_OPT_LIST = 6, /* of strings */
    OUTBOX_OPT_MAP = 7   /* of strings */
};

#define OUTBOX_OPT_REQUIRED 0x1u
#define OUTBOX_OPT_SECRET   0x2u /* never logged, never shown; has a NAME_file twin */
#define OUTBOX_OPT_URL      0x4u /* shown and logged without its user name and password; has a NAME_file twin */

/* One row of the table of options; the host reads, checks, documents and redacts them. How large a row is,
 * outbox_backend.option_size says. */
struct outbox_option {
    const char *name; /* NULL ends the table */
    enum outbox_option_type type;
    uint32_t flags;
    const char
        *fallback; /* the default, as an operator would write it; NULL = not set (list: comma-separated) */
    const char *choices; /* "a|b|c" for CHOICE */
    int64_t min, max;    /* for the numeric types; both 0 = no bounds but >= 0 */
    const char *help;    /* one line */
};

struct outbox_settings; /* opaque: read through the host */

/* The host's services. Valid from open() until close() returns; every function may be called from any thread.
 */
struct outbox_host {
    uint32_t size;
    /* Values of declared options; a name that was not declared is a fault of the backend and aborts. */
    const char *(*get_string)(const struct outbox_settings *settings, const char *name); /* NULL = not set */
    int64_t (*get_int)(const struct outbox_settings *settings,
                       const char *name); /* also bool, duration, bytes */
    size_t (*get_list)(const struct outbox_settings *settings, const char *name, const char *const **values);
    size_t (*get_map)(const struct outbox_settings *settings, const char *name, const char *const **names,
                      const char *const **values);
    /*
     * Fills a template over ${channel} ${type} ${key} ${kind} ${id} ${reply_to} and NUL-terminates it.
     * The length without the NUL; -1 if it does not fit, holds a NUL byte or names an unknown variable.
     */
    int (*render)(const struct outbox_host *host, const char *pattern, const struct outbox_message *message,
                  char *out, size_t out_bytes);
    /* One event, one line. Foreign text is escaped by the host. */
    void (*log)(const struct outbox_host *host, enum outbox_log_level level, const char *text);
    /* What the relay calls itself towards brokers: "outbox-relay/<instance>". */
    const char *client_name;
};

enum outbox_error_kind {
    OUTBOX_ERROR_UNAVAILABLE = 0, /* away, or unknown: try again later */
    OUTBOX_ERROR_REFUSED = 1,     /* it answers, and says no: password, privileges */
    OUTBOX_ERROR_CONFIG = 2       /* a setting is wrong: a person must change it */
};

/* Owned by the host, zeroed but for `size` before each call. */
struct outbox_error {
    uint32_t size;
    enum outbox_error_kind kind;
    int64_t retry_after_ms; /* with BUSY: 0 = the core's own backoff */
    char text[512];         /* one sentence naming place and fix */
};

/*
 * The table: one constant object for the life of the process. One backend object at work, one session
 * object per worker thread; a reload opens a second one and connects a session of it, to see whether its
 * settings are right, while the first still works. The functions of each are called in this order:
 *
 *     open { session_new { connect { publish | check }* disconnect }* session_free }* close
 *
 * "In the worker's thread": all calls on one session come from one thread, but not always from the one that
 * made it.
 */
struct outbox_backend {
    uint32_t size;    /* sizeof(struct outbox_backend) where the backend was built */
    const char *name; /* as in OUTBOX_BACKEND(): letters, digits, '_' and '-'; also the name of its section in
                         the configuration */
    const char *version;
    const struct outbox_option *options; /* ends with a row whose name is NULL; NULL = there are none */

    /*
     * Reads the settings and checks what can be checked without a network.
     * Thread: the main one, before any session of it exists. Blocking: no. Ownership: *backend is the
     * backend's own, freed by close(); host and settings stay valid until close() has returned. After -1:
     * *backend is ignored, close() is not called.
     */
    int (*open)(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                struct outbox_error *error);

    /* Frees the backend object. Thread: the main one, after the last session_free(). Blocking: no. Cannot
     * fail. */
    void (*close)(void *backend);

    /*
     * Makes the session object, so that interrupt() has something to act on before connect() blocks.
     * Thread: the worker's. Blocking: no, and no network. Ownership: freed by session_free(). After -1:
     * *session is ignored, session_free() is not called.
     */
    int (*session_new)(void *backend, void **session, struct outbox_error *error);

    /* Frees it; it is disconnected by then, or never was connected. Thread: the worker's. Blocking: no.
     * Cannot fail. */
    void (*session_free)(void *session);

    /*
     * Makes the session ready to publish.
     * Thread: the worker's. Blocking: until the deadline at most. After -1 the session is as session_new()
     * made it: connect() again or session_free() follows, without disconnect().
     */
    int (*connect)(void *session, int64_t deadline_ms, struct outbox_error *error);

    /*
     * Ends the connection, politely if that takes no waiting. connect() or session_free() follows.
     * Thread: the worker's. Blocking: 1 s at most. Cannot fail.
     */
    void (*disconnect)(void *session);

    /*
     * Publishes the messages in the batch's order and calls batch->settle() once for each whose fate is
     * known. Thread: the worker's, for settle(), too. Blocking: until the deadline at most. Ownership: batch
     * and messages are borrowed until it returns. With LOST and BUSY, messages may be left without settle():
     * their rows stay, and count as possible duplicates; what was settled keeps its verdict. After LOST,
     * disconnect() follows. count may be 0.
     */
    enum outbox_session_state (*publish)(void *session, struct outbox_batch *batch, int64_t deadline_ms,
                                         struct outbox_error *error);

    /* Optional from here on: NULL, or beyond `size`, means "not implemented". */

    /*
     * Services the idle session (heartbeats, alarms); called at least once a second between batches.
     * Thread: the worker's. Blocking: best not at all, until the deadline at most. BUSY ends when it says OK;
     * after LOST, disconnect() follows.
     */
    enum outbox_session_state (*check)(void *session, int64_t deadline_ms, struct outbox_error *error);

    /*
     * Makes the connect(), check() or publish() that is running return within 1 s.
     * Thread: ANOTHER one, the only such call; the host serialises it against the return of the call that it
     * interrupts. It must not block, nor free anything. The interrupted call fails or says LOST; disconnect()
     * follows if it was connected. It may come again while that call has not returned.
     */
    void (*interrupt)(void *session);

    /*
     * Says where the message would go, as one line of UTF-8 text without secrets, such as
     * "exchange orders, routing key order.placed"; for `outbox-relay explain`. Since ABI 1.1.
     * Thread: the main one, between open() and close(). Blocking: no, and no network. Ownership: the message
     * is borrowed; out has out_bytes bytes and is NUL-terminated. After -1 error->text says why publish()
     * would reject it.
     */
    int (*explain)(void *backend, const struct outbox_message *message, char *out, size_t out_bytes,
                   struct outbox_error *error);

    /*
     * Names the libraries that do the work, in the versions that run: "librabbitmq 0.11.0"; a line "warning:
     * ..." behind it for each fault that such a version is known to have. For `backends show`, and for
     * `outbox-relay version` where it is built in. Since ABI 1.2. Thread: any, open() may not have been
     * called. Blocking: no. Ownership: out has out_bytes bytes and is NUL-terminated.
     */
    void (*library)(char *out, size_t out_bytes);

    /* sizeof(struct outbox_option) where the backend was built, so that a host of another version finds the
     * next row; 0 = as it was in ABI 1.0 to 1.3. Since ABI 1.3. */
    size_t option_size;
};

/*
 * An ELF note: the host reads it from the file and refuses a backend of another ABI before any of its code
 * runs (constructors run inside dlopen).
 */
struct outbox_note {
    uint32_t namesz, descsz, type;
    char owner[8];
    uint32_t abi_major, abi_minor, pointer_bytes;
    char name[32], version[32];
};

#ifdef __cplusplus
}
#define OUTBOX_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define OUTBOX_EXPORT __attribute__((visibility("default")))
#endif

/* Built into the relay (-DOUTBOX_BUILTIN=amqp) the entry gets a name of its own; in a .so it is
 * outbox_backend_v1. */
#ifdef OUTBOX_BUILTIN
#define OUTBOX_ENTRY_JOIN_(n) outbox_backend_v1_##n
#define OUTBOX_ENTRY_NAME_(n) OUTBOX_ENTRY_JOIN_(n)
#define OUTBOX_ENTRY          OUTBOX_ENTRY_NAME_(OUTBOX_BUILTIN)
#else
#define OUTBOX_ENTRY outbox_backend_v1
#endif

/* OUTBOX_BACKEND("name", "1.2.3", table); once, at file scope. Name and version have 31 bytes at most. */
#define OUTBOX_BACKEND(NAME, VERSION, TABLE)                                                                 \
    __attribute__((used, section(".note.outbox"),                                                            \
                   aligned(4))) static const struct outbox_note outbox_note_ = {7,                           \
                                                                                sizeof(struct outbox_note) - \
                                                                                    20,                      \
                                                                                1,                           \
                                                                                "Outbox",                    \
                                                                                OUTBOX_BACKEND_ABI_MAJOR,    \
                                                                                OUTBOX_BACKEND_USES_MINOR,   \
                                                                                (uint32_t)sizeof(void *),    \
                                                                                NAME,                        \
                                                                                VERSION};                    \
    OUTBOX_EXPORT const struct outbox_backend *OUTBOX_ENTRY(void);                                           \
    OUTBOX_EXPORT const struct outbox_backend *OUTBOX_ENTRY(void)                                            \
    {                                                                                                        \
        return &(TABLE);                                                                                     \
    }                                                                                                        \
    struct outbox_note /* takes the semicolon */

/*
 * ABI policy: the host accepts a backend of its own major version whose minor version is not newer than its
 * own (see OUTBOX_BACKEND_USES_MINOR). Adding a function or field at a tail raises the minor version,
 * anything else the major version. Elements of arrays grow, too: option_size and header_size tell how far it
 * is to the next.
 *
 * Changes:
 *   1.0  the first
 *   1.1  outbox_backend.explain
 *   1.2  outbox_backend.library
 *   1.3  outbox_message.header_size, outbox_header_at(), outbox_backend.option_size, a table without options,
 *        OUTBOX_BACKEND_USES_MINOR
 *   1.4  outbox_message.flags, OUTBOX_MESSAGE_IS_JSON
 */
#endif
