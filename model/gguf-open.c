/* SPDX-License-Identifier: MIT */

/* The header of a file, read in a window that grows until the parser has seen all of it. */

#include "gguf-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "num.h"

#define FIRST_WINDOW ((uint64_t)1 << 20)

static int read_all(int fd, uint8_t *to, uint64_t at, uint64_t n)
{
	while (n) {
		ssize_t r = pread(fd, to, n, (off_t)at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -ENODATA;
		to += r;
		at += (uint64_t)r;
		n -= (uint64_t)r;
	}
	return 0;
}

static int parse_growing(int fd, uint64_t file_size, struct gguf **ret, struct error *err)
{
	uint64_t window = num_min(FIRST_WINDOW, file_size), have = 0;
	uint64_t largest = num_min(file_size, LIMIT_GGUF_HEADER);
	uint8_t *header = NULL;

	for (;;) {
		uint8_t *larger = realloc(header, num_max(window, (uint64_t)1));
		int r;

		if (!larger) {
			free(header);
			return error_errno(err, -ENOMEM, "cannot read the header");
		}
		header = larger;
		r = read_all(fd, header + have, have, window - have);
		if (r < 0) {
			free(header);
			return error_errno(err, r, "cannot read the header");
		}
		have = window;
		r = gguf_parse_owned(ret, header, have, file_size, err);
		if (r != GGUF_MORE)
			return r;
		window = num_min(window * 4, largest);
	}
}

int gguf_open(struct gguf **ret, const char *path, struct error *err)
{
	cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct gguf *g = NULL;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot open model '%s'", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "model '%s' is not a regular file", path);
	r = parse_growing(fd, (uint64_t)st.st_size, &g, err);
	if (r < 0) {
		error_set(err, r, "cannot read the header: %s", strerror(-r));
		error_prefix(err, "model '%s'", path);
		return r;
	}
	g->path = strdup(path);
	if (!g->path) {
		gguf_free(g);
		return -ENOMEM;
	}
	*ret = g;
	return 0;
}
