/* SPDX-License-Identifier: MIT */

/*
 * The router and the experts of a layer.  Rows are grouped by expert, so that a step reads each
 * expert once; outputs wait in y until all have come and are added in ascending order of experts.
 * A dense layer is one expert that is always there.
 */

#include "engine-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

#define MAX_BATCH SCRATCH_TILE
#define GATHER_PIECE 8u /* columns */

void moe_best_of(const float *scores, uint32_t n, uint32_t k, uint32_t *ids)
{
	for (uint32_t i = 0; i < k; i++) {
		uint32_t best = UINT32_MAX;

		for (uint32_t j = 0; j < n; j++) {
			bool taken = false;

			/* Later ones are worse than the last, or equal with a higher number. */
			if (i > 0) {
				uint32_t last = ids[i - 1];

				taken = scores[j] > scores[last] ||
					(scores[j] == scores[last] && j <= last);
			}
			if (!taken && (best == UINT32_MAX || scores[j] > scores[best]))
				best = j;
		}
		ids[i] = best;
	}
}

/* Experts and weights of one row, best first. */
static void choose(const struct engine *e, float *logits, uint32_t *ids, float *gates)
{
	const struct desc *d = e->desc;
	uint32_t k = d->top_k;
	float sum = 0.0f;

	if (d->router == DESC_SOFTMAX_TOPK)
		e->kernels->softmax(logits, d->experts);
	moe_best_of(logits, d->experts, k, ids);
	for (uint32_t i = 0; i < k; i++)
		gates[i] = logits[ids[i]];
	if (d->router == DESC_TOPK_SOFTMAX)
		e->kernels->softmax(gates, k);
	else if (d->router_normalize) {
		for (uint32_t i = 0; i < k; i++)
			sum += gates[i];
		for (uint32_t i = 0; i < k; i++)
			gates[i] = gates[i] / sum;
	}
	for (uint32_t i = 0; i < k; i++)
		gates[i] = gates[i] * d->router_scale;
}

/* Into ascending order of experts (rule 4). */
static void sort_choice(uint32_t *ids, float *gates, uint32_t k)
{
	for (uint32_t i = 1; i < k; i++) {
		uint32_t id = ids[i], j = i;
		float gate = gates[i];

		for (; j > 0 && ids[j - 1] > id; j--) {
			ids[j] = ids[j - 1];
			gates[j] = gates[j - 1];
		}
		ids[j] = id;
		gates[j] = gate;
	}
}

static void keep_input(struct engine *e, struct context *c)
{
	const struct desc *d = e->desc;
	const struct desc_layer *y = &d->layers[c->layer];
	unsigned forms =
		1u << step_form(&y->expert[DESC_GATE]) | 1u << step_form(&y->expert[DESC_UP]);
	struct tile *t = &e->tile;

	step_quantize(e, forms, t->norm, d->hidden, t->n, d->hidden, t->input, e->input_bytes);
	for (uint32_t i = 0; i < t->n; i++) {
		for (unsigned f = 0; f < 3; f++) {
			size_t n = e->input_bytes[f];
			const char *from = f ? t->input[f] : (const char *)t->norm;

			if (forms & 1u << f)
				memcpy(c->input[f] + t->rows[i] * n, from + i * n, n);
		}
	}
}

