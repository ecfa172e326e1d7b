/* SPDX-License-Identifier: MIT */
#pragma once

/* What the parts of bench-kernels share: taking time, and memory that no cache holds. */

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "kernels.h"
#include "num.h"

#define PORTION ((size_t)32 << 20) /* read in one measurement; then comes the next */

struct weights {
	uint8_t *base;
	size_t size;
	size_t at; /* of the portion that is next */
	volatile uint64_t sum;
};

/* Each portion has left the caches when its turn comes again. */
static inline const uint8_t *portion(struct weights *w)
{
	const uint8_t *p = w->base + w->at;

	w->at = (w->at + PORTION) % w->size;
	return p;
}

static inline double seconds_since(uint64_t start)
{
	return (double)(clock_now() - start) / (double)CLOCK_NS_PER_S;
}

/* Seconds of the fastest of several runs: the neighbours of a shared machine only slow one down. */
static inline double fastest(void (*run)(void *arg), void *arg)
{
	double best = 1e9, t;
	uint64_t begin = clock_now();

	for (unsigned i = 0; i < 100 && (i < 3 || seconds_since(begin) < 0.4); i++) {
		uint64_t start = clock_now();

		run(arg);
		t = seconds_since(start);
		best = num_min(best, t);
	}
	return best;
}

/* attention.c: one JSON object for the tier, less its closing brace; values: 16,384 or more. */
void bench_attention(const struct kernels *k, struct weights *w, const float *values);
/* And one for its kernels on rows of 2,048 floats. */
void bench_vectors(const struct kernels *k, const float *values);
