/* SPDX-License-Identifier: MIT */

#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int fd_close(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		/* EINTR on Linux means closed all the same: never retry. */
		(void)close(fd);
		errno = saved;
	}
	return -1;
}

int fd_write_all(int fd, const void *buf, size_t n)
{
	const char *p = buf;

	while (n > 0) {
		ssize_t k = write(fd, p, n);

		if (k < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

int fd_read_file(const char *path, size_t max, char **ret, size_t *ret_size)
{
	cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	cleanup_free_ char *buf = NULL;
	size_t size = 0, room = 0;

	if (fd < 0)
		return -errno;

	for (;;) {
		if (size == room) {
			char *bigger;

			room = room ? room * 2 : 4096;
			if (room > max)
				room = max + 1;
			if (size > max)
				return -EFBIG;
			bigger = realloc(buf, room + 1);
			if (!bigger)
				return -ENOMEM;
			buf = bigger;
		}

		ssize_t k = read(fd, buf + size, room - size);

		if (k < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (k == 0)
			break;
		size += (size_t)k;
	}
	buf[size] = '\0';
	*ret = steal_ptr(buf);
	if (ret_size)
		*ret_size = size;
	return 0;
}
