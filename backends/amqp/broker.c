#include "broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, DEFAULT_MIB = 128, RABBITMQ_4_MIB = 16 };

/* "" if there is no such text. */
static void copy_property(char *out, size_t out_bytes, const amqp_table_t *properties, const char *name)
{
    out[0] = '\0';
    for (int at = 0; properties && at < properties->num_entries; at++) {
        const amqp_table_entry_t *entry = &properties->entries[at];
        if (entry->key.len == strlen(name) && memcmp(entry->key.bytes, name, entry->key.len) == 0 &&
            entry->value.kind == AMQP_FIELD_KIND_UTF8) {
            (void)snprintf(out, out_bytes, "%.*s", (int)entry->value.value.bytes.len,
                           (const char *)entry->value.value.bytes.bytes);
        }
    }
}

void broker_read(struct broker *broker, const amqp_table_t *properties)
{
    char product[32];
    char version[32];
    copy_property(product, sizeof product, properties, "product");
    copy_property(version, sizeof version, properties, "version");
    (void)snprintf(broker->name, sizeof broker->name, "%s%s%s", product, version[0] ? " " : "", version);
    /* RabbitMQ 4.0 lowered max_message_size from 128 to 16 MiB; a larger one costs the channel. */
    bool modern = strcmp(product, "RabbitMQ") == 0 && strtol(version, NULL, 10) >= 4;
    broker->max_message_bytes = (int64_t)MIB * (modern ? RABBITMQ_4_MIB : DEFAULT_MIB);
}
