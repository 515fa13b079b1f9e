#include "plugin/elf_note.h"

#include <elf.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PROGRAM_HEADERS = 512, MAX_NOTES_BYTES = 64 << 10, NOTE_HEADER_BYTES = 12, NOTE_TYPE = 1 };

static const char note_owner[8] = "Outbox";

struct image {
    int fd;
    uint64_t bytes; /* of the whole file */
    bool wide;      /* ELFCLASS64 */
};

struct segment {
    uint64_t offset;
    uint64_t bytes;
};

static int cut_off(struct err *err)
{
    return err_set(err, ERR_CONFIG, "the file ends before its own content does: copy or build it again");
}

static int read_at(const struct image *image, uint64_t offset, void *out, size_t bytes, struct err *err)
{
    if (offset > image->bytes || bytes > image->bytes - offset ||
        pread(image->fd, out, bytes, (off_t)offset) != (ssize_t)bytes) {
        return cut_off(err);
    }
    return 0;
}

/* Where the program headers are, and how many; the two classes differ in nothing but widths. */
static int read_header(const struct image *image, struct segment *table, unsigned *count, struct err *err)
{
    Elf64_Ehdr wide = {0};
    Elf32_Ehdr narrow = {0};
    if (read_at(image, 0, image->wide ? (void *)&wide : (void *)&narrow,
                image->wide ? sizeof wide : sizeof narrow, err) != 0) {
        return -1;
    }
    *table = image->wide ? (struct segment){wide.e_phoff, wide.e_phentsize}
                         : (struct segment){narrow.e_phoff, narrow.e_phentsize};
    *count = image->wide ? wide.e_phnum : narrow.e_phnum;
    unsigned type = image->wide ? wide.e_type : narrow.e_type;
    size_t entry_bytes = image->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (type != ET_DYN || *count > MAX_PROGRAM_HEADERS || table->bytes != entry_bytes) {
        return err_set(err, ERR_CONFIG, "it is no shared object: build it with cc -shared -fPIC");
    }
    return 0;
}

/* 1 and the segment's place for a PT_NOTE, 0 for any other; what a segment takes of the file must be there.
 */
static int read_segment(const struct image *image, struct segment table, unsigned index, struct segment *out,
                        struct err *err)
{
    Elf64_Phdr wide = {0};
    Elf32_Phdr narrow = {0};
    if (read_at(image, table.offset + index * table.bytes, image->wide ? (void *)&wide : (void *)&narrow,
                image->wide ? sizeof wide : sizeof narrow, err) != 0) {
        return -1;
    }
    *out = image->wide ? (struct segment){wide.p_offset, wide.p_filesz}
                       : (struct segment){narrow.p_offset, narrow.p_filesz};
    if (out->offset > image->bytes || out->bytes > image->bytes - out->offset) {
        return cut_off(err);
    }
    return (image->wide ? wide.p_type : narrow.p_type) == PT_NOTE;
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + 3) / 4 * 4;
}

/* 1 if our note stands among the notes of a segment. */
static int find_note(const struct image *image, struct segment notes, struct outbox_note *note,
                     struct err *err)
{
    uint64_t at = 0;
    while (notes.bytes <= MAX_NOTES_BYTES && at + NOTE_HEADER_BYTES <= notes.bytes) {
        uint32_t header[3] = {0}; /* length of the owner, length of the content, type */
        if (read_at(image, notes.offset + at, header, sizeof header, err) != 0) {
            return -1;
        }
        uint64_t next = at + NOTE_HEADER_BYTES + padded(header[0]) + padded(header[1]);
        if (next > notes.bytes) {
            return 0;
        }
        if (header[0] == sizeof "Outbox" && header[2] == NOTE_TYPE &&
            header[1] >= sizeof *note - offsetof(struct outbox_note, abi_major)) {
            if (read_at(image, notes.offset + at, note, sizeof *note, err) != 0) {
                return -1;
            }
            if (memcmp(note->owner, note_owner, sizeof "Outbox") == 0) {
                note->name[sizeof note->name - 1] = '\0';
                note->version[sizeof note->version - 1] = '\0';
                return 1;
            }
        }
        at = next;
    }
    return 0;
}

/* The whole section table must be there, too: whatever was cut off, a cut-off file shows itself here. */
static int check_sections(const struct image *image, struct err *err)
{
    Elf64_Ehdr wide = {0};
    Elf32_Ehdr narrow = {0};
    if (read_at(image, 0, image->wide ? (void *)&wide : (void *)&narrow,
                image->wide ? sizeof wide : sizeof narrow, err) != 0) {
        return -1;
    }
    uint64_t offset = image->wide ? wide.e_shoff : narrow.e_shoff;
    uint64_t bytes = image->wide ? (uint64_t)wide.e_shnum * wide.e_shentsize
                                 : (uint64_t)narrow.e_shnum * narrow.e_shentsize;
    return offset > image->bytes || bytes > image->bytes - offset ? cut_off(err) : 0;
}

static int find_in_segments(const struct image *image, struct outbox_note *note, struct err *err)
{
    struct segment table;
    unsigned count = 0;
    int found = 0;
    if (read_header(image, &table, &count, err) != 0 || check_sections(image, err) != 0) {
        return -1;
    }
    for (unsigned at = 0; at < count && found == 0; at++) {
        struct segment segment;
        int is_note = read_segment(image, table, at, &segment, err);
        found = is_note == 1 ? find_note(image, segment, note, err) : is_note;
    }
    if (found == 0) {
        return err_set(err, ERR_CONFIG, "it is a shared object, but no backend: OUTBOX_BACKEND() is missing");
    }
    return found == 1 ? 0 : -1;
}

int elf_note_read(int fd, struct outbox_note *note, struct err *err)
{
    struct stat status;
    unsigned char ident[EI_NIDENT];
    if (fstat(fd, &status) != 0 || status.st_size < 0) {
        return cut_off(err);
    }
    struct image image = {fd, (uint64_t)status.st_size, false};
    if (image.bytes < sizeof ident || read_at(&image, 0, ident, sizeof ident, err) != 0 ||
        memcmp(ident, ELFMAG, SELFMAG) != 0) {
        err_clear(err);
        return err_set(err, ERR_CONFIG,
                       "it is no shared object of this machine: build it with cc -shared -fPIC");
    }
    const uint16_t one = 1;
    unsigned char own_order = *(const unsigned char *)&one == 1 ? ELFDATA2LSB : ELFDATA2MSB;
    if (ident[EI_DATA] != own_order || (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)) {
        return err_set(err, ERR_CONFIG, "it was built for another machine: build it on this one");
    }
    image.wide = ident[EI_CLASS] == ELFCLASS64;
    return find_in_segments(&image, note, err);
}
