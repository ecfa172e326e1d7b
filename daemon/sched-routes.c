/* SPDX-License-Identifier: MIT */

/*
 * Who is told what routers choose: a request that asked for its own routes, and the traces of all
 * requests.  A request's step takes no more tokens than its ring has room for, so nothing of it is
 * lost.  A trace makes nobody wait: a token for which its ring has no room when its step begins is
 * counted as lost, whole.
 */

#include "sched-internal.h"

#include <errno.h>

#include "num.h"

/* In sched_row.routes, above those of the traces. */
#define OWN (1u << LIMIT_TRACES)

uint32_t sched_routes_rows(struct sched *s, struct request *r, uint32_t most)
{
	if (!r->routes.size || !s->route_bytes)
		return most;
	return num_min(most, routes_room(&r->routes) / s->route_bytes);
}

/* A step of a context takes half the room at most: so a long prompt leaves some to answers. */
static bool sched_trace_reserve(struct sched *s, struct trace *t, enum engine_context c)
{
	uint32_t n = s->route_bytes, taken = t->reserved[ENGINE_LIVE] + t->reserved[ENGINE_BULK];

	if (routes_room(&t->routes) - taken < n ||
		(c == ENGINE_BULK && t->reserved[c] + n > t->routes.size / 2)) {
		atomic_fetch_add(&t->lost, 1);
		return false;
	}
	t->reserved[c] += n;
	atomic_fetch_add(&t->tokens, 1);
	return true;
}

bool sched_routes_add(struct sched *s, enum engine_context c, struct sched_row *row)
{
	struct request *r = row->request;

	row->routes = 0;
	if (!s->route_bytes)
		return false;
	/* What is computed again after the request gave its place up was told. */
	if (r->routes.size && row->position >= r->routed) {
		row->routes |= OWN;
		r->routed = row->position + 1;
	}
	for (uint32_t i = 0; i < LIMIT_TRACES; ++i)
		if (s->traces[i] && sched_trace_reserve(s, s->traces[i], c))
			row->routes |= 1u << i;
	return row->routes;
}

void sched_on_route(
	void *arg, uint32_t layer, const uint32_t *experts, const float *weights, uint32_t k)
{
	struct sched_row *row = arg;
	struct sched *s = sched_current;
	struct request *r = row->request;
	struct {
		struct wire_route head;
		struct wire_choice choices[LIMIT_TOP_K];
	} entry;
	uint32_t n = (uint32_t)(sizeof entry.head + k * sizeof *entry.choices);

	entry.head = (struct wire_route){.position = row->position,
		.bytes = (uint32_t)num_min(
			desc_expert_bytes(s->config.desc, layer), (uint64_t)UINT32_MAX),
		.layer = (uint16_t)layer,
		.flags = row->position >= r->n_prompt ? WIRE_ROUTE_DECODE : 0,
		.count = (uint8_t)k};
	for (uint32_t i = 0; i < k; ++i)
		entry.choices[i] = (struct wire_choice){.expert = (uint16_t)experts[i],
			.flags = engine_expert_is_here(s->config.engine, layer, experts[i])
					 ? WIRE_CHOICE_RESIDENT
					 : 0,
			.weight = weights[i]};
	if (row->routes & OWN)
		routes_push(&r->routes, &entry, n);
	entry.head.turn = r->serial;
	for (uint32_t i = 0; i < LIMIT_TRACES; ++i) {
		struct trace *t = s->traces[i];

		if (!(row->routes & 1u << i) || !t)
			continue;
		routes_push(&t->routes, &entry, n);
		t->reserved[s->routes_context] -= num_min(n, t->reserved[s->routes_context]);
	}
}

void sched_routes_end(struct sched *s, enum engine_context c)
{
	for (uint32_t i = 0; i < LIMIT_TRACES; ++i) {
		struct trace *t = s->traces[i];

		if (!t)
			continue;
		/* Of rows that failed. */
		t->reserved[c] = 0;
		if (!routes_is_empty(&t->routes) && !atomic_exchange(&t->to_loop, true))
			s->config.post(s->config.arg, SCHED_ROUTES, t);
	}
}

void sched_trace(struct sched *s, struct trace *t)
{
	for (uint32_t i = 0; i < LIMIT_TRACES; ++i) {
		if (s->traces[i])
			continue;
		s->traces[i] = t;
		return;
	}
}

void sched_untrace(struct sched *s, struct trace *t)
{
	for (uint32_t i = 0; i < LIMIT_TRACES; ++i) {
		if (s->traces[i] != t)
			continue;
		s->traces[i] = NULL;
		/* Whoever has the place next gets no part of a token. */
		for (enum engine_context c = 0; c < ENGINE_CONTEXTS; ++c)
			for (size_t j = 0; s->steps[c].running && j < s->steps[c].n; ++j)
				s->steps[c].rows[j].routes &= (uint8_t) ~(1u << i);
	}
	s->config.post(s->config.arg, SCHED_UNTRACED, t);
}