void moe_route(struct engine *e, struct context *c)
{
	const struct desc *d = e->desc;
	const struct desc_layer *y = &d->layers[c->layer];
	struct tile *t = &e->tile;

	keep_input(e, c);
	engine_mark(e, c, ENGINE_TIME_GATE_UP);
	if (!y->moe) {
		for (uint32_t i = 0; i < t->n; i++) {
			c->ids[(size_t)t->rows[i] * e->top_k] = 0;
			c->gates[(size_t)t->rows[i] * e->top_k] = 1.0f;
		}
		return;
	}
	{
		enum kernels_input f = step_form(&y->router);
		struct step_product p = {.weight = &y->router,
			.matrix = &e->weights.layers[c->layer].router,
			.x = f ? (void *)t->input[f] : (void *)t->norm,
			.x_stride = e->input_bytes[f],
			.out = t->logits,
			.out_stride = d->experts,
			.cols = t->n};

		if (f)
			step_quantize(e, 1u << f, t->norm, d->hidden, t->n, d->hidden, t->input,
				e->input_bytes);
		step_products(e, &p, 1);
	}
	for (uint32_t i = 0; i < t->n; i++) {
		uint32_t row = t->rows[i];
		float *logits = t->logits + (size_t)i * d->experts;
		uint32_t *ids = c->ids + (size_t)row * e->top_k;
		float *gates = c->gates + (size_t)row * e->top_k;

		if (!c->rows[row].seq)
			continue;
		if (!e->kernels->is_finite(logits, d->experts)) {
			step_row_fail(e, c, row, -EDOM,
				"the router's output is not finite in layer %u: the model file is "
				"damaged",
				c->layer);
			continue;
		}
		choose(e, logits, ids, gates);
		popularity_add(&e->popularity, c->layer, ids, gates, d->top_k);
		if (c->rows[row].want & ENGINE_WANT_ROUTES && c->callbacks.on_route)
			c->callbacks.on_route(c->rows[row].arg, c->layer, ids, gates, d->top_k);
		sort_choice(ids, gates, d->top_k);
	}
	prefetch_note(e, c);
	engine_mark(e, c, ENGINE_TIME_ROUTER);
}

static uint32_t layer_k(const struct engine *e, const struct context *c)
{
	return e->desc->layers[c->layer].moe ? e->desc->top_k : 1;
}

/* The policy learns what was chosen. */
static void tell_choices(struct engine *e, struct context *c)
{
	const struct context *live = &e->contexts[ENGINE_LIVE];

	for (uint32_t r = 0; r < c->n_rows; r++)
		for (uint32_t i = 0; !c->rows[r].seq && i < e->desc->top_k; i++)
			c->ids[(size_t)r * e->top_k + i] = UINT32_MAX;
	store_visit(e->store,
		&(struct forecast_visit){.stream = c == live ? FORECAST_DECODE : FORECAST_PREFILL,
			.group = c->layer,
			.choices = c->ids,
			.rows = c->n_rows,
			.stride = e->top_k,
			.k = e->desc->top_k,
			.aside = c != live && live->active});
}

void moe_begin(struct engine *e, struct context *c)
{
	uint32_t k = layer_k(e, c), experts = k > 1 || e->desc->experts ? e->desc->experts : 1;
	uint32_t n = 0, at = 0;

	c->n_needs = c->first_need = 0;
	c->starved = false;
	memset(c->added, 0, c->n_rows * sizeof *c->added);
	experts = num_max(experts, 1u);
	for (uint32_t x = 0; x < experts; x++)
		c->needs[x] = (struct need){.expert = x};
	for (uint32_t r = 0; r < c->n_rows; r++) {
		for (uint32_t i = 0; i < k && c->rows[r].seq; i++)
			c->needs[c->ids[(size_t)r * e->top_k + i]].count++;
	}
	for (uint32_t x = 0; x < experts; x++) {
		c->needs[x].first = at;
		at += c->needs[x].count;
	}
	for (uint32_t r = 0; r < c->n_rows; r++) {
		for (uint32_t i = 0; i < k && c->rows[r].seq; i++) {
			struct need *x = &c->needs[c->ids[(size_t)r * e->top_k + i]];

			c->pairs[x->first + x->done++] = r * e->top_k + i;
		}
	}
	for (uint32_t x = 0; x < experts; x++) {
		if (c->needs[x].count == 0)
			continue;
		c->needs[x].done = 0;
		c->needs[n++] = c->needs[x];
	}
	c->n_needs = n;
	if (e->desc->layers[c->layer].moe) {
		tell_choices(e, c);
		prefetch_settle(e, c);
	}
	engine_mark(e, c, e->desc->layers[c->layer].moe ? ENGINE_TIME_ROUTER : ENGINE_TIME_GATE_UP);
}

static void need_fail(struct engine *e, struct context *c, struct need *x, int code)
{
	x->state = NEED_DONE;
	for (uint32_t i = 0; i < x->count; i++)
		step_row_fail(e, c, c->pairs[x->first + i] / e->top_k, code,
			"cannot read expert %u of layer %u: %s", x->expert, c->layer,
			store_error(e->store));
}

