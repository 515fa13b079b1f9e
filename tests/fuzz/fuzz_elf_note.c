/* fuzz_elf_note - any bytes as a plugin's file: refused with a sentence, or a note whose texts end. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "plugin/elf_note.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static int fd = -1;
    struct outbox_note note;
    struct err err = {0};
    if (fd < 0) {
        fd = memfd_create("plugin.so", 0);
        PROMISE(fd >= 0, "a memfd");
    }
    PROMISE(ftruncate(fd, 0) == 0, "an empty memfd");
    PROMISE(pwrite(fd, data, bytes, 0) == (ssize_t)bytes, "a filled memfd");
    memset(&note, 'x', sizeof note); /* texts without an end, so that whoever leaves them shows himself */
    if (elf_note_read(fd, &note, &err) == 0) {
        PROMISE(memchr(note.name, '\0', sizeof note.name), "the name ends");
        PROMISE(memchr(note.version, '\0', sizeof note.version), "the version ends");
        PROMISE(memcmp(note.owner, "Outbox", 7) == 0 && note.type == 1, "a note of ours");
        PROMISE(bytes >= sizeof note && !err_is_set(&err), "a note out of the file");
    } else {
        PROMISE(err.class == ERR_CONFIG && err.text[0] != '\0', "who refuses says why");
    }
    return 0;
}
