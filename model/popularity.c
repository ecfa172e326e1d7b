/* SPDX-License-Identifier: MIT */
#include "popularity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int popularity_init(struct popularity *p, uint32_t layers, uint32_t experts)
{
	size_t n = (size_t)layers * experts;

	*p = (struct popularity){.layers = layers, .experts = experts};
	if (!n)
		return 0;
	p->uses = calloc(n, sizeof *p->uses);
	p->weights = calloc(n, sizeof *p->weights);
	p->resident = calloc(n, sizeof *p->resident);
	if (p->uses && p->weights && p->resident)
		return 0;
	popularity_deinit(p);
	return -ENOMEM;
}

void popularity_deinit(struct popularity *p)
{
	free(p->uses);
	free(p->weights);
	free(p->resident);
	*p = POPULARITY_NULL;
}

uint64_t popularity_heap(uint32_t layers, uint32_t experts)
{
	return (uint64_t)layers * experts * (sizeof(uint64_t) + sizeof(double) + sizeof(uint8_t));
}

void popularity_copy(struct popularity *to, const struct popularity *from)
{
	size_t n = (size_t)from->layers * from->experts;

	if (!n)
		return;
	memcpy(to->uses, from->uses, n * sizeof *to->uses);
	memcpy(to->weights, from->weights, n * sizeof *to->weights);
	memcpy(to->resident, from->resident, n * sizeof *to->resident);
}
