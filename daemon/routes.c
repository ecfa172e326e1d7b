/* SPDX-License-Identifier: MIT */
#include "routes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "limit.h"
#include "num.h"

/* No less, so that a prompt is not computed token by token. */
#define ROUTES_SIZE_LEAST ((uint64_t)256 << 10)
#define ROUTES_SIZE_MOST ((uint64_t)4 << 20)
/* No token takes more than a share of the largest size. */
static_assert(LIMIT_LAYERS * ROUTES_ENTRY_MAX * 16 <= 1u << 30, "a ring may not be too large");

uint32_t routes_token_bytes(const struct desc *d)
{
	uint32_t n = 0;

	for (uint32_t l = 0; l < d->n_layers; l++)
		n += d->layers[l].moe ? (uint32_t)(sizeof(struct wire_route) +
						   d->top_k * sizeof(struct wire_choice))
				      : 0;
	return n;
}

uint32_t routes_size(uint64_t want, uint64_t least, uint64_t most)
{
	uint64_t size = ROUTES_SIZE_LEAST;

	while (size < least || (size < want && size < ROUTES_SIZE_MOST && 2 * size <= most))
		size *= 2;
	return (uint32_t)size;
}

int routes_init(struct routes *r, uint32_t size)
{
	r->bytes = malloc(size);
	if (!r->bytes)
		return -ENOMEM;
	r->size = size;
	return 0;
}

void routes_deinit(struct routes *r)
{
	free(r->bytes);
	r->bytes = NULL;
	r->size = 0;
}

uint32_t routes_room(const struct routes *r)
{
	return r->size - (atomic_load_explicit(&r->head, memory_order_relaxed) -
				 atomic_load_explicit(&r->tail, memory_order_acquire));
}

void routes_push(struct routes *r, const void *entry, uint32_t n)
{
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t at = head & (r->size - 1), first = num_min(n, r->size - at);

	memcpy(r->bytes + at, entry, first);
	memcpy(r->bytes, (const uint8_t *)entry + first, n - first);
	atomic_store_explicit(&r->head, head + n, memory_order_release);
}

static void routes_copy(const struct routes *r, uint32_t from, void *to, uint32_t n)
{
	uint32_t at = from & (r->size - 1), first = num_min(n, r->size - at);

	memcpy(to, r->bytes + at, first);
	memcpy((uint8_t *)to + first, r->bytes, n - first);
}

uint32_t routes_peek(const struct routes *r, void *buffer, uint32_t room, uint32_t *ret_count)
{
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed), n = 0;
	uint32_t all = atomic_load_explicit(&r->head, memory_order_acquire) - tail;

	*ret_count = 0;
	while (n < all) {
		struct wire_route entry;
		uint32_t size;

		routes_copy(r, tail + n, &entry, sizeof entry);
		size = (uint32_t)(sizeof entry + entry.count * sizeof(struct wire_choice));
		if (size > room - n)
			break;
		routes_copy(r, tail + n, (uint8_t *)buffer + n, size);
		n += size;
		++*ret_count;
	}
	return n;
}

void routes_take(struct routes *r, uint32_t n)
{
	atomic_store_explicit(&r->tail, atomic_load_explicit(&r->tail, memory_order_relaxed) + n,
		memory_order_release);
}
