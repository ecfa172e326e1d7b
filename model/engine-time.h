/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Where the engine thread's time goes.  A mark charges all time since the last mark to a bucket, so
 * that the buckets together are the whole time of the thread: nothing is counted twice or left out.
 * A mark costs one look at the clock (about 25 ns, no system call) and changes nothing else.
 * Engine thread only; any thread may read the buckets.
 */

#include <stdatomic.h>
#include <stdint.h>

#include "engine.h"

struct context;

struct engine_clock {
	uint64_t last; /* when the last mark was */
	_Atomic uint64_t ns[ENGINE_CONTEXTS][ENGINE_LAYERS][ENGINE_TIMES], idle;
};

/* From now on. */
void engine_clock_start(struct engine_clock *k);
/* The time since the last mark went into `what`, in the layer where the context is.  Now, in ns. */
uint64_t engine_mark(struct engine *e, const struct context *c, enum engine_time what);
/* Likewise, where either context may be meant: decode's, where it has a step, else prefill's. */
uint64_t engine_mark_any(struct engine *e, enum engine_time what);
void engine_clock_read(const struct engine_clock *k, struct engine_times *ret);
