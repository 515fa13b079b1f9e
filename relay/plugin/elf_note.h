/*
 * elf_note - reads the note that OUTBOX_BACKEND() left in a shared object, without running anything of it.
 *
 * Source: System V ABI, ELF header, program header and note section; notes survive strip(1).
 */
#ifndef RELAY_ELF_NOTE_H
#define RELAY_ELF_NOTE_H

#include "base/err.h"
#include "outbox_backend.h"

/*
 * Fills *note from the open file, whatever its ABI; a file built for another machine is refused. ERR_CONFIG
 * says in a sentence what is wrong and how to mend it, without the file's name. fd stays the caller's.
 */
int elf_note_read(int fd, struct outbox_note *note, struct err *err) MUST_CHECK;

#endif
