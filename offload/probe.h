/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How a disk wants to be read: how much in flight, in reads of what size.  Found out by reading a
 * large file of it at random for less than a second, before anything else is read; and remembered
 * as text, so that it is found out once for each disk.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "file.h"
#include "io.h"

/* What reads of one disk keep to. */
struct disk_tuning {
	/*
	 * Bytes in flight: from `most` on more are no faster, and with `least` it is nearly as
	 * fast, so that what is urgent comes early.
	 */
	uint64_t least, most;
	uint64_t piece; /* what is longer than two of these is asked for piece by piece */
	uint64_t rate;	/* bytes a second when probed; 0: never probed, these are defaults */
};

/* Where nothing is known. */
struct disk_tuning probe_default(void);

/* Files that are smaller are no measure. */
#define PROBE_FILE_MIN ((uint64_t)256 << 20)

struct probe {
	struct io *io; /* nothing in flight */
	const struct file *file;
	uint32_t index; /* of the file, in io */
	void *memory;	/* huge-page aligned; written to */
	size_t size;
	uint64_t ns; /* about so long; at least one read is waited for */
};

/* 0, or -ENODATA where file or memory are too small to tell, or -errno; *ret only with 0. */
int probe_run(struct disk_tuning *ret, const struct probe *p);

/* One disk in one way of reading; the name says both, and more that must not have changed. */
#define PROBE_NAME_MAX 96u

struct probe_entry {
	char name[PROBE_NAME_MAX]; /* without blanks */
	struct disk_tuning tuning;
};

void probe_name(char name[PROBE_NAME_MAX], dev_t device, const char *method);

/* Text with a checksum; returns its length, as snprintf(). */
size_t probe_format(char *text, size_t size, const struct probe_entry *entries, size_t n);
/* Up to max entries; their number, or -EBADMSG where it is not what was written. */
int probe_parse(struct probe_entry *entries, size_t max, const char *text);
