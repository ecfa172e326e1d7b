/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How often each expert was chosen, and with what weight: what Shazeer 2017 calls the load and the
 * importance of an expert.  The engine's thread counts, one addition each per choice, without a
 * lock or memory; others get a copy that it made (engine_popularity()).
 */

#include <stddef.h>
#include <stdint.h>

struct popularity {
	uint32_t layers, experts;
	/* [layers][experts], ours; a layer without experts stays 0 */
	uint64_t *uses;
	double *weights;
	uint8_t *resident; /* in a slot, whole, when the copy was made */
};

#define POPULARITY_NULL ((struct popularity){0})

/* 0 or -ENOMEM.  Nothing is taken where there are no experts. */
int popularity_init(struct popularity *p, uint32_t layers, uint32_t experts);
void popularity_deinit(struct popularity *p);
/* Bytes of heap that one of this size takes. */
uint64_t popularity_heap(uint32_t layers, uint32_t experts);

/* Of the same size. */
void popularity_copy(struct popularity *to, const struct popularity *from);

static inline void popularity_add(struct popularity *p, uint32_t layer, const uint32_t *experts,
	const float *weights, uint32_t k)
{
	size_t first = (size_t)layer * p->experts;

	for (uint32_t i = 0; i < k; i++) {
		p->uses[first + experts[i]]++;
		p->weights[first + experts[i]] += (double)weights[i];
	}
}