/* True where there was a slot for all. */
static bool acquire_all(struct engine *e, struct context *c, unsigned flags)
{
	for (uint32_t i = c->first_need; i < c->n_needs; i++) {
		struct need *x = &c->needs[i];
		int r;

		if (x->state != NEED_WANTED)
			continue;
		r = store_acquire(
			e->store, c->layer, x->expert, flags | (x->asked ? 0 : STORE_DEMAND));
		if (r == STORE_BUSY && flags & STORE_PRESENT)
			continue;
		x->asked = true;
		if (r < 0)
			need_fail(e, c, x, r);
		else if (r == STORE_BUSY)
			return false;
		else
			x->state = NEED_HELD;
	}
	return true;
}

static void acquire(struct engine *e, struct context *c)
{
	struct context *live = &e->contexts[ENGINE_LIVE];
	unsigned flags = c == live ? STORE_URGENT : 0;

	c->starved = false;
	/* Prefill would take every slot that decode waits for. */
	if (c != live && live->active && live->starved)
		return;
	/* First those that are there, lest they give way to the others. */
	acquire_all(e, c, flags | STORE_PRESENT);
	c->starved = !acquire_all(e, c, flags);
}

/* Experts that are computed together: up to MAX_BATCH (row, expert) pairs. */
struct part {
	struct need *need;
	struct store_view view;
	uint32_t first, n; /* in the tile; pairs from need->first + need->done on */
};

struct batch {
	struct engine *e;
	struct context *c;
	const struct desc_layer *layer;
	struct part parts[MAX_BATCH];
	uint32_t n, cols, widest; /* columns, of all parts and of the widest */
	size_t tiles;		  /* of one part, in the product under way */
	size_t ff;
	uint32_t pairs[MAX_BATCH]; /* by column */
	bool add[MAX_BATCH];	   /* to what is there already; else the output waits */
};

/* Items are columns of the batch. */
static void gather_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct batch *b = arg;
	struct engine *e = b->e;
	unsigned forms = 1u << step_form(&b->layer->expert[DESC_GATE]) |
			 1u << step_form(&b->layer->expert[DESC_UP]);

	for (size_t i = begin; i < end; i++) {
		size_t row = b->pairs[i] / e->top_k;

		for (unsigned f = 0; f < 3; f++) {
			size_t n = e->input_bytes[f];

			if (forms & 1u << f)
				memcpy(e->tile.gathered[f] + i * n, b->c->input[f] + row * n, n);
		}
	}
}

/* The pairs side by side, and which of them come in the order in which outputs are added. */
static void line_up(struct batch *b)
{
	const struct context *c = b->c;
	uint32_t k = b->e->top_k;

	for (uint32_t i = 0; i < b->n; i++) {
		const struct part *p = &b->parts[i];

		for (uint32_t j = 0; j < p->n; j++) {
			uint32_t pair = c->pairs[p->need->first + p->need->done + j];
			bool next = c->added[pair / k] == pair % k;

			b->pairs[p->first + j] = pair;
			b->add[p->first + j] = next;
			c->added[pair / k] += next;
		}
	}
}

/* Tiles [begin, end) of one part of an expert, to `out` [columns][their rows]. */
static void multiply(const struct batch *b, const struct part *p, enum desc_part which,
	const void *x, size_t x_stride, float *out, size_t begin, size_t end, unsigned worker)
{
	matrix_multiply(
		&(struct matrix_product){
			.kernels = b->e->kernels,
			.weight = &b->layer->expert[which],
			.data = p->view.part[which],
			.packed = *p->view.mark,
			.x = x,
			.x_stride = x_stride,
			.cols = p->n,
			.out = out,
			.out_stride = (end - begin) * KERNELS_PACK_ROWS,
		},
		begin, end, step_scratch(b->e, worker));
}

/* Gate, up and the activation, of tiles [begin, end) of an expert. */
static void gate_up(
	const struct batch *b, const struct part *p, unsigned worker, size_t begin, size_t end)
{
	struct tile *t = &b->e->tile;
	size_t from = begin * KERNELS_PACK_ROWS, to = num_min(end * KERNELS_PACK_ROWS, b->ff);
	size_t stride = (end - begin) * KERNELS_PACK_ROWS;
	float *gate = step_block(b->e, worker), *up = gate + SCRATCH_BLOCKS / 2;

	for (unsigned w = DESC_GATE; w <= DESC_UP; w++) {
		enum kernels_input f = step_form(&b->layer->expert[w]);
		size_t n = b->e->input_bytes[f];

		multiply(b, p, w, t->gathered[f] + p->first * n, n, w == DESC_GATE ? gate : up,
			begin, end, worker);
	}
	for (uint32_t j = 0; j < p->n; j++)
		b->e->kernels->swiglu(t->gate + (p->first + j) * b->ff + from, gate + j * stride,
			up + j * stride, to - from);
}

