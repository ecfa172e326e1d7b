/* SPDX-License-Identifier: MIT */
#pragma once

/* File descriptors: closed once, moved never shared.  Not thread-safe per descriptor. */

#include <stddef.h>

#include "cleanup.h"

/* Closes fd unless it is negative; keeps errno.  Returns -1, to be assigned to the variable. */
int fd_close(int fd);

static inline void fd_closep(int *fd)
{
	*fd = fd_close(*fd);
}

#define cleanup_fd_ cleanup_(fd_closep)

#define steal_fd(fd)                                                                               \
	({                                                                                         \
		int stolen_ = (fd);                                                                \
		(fd) = -1;                                                                         \
		stolen_;                                                                           \
	})

/* Writes all of buf, retrying on EINTR and partial writes.  0 or -errno. */
int fd_write_all(int fd, const void *buf, size_t n);

/*
 * Reads a whole small file (proc, cgroup, configuration) into a NUL-terminated heap string that the
 * caller frees.  Files longer than max bytes are refused with -EFBIG.  ret_size may be NULL.
 */
int fd_read_file(const char *path, size_t max, char **ret, size_t *ret_size);
