/* SPDX-License-Identifier: MIT */

/*
 * Any bytes as a state file: looked at, its tokens read, its keys and values read by whoever it
 * says it belongs to.  The first byte says whether the checksum of the head is made right, so that
 * its numbers count; the rest is the file.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crc32c.h"
#include "fd.h"
#include "limit.h"
#include "spill-file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define SUM_AT 12u

struct room {
	char *bytes;
	size_t n;
};

static int take_tokens(void *arg, const uint32_t *tokens, size_t n)
{
	uint64_t *hash = arg;

	*hash = spill_chain(*hash, tokens, n);
	return 0;
}

static int keep_tokens(void *arg, const uint32_t *tokens, size_t n)
{
	uint32_t **to = arg;

	memcpy(*to, tokens, n * sizeof *tokens);
	*to += n;
	return 0;
}

/* Into memory of just that size: the sanitizer sees more. */
static void take_body(void *arg, uint64_t at, const void *from, size_t n)
{
	struct room *room = arg;

	if (at + n > room->n)
		abort();
	memcpy(room->bytes + at, from, n);
}

static void read_all(const struct spill_file *f, const struct spill_way *way, uint32_t n)
{
	const struct spill_head *h = &f->head;
	struct room room = {.n = ((uint64_t)n + h->block - 1) / h->block * h->block_bytes};
	uint32_t *tokens = calloc(h->n, sizeof *tokens), *to = tokens;
	struct error err = ERROR_NONE;

	room.bytes = malloc(room.n);
	if (tokens && room.bytes && spill_file_tokens(f, way, keep_tokens, &to, &err) == 0)
		(void)spill_file_read(f, way, h, tokens, n, take_body, &room, &err);
	free(room.bytes);
	free(tokens);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static char *buffer;
	static char head[SPILL_ALIGN];
	cleanup_fd_ int fd = memfd_create("state", MFD_CLOEXEC);
	struct error err = ERROR_NONE;
	struct spill_way way = {.folder = -1, .io = &spill_io_system};
	struct spill_file f;
	uint64_t hash = 0;

	if (!buffer && posix_memalign((void **)&buffer, SPILL_ALIGN, SPILL_PIECE) != 0)
		return 0;
	way.buffer = buffer;
	if (n < 1 || fd < 0 || fd_write_all(fd, bytes + 1, n - 1) < 0)
		return 0;
	if (bytes[0] && n > SPILL_ALIGN) {
		uint32_t sum;

		memcpy(head, bytes + 1, SPILL_ALIGN);
		memset(head + SUM_AT, 0, sizeof sum);
		sum = crc32c(0, head, SPILL_ALIGN);
		if (pwrite(fd, &sum, sizeof sum, SUM_AT) != sizeof sum)
			return 0;
	}
	if (spill_file_begin(&f, &way, fd, &err) < 0)
		return 0;
	(void)spill_file_tokens(&f, &way, take_tokens, &hash, &err);
	read_all(&f, &way, f.head.n);
	read_all(&f, &way, 1);
	return 0;
}