/* Items are (expert, tile of rows). */
static void gate_up_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct batch *b = arg;

	while (begin < end) {
		size_t at = begin % b->tiles, n = num_min(end - begin, b->tiles - at);

		gate_up(b, &b->parts[begin / b->tiles], worker, at, at + n);
		begin += n;
	}
}

/* Items are tiles of rows, for all experts in turn: so each output is added in their order. */
static void down_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct batch *b = arg;
	const struct engine *e = b->e;
	const struct context *c = b->c;
	enum kernels_input f = step_form(&b->layer->expert[DESC_DOWN]);
	size_t n = kernels_input_bytes(f, b->ff), from = begin * KERNELS_PACK_ROWS;
	size_t rows = num_min(end * KERNELS_PACK_ROWS, (size_t)e->desc->hidden) - from;
	size_t stride = (end - begin) * KERNELS_PACK_ROWS;
	const char *x = f ? e->tile.input[f] : (const char *)e->tile.gate;
	float *out = step_block(e, worker);

	for (uint32_t i = 0; i < b->n; i++) {
		const struct part *p = &b->parts[i];

		multiply(b, p, DESC_DOWN, x + p->first * n, n, out, begin, end, worker);
		for (uint32_t j = 0; j < p->n; j++) {
			uint32_t pair = b->pairs[p->first + j], place = pair % e->top_k;
			bool add = b->add[p->first + j];
			float *y = c->y + (pair - (add ? place : 0)) * e->y_stride + from;

			if (!add) {
				memcpy(y, out + j * stride, rows * sizeof *y);
				continue;
			}
			if (place == 0)
				memset(y, 0, rows * sizeof *y);
			e->kernels->add_scaled(y, out + j * stride, c->gates[pair], rows);
		}
	}
}

/* Of the down projection, and about those of gate and up. */
static uint64_t part_bytes(const struct batch *b)
{
	const struct desc_weight *w = &b->layer->expert[DESC_DOWN];

	return w->rows * w->row_bytes;
}

static void compute(struct batch *b)
{
	struct engine *e = b->e;
	size_t stride[3];

	line_up(b);
	step_run(e, gather_part, b, b->cols, GATHER_PIECE);
	b->ff = b->layer->expert[DESC_DOWN].cols;
	b->tiles = matrix_tiles(b->ff);
	step_tiles(e, gate_up_part, b, b->n * b->tiles, b->widest, 2 * part_bytes(b) * b->cols);
	for (unsigned f = 0; f < 3; f++)
		stride[f] = kernels_input_bytes(f, b->ff);
	step_quantize(e, 1u << step_form(&b->layer->expert[DESC_DOWN]), e->tile.gate, b->ff,
		b->cols, b->ff, e->tile.input, stride);
	engine_mark(e, b->c, ENGINE_TIME_GATE_UP);
	b->tiles = matrix_tiles(e->desc->hidden);
	step_tiles(e, down_part, b, b->tiles, b->widest, part_bytes(b) * b->cols);
	engine_mark(e, b->c, ENGINE_TIME_DOWN);
	for (uint32_t i = 0; i < b->n; i++)
		*b->parts[i].view.mark = true;
}

/* The view of an expert that is here; false where it is not (yet). */
static bool is_here(struct engine *e, struct context *c, struct need *x, struct store_view *ret)
{
	int r;

	if (!e->desc->layers[c->layer].moe) {
		for (unsigned p = 0; p < DESC_PARTS; p++)
			ret->part[p] = e->weights.layers[c->layer].expert[p].data;
		ret->mark = &e->weights.layers[c->layer].expert[DESC_GATE].packed;
		return true;
	}
	if (x->state != NEED_HELD)
		return false;
	r = store_poll(e->store, c->layer, x->expert, ret);
	if (r < 0) {
		store_release(e->store, c->layer, x->expert);
		need_fail(e, c, x, r);
	}
	return r == STORE_READY;
}

