/* broker - the bytes that a broker would send (AMQP 0-9-1, 4.2), made here without the library that reads
 * them. */
#ifndef FUZZ_BROKER_H
#define FUZZ_BROKER_H

#include <stddef.h>
#include <stdint.h>

enum { WIRE_BYTES = 1 << 16 };

/* What is not yet handed to the socket; what does not fit is left out. */
struct wire {
    unsigned char bytes[WIRE_BYTES];
    size_t len;
};

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEARTBEAT = 8 };

#define METHOD(class, method) ((uint32_t)(class) << 16 | (method))
#define METHOD_ACK            METHOD(60, 80)
#define METHOD_NACK           METHOD(60, 120)
#define METHOD_RETURN         METHOD(60, 50)

/* The contents of one frame under construction. */
struct content {
    unsigned char bytes[512];
    size_t len;
};

void content_number(struct content *content, uint64_t number, unsigned bytes);  /* big-endian */
void content_short_text(struct content *content, const char *text, size_t len); /* at most 255 bytes */

void wire_frame(struct wire *wire, unsigned type, unsigned channel, const struct content *content);

/* Answers to a login, channel.open and confirm.select. */
void wire_handshake(struct wire *wire);

/* basic.return of an empty message with its header outbox-seq. */
void wire_return(struct wire *wire, int64_t seq);

#endif
