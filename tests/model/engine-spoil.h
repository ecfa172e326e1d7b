/* SPDX-License-Identifier: MIT */
#pragma once

/* Real reads of a pool of threads, some of whose results are changed on the way back. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"

#define SPOIL_READS 256

struct spoil {
	uint64_t from, to; /* reads that touch this range of the file come back as `res` */
	int res;
	bool rough; /* short, interrupted and refused reads, by turns */
	int broken; /* -errno of every look for results */
	size_t hits, shorts, agains, turn;
};

/* engine_config.io_new; arg is the struct spoil, which may be changed between calls. */
int spoil_io_new(void *arg, struct io **ret, const int *fds, size_t n, struct error *err);
