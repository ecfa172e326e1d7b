/* SPDX-License-Identifier: MIT */

#include "replay-cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"
#include "policy.h"

#define NEVER UINT64_MAX

/* Of a heap of cells, the one wanted again the latest on top; stale where the cell's next differs.
 */
struct later {
	uint64_t next;
	uint32_t cell;
};

struct cache {
	const struct trace *t;
	struct cache_config config;
	struct policy *policy; /* not Belady's */
	uint32_t cells;
	bool *has, *wanted; /* wanted: by the visit under way */
	uint32_t *now;	    /* those, */
	uint32_t n_now;	    /* so many */
	uint64_t used_slots, used_bytes;
	uint64_t *group_slots, *group_most; /* most: where each layer has its part */
	/* Belady's: the visit of a group that wants a cell again, by (visit, cell) from the end. */
	uint64_t *next;		/* [cells] as of the visit under way */
	uint64_t *next_of_want; /* by the order of wants in the trace */
	uint64_t n_wants;
	struct later *heap;
	uint64_t n_heap;
};

DEFINE_CLEANUP(struct cache *, cache_free, NULL)

const char *cache_name(enum cache_kind kind)
{
	static const char *const names[CACHE_KINDS] = {
		[CACHE_BELADY] = "belady",
		[CACHE_LRU] = "lru",
		[CACHE_LFU] = "lfu",
		[CACHE_LAYER_LFU] = "layer-lfu",
		[CACHE_OURS] = "ours",
	};

	return names[kind];
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The distinct cells of a visit, ascending, into c->now. */
static void gather(struct cache *c, const struct trace_visit *v)
{
	c->n_now = 0;
	for (uint32_t i = 0; i < v->rows; i++)
		for (uint32_t k = 0; k < c->t->k; k++) {
			uint32_t x = c->t->choices[(v->row + i) * c->t->k + k];
			uint32_t cell = v->group * c->t->experts + x;

			if (x == UINT32_MAX || c->wanted[cell])
				continue;
			c->wanted[cell] = true;
			c->now[c->n_now++] = cell;
		}
	qsort(c->now, c->n_now, sizeof *c->now, compare_u32);
}

static void ungather(struct cache *c)
{
	for (uint32_t i = 0; i < c->n_now; i++)
		c->wanted[c->now[i]] = false;
	c->n_now = 0;
}

/* When each want comes again. */
static int look_ahead(struct cache *c)
{
	cleanup_free_ uint64_t *last = calloc(c->cells, sizeof *last);
	uint64_t n = 0;

	for (uint64_t i = 0; i < c->t->n_visits; i++) {
		gather(c, &c->t->visits[i]);
		n += c->n_now;
		ungather(c);
	}
	c->next_of_want = malloc((n + 1) * sizeof *c->next_of_want);
	c->next = malloc(c->cells * sizeof *c->next);
	c->heap = malloc((n + c->cells) * sizeof *c->heap);
	if (!last || !c->next_of_want || !c->next || !c->heap)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->cells; i++)
		last[i] = c->next[i] = NEVER;
	for (uint64_t i = c->t->n_visits; i-- > 0;) {
		gather(c, &c->t->visits[i]);
		for (uint32_t k = c->n_now; k-- > 0;) {
			c->next_of_want[--n] = last[c->now[k]];
			last[c->now[k]] = i;
		}
		ungather(c);
	}
	return 0;
}

/* Equal parts; what is left goes to the first layers, one slot each. */
static void divide(struct cache *c)
{
	const struct trace *t = c->t;
	uint64_t left = c->config.slots ? c->config.slots : c->config.bytes;

	for (uint32_t g = 0; g < t->groups; g++) {
		uint64_t size = c->config.slots ? 1 : t->bytes[g];

		c->group_most[g] =
			(c->config.slots ? c->config.slots : c->config.bytes) / t->groups / size;
		left -= c->group_most[g] * size;
	}
	for (uint32_t g = 0; g < t->groups; g++) {
		uint64_t size = c->config.slots ? 1 : t->bytes[g];

		if (size > left)
			break;
		c->group_most[g]++;
		left -= size;
	}
}

