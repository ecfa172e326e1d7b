/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How much memory this process may use: the least of what was wanted and what every control group
 * above it allows.  Pure reads of proc and sysfs; for moed and moe-model alike.
 */

#include <stdint.h>

#include "error.h"

enum memory_limit_source {
	MEMORY_LIMIT_WANTED,	/* the configuration or the command line */
	MEMORY_LIMIT_CGROUP,	/* memory.max, memory.high or memory.limit_in_bytes: `path` */
	MEMORY_LIMIT_AVAILABLE, /* MemAvailable less a reserve */
};

struct memory_limit {
	uint64_t bytes;
	enum memory_limit_source source;
	char path[512]; /* file that decided, "" where none did */
};

/* What is left to others when MemAvailable decides. */
#define MEMORY_LIMIT_RESERVE ((uint64_t)256 << 20)

/*
 * wanted: 0 for "as much as there is".  root: "" for this machine, or a folder that holds proc and
 * sys (tests).  MemAvailable decides where no limit is wanted and none is set, and lowers a control
 * group's limit that the machine does not have.  0 or -errno.
 */
int memory_limit_find(
	struct memory_limit *ret, uint64_t wanted, const char *root, struct error *err);

/*
 * The same for who has its memory already, so that what is available tells nothing: UINT64_MAX
 * where nothing is wanted and no group has a limit.
 */
void memory_limit_now(struct memory_limit *ret, uint64_t wanted, const char *root);

/* MemTotal or the least control group limit below it: what "60%" is a share of.  0 or -errno. */
int memory_limit_whole(uint64_t *ret, const char *root, struct error *err);
