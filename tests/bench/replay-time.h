/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The time of a token where experts are streamed: a trace through the cache, with a model of the
 * disk and of the compute, and of prefetches of the next layer where asked for.
 *
 * Disk: one read after the other, each its bytes over the rate; a read that has begun runs to its
 * end.  Compute: each layer takes an equal part of the token's, half of it before its router is
 * known and half in its experts, those that are there first and the others as they arrive.  The
 * prediction: a trace has no hidden states, so that what the next layer's router says on the
 * present state is modelled: each true choice is named with a probability that falls with its rank
 * from `recall_first` to `recall_last`, and what is not named is replaced by another expert of the
 * layer, all equally likely.  A predicted expert that is missing is read where nothing else is to
 * be read, and where that gains time on average: it is worth what of it is done before the next
 * layer's router is known where it is right, and costs what is not where it is wrong.
 */

#include <stdint.h>

#include "replay-cache.h"

struct time_config {
	double disk;	/* bytes a second */
	double compute; /* seconds a token */
	bool prefetch;
	double recall_first, recall_last;
	uint64_t seed;
};

struct time_result {
	uint64_t wanted, hits; /* hits: there in time, read ahead or not */
	uint64_t bytes;
	uint64_t issued, useful, late; /* late: useful, but not there in time */
	double seconds, per_token;
};

int time_replay(struct time_result *ret, const struct trace *t, const struct cache_config *cache,
	const struct time_config *config);