int cache_new(struct cache **ret, const struct trace *t, const struct cache_config *config)
{
	static const enum policy_kind kinds[CACHE_KINDS] = {
		[CACHE_LRU] = POLICY_LRU,
		[CACHE_LFU] = POLICY_LFU,
		[CACHE_LAYER_LFU] = POLICY_LFU,
		[CACHE_OURS] = POLICY_FORECAST,
	};
	cleanup_free_ uint32_t *experts = malloc(t->groups * sizeof *experts);
	cleanup_(cache_freep) struct cache *c = calloc(1, sizeof *c);
	int r = 0;

	if (!experts || !c)
		return -ENOMEM;
	for (uint32_t g = 0; g < t->groups; g++)
		experts[g] = t->experts;
	c->t = t;
	c->config = *config;
	c->cells = t->groups * t->experts;
	c->has = calloc(c->cells, sizeof *c->has);
	c->wanted = calloc(c->cells, sizeof *c->wanted);
	c->now = malloc((t->experts + 1) * sizeof *c->now);
	c->group_slots = calloc(t->groups, sizeof *c->group_slots);
	c->group_most = calloc(t->groups, sizeof *c->group_most);
	if (!c->has || !c->wanted || !c->now || !c->group_slots || !c->group_most)
		return -ENOMEM;
	divide(c);
	if (config->kind == CACHE_BELADY)
		r = look_ahead(c);
	else
		r = policy_new(&c->policy,
			&(struct policy_config){.kind = kinds[config->kind],
				.groups = t->groups,
				.experts = experts,
				.classes = config->kind == CACHE_LAYER_LFU ? t->groups : 1});
	if (r < 0)
		return r;
	for (uint32_t i = 0; config->filled && i < c->cells && cache_stage(c, i); i++)
		;
	*ret = steal_ptr(c);
	return 0;
}

struct cache *cache_free(struct cache *c)
{
	if (!c)
		return NULL;
	policy_free(c->policy);
	free(c->has);
	free(c->wanted);
	free(c->now);
	free(c->group_slots);
	free(c->group_most);
	free(c->next);
	free(c->next_of_want);
	free(c->heap);
	free(c);
	return NULL;
}

static bool is_later(const struct later *a, const struct later *b)
{
	return a->next > b->next || (a->next == b->next && a->cell < b->cell);
}

static void swap(struct later *a, struct later *b)
{
	struct later x = *a;

	*a = *b;
	*b = x;
}

/* There is room for as many as there are wants and cells. */
static void push(struct cache *c, uint32_t cell)
{
	uint64_t i = c->n_heap++;

	c->heap[i] = (struct later){c->next[cell], cell};
	for (; i > 0 && is_later(&c->heap[i], &c->heap[(i - 1) / 2]); i = (i - 1) / 2)
		swap(&c->heap[i], &c->heap[(i - 1) / 2]);
}

static void pop(struct cache *c)
{
	uint64_t i = 0;

	c->heap[0] = c->heap[--c->n_heap];
	for (;;) {
		uint64_t best = i;

		for (uint64_t k = 2 * i + 1; k <= 2 * i + 2 && k < c->n_heap; k++)
			if (is_later(&c->heap[k], &c->heap[best]))
				best = k;
		if (best == i)
			return;
		swap(&c->heap[i], &c->heap[best]);
		i = best;
	}
}

/* Of those in the heap: what a visit wants comes into it with the next. */
static int64_t latest(struct cache *c)
{
	while (c->n_heap > 0) {
		uint32_t cell = c->heap[0].cell;

		if (c->has[cell] && c->heap[0].next == c->next[cell] && !c->wanted[cell])
			return cell;
		pop(c);
	}
	return -1;
}

uint32_t cache_visit(struct cache *c, uint64_t i, uint32_t *ret_missing, uint32_t *ret_wanted)
{
	const struct trace_visit *v = &c->t->visits[i];
	uint32_t n = 0;

	for (uint32_t k = 0; !c->policy && k < c->n_now; k++)
		if (c->has[c->now[k]])
			push(c, c->now[k]);
	ungather(c);
	gather(c, v);
	*ret_wanted = c->n_now;
	if (c->policy)
		policy_visit(
			c->policy, &(struct forecast_visit){
					   .stream = v->decode ? FORECAST_DECODE : FORECAST_PREFILL,
					   .group = v->group,
					   .choices = c->t->choices + v->row * c->t->k,
					   .rows = v->rows,
					   .stride = c->t->k,
					   .k = c->t->k});
	for (uint32_t k = 0; k < c->n_now; k++) {
		uint32_t cell = c->now[k];

		if (!c->policy)
			c->next[cell] = c->next_of_want[c->n_wants++];
		if (!c->has[cell])
			ret_missing[n++] = cell;
		else if (c->policy)
			policy_touch(c->policy, cell);
	}
	/* After those that are there, as they are brought after them. */
	for (uint32_t k = 0; c->policy && k < n; k++)
		policy_touch(c->policy, ret_missing[k]);
	return n;
}

