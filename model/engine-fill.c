/* SPDX-License-Identifier: MIT */

/*
 * Experts that are read before anybody wants them: into free slots, in the order of the file, which
 * is how the disk likes it; after a restart first those that were there before.  Where not all fit,
 * some are better than none: what no slot holds is read when it is wanted, and what nobody wants
 * gives way first.
 */

#include "engine-internal.h"

#include <errno.h>

#include "clock.h"
#include "num.h"

#define WAIT (100 * CLOCK_NS_PER_MS)

void fill_restart(struct engine *e)
{
	e->fill.layer = e->fill.expert = 0;
	e->fill.others = false;
	e->fill.missed = e->fill.over = false;
}

void fill_release(struct engine *e)
{
	struct fill *f = &e->fill;

	while (f->n > 0) {
		f->n--;
		store_release(e->store, f->held[f->n][0], f->held[f->n][1]);
	}
}

/* Those that have arrived.  One that cannot be read fails the rows that want it, if any ever do. */
static bool settle(struct engine *e)
{
	struct fill *f = &e->fill;
	uint32_t left = 0;

	for (uint32_t i = 0; i < f->n; i++) {
		uint32_t layer = f->held[i][0], expert = f->held[i][1];
		struct store_view view;

		if (store_poll(e->store, layer, expert, &view) != STORE_READING) {
			store_release(e->store, layer, expert);
			continue;
		}
		f->held[left][0] = layer;
		f->held[left++][1] = expert;
	}
	if (left == f->n)
		return false;
	f->n = left;
	return true;
}

/* The next expert of the file that may not be there; false at the end. */
static bool next_of_file(const struct engine *e, struct fill *f)
{
	while (f->layer < e->desc->n_layers) {
		const struct desc_layer *y = &e->desc->layers[f->layer];

		/* Those of a layer that shares its bytes are one. */
		if (f->expert < e->group_experts[f->layer] && (!y->shared || f->expert == 0))
			return true;
		f->layer++;
		f->expert = 0;
	}
	return false;
}

/* The same, those of the earlier run before the others. */
static bool next(const struct engine *e, struct fill *f)
{
	for (;;) {
		if (next_of_file(e, f)) {
			if (!f->warm || store_was_here(e->store, f->layer, f->expert) != f->others)
				return true;
			f->expert++;
		} else if (f->warm && !f->others) {
			f->others = true;
			f->layer = f->expert = 0;
		} else {
			return false;
		}
	}
}

static void ask(struct engine *e)
{
	struct fill *f = &e->fill;

	for (; f->n < FILL_AHEAD && next(e, f); f->expert++) {
		int r = store_fetch(e->store, f->layer, f->expert);

		if (r == STORE_READING) {
			f->held[f->n][0] = f->layer;
			f->held[f->n++][1] = f->expert;
		} else if (r == STORE_BUSY) {
			f->missed = true;
		}
	}
}

/* Rows want a slot and get none: what is only asked for gives way. */
static bool is_starved(const struct engine *e)
{
	for (unsigned i = 0; i < ENGINE_CONTEXTS; i++)
		if (e->contexts[i].active && e->contexts[i].starved)
			return true;
	return false;
}

enum engine_result engine_background(struct engine *e, bool busy)
{
	struct fill *f = &e->fill;
	bool more;

	if (!e->store || f->stopped || (f->over && !e->memory.taker))
		return ENGINE_IDLE;
	more = memory_advance(e);
	more |= settle(e);
	if (is_starved(e)) {
		fill_release(e);
		return ENGINE_WAITING;
	}
	store_set_background(e->store, busy ? 1 : UINT64_MAX);
	ask(e);
	store_submit(e->store);
	engine_publish(e);
	f->over = f->n == 0 && !next(e, f);
	if (f->over && !e->memory.taker)
		return ENGINE_IDLE;
	return more ? ENGINE_MORE : ENGINE_WAITING;
}

bool engine_is_filled(const struct engine *e)
{
	struct store_stats s;

	if (!e->store || (e->fill.over && !e->memory.taker))
		return true;
	store_get_stats(e->store, &s);
	return s.ready == s.experts;
}

void engine_background_stop(struct engine *e)
{
	e->fill.stopped = true;
	if (e->store)
		fill_release(e);
	memory_stop(e);
	engine_publish(e);
}

int engine_fill(struct engine *e, bool experts)
{
	while (e->memory.taker) {
		int r = taker_wait(e->memory.taker, e->memory.all, WAIT);

		(void)memory_advance(e);
		if (r < 0)
			return r;
	}
	while (experts) {
		enum engine_result k = engine_background(e, false);

		if (k == ENGINE_IDLE)
			break;
		if (k == ENGINE_WAITING) {
			int r = engine_wait(e, WAIT);

			if (r < 0)
				return r;
		}
	}
	engine_publish(e);
	return 0;
}

size_t engine_cache_size(const struct engine *e)
{
	return e->store ? store_state_size(e->store) : 0;
}

void engine_cache_get(const struct engine *e, void *ret)
{
	if (e->store)
		store_state_get(e->store, ret);
}

int engine_cache_set(struct engine *e, const void *bytes, size_t n)
{
	int r = e->store ? store_state_set(e->store, bytes, n) : -EINVAL;

	if (r < 0)
		return r;
	e->fill.warm = true;
	fill_restart(e);
	return 0;
}
