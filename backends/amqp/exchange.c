#include "exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct exchange **bucket_of(struct exchanges *exchanges, const char *name)
{
    unsigned hash = 5381; /* Bernstein */
    for (; *name; name++) {
        hash = hash * 33 + (unsigned char)*name;
    }
    return &exchanges->buckets[hash % EXCHANGE_BUCKETS];
}

void exchanges_clear(struct exchanges *exchanges)
{
    for (unsigned at = 0; at < EXCHANGE_BUCKETS; at++) {
        while (exchanges->buckets[at]) {
            struct exchange *exchange = exchanges->buckets[at];
            exchanges->buckets[at] = exchange->next;
            free(exchange);
        }
    }
    *exchanges = (struct exchanges){0};
}

void exchanges_forget_failures(struct exchanges *exchanges)
{
    for (unsigned at = 0; at < EXCHANGE_BUCKETS; at++) {
        for (struct exchange *exchange = exchanges->buckets[at]; exchange; exchange = exchange->next) {
            if (exchange->state == EXCHANGE_FAILED) {
                exchange->state = EXCHANGE_UNKNOWN;
            }
        }
    }
}

struct exchange *exchange_add(struct exchanges *exchanges, const char *name)
{
    struct exchange **bucket = bucket_of(exchanges, name);
    for (struct exchange *exchange = *bucket; exchange; exchange = exchange->next) {
        if (strcmp(exchange->name, name) == 0) {
            return exchange;
        }
    }
    if (exchanges->count == EXCHANGES_MAX) {
        exchanges_clear(exchanges); /* rows may name any number of them: start anew rather than grow */
    }
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange) {
        (void)snprintf(exchange->name, sizeof exchange->name, "%s", name);
        exchange->next = *bucket;
        *bucket = exchange;
        exchanges->count++;
    }
    return exchange;
}

void exchange_declared(struct exchanges *exchanges)
{
    if (exchanges->asked) {
        exchanges->asked->state = EXCHANGE_EXISTS;
        exchanges->asked = NULL;
    }
}

void exchange_refused(struct exchanges *exchanges, int code, const char *text, const char *fix)
{
    struct exchange *exchange = exchanges->asked;
    if (exchange) {
        (void)snprintf(exchange->reason, sizeof exchange->reason, "exchange '%.120s': %d %.160s%s",
                       exchange->name, code, text, fix);
        exchange->state = EXCHANGE_FAILED;
        exchanges->asked = NULL;
    }
}
