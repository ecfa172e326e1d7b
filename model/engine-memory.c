/* SPDX-License-Identifier: MIT */

/*
 * Which pages of the arena are there.  The taker's threads bring them in this order: dense weights,
 * scratch and the first keys and values; the chunks that hold the least slots; here the engine
 * starts; the other slots; the other keys and values.  Slots are used chunk by chunk as they come,
 * keys and values whose pages are not there yet are taken when they are handed out.
 *
 * Under pressure chunks go back to the system, from the last on, and come again from the first on.
 * What the system does not have when the taker comes to it counts as given back.
 */

#include "engine-internal.h"

#include <errno.h>
#include <stdlib.h>

#include "num.h"

/* A small store gives in eighths, a large one in chunks of the arena. */
static size_t chunk_size(size_t slots)
{
	size_t n = num_align_down(slots / 8, MEM_HUGE_PAGE);

	n = num_max(n, MEM_HUGE_PAGE);
	return num_min(n, MEM_CHUNK);
}

void memory_set_slots(struct memory *m, void *slots, size_t size)
{
	m->slots = slots;
	m->size = size;
	m->chunk = chunk_size(size);
	m->n_chunks = (uint32_t)((size + m->chunk - 1) / m->chunk);
}

/* The pages of a chunk; the last reach to the end of the arena's. */
static char *chunk_at(const struct memory *m, uint32_t i, size_t *ret_n)
{
	size_t at = (size_t)i * m->chunk;

	*ret_n = num_min(m->chunk, num_align_up(m->size, MEM_HUGE_PAGE) - at);
	return m->slots + at;
}

void *memory_room(const struct memory *m, size_t *ret_n)
{
	uint32_t i = 0;

	while (i < m->n_chunks && m->chunks[i] == CHUNK_HERE)
		i++;
	*ret_n = num_min(i * m->chunk, m->size);
	return m->slots;
}

struct ranges {
	struct taker_range *at;
	size_t n, bytes;
};

static void range_add(struct ranges *r, size_t begin, size_t end)
{
	if (begin >= end)
		return;
	r->at[r->n++] = (struct taker_range){begin, end - begin};
	r->bytes += end - begin;
}

/* The chunks that hold the least slots, or all others. */
static void ranges_add_chunks(struct engine *e, struct ranges *r, bool least)
{
	struct memory *m = &e->memory;
	uint32_t slots = (uint32_t)num_min((uint64_t)e->top_k * 2, (uint64_t)UINT32_MAX);
	const char *base = mem_arena_base(e->arena);

	for (uint32_t i = 0; i < m->n_chunks; i++) {
		size_t n;
		char *p = chunk_at(m, i, &n);

		if (store_holds_least(e->store, p, n, slots) != least)
			continue;
		range_add(r, (size_t)(p - base), (size_t)(p - base) + n);
		m->order[m->next] = i;
		m->order_end[m->next++] = r->bytes;
	}
}

int memory_start(struct engine *e, const void *least, unsigned threads)
{
	struct memory *m = &e->memory;
	char *base = mem_arena_base(e->arena);
	size_t first = num_align_up((size_t)((const char *)least - base), MEM_HUGE_PAGE);
	size_t end = m->slots ? (size_t)(m->slots - base) : mem_arena_size(e->arena);
	struct ranges r = {0};
	int k;

	m->chunks = calloc((size_t)m->n_chunks + 1, sizeof *m->chunks);
	m->order = calloc((size_t)m->n_chunks + 1, sizeof *m->order);
	m->order_end = calloc((size_t)m->n_chunks + 1, sizeof *m->order_end);
	r.at = calloc((size_t)m->n_chunks + 2, sizeof *r.at);
	if (!m->chunks || !m->order || !m->order_end || !r.at) {
		free(r.at);
		return -ENOMEM;
	}
	range_add(&r, 0, first);
	if (e->store)
		ranges_add_chunks(e, &r, true);
	m->least = r.bytes;
	if (e->store)
		ranges_add_chunks(e, &r, false);
	range_add(&r, first, end);
	m->all = r.bytes;
	m->next = 0;
	k = taker_new(&m->taker, e->arena, r.at, r.n, threads);
	free(r.at);
	return k;
}