/* Experts may share their bytes, which are packed once. */
static bool is_packed_meanwhile(const struct batch *b, const struct store_view *view)
{
	for (uint32_t i = 0; !*view->mark && i < b->n; i++) {
		if (b->parts[i].view.mark == view->mark)
			return true;
	}
	return false;
}

/* What is here, as far as it fits; no expert in two parts that fits as a whole. */
static void collect(struct batch *b)
{
	const struct desc_weight *down = &b->layer->expert[DESC_DOWN];
	uint32_t most = step_fitting(b->e, DESC_PARTS * down->rows * down->cols, 0);
	struct context *c = b->c;

	for (uint32_t i = c->first_need; i < c->n_needs && b->cols < most; i++) {
		struct need *x = &c->needs[i];
		struct part *p = &b->parts[b->n];

		if (x->state == NEED_DONE || (b->n && x->count - x->done > most - b->cols) ||
			!is_here(b->e, c, x, &p->view) || is_packed_meanwhile(b, &p->view))
			continue;
		p->need = x;
		p->first = b->cols;
		p->n = num_min(x->count - x->done, most - b->cols);
		b->cols += p->n;
		b->widest = num_max(b->widest, p->n);
		b->n++;
	}
}

int moe_advance(struct engine *e, struct context *c)
{
	struct batch b = {.e = e, .c = c, .layer = &e->desc->layers[c->layer]};

	if (b.layer->moe) {
		int r = store_reap(e->store, 0);

		if (r < 0)
			return r;
		acquire(e, c);
		store_submit(e->store);
		if (c->starved)
			prefetch_release(e);
		if (store_in_flight(e->store) == 0)
			prefetch_run(e, c);
	}
	collect(&b);
	engine_mark(e, c, b.layer->moe ? ENGINE_TIME_CACHE : ENGINE_TIME_GATE_UP);
	if (b.n)
		compute(&b);
	for (uint32_t i = 0; i < b.n; i++) {
		struct need *x = b.parts[i].need;

		x->done += b.parts[i].n;
		if (x->done < x->count)
			continue;
		x->state = NEED_DONE;
		if (b.layer->moe)
			store_release(e->store, c->layer, x->expert);
	}
	while (c->first_need < c->n_needs && c->needs[c->first_need].state == NEED_DONE)
		c->first_need++;
	engine_mark(e, c, b.layer->moe ? ENGINE_TIME_CACHE : ENGINE_TIME_DOWN);
	/* Behind what is wanted: nothing can be computed meanwhile, or the layer is done. */
	if (!b.n || c->first_need == c->n_needs)
		prefetch_run(e, c);
	if (c->first_need == c->n_needs) {
		c->starved = false;
		return ENGINE_IDLE;
	}
	return b.n ? ENGINE_MORE : ENGINE_WAITING;
}

struct sum {
	struct engine *e;
	struct context *c;
	uint32_t k;
	size_t chunks;
};

#define SUM_CHUNK 1024u

static void sum_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct sum *a = arg;
	const struct engine *e = a->e;
	size_t hidden = e->desc->hidden;
	for (size_t i = begin; i < end; i++) {
		size_t row = e->tile.rows[i / a->chunks], at = i % a->chunks * SUM_CHUNK;
		size_t n = num_min((size_t)SUM_CHUNK, hidden - at);

		float *y = a->c->y + row * e->top_k * e->y_stride + at;

		for (uint32_t j = a->c->added[row]; j < a->k; j++)
			e->kernels->add_scaled(
				y, y + j * e->y_stride, a->c->gates[row * e->top_k + j], n);
		e->kernels->add(a->c->x + row * hidden + at, y, n);
	}
}

void moe_sum(struct engine *e, struct context *c)
{
	struct sum a = {.e = e,
		.c = c,
		.k = layer_k(e, c),
		.chunks = (e->desc->hidden + SUM_CHUNK - 1) / SUM_CHUNK};

	step_run(e, sum_part, &a, e->tile.n * a.chunks, 4);
}

void moe_release(struct engine *e, struct context *c)
{
	if (c == &e->contexts[ENGINE_LIVE])
		prefetch_release(e);
	for (uint32_t i = c->first_need; i < c->n_needs; i++) {
		if (c->needs[i].state == NEED_HELD)
			store_release(e->store, c->layer, c->needs[i].expert);
		c->needs[i].state = NEED_DONE;
	}
	c->first_need = c->n_needs = 0;
	c->starved = false;
}
