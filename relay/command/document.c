#include "command/document.h"

#include <stdio.h>

#include "base/output.h"

/* jansson has escaped quotes, backslashes and C0: what is left to escape stands in strings. */
static int put_piece(const char *piece, size_t len, void *unused)
{
    (void)unused;
    output_piece(stdout, (struct bytes){piece, len});
    return ferror(stdout) ? -1 : 0;
}

int document_print(const json_t *document, size_t flags, struct err *err)
{
    if (!document) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    int result = json_dump_callback(document, put_piece, NULL, JSON_COMPACT | flags);
    output_text(stdout, bytes_of("\n"));
    return result == 0 && !ferror(stdout) ? 0
                                          : err_set(err, ERR_INTERNAL, "the document could not be written");
}
