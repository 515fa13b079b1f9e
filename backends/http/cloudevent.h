/* cloudevent - a message as a CloudEvent 1.0: its attributes, and the JSON of the structured mode. */
#ifndef HTTP_CLOUDEVENT_H
#define HTTP_CLOUDEVENT_H

#include "outbox_backend.h"
#include "settings.h"

enum { CLOUDEVENT_MAX_ATTRIBUTES = 12 };

/* Required and optional attributes, and the extensions partitionkey, correlationid, causationid and
 * expirytime. */
struct cloudevent {
    struct {
        const char *name;
        struct outbox_bytes value; /* points into the message or into this struct */
    } attributes[CLOUDEVENT_MAX_ATTRIBUTES];
    size_t count;
    char source[TEMPLATE_MAX_BYTES];
    char subject[TEMPLATE_MAX_BYTES];
    char time[40];
    char expiry[40];
};

/* -1 if source or subject cannot be rendered for this message. */
int cloudevent_make(struct cloudevent *event, const struct settings *settings,
                    const struct outbox_message *message);

/*
 * The whole event as JSON, the caller's to free; a payload of type json is put in as it is written, text as a
 * string, all else as data_base64. NULL if it cannot be; errno is ENOMEM if for lack of memory.
 */
char *cloudevent_structured(const struct settings *settings, const struct outbox_message *message,
                            size_t *len);

#endif
