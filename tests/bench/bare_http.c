/*
 * The bare libcurl multi loop that the http backend is measured against: the same headers, concurrency and
 * bodies, handles used again, no database.
 *
 *     bare_http URL SESSIONS IN_FLIGHT MESSAGES BODY_BYTES
 */
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SESSIONS = 64, MAX_IN_FLIGHT = 1000 };

static struct {
    const char *url;
    long in_flight, messages, body_bytes;
} load;

struct request {
    CURL *easy;
    struct curl_slist *headers;
};

static void fail(const char *what)
{
    (void)fprintf(stderr, "bare_http: %s failed\n", what);
    exit(EXIT_FAILURE);
}

static size_t ignore(char *bytes, size_t size, size_t count, void *object)
{
    (void)bytes;
    (void)object;
    return size * count;
}

static void prepare(struct request *request, const char *body)
{
    request->easy = curl_easy_init();
    if (!request->easy || curl_easy_setopt(request->easy, CURLOPT_POST, 1L) != CURLE_OK ||
        curl_easy_setopt(request->easy, CURLOPT_NOSIGNAL, 1L) != CURLE_OK ||
        curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, ignore) != CURLE_OK ||
        curl_easy_setopt(request->easy, CURLOPT_PRIVATE, request) != CURLE_OK ||
        curl_easy_setopt(request->easy, CURLOPT_URL, load.url) != CURLE_OK ||
        curl_easy_setopt(request->easy, CURLOPT_POSTFIELDS, body) != CURLE_OK ||
        curl_easy_setopt(request->easy, CURLOPT_POSTFIELDSIZE, load.body_bytes) != CURLE_OK) {
        fail("preparing a handle");
    }
}

static void start(CURLM *multi, struct request *request, long number)
{
    static const char *const fixed[] = {
        "Content-Type: application/json", "Expect:",       "outbox-kind: event", "outbox-channel: bench",
        "outbox-type: order.placed",      "outbox-key: 42"};
    char id[80];
    curl_slist_free_all(request->headers);
    (void)snprintf(id, sizeof id, "webhook-id: 00000000-0000-0000-0000-%012ld", number);
    request->headers = curl_slist_append(NULL, id);
    for (size_t at = 0; at < sizeof fixed / sizeof fixed[0]; at++) {
        request->headers = curl_slist_append(request->headers, fixed[at]);
    }
    if (curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, request->headers) != CURLE_OK ||
        curl_multi_add_handle(multi, request->easy) != CURLM_OK) {
        fail("starting a request");
    }
}

/* Takes a finished request back; NULL if none is. */
static struct request *finished(CURLM *multi)
{
    int more = 0;
    char *request = NULL;
    long code = 0;
    CURLMsg *message = curl_multi_info_read(multi, &more);
    if (!message) {
        return NULL;
    }
    if (message->data.result != CURLE_OK ||
        curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &code) != CURLE_OK ||
        code / 100 != 2 || curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &request) != CURLE_OK) {
        fail("a request");
    }
    (void)curl_multi_remove_handle(multi, message->easy_handle);
    return (struct request *)(void *)request;
}

static void *run(void *unused)
{
    static struct request requests[MAX_SESSIONS][MAX_IN_FLIGHT];
    static _Atomic size_t sessions;
    struct request *own = requests[sessions++];
    char *body = malloc((size_t)load.body_bytes);
    CURLM *multi = curl_multi_init();
    long sent = 0;
    long done = 0;
    (void)unused;
    if (!body || !multi || curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, load.in_flight) != CURLM_OK) {
        fail("preparing");
    }
    memset(body, 'x', (size_t)load.body_bytes);
    for (long at = 0; at < load.in_flight; at++) {
        prepare(&own[at], body);
        if (sent < load.messages) {
            start(multi, &own[at], sent++);
        }
    }
    while (done < load.messages) {
        int running = 0;
        (void)curl_multi_perform(multi, &running);
        for (struct request *request = NULL; (request = finished(multi)) != NULL; done++) {
            if (sent < load.messages) {
                start(multi, request, sent++);
            }
        }
        if (running > 0) {
            (void)curl_multi_poll(multi, NULL, 0, 1000, NULL);
        }
    }
    return NULL; /* the process ends: what is left goes with it */
}

int main(int argc, char **argv)
{
    pthread_t threads[MAX_SESSIONS];
    if (argc != 6 || atoi(argv[2]) < 1 || atoi(argv[2]) > MAX_SESSIONS || atol(argv[3]) < 1 ||
        atol(argv[3]) > MAX_IN_FLIGHT) {
        (void)fprintf(stderr, "bare_http URL SESSIONS IN_FLIGHT MESSAGES BODY_BYTES\n");
        return 64;
    }
    int sessions = atoi(argv[2]);
    load.url = argv[1];
    load.in_flight = atol(argv[3]);
    load.messages = atol(argv[4]) / sessions;
    load.body_bytes = atol(argv[5]);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fail("libcurl");
    }
    for (int at = 0; at < sessions; at++) {
        if (pthread_create(&threads[at], NULL, run, NULL) != 0) {
            return EXIT_FAILURE;
        }
    }
    for (int at = 0; at < sessions; at++) {
        (void)pthread_join(threads[at], NULL);
    }
    return EXIT_SUCCESS;
}
