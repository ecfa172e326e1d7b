/* SPDX-License-Identifier: MIT */
#include "request.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

struct request *request_new(uint32_t flags, uint32_t vocabulary)
{
	struct request *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	if (flags & REQUEST_LOGITS) {
		r->logits = calloc(vocabulary, sizeof *r->logits);
		if (!r->logits) {
			free(r);
			return NULL;
		}
	}
	r->flags = flags;
	r->in_step = -1;
	list_init(&r->link);
	list_init(&r->user_link);
	list_init(&r->over_link);
	return r;
}

int request_want_routes(struct request *r, uint32_t token_bytes, uint64_t most)
{
	/* Two, so that one is computed while the other goes out. */
	return token_bytes
		       ? routes_init(&r->routes, routes_size((uint64_t)r->n_prompt * token_bytes,
							 2 * (uint64_t)token_bytes, most))
		       : 0;
}

uint64_t request_heap(const struct request *r, uint32_t vocabulary)
{
	uint64_t row = r->flags & REQUEST_LOGITS ? (uint64_t)vocabulary * sizeof *r->logits : 0;

	return sizeof *r + row + r->routes.size + 2 * (uint64_t)r->n_prompt * sizeof *r->tokens;
}

struct request *request_free(struct request *r)
{
	if (!r)
		return NULL;
	list_remove(&r->link);
	answer_deinit(&r->answer);
	for (size_t i = 0; i < r->n_stops; ++i)
		free((char *)r->stops[i].text);
	free(r->tokens);
	free(r->logits);
	routes_deinit(&r->routes);
	free(r);
	return NULL;
}

size_t request_out_room(const struct request *r)
{
	return LIMIT_REQUEST_OUTPUT -
	       (atomic_load_explicit(&r->out_head, memory_order_relaxed) -
		       atomic_load_explicit(&r->out_tail, memory_order_acquire));
}

static void request_copy_in(struct request *r, uint32_t at, const void *from, size_t n)
{
	size_t begin = at % LIMIT_REQUEST_OUTPUT, first = num_min(n, LIMIT_REQUEST_OUTPUT - begin);

	memcpy(r->out + begin, from, first);
	memcpy(r->out, (const char *)from + first, n - first);
}

static void request_copy_out(const struct request *r, uint32_t at, void *to, size_t n)
{
	size_t begin = at % LIMIT_REQUEST_OUTPUT, first = num_min(n, LIMIT_REQUEST_OUTPUT - begin);

	memcpy(to, r->out + begin, first);
	memcpy((char *)to + first, r->out, n - first);
}

void request_out_push(struct request *r, struct request_event *e, const char *text, size_t n)
{
	uint32_t head = atomic_load_explicit(&r->out_head, memory_order_relaxed);

	e->text = (uint32_t)n;
	e->size = (uint32_t)request_event_size(n);
	assert(n <= REQUEST_TEXT_MAX && e->size <= request_out_room(r));
	request_copy_in(r, head, e, sizeof *e);
	if (n)
		request_copy_in(r, head + (uint32_t)sizeof *e, text, n);
	atomic_store_explicit(&r->out_head, head + e->size, memory_order_release);
}

bool request_out_peek(const struct request *r, struct request_event *ret, char *text)
{
	uint32_t tail = atomic_load_explicit(&r->out_tail, memory_order_relaxed);

	if (tail == atomic_load_explicit(&r->out_head, memory_order_acquire))
		return false;
	request_copy_out(r, tail, ret, sizeof *ret);
	request_copy_out(r, tail + (uint32_t)sizeof *ret, text, ret->text);
	return true;
}

void request_out_take(struct request *r, const struct request_event *e)
{
	atomic_fetch_add(&r->out_tail, e->size);
}
