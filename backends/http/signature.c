#include "signature.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum { SHA256_BYTES = 32, KEY_MIN_BYTES = 24 };

int signing_key_read(struct signing_key *key, const char *text)
{
    static const char prefix[] = "whsec_";
    unsigned char decoded[128];
    if (strncmp(text, prefix, sizeof prefix - 1) == 0) {
        text += sizeof prefix - 1;
    }
    size_t len = strlen(text);
    size_t padding = len - strcspn(text, "=");
    if (len == 0 || len % 4 != 0 || len / 4 * 3 > sizeof decoded || padding > 2 ||
        strspn(text + len - padding, "=") != padding) {
        return -1;
    }
    int bytes = EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)len);
    if (bytes < 0) {
        return -1;
    }
    key->len = (size_t)bytes - padding;
    if (key->len < KEY_MIN_BYTES || key->len > sizeof key->bytes) {
        OPENSSL_cleanse(decoded, sizeof decoded);
        return -1;
    }
    memcpy(key->bytes, decoded, key->len);
    OPENSSL_cleanse(decoded, sizeof decoded);
    return 0;
}

void signing_keys_clear(struct signing_key *keys, size_t count)
{
    OPENSSL_cleanse(keys, count * sizeof *keys);
}

static int hmac(unsigned char out[SHA256_BYTES], EVP_PKEY *key, struct outbox_bytes head,
                struct outbox_bytes body)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    size_t len = SHA256_BYTES;
    int ok = context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
             EVP_DigestSignUpdate(context, head.ptr, head.len) == 1 &&
             EVP_DigestSignUpdate(context, body.ptr, body.len) == 1 &&
             EVP_DigestSignFinal(context, out, &len) == 1 && len == SHA256_BYTES;
    EVP_MD_CTX_free(context);
    return ok ? 0 : -1;
}

/* "v1,<base64>"; the length. */
static int sign(char *out, const struct signing_key *key, struct outbox_bytes head, struct outbox_bytes body)
{
    unsigned char digest[SHA256_BYTES];
    EVP_PKEY *handle = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key->bytes, key->len);
    int result = handle ? hmac(digest, handle, head, body) : -1;
    EVP_PKEY_free(handle);
    if (result != 0) {
        return -1;
    }
    out[0] = 'v';
    out[1] = '1';
    out[2] = ',';
    return 3 + EVP_EncodeBlock((unsigned char *)out + 3, digest, sizeof digest);
}

int signature_make(char out[SIGNATURE_BYTES], const struct signing_key *keys, size_t count,
                   struct outbox_bytes id, int64_t timestamp_s, struct outbox_bytes body)
{
    char head[320];
    int head_len = snprintf(head, sizeof head, "%.*s.%lld.", (int)(id.len < 256 ? id.len : 256), id.ptr,
                            (long long)timestamp_s);
    size_t used = 0;
    if (body.len == 0) {
        body.ptr = ""; /* an empty payload may have no address */
    }
    for (size_t at = 0; at < count; at++) {
        if (at > 0) {
            out[used++] = ' ';
        }
        int len = sign(out + used, &keys[at], (struct outbox_bytes){head, (size_t)head_len}, body);
        if (len < 0) {
            return -1;
        }
        used += (size_t)len;
    }
    out[used] = '\0';
    return 0;
}