/* It brings no more: whatever has not come counts as given back. */
static void no_more(struct engine *e)
{
	struct memory *m = &e->memory;

	for (; m->next < m->n_chunks; m->next++) {
		uint32_t i = m->order[m->next];
		size_t n;
		char *p = chunk_at(m, i, &n);

		/* Some of its pages may have come. */
		(void)mem_arena_give_back(e->arena, p, n);
		m->chunks[i] = CHUNK_GIVEN;
		m->given += n;
	}
	m->taker = taker_free(m->taker);
}

bool memory_advance(struct engine *e)
{
	struct memory *m = &e->memory;
	bool more = false;
	int r;

	if (!m->taker)
		return false;
	while (m->next < m->n_chunks && taker_done(m->taker) >= m->order_end[m->next]) {
		uint32_t i = m->order[m->next++];
		size_t n;
		char *p = chunk_at(m, i, &n);

		m->chunks[i] = CHUNK_HERE;
		store_restore(e->store, p, n);
		more = true;
	}
	/* Those before may have been too few. */
	if (more && e->fill.missed)
		fill_restart(e);
	r = taker_wait(m->taker, m->all, 0);
	if (r != 0)
		no_more(e);
	return more;
}

int memory_take(void *arg, void *p, size_t n)
{
	struct engine *e = arg;
	char *base = mem_arena_base(e->arena);
	size_t from = num_align_down((size_t)((char *)p - base), MEM_HUGE_PAGE);
	size_t to = num_align_up((size_t)((char *)p - base) + n, MEM_HUGE_PAGE);

	return mem_arena_take(e->arena, base + from, to - from);
}

void memory_stop(struct engine *e)
{
	if (!e->memory.taker)
		return;
	taker_stop(e->memory.taker);
	(void)memory_advance(e);
	if (e->memory.taker)
		no_more(e);
}

void memory_deinit(struct memory *m)
{
	m->taker = taker_free(m->taker);
	free(m->chunks);
	free(m->order);
	free(m->order_end);
}

int64_t engine_give_back(struct engine *e)
{
	struct memory *m = &e->memory;
	size_t n = 0, before = m->given;
	uint32_t i = m->n_chunks;
	char *p;
	int r;

	/* What is not even there goes first. */
	memory_stop(e);
	if (m->given > before) {
		engine_publish(e);
		return (int64_t)(m->given - before);
	}
	while (i > 0 && m->chunks[i - 1] != CHUNK_HERE)
		i--;
	if (i == 0)
		return 0;
	p = chunk_at(m, --i, &n);
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
	m->chunks[i] = CHUNK_GIVEN;
	m->given += n;
	engine_publish(e);
	return (int64_t)n;
}

int64_t engine_take_again(struct engine *e)
{
	struct memory *m = &e->memory;
	uint32_t i = 0;
	size_t n;
	char *p;
	int r;

	while (i < m->n_chunks && m->chunks[i] != CHUNK_GIVEN)
		i++;
	if (i == m->n_chunks)
		return 0;
	p = chunk_at(m, i, &n);
	if (m->given < m->less + n)
		return 0;
	r = mem_arena_take(e->arena, p, n);
	if (r < 0) {
		(void)mem_arena_give_back(e->arena, p, n);
		return r;
	}
	store_restore(e->store, p, n);
	m->chunks[i] = CHUNK_HERE;
	m->given -= n;
	fill_restart(e);
	engine_publish(e);
	return (int64_t)n;
}

void engine_set_less(struct engine *e, uint64_t bytes)
{
	e->memory.less = num_min(bytes, (uint64_t)SIZE_MAX / 2);
}

uint64_t engine_huge_bytes(const struct engine *e)
{
	return mem_arena_huge(e->arena);
}

uint64_t engine_owes(const struct engine *e)
{
	return e->memory.less > e->memory.given ? e->memory.less - e->memory.given : 0;
}
