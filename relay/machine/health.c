#include "machine/health.h"

#include <string.h>

void health_init(struct health *health)
{
    *health = (struct health){0};
    (void)pthread_mutex_init(&health->lock, NULL);
}

void health_finish(struct health *health)
{
    (void)pthread_mutex_destroy(&health->lock);
}

bool health_failed(struct health *health, enum health_part part, const struct err *err, int64_t now_ms)
{
    (void)pthread_mutex_lock(&health->lock);
    bool news =
        health->part[part].failing_since_ms == 0 || strcmp(health->part[part].last.text, err->text) != 0;
    if (health->part[part].failing_since_ms == 0) {
        health->part[part].failing_since_ms = now_ms;
    }
    health->part[part].last = *err;
    (void)pthread_mutex_unlock(&health->lock);
    return news;
}

bool health_works(struct health *health, enum health_part part)
{
    (void)pthread_mutex_lock(&health->lock);
    bool news = health->part[part].failing_since_ms != 0;
    health->part[part].failing_since_ms = 0;
    err_clear(&health->part[part].last);
    (void)pthread_mutex_unlock(&health->lock);
    return news;
}

void health_look(struct health *health, enum health_part part, int64_t now_ms, struct health_view *view)
{
    (void)pthread_mutex_lock(&health->lock);
    int64_t since_ms = health->part[part].failing_since_ms;
    *view = (struct health_view){.last = health->part[part].last,
                                 .failing_for_ms = since_ms == 0 ? 0 : now_ms - since_ms + 1};
    (void)pthread_mutex_unlock(&health->lock);
}