static bool may_go(void *arg, uint32_t cell)
{
	const struct cache *c = arg;

	return !c->wanted[cell];
}

static bool has_room(const struct cache *c, uint32_t group)
{
	const struct trace *t = c->t;

	if (c->config.kind == CACHE_LAYER_LFU)
		return c->group_slots[group] < c->group_most[group];
	if (c->config.slots == 0)
		return c->used_bytes + t->bytes[group] <= c->config.bytes;
	return c->used_slots < c->config.slots;
}

static void take(struct cache *c, uint32_t cell)
{
	uint32_t group = cell / c->t->experts;

	c->has[cell] = true;
	c->used_slots++;
	c->group_slots[group]++;
	c->used_bytes += c->t->bytes[group];
	if (c->policy)
		policy_insert(c->policy, cell, c->config.kind == CACHE_LAYER_LFU ? group : 0);
	else if (!c->wanted[cell])
		push(c, cell);
}

static void drop(struct cache *c, uint32_t cell)
{
	uint32_t group = cell / c->t->experts;

	c->has[cell] = false;
	c->used_slots--;
	c->group_slots[group]--;
	c->used_bytes -= c->t->bytes[group];
	if (c->policy)
		policy_remove(c->policy, cell);
}

bool cache_bring(struct cache *c, uint32_t cell)
{
	uint32_t group = cell / c->t->experts;

	while (!has_room(c, group)) {
		int64_t victim = c->policy ? policy_victim(c->policy,
						     c->config.kind == CACHE_LAYER_LFU ? group : 0,
						     may_go, c)
					   : latest(c);

		if (victim < 0)
			return false;
		drop(c, (uint32_t)victim);
	}
	take(c, cell);
	return true;
}

bool cache_stage(struct cache *c, uint32_t cell)
{
	if (!has_room(c, cell / c->t->experts))
		return false;
	take(c, cell);
	return true;
}

bool cache_has(const struct cache *c, uint32_t cell)
{
	return c->has[cell];
}

/* As the daemon does: the state is kept, and what was there is read again. */
static int restart(struct cache *c)
{
	size_t n = policy_state_size(c->policy);
	cleanup_free_ void *bytes = malloc(n);
	cleanup_(cache_freep) struct cache *next = NULL;
	int r = bytes ? cache_new(&next, c->t, &c->config) : -ENOMEM;

	if (r < 0)
		return r;
	policy_get(c->policy, bytes);
	r = policy_set(next->policy, bytes, n);
	for (uint32_t i = 0; i < c->cells && r == 0; i++)
		if (policy_was_in(next->policy, i))
			policy_insert(next->policy, i, 0);
	if (r == 0) {
		struct policy *before = c->policy;

		c->policy = next->policy;
		next->policy = before;
	}
	return r;
}

int cache_replay(
	struct cache_count ret[2], const struct trace *t, const struct cache_config *config)
{
	cleanup_free_ uint32_t *missing = malloc((t->experts + 1) * sizeof *missing);
	cleanup_(cache_freep) struct cache *c = NULL;
	uint64_t steps = 0;
	int r = missing ? cache_new(&c, t, config) : -ENOMEM;

	if (r < 0)
		return r;
	memset(ret, 0, 2 * sizeof *ret);
	for (uint64_t i = 0; i < t->n_visits; i++) {
		const struct trace_visit *v = &t->visits[i];
		struct cache_count *n = &ret[v->decode];
		uint32_t wanted, misses;

		steps += v->decode && v->first;
		if (v->decode && v->first && config->restart && steps == config->restart + 1 &&
			config->kind == CACHE_OURS && restart(c) < 0)
			return -ENOMEM;
		misses = cache_visit(c, i, missing, &wanted);
		if (!v->decode || (steps > config->from && (!config->to || steps <= config->to))) {
			n->wanted += wanted;
			n->hits += wanted - misses;
			n->bytes += misses * t->bytes[v->group];
		}
		for (uint32_t k = 0; k < misses; k++)
			(void)cache_bring(c, missing[k]);
	}
	return 0;
}
