/* SPDX-License-Identifier: MIT */

#include "warm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "crc32c.h"
#include "fd.h"

#define WARM_FILE "experts"
#define WARM_FILE_NEW "experts.new"
#define WARM_MAGIC "moedexp"
#define WARM_VERSION 1u

struct warm_head {
	char magic[8];
	uint32_t version, crc; /* crc: of what follows */
	uint64_t identity, size;
};

static uint32_t warm_crc(const struct warm_head *h, const void *bytes)
{
	const size_t from = offsetof(struct warm_head, identity);

	return crc32c(crc32c(0, (const char *)h + from, sizeof *h - from), bytes, h->size);
}

static int warm_read(int fd, void *p, size_t n)
{
	char *at = p;

	while (n > 0) {
		ssize_t r = read(fd, at, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -ENODATA;
		at += r;
		n -= (size_t)r;
	}
	return 0;
}

int warm_load(int folder, struct engine *e, struct error *err)
{
	cleanup_fd_ int fd = -1;
	cleanup_free_ char *bytes = NULL;
	struct warm_head h;
	struct stat st;
	int r;

	if (folder < 0 || engine_cache_size(e) == 0)
		return WARM_NONE;
	fd = openat(folder, WARM_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return WARM_NONE;
	r = fd < 0 || fstat(fd, &st) < 0 ? -errno : warm_read(fd, &h, sizeof h);
	if (r < 0)
		return error_errno(
			err, r, "cannot read the file '%s' in the state directory", WARM_FILE);
	if (memcmp(h.magic, WARM_MAGIC, sizeof h.magic) != 0)
		return error_set(err, -EINVAL,
			"the file '%s' in the state directory does not begin as it should",
			WARM_FILE);
	if (h.version != WARM_VERSION || h.identity != engine_identity(e))
		return error_set(err, -ESTALE,
			"the file '%s' in the state directory is of another model or version",
			WARM_FILE);
	if (h.size != engine_cache_size(e) || st.st_size < 0 ||
		(uint64_t)st.st_size != sizeof h + h.size)
		return error_set(err, -EINVAL,
			"the file '%s' in the state directory has another size than it should",
			WARM_FILE);
	bytes = malloc(h.size);
	r = bytes ? warm_read(fd, bytes, h.size) : -ENOMEM;
	if (r < 0)
		return error_errno(
			err, r, "cannot read the file '%s' in the state directory", WARM_FILE);
	if (warm_crc(&h, bytes) != h.crc || engine_cache_set(e, bytes, h.size) < 0)
		return error_set(
			err, -EINVAL, "the file '%s' in the state directory is damaged", WARM_FILE);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return WARM_USED;
}

int warm_save(int folder, const struct engine *e, struct error *err)
{
	struct warm_head h = {.magic = WARM_MAGIC,
		.version = WARM_VERSION,
		.identity = engine_identity(e),
		.size = engine_cache_size(e)};
	cleanup_free_ char *bytes = NULL;
	cleanup_fd_ int fd = -1;
	int r;

	if (folder < 0 || h.size == 0)
		return 0;
	bytes = malloc(h.size);
	if (!bytes)
		return error_errno(err, -ENOMEM, "cannot keep what the cache of experts holds");
	engine_cache_get(e, bytes);
	h.crc = warm_crc(&h, bytes);
	fd = openat(
		folder, WARM_FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? -errno : fd_write_all(fd, &h, sizeof h);
	if (r >= 0)
		r = fd_write_all(fd, bytes, h.size);
	if (r >= 0 && (fsync(fd) < 0 || renameat(folder, WARM_FILE_NEW, folder, WARM_FILE) < 0 ||
			      fsync(folder) < 0))
		r = -errno;
	if (r >= 0)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return r < 0 ? error_errno(err, r, "cannot write the file '%s' in the state directory",
			       WARM_FILE)
		     : 0;
}
