/* signature - webhook-signature as Standard Webhooks 1.0.0 have it: v1, HMAC-SHA256 over "id.timestamp.body".
 */
#ifndef HTTP_SIGNATURE_H
#define HTTP_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

#include "outbox_backend.h"

enum { SIGNATURE_MAX_KEYS = 8, SIGNATURE_BYTES = SIGNATURE_MAX_KEYS * 48 + 1, SIGNING_KEY_MAX_BYTES = 64 };

struct signing_key {
    unsigned char bytes[SIGNING_KEY_MAX_BYTES];
    size_t len;
};

/* From "whsec_" and base64, or base64 alone; 24 to 64 bytes. -1 if it is not. */
int signing_key_read(struct signing_key *key, const char *text);
void signing_keys_clear(struct signing_key *keys, size_t count);

/*
 * "v1,<base64> v1,<base64>", one for each key, NUL-terminated. timestamp_s: Unix time of this attempt. -1 if
 * the crypto library fails.
 */
int signature_make(char out[SIGNATURE_BYTES], const struct signing_key *keys, size_t count,
                   struct outbox_bytes id, int64_t timestamp_s, struct outbox_bytes body);

#endif
