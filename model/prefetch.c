/* SPDX-License-Identifier: MIT */

/*
 * Reads ahead: the next layer's router, on the present layer's input of experts, names most of what
 * the next layer will want (59 to 89 % in published measurements).  Those that are not there are
 * asked for behind all else, one at a time, and take only slots that are free or cold; nobody waits
 * for them.  When the next layer's choices are known, what is being read and wanted goes on as
 * wanted, what was not begun is called off, and what is in flight for nothing ends where it is.
 *
 * It costs a product with the router, and a wrong one may delay a read that is wanted.  Whether
 * that pays depends on the model, the disk and the share that fits, so it is measured: some steps
 * with and some without, in turn, and then whatever was faster, until the next trial.  No bit
 * depends on it.
 */

#include "engine-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "num.h"

#define BLOCK 8u	 /* steps with it, then as many without */
#define TRIAL 128u	 /* steps of a trial */
#define RESULT 2048u	 /* steps that its result holds for */
#define SAMPLE 256u	 /* reads after which their use is looked at */
#define SAMPLE_LEAST 50u /* percent of them that must have been wanted */
#define OUTLIER 3u	 /* times the mean: somebody else had the processor, or nobody asked */

static void tell(struct prefetch *p, const char *state, const char *why)
{
	atomic_store_explicit(&p->state, state, memory_order_relaxed);
	atomic_store_explicit(&p->why, why, memory_order_relaxed);
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static void start_trial(struct prefetch *p)
{
	p->trying = true;
	p->steps = 0;
	p->ns[0] = p->ns[1] = 0;
	p->recent_issued = p->recent_useful = 0;
	tell(p, "trying", "steps with and without are compared");
}

int prefetch_init(struct engine *e, enum engine_prefetch mode)
{
	struct prefetch *p = &e->prefetch;

	*p = (struct prefetch){.mode = mode, .on = mode == ENGINE_PREFETCH_ON};
	tell(p, "off", "nothing is streamed");
	if (!e->store || mode == ENGINE_PREFETCH_OFF)
		return 0;
	p->norm = malloc((size_t)PREFETCH_ROWS * e->desc->hidden * sizeof *p->norm);
	if (!p->norm)
		return -ENOMEM;
	if (p->on)
		tell(p, "on", "as asked");
	return 0;
}

void prefetch_deinit(struct engine *e)
{
	free(e->prefetch.norm);
	e->prefetch.norm = NULL;
}

/* Everything fits or is there: nothing is ever read ahead. */
static bool is_needless(const struct engine *e)
{
	struct store_stats s;

	store_get_stats(e->store, &s);
	return s.slots >= s.experts || s.ready == s.experts;
}

static void end_trial(struct prefetch *p)
{
	p->trying = false;
	p->steps = RESULT;
	p->on = p->ns[1] < p->ns[0];
	tell(p, p->on ? "on" : "off",
		p->on ? "tokens are faster with it" : "tokens are no faster with it");
}

/* Too few were wanted: no need to go on with the trial. */
static bool is_vain(struct prefetch *p)
{
	if (p->recent_issued < SAMPLE)
		return false;
	if (p->recent_useful * 100 >= p->recent_issued * SAMPLE_LEAST) {
		p->recent_issued = p->recent_useful = 0;
		return false;
	}
	p->trying = p->on = false;
	p->steps = RESULT;
	tell(p, "off", "too few of the experts read ahead were wanted");
	return true;
}

/* The time of the step before, to the way that it went. */
static void count_step(struct prefetch *p, uint64_t ns)
{
	bool first = p->steps % BLOCK == 0; /* has still reads of the other way */

	p->mean_ns = p->mean_ns ? (7 * p->mean_ns + num_min(ns, OUTLIER * p->mean_ns)) / 8 : ns;
	if (!first)
		p->ns[p->on] += num_min(ns, OUTLIER * p->mean_ns);
	p->steps++;
	p->on = p->steps / BLOCK % 2;
	if (p->steps == TRIAL)
		end_trial(p);
}

void prefetch_begin_step(struct engine *e, const struct context *c)
{
	struct prefetch *p = &e->prefetch;
	uint64_t now;

	p->pending = false;
	if (p->mode != ENGINE_PREFETCH_AUTO || !p->norm)
		return;
	if (is_needless(e)) {
		p->on = p->trying = false;
		p->steps = 0;
		tell(p, "off", "nothing is streamed");
		return;
	}
	/* Steps that others take part in tell nothing. */
	if (c->n_rows > PREFETCH_ROWS || e->contexts[ENGINE_BULK].active) {
		p->began = 0;
		return;
	}
	now = clock_now();
	if (p->trying && p->began && !is_vain(p))
		count_step(p, now - p->began);
	else if (!p->trying && p->steps > 0 && !(p->on && is_vain(p)))
		p->steps--;
	else if (!p->trying && p->steps == 0)
		start_trial(p);
	p->began = now;
}

static bool has_next(const struct engine *e, uint32_t layer)
{
	const struct desc *d = e->desc;

	return layer + 1 < d->n_layers && d->layers[layer + 1].moe && !d->layers[layer + 1].shared;
}

void prefetch_note(struct engine *e, const struct context *c)
{
	struct prefetch *p = &e->prefetch;
	const struct tile *t = &e->tile;

	p->pending = false;
	if (!p->on || c != &e->contexts[ENGINE_LIVE] || c->n_rows > PREFETCH_ROWS ||
		t->n != c->n_rows || !has_next(e, c->layer))
		return;
	memcpy(p->norm, t->norm, (size_t)t->n * e->desc->hidden * sizeof *p->norm);
	p->rows = t->n;
	p->pending = true;
}

/* What the next layer's router says, into the tile's logits. */
static void predict(struct engine *e, uint32_t layer)
{
	const struct desc *d = e->desc;
	const struct desc_weight *router = &d->layers[layer].router;
	enum kernels_input f = step_form(router);
	struct tile *t = &e->tile;
	struct step_product product = {.weight = router,
		.matrix = &e->weights.layers[layer].router,
		.x = f ? (void *)t->input[f] : (void *)e->prefetch.norm,
		.x_stride = e->input_bytes[f],
		.out = t->logits,
		.out_stride = d->experts,
		.cols = e->prefetch.rows};

	if (f)
		step_quantize(e, 1u << f, e->prefetch.norm, d->hidden, e->prefetch.rows, d->hidden,
			t->input, e->input_bytes);
	step_products(e, &product, 1);
}

static bool is_held(const struct prefetch *p, uint32_t expert)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (p->held[i] == expert)
			return true;
	return false;
}

