/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A model file opened for direct reads: alignment from statx(STATX_DIOALIGN), else 4096; identity
 * remembered, so that a file replaced or truncated under us is noticed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct file {
	int fd;
	bool direct;	/* O_DIRECT accepted and not known to be buffered silently */
	uint32_t align; /* of offset and length, a power of two, 512 to 65536 */
	uint32_t memory_align;
	uint64_t size;
	dev_t device;
	ino_t inode;
	int64_t mtime_ns;
	char *path;
};

int file_open(struct file *ret, const char *path, struct error *err);
void file_close(struct file *f);

/* 0, or -ESTALE where size, mtime or identity of the open file differ from when it was opened. */
int file_check(const struct file *f);

/*
 * Blocking read of [offset, offset + n) into any buffer, through an aligned window; -ENODATA past
 * the end of the file.  For headers and tools; drops what it left in the page cache where not
 * direct.
 */
int file_read(const struct file *f, uint64_t offset, void *buffer, size_t n, struct error *err);

/* Drops [offset, offset + n) from the page cache where reads are not direct; else does nothing. */
void file_drop(const struct file *f, uint64_t offset, uint64_t n);
