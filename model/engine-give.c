/* SPDX-License-Identifier: MIT */

/* Memory of slots given back to the system under pressure, and taken again: from the end on. */

#include "engine-internal.h"

#include <errno.h>

#include "num.h"

/* A small store gives in eighths, a large one in chunks as the arena takes them. */
static size_t chunk_size(const struct engine *e)
{
	size_t n = num_align_down(e->slots_size / 8, MEM_HUGE_PAGE);

	n = num_max(n, MEM_HUGE_PAGE);
	return num_min(n, MEM_CHUNK);
}

/* The chunk that begins `before` bytes in front of the end of the slots. */
static char *chunk_at(const struct engine *e, size_t before)
{
	size_t size = num_align_down(e->slots_size, MEM_HUGE_PAGE);

	return before <= size ? e->slots_memory + size - before : NULL;
}

int64_t engine_give_back(struct engine *e)
{
	size_t n = chunk_size(e);
	char *p = e->store ? chunk_at(e, e->given + n) : NULL;
	int r;

	if (!p)
		return 0;
	r = store_withdraw(e->store, p, n);
	/* Something in it is being read or computed with, or too little would be left. */
	if (r == -EBUSY || r == -ENOSPC)
		return 0;
	if (r == 0) {
		r = mem_arena_give_back(e->arena, p, n);
		if (r < 0)
			store_restore(e->store, p, n);
	}
	if (r < 0)
		return r;
	e->given += n;
	engine_publish(e);
	return (int64_t)n;
}

int64_t engine_take_again(struct engine *e)
{
	size_t n = chunk_size(e);
	char *p;
	int r;

	if (e->given == 0)
		return 0;
	p = chunk_at(e, e->given);
	r = mem_arena_take(e->arena, p, n);
	if (r < 0)
		return r;
	store_restore(e->store, p, n);
	e->given -= n;
	engine_publish(e);
	return (int64_t)n;
}