static void ask(struct engine *e, uint32_t layer, const float *logits)
{
	struct prefetch *p = &e->prefetch;
	uint32_t best[LIMIT_TOP_K], k = num_min(e->desc->top_k, LIMIT_TOP_K);

	moe_best_of(logits, e->desc->experts, k, best);
	for (uint32_t i = 0; i < k && p->n < PREFETCH_MOST; i++) {
		if (is_held(p, best[i]))
			continue;
		if (store_fetch_ahead(e->store, layer, best[i]) == STORE_READING)
			p->held[p->n++] = best[i];
	}
}

void prefetch_run(struct engine *e, const struct context *c)
{
	struct prefetch *p = &e->prefetch;

	if (!p->pending || c != &e->contexts[ENGINE_LIVE])
		return;
	p->pending = false;
	if (c->starved)
		return;
	predict(e, c->layer + 1);
	p->layer = c->layer + 1;
	for (uint32_t i = 0; i < p->rows; i++) {
		const float *logits = e->tile.logits + (size_t)i * e->desc->experts;

		/* A prediction that is not finite is none. */
		if (e->kernels->is_finite(logits, e->desc->experts))
			ask(e, p->layer, logits);
	}
	store_submit(e->store);
	engine_mark(e, c, ENGINE_TIME_CACHE);
}

void prefetch_settle(struct engine *e, const struct context *c)
{
	struct prefetch *p = &e->prefetch;

	if (c != &e->contexts[ENGINE_LIVE] || p->n == 0)
		return;
	for (uint32_t i = 0; i < p->n; i++) {
		struct store_view view;
		bool here = store_poll(e->store, p->layer, p->held[i], &view) == STORE_READY;
		bool wanted = false;

		for (uint32_t n = 0; n < c->n_needs && p->layer == c->layer; n++)
			wanted |= c->needs[n].expert == p->held[i];
		if (store_call_off(e->store, p->layer, p->held[i]))
			continue;
		add(&p->issued, 1);
		p->recent_issued++;
		if (!wanted)
			continue;
		add(&p->useful, 1);
		p->recent_useful++;
		if (!here)
			add(&p->late, 1);
	}
	p->n = 0;
}

void prefetch_release(struct engine *e)
{
	struct prefetch *p = &e->prefetch;

	p->pending = false;
	while (p->n > 0)
		store_release(e->store, p->layer, p->held[--p->n]);
}
