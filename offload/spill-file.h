/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * State files: the keys and values of one session, with its tokens.  A file is written under
 * another name, made durable and renamed: a crash leaves the old one or none.  All in it is checked
 * when it is read: numbers before they are used, bytes by checksums; it belongs to one model and
 * build, by a hash, and to one user.  Reads and writes bypass the page cache, or drop what they
 * left in it.
 *
 * Layout (little-endian, parts padded to SPILL_ALIGN): head; tokens, u32 each; checksums of the
 * pieces, u32 each; the keys and values, in pieces of SPILL_PIECE bytes.  Whoever wants a prefix
 * reads the pieces of that prefix alone.
 *
 * All of it blocks: for the thread of spill.h, and for tests.  Errors: -EBADMSG where a file is not
 * what was written (*err says what and where), -ESTALE where it is of another model, build, user or
 * text, -ECANCELED where *stop was set meanwhile, else what the system says.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

#define SPILL_ID_SIZE 16u
#define SPILL_PIECE ((size_t)1 << 20)
#define SPILL_ALIGN ((size_t)4096)
#define SPILL_NAME_MAX 40u /* of a file in its folder */

struct spill_head {
	uint64_t identity; /* of model and build */
	uint8_t id[SPILL_ID_SIZE];
	uint32_t uid;
	uint32_t n;	      /* positions: tokens */
	uint32_t block;	      /* positions of a block */
	uint64_t block_bytes; /* keys and values of a block */
	bool passing;	      /* of no use after this run: removed by the next */
	int64_t used_ns;      /* when it was last used: the time stamp of the file; 0: now */
};

/* The system calls, for tests that make them fail. */
struct spill_io {
	ssize_t (*pread)(int fd, void *bytes, size_t n, off_t at);
	ssize_t (*pwrite)(int fd, const void *bytes, size_t n, off_t at);
	int (*fsync)(int fd);
	int (*fallocate)(int fd, int mode, off_t at, off_t n);
};
extern const struct spill_io spill_io_system;

/* Where and how: a folder, SPILL_PIECE bytes aligned to SPILL_ALIGN, and when to stop. */
struct spill_way {
	int folder;
	char *buffer;
	const struct spill_io *io;
	const _Atomic(bool) *stop; /* NULL: never */
};

/* Takes or gives [at, at + n) of the keys and values. */
typedef void (*spill_read_fn)(void *arg, uint64_t at, void *to, size_t n);
typedef void (*spill_write_fn)(void *arg, uint64_t at, const void *from, size_t n);

/* What the name of a session's file is. */
void spill_name(const uint8_t id[SPILL_ID_SIZE], char name[SPILL_NAME_MAX]);
/* The id in such a name; false: it is none. */
bool spill_name_parse(const char *name, uint8_t id[SPILL_ID_SIZE]);
/* Bytes of the file of such a session; 0 where that is out of range. */
uint64_t spill_file_size(const struct spill_head *head);

/* Writes or replaces the file of a session.  0 or -errno with *err; nothing new is left then. */
int spill_file_write(const struct spill_way *way, const struct spill_head *head,
	const uint32_t *tokens, spill_read_fn read, void *arg, struct error *err);

/* A file that is open, its head checked. */
struct spill_file {
	int fd;
	struct spill_head head;
	uint64_t size, tokens_at, table_at, body_at;
	uint32_t n_pieces, tokens_sum, table_sum;
};

/* 0 or -errno with *err; -ENOENT: there is none. */
int spill_file_open(
	struct spill_file *ret, const struct spill_way *way, const char *name, struct error *err);
/* The same for a descriptor, which stays the caller's where that fails. */
int spill_file_begin(
	struct spill_file *ret, const struct spill_way *way, int fd, struct error *err);
void spill_file_close(struct spill_file *f);

/* The tokens, run by run; fn: 0, or -errno to end it. */
typedef int (*spill_tokens_fn)(void *arg, const uint32_t *tokens, size_t n);
int spill_file_tokens(const struct spill_file *f, const struct spill_way *way, spill_tokens_fn fn,
	void *arg, struct error *err);

/*
 * The first n positions, whole blocks of them, after a look that the file is the one that `want`
 * says (identity, id, uid, block) and begins with these tokens.  What was given to write() before
 * an error is worth nothing.
 */
int spill_file_read(const struct spill_file *f, const struct spill_way *way,
	const struct spill_head *want, const uint32_t *tokens, uint32_t n, spill_write_fn write,
	void *arg, struct error *err);

/*
 * Hashes of the beginnings of a text: chain[i] is that of its first (i + 1) * block tokens, the
 * last one that of all.  spill_chain_length() of them.
 */
uint32_t spill_chain_length(uint32_t n, uint32_t block);
uint64_t spill_chain(uint64_t before, const uint32_t *tokens, size_t n);
