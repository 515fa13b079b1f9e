/* fuzz_headers - any bytes as the headers column: a row that is refused with a reason, or headers of sane
 * lengths. */
#include <string.h>

#include "fuzz.h"
#include "message/batch.h"

enum { NUMBER_MAX_BYTES = 40 };

static void check_value(const struct outbox_header *header)
{
    const char *ptr = header->value.ptr;
    size_t len = header->value.len;
    PROMISE(ptr && strlen(ptr) == len, "a value is a text without NUL");
    switch (header->type) {
    case OUTBOX_VALUE_STRING:
        break;
    case OUTBOX_VALUE_INT:
        PROMISE(len > 0 && len < NUMBER_MAX_BYTES && strspn(ptr, "-0123456789") == len, "an integer is one");
        break;
    case OUTBOX_VALUE_DOUBLE:
        PROMISE(len > 0 && len < NUMBER_MAX_BYTES && strspn(ptr, "+-.e0123456789") == len, "a number is one");
        break;
    case OUTBOX_VALUE_BOOL:
        PROMISE(strcmp(ptr, "true") == 0 || strcmp(ptr, "false") == 0, "a truth value is one");
        break;
    case OUTBOX_VALUE_NULL:
        PROMISE(len == 0, "null is empty");
        break;
    default:
        PROMISE(false, "a type of outbox_backend.h");
    }
}

static void check_headers(const struct row *row, size_t json_bytes)
{
    size_t texts = 0;
    PROMISE(row->message.header_count <= json_bytes / 4, "no more headers than the text has room for");
    for (size_t at = 0; at < row->message.header_count; at++) {
        const struct outbox_header *header = &row->message.headers[at];
        PROMISE(header->name.ptr && strlen(header->name.ptr) == header->name.len,
                "a name is a text without NUL");
        check_value(header);
        texts += header->name.len + (header->type == OUTBOX_VALUE_STRING ? header->value.len : 0);
    }
    PROMISE(texts <= json_bytes, "texts are not longer than they were");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct batch batch;
    struct err err = {0};
    if (batch.capacity == 0) {
        PROMISE(batch_init(&batch, 2, &err) == 0, "a batch");
    }
    batch_clear(&batch);
    struct row *row = batch_add(&batch);
    struct row *other = batch_add(&batch);
    batch_set_headers(&batch, row, (struct outbox_bytes){(const char *)data, bytes});
    if (row->verdict == OUTBOX_REJECTED) {
        PROMISE(row->error[0] != '\0' && strlen(row->error) < 512, "a reason of one sentence");
        PROMISE(strpbrk(row->error, "\r\n") == NULL, "a reason of one line");
        PROMISE(strcmp(row->burial, "rejected") == 0, "the word for dead_letter.reason");
    } else {
        PROMISE(row->verdict == OUTBOX_UNSETTLED, "headers decide nothing else");
        check_headers(row, bytes);
    }
    PROMISE(batch_lend(&batch, 0)->count == 1 + (row->verdict == OUTBOX_UNSETTLED),
            "the other row is not touched");
    PROMISE(other->verdict == OUTBOX_UNSETTLED, "the other row is not touched");
    batch_take_back(&batch, 0);
    return 0;
}
