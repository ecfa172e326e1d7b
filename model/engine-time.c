/* SPDX-License-Identifier: MIT */
#include "engine-time.h"

#include "clock.h"
#include "engine-internal.h"

/* Buckets have one writer, the engine's thread. */
static void charge(_Atomic uint64_t *to, uint64_t ns)
{
	uint64_t before = atomic_load_explicit(to, memory_order_relaxed);

	atomic_store_explicit(to, before + ns, memory_order_relaxed);
}

static uint64_t since_last(struct engine_clock *k)
{
	uint64_t now = clock_now(), ns = now - k->last;

	k->last = now;
	return ns;
}

void engine_clock_start(struct engine_clock *k)
{
	k->last = clock_now();
}

static enum engine_layer layer_of(
	const struct engine *e, const struct context *c, enum engine_time what)
{
	if (what < ENGINE_TIME_IN_LAYER || c->layer >= e->desc->n_layers)
		return ENGINE_LAYER_NONE;
	return e->desc->layers[c->layer].moe ? ENGINE_LAYER_MOE : ENGINE_LAYER_DENSE;
}

uint64_t engine_mark(struct engine *e, const struct context *c, enum engine_time what)
{
	size_t which = (size_t)(c - e->contexts);

	charge(&e->clock.ns[which][layer_of(e, c, what)][what], since_last(&e->clock));
	return e->clock.last;
}

uint64_t engine_mark_any(struct engine *e, enum engine_time what)
{
	const struct context *live = &e->contexts[ENGINE_LIVE], *bulk = &e->contexts[ENGINE_BULK];

	if (live->active)
		return engine_mark(e, live, what);
	if (bulk->active)
		return engine_mark(e, bulk, what);
	engine_rested(e);
	return e->clock.last;
}

void engine_rested(struct engine *e)
{
	charge(&e->clock.idle, since_last(&e->clock));
}

void engine_clock_read(const struct engine_clock *k, struct engine_times *ret)
{
	ret->idle_ns = atomic_load_explicit(&k->idle, memory_order_relaxed);
	for (unsigned c = 0; c < ENGINE_CONTEXTS; c++) {
		for (unsigned y = 0; y < ENGINE_LAYERS; y++) {
			for (unsigned t = 0; t < ENGINE_TIMES; t++)
				ret->ns[c][y][t] =
					atomic_load_explicit(&k->ns[c][y][t], memory_order_relaxed);
		}
	}
}

const char *engine_time_name(enum engine_time t)
{
	static const char *const names[ENGINE_TIMES] = {
		[ENGINE_TIME_SCHEDULE] = "schedule",
		[ENGINE_TIME_EMBED] = "embed",
		[ENGINE_TIME_HEAD] = "head",
		[ENGINE_TIME_SAMPLE] = "sample",
		[ENGINE_TIME_NORM] = "norm",
		[ENGINE_TIME_QKV] = "qkv",
		[ENGINE_TIME_ROPE] = "rope",
		[ENGINE_TIME_ATTENTION] = "attention",
		[ENGINE_TIME_OUTPUT] = "output",
		[ENGINE_TIME_ROUTER] = "router",
		[ENGINE_TIME_CACHE] = "cache",
		[ENGINE_TIME_WAIT] = "wait",
		[ENGINE_TIME_GATE_UP] = "gate_up",
		[ENGINE_TIME_DOWN] = "down",
		[ENGINE_TIME_SUM] = "sum",
	};

	return names[t];
}

const char *engine_layer_name(enum engine_layer y)
{
	static const char *const names[ENGINE_LAYERS] = {
		[ENGINE_LAYER_NONE] = "outside",
		[ENGINE_LAYER_MOE] = "moe",
		[ENGINE_LAYER_DENSE] = "dense",
	};

	return names[y];
}
