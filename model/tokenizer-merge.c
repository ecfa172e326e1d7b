/* SPDX-License-Identifier: MIT */

/* Joins symbols, best pair first: a heap of pairs over a linked list. */

#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"

struct candidate {
	uint64_t key; /* rank << 32 | begin: the leftmost of equals comes first */
	uint32_t size, id;
};

struct heap {
	struct candidate *c;
	size_t n;
};

static void heap_push(struct heap *h, struct candidate c)
{
	size_t i = h->n++;

	for (; i && h->c[(i - 1) / 2].key > c.key; i = (i - 1) / 2)
		h->c[i] = h->c[(i - 1) / 2];
	h->c[i] = c;
}

static struct candidate heap_pop(struct heap *h)
{
	struct candidate top = h->c[0], moved = h->c[--h->n];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= h->n)
			break;
		if (child + 1 < h->n && h->c[child + 1].key < h->c[child].key)
			child++;
		if (h->c[child].key >= moved.key)
			break;
		h->c[i] = h->c[child];
		i = child;
	}
	h->c[i] = moved;
	return top;
}

static void consider(struct merge *m, struct heap *h, uint32_t a)
{
	uint32_t b, rank, id;

	if (a == MERGE_NONE)
		return;
	b = m->symbols[a].next;
	if (b >= m->n || !m->pair(m, a, b, &rank, &id))
		return;
	heap_push(h,
		(struct candidate){
			.key = (uint64_t)rank << 32 | a, .size = m->symbols[b].next - a, .id = id});
}

/*
 * A candidate is stale where its left symbol is gone or its pair no longer has the size: symbols
 * only grow, so the same begin and the same size mean the same two symbols.
 */
int merge_run(struct merge *m)
{
	cleanup_free_ struct candidate *room = NULL;
	struct merge_symbol *s = m->symbols;
	struct candidate few[64];
	struct heap h = {few, 0};

	/* Each join takes one out and puts at most two in. */
	if (2 * (size_t)m->n > ARRAY_SIZE(few)) {
		room = malloc(2 * (size_t)m->n * sizeof(*room));
		if (!room)
			return -ENOMEM;
		h.c = room;
	}
	for (uint32_t a = 0; a < m->n; a = s[a].next)
		consider(m, &h, a);
	while (h.n) {
		struct candidate c = heap_pop(&h);
		uint32_t a = (uint32_t)c.key, b = s[a].next;

		if (!b || b >= m->n || s[b].next - a != c.size)
			continue;
		s[a].id = c.id;
		s[a].next = s[b].next;
		s[b].next = 0; /* gone: no symbol ends at 0 */
		if (s[a].next < m->n)
			s[s[a].next].before = a;
		consider(m, &h, s[a].before);
		consider(m, &h, a);
	}
	return 0;
}
