/* SPDX-License-Identifier: MIT */

/* Joins symbols, best pair first: a heap of pairs over a linked list. */

#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"

/*
 * Candidates are rank << 32 | begin, so that the leftmost of equals comes first, in a heap of four
 * children a node: half as deep as one of two, and one cache line a level.
 */
struct heap {
	uint64_t *keys;
	size_t n;
};

static void heap_push(struct heap *h, uint64_t key)
{
	size_t i = h->n++;

	for (; i && h->keys[(i - 1) / 4] > key; i = (i - 1) / 4)
		h->keys[i] = h->keys[(i - 1) / 4];
	h->keys[i] = key;
}

static uint64_t heap_pop(struct heap *h)
{
	uint64_t top = h->keys[0], moved = h->keys[--h->n];
	size_t i = 0;

	for (;;) {
		size_t child = 4 * i + 1, end = num_min(child + 4, h->n), least = child;

		if (child >= h->n)
			break;
		while (++child < end)
			if (h->keys[child] < h->keys[least])
				least = child;
		if (h->keys[least] >= moved)
			break;
		h->keys[i] = h->keys[least];
		i = least;
	}
	h->keys[i] = moved;
	return top;
}

static void consider(struct merge *m, struct heap *h, uint32_t a)
{
	struct merge_symbol *s = m->symbols;

	if (a == MERGE_NONE)
		return;
	s[a].rank = MERGE_NONE;
	if (s[a].next < m->n && m->pair(m, a, s[a].next, &s[a].rank, &s[a].joined))
		heap_push(h, (uint64_t)s[a].rank << 32 | a);
}

/* A candidate whose rank is no longer that of the pair that begins there is stale. */
int merge_run(struct merge *m)
{
	cleanup_free_ uint64_t *room = NULL;
	struct merge_symbol *s = m->symbols;
	uint64_t few[128];
	struct heap h = {few, 0};

	/* Each join takes one out and puts at most two in. */
	if (2 * (size_t)m->n > ARRAY_SIZE(few)) {
		room = malloc(2 * (size_t)m->n * sizeof(*room));
		if (!room)
			return -ENOMEM;
		h.keys = room;
	}
	for (uint32_t a = 0; a < m->n; a = s[a].next)
		consider(m, &h, a);
	while (h.n) {
		uint64_t key = heap_pop(&h);
		uint32_t a = (uint32_t)key, b = s[a].next;

		if (s[a].rank != key >> 32)
			continue;
		s[a].id = s[a].joined;
		s[a].next = s[b].next;
		s[b].rank = MERGE_NONE; /* gone */
		if (s[a].next < m->n)
			s[s[a].next].before = a;
		consider(m, &h, s[a].before);
		consider(m, &h, a);
	}
	return 0;
}
