/* SPDX-License-Identifier: MIT */

/*
 * The one step function: rows through the layers, a tile at a time, for prefill and decode alike.
 * Work is split between threads by outputs only, so that no split can change a bit (NUMERICS).
 */

#include "engine-internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "num.h"

#define MAX_PRODUCTS 3u
/*
 * Pieces of a job for each worker, where there are as many tiles.  The longer the run of weights,
 * the better memory follows: experts 27 KB at once are read at 23 GB/s, 220 KB and more at 25.5.
 * Past PIECE_BYTES, a worker that a neighbour stops would have too much.
 */
#define FEW_COLS 4u
#define FEW_PIECES 2u
#define MANY_PIECES 16u
#define PIECE_BYTES ((uint64_t)2 << 20)
#define QUANTIZE_PIECE 32u
#define ALONE_BYTES 32768u /* of weights and columns: not worth two or three microseconds */
#define TILE_US 20000u
#define TILE_LEAST 8u
#define CHUNK 256u /* elements of a row that one worker takes at least */

struct run {
	step_fn fn;
	void *arg;
	struct store *store;
	struct team_shares shares;
};

static void run_worker(void *arg, unsigned worker, unsigned workers)
{
	struct run *r = arg;
	uint32_t begin, end;

	while (team_shares_take(&r->shares, worker, &begin, &end)) {
		r->fn(r->arg, worker, begin, end);
		/* The engine's thread: reads go on meanwhile. */
		if (worker == 0 && r->store)
			store_service(r->store);
	}
}

static void run(struct engine *e, step_fn fn, void *arg, size_t n, size_t piece, size_t least)
{
	struct run r; /* 16 KB, not to be cleared each time */

	if (n <= piece) {
		if (n)
			fn(arg, 0, 0, n);
		return;
	}
	r.fn = fn;
	r.arg = arg;
	r.store = e->store;
	team_shares_init(
		&r.shares, team_size(e->team), (uint32_t)n, (uint32_t)piece, (uint32_t)least);
	team_run(e->team, run_worker, &r);
}

void step_run(struct engine *e, step_fn fn, void *arg, size_t n, size_t piece)
{
	run(e, fn, arg, n, piece, piece);
}

/* Few columns wait for memory, so pieces are long runs of it; many have outputs to keep near. */
void step_tiles(struct engine *e, step_fn fn, void *arg, size_t tiles, size_t cols, uint64_t bytes)
{
	bool few = cols <= FEW_COLS;
	size_t pieces = team_size(e->team) * (few ? FEW_PIECES : MANY_PIECES);
	uint64_t most = PIECE_BYTES * tiles / num_max(bytes, UINT64_C(1));
	size_t piece = tiles / pieces;

	if (few)
		piece = num_min(piece, (size_t)most);
	piece = num_min(piece, (size_t)SCRATCH_PIECE * (few ? SCRATCH_TILE / FEW_COLS : 1));
	piece = num_max(piece, (size_t)1);
	if (bytes > ALONE_BYTES) {
		run(e, fn, arg, tiles, piece, few ? 1 : piece);
		return;
	}
	for (size_t i = 0; i < tiles; i += piece)
		fn(arg, 0, i, num_min(i + piece, tiles));
}

float *step_block(const struct engine *e, unsigned worker)
{
	return e->tile.blocks + worker * SCRATCH_BLOCKS;
}

void *step_scratch(const struct engine *e, unsigned worker)
{
	return e->tile.packing + worker * e->tile.packing_stride;
}

struct products {
	struct engine *e;
	const struct step_product *p;
	size_t n;
};

/* Items are tiles of rows, matrix after matrix. */
static void products_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct products *a = arg;
	size_t first = 0;

	for (size_t i = 0; i < a->n; i++) {
		const struct step_product *p = &a->p[i];
		size_t tiles = matrix_tiles(p->weight->rows);
		size_t b = num_max(begin, first), t = num_min(end, first + tiles);

		if (b < t)
			matrix_multiply(
				&(struct matrix_product){
					.kernels = a->e->kernels,
					.weight = p->weight,
					.data = p->matrix->data,
					.packed = p->matrix->packed,
					.x = p->x,
					.x_stride = p->x_stride,
					.cols = p->cols,
					.out = p->out + (b - first) * KERNELS_PACK_ROWS,
					.out_stride = p->out_stride,
				},
				b - first, t - first, step_scratch(a->e, worker));
		first += tiles;
	}
}

void step_products(struct engine *e, const struct step_product *p, size_t n)
{
	struct products a = {.e = e, .p = p, .n = n};
	uint64_t bytes = 0;
	size_t tiles = 0;

	for (size_t i = 0; i < n; i++) {
		tiles += matrix_tiles(p[i].weight->rows);
		bytes += p[i].weight->size * p[i].cols;
	}
	step_tiles(e, products_part, &a, tiles, p[0].cols, bytes);
	for (size_t i = 0; i < n; i++)
		p[i].matrix->packed = matrix_packs(e->kernels, p[i].weight->type);
}

struct quantize {
	const struct kernels *kernels;
	unsigned forms;
	const float *x;
	size_t stride, width, chunks;
	char *const *out;
	const size_t *out_stride;
};

static void quantize_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct quantize *a = arg;

	for (size_t i = begin; i < end; i++) {
		size_t row = i / a->chunks, at = i % a->chunks * CHUNK;
		size_t n = num_min((size_t)CHUNK, a->width - at);

		for (unsigned f = KERNELS_INPUT_Q32; f <= KERNELS_INPUT_Q256; f++) {
			if (a->forms & 1u << f)
				a->kernels->quantize(f, a->x + row * a->stride + at,
					a->out[f] + row * a->out_stride[f] +
						kernels_input_bytes(f, at),
					n);
		}
	}
}

void step_quantize(struct engine *e, unsigned forms, const float *x, size_t stride, size_t n,
	size_t width, char *const out[3], const size_t out_stride[3])
{
	struct quantize a = {.kernels = e->kernels,
		.forms = forms,
		.x = x,
		.stride = stride,
		.width = width,
		.chunks = (width + CHUNK - 1) / CHUNK,
		.out = out,
		.out_stride = out_stride};

	if (forms & ~1u)
		step_run(e, quantize_part, &a, n * a.chunks, QUANTIZE_PIECE);
}

void step_row_fail(
	struct engine *e, struct context *c, uint32_t row, int code, const char *format, ...)
{
	struct engine_seq *s = c->rows[row].seq;
	uint32_t position = c->rows[row].position;
	char text[ENGINE_ERROR_TEXT];
	va_list args;

	if (!s)
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args);
	va_end(args);
	/* Before the callbacks, which may free the sequence. */
	s->length = num_min(s->length, position);
	/* Later rows would attend to what this one did not write. */
	for (uint32_t i = row; i < c->n_rows; i++) {
		struct step_row *r = &c->rows[i];

		if (r->seq != s)
			continue;
		r->seq = NULL;
		s->busy--;
		if (c->callbacks.on_error)
			c->callbacks.on_error(r->arg, code, text);
	}
}

void step_tile_rows(struct engine *e, struct context *c, uint32_t max)
{
	struct tile *t = &e->tile;

	t->n = 0;
	while (c->row < c->n_rows && t->n < max) {
		if (c->rows[c->row].seq)
			t->rows[t->n++] = c->row;
		c->row++;
	}
}

uint32_t step_fitting(const struct engine *e, uint64_t quantised, uint64_t floats)
{
	/* Of one thread in a microsecond, about; only how long a tile takes hangs on them. */
	static const uint64_t rates[KERNELS_TIER_MAX][2] = {
		[KERNELS_SCALAR] = {1000, 500},
		[KERNELS_AVX2] = {115000, 30000},
		[KERNELS_AVXVNNI] = {130000, 30000},
		[KERNELS_VNNI] = {220000, 58000},
		[KERNELS_AMX] = {480000, 58000},
		/* By counting: no machine was at hand. */
		[KERNELS_DOTPROD] = {50000, 8000},
		[KERNELS_I8MM] = {80000, 8000},
	};
	const uint64_t *rate = rates[e->kernels->tier];
	uint64_t each = quantised / rate[0] + floats / rate[1];
	uint64_t rows = (uint64_t)TILE_US * team_size(e->team) / num_max(each, UINT64_C(1));

	rows = num_align_down(rows, (uint64_t)TILE_LEAST);
	rows = num_max(rows, (uint64_t)TILE_LEAST);
	return (uint32_t)num_min(rows, (uint64_t)SCRATCH_TILE);
}

static float *row_x(const struct engine *e, struct context *c, uint32_t row)
{
	return c->x + (size_t)row * e->desc->hidden;
}

static void check_finite(struct engine *e, struct context *c, const char *what)
{
	for (uint32_t i = 0; i < e->tile.n; i++) {
		uint32_t row = e->tile.rows[i];

		if (!e->kernels->is_finite(row_x(e, c, row), e->desc->hidden))
			step_row_fail(e, c, row, -EDOM,
				"the hidden state is not finite after %s of layer %u: the model "
				"file is damaged or not usable in this precision",
				what, c->layer);
	}
}

static void step_embed(struct engine *e, struct context *c)
{
	const struct desc *d = e->desc;
	const struct desc_weight *w = &d->embedding;
	size_t half = d->rope_dims / 2;

	step_tile_rows(e, c, SCRATCH_TILE);
	for (uint32_t i = 0; i < e->tile.n; i++) {
		uint32_t row = e->tile.rows[i];
		const struct step_row *r = &c->rows[row];

		matrix_row(e->kernels, w, &e->weights.embedding, r->token, row_x(e, c, row),
			step_scratch(e, 0));
		kernels_rope_angles((float)r->position * d->rope_scale, e->frequencies,
			d->rope_dims, d->rope_gain, c->cos + row * half, c->sin + row * half);
	}
	engine_mark(e, c, ENGINE_TIME_EMBED);
}

struct norms {
	struct engine *e;
	struct context *c;
	const float *weight;
	float *out;
	size_t stride;
};

static void norms_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct norms *a = arg;
	const struct desc *d = a->e->desc;

	for (size_t i = begin; i < end; i++)
		a->e->kernels->rms_norm(a->out + i * a->stride,
			row_x(a->e, a->c, a->e->tile.rows[i]), a->weight, d->hidden, d->norm_eps);
}

static void tile_norm(struct engine *e, struct context *c, const float *weight)
{
	struct norms a = {
		.e = e, .c = c, .weight = weight, .out = e->tile.norm, .stride = e->desc->hidden};

	step_run(e, norms_part, &a, e->tile.n, 4);
}

struct rotate {
	struct engine *e;
	struct context *c;
};

static void norm_heads(struct engine *e, float *x, uint32_t heads, const float *weight)
{
	const struct desc *d = e->desc;
	size_t n = d->qk_norm_whole ? (size_t)heads * d->head_size : d->head_size;

	if (!weight)
		return;
	for (uint32_t h = 0; h < (d->qk_norm_whole ? 1 : heads); h++)
		e->kernels->rms_norm(x + h * n, x + h * n, weight, n, d->norm_eps);
}

static void rotate_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct rotate *a = arg;
	struct engine *e = a->e;
	const struct desc *d = e->desc;
	const struct weights_layer *w = &e->weights.layers[a->c->layer];
	size_t half = d->rope_dims / 2;

	for (size_t i = begin; i < end; i++) {
		const float *cos = a->c->cos + e->tile.rows[i] * half;
		const float *sin = a->c->sin + e->tile.rows[i] * half;
		float *q = e->tile.q + i * d->heads * d->head_size;
		float *k = e->tile.k + i * d->kv_heads * d->head_size;

		norm_heads(e, q, d->heads, w->q_norm);
		norm_heads(e, k, d->kv_heads, w->k_norm);
		for (uint32_t h = 0; h < d->heads; h++)
			e->kernels->rope(q + (size_t)h * d->head_size, cos, sin, d->rope_dims,
				d->rope_neighbours);
		for (uint32_t h = 0; h < d->kv_heads; h++)
			e->kernels->rope(k + (size_t)h * d->head_size, cos, sin, d->rope_dims,
				d->rope_neighbours);
	}
}

static const void *tile_input(const struct engine *e, const struct desc_weight *w, size_t *stride)
{
	enum kernels_input f = step_form(w);

	*stride = kernels_input_bytes(f, w->cols);
	return f == KERNELS_INPUT_F32 ? (const void *)e->tile.norm : e->tile.input[f];
}

/* Quantises n x width floats at tile.norm for these weights. */
static void tile_quantize(struct engine *e, size_t width, unsigned forms)
{
	size_t stride[3];

	for (unsigned f = 0; f < 3; f++)
		stride[f] = kernels_input_bytes(f, width);
	step_quantize(e, forms, e->tile.norm, width, e->tile.n, width, e->tile.input, stride);
}

static struct step_product tile_product(
	const struct engine *e, const struct desc_weight *w, struct matrix *m, float *out)
{
	struct step_product p = {
		.weight = w, .matrix = m, .out = out, .out_stride = w->rows, .cols = e->tile.n};

	p.x = tile_input(e, w, &p.x_stride);
	return p;
}

static void tile_qkv(struct engine *e, struct context *c)
{
	const struct desc_layer *y = &e->desc->layers[c->layer];
	struct weights_layer *w = &e->weights.layers[c->layer];
	struct step_product p[MAX_PRODUCTS];

	tile_quantize(e, e->desc->hidden,
		1u << step_form(&y->q) | 1u << step_form(&y->k) | 1u << step_form(&y->v));
	p[0] = tile_product(e, &y->q, &w->q, e->tile.q);
	p[1] = tile_product(e, &y->k, &w->k, e->tile.k);
	p[2] = tile_product(e, &y->v, &w->v, e->tile.v);
	step_products(e, p, 3);
}

/* Long contexts make attention the longest part of a tile. */
static uint32_t attention_rows(const struct engine *e, const struct context *c)
{
	const struct desc *d = e->desc;
	uint64_t last = num_min(c->row + SCRATCH_TILE, c->n_rows), most = 0;
	uint64_t q = (uint64_t)d->heads * d->head_size, kv = (uint64_t)d->kv_heads * d->head_size;

	for (uint64_t i = c->row; i < last; i++)
		most = num_max(most, (uint64_t)c->rows[i].position + 1);
	return step_fitting(e, 2 * d->hidden * (q + kv), 2 * q * most);
}

static void step_attention(struct engine *e, struct context *c)
{
	const struct desc *d = e->desc;
	const struct desc_layer *y = &d->layers[c->layer];
	struct weights_layer *w = &e->weights.layers[c->layer];
	struct rotate a = {.e = e, .c = c};
	struct step_product o;

	step_tile_rows(e, c, attention_rows(e, c));
	if (e->tile.n == 0)
		return;
	tile_norm(e, c, w->attn_norm);
	engine_mark(e, c, ENGINE_TIME_NORM);
	tile_qkv(e, c);
	engine_mark(e, c, ENGINE_TIME_QKV);
	step_run(e, rotate_part, &a, e->tile.n, 2);
	attention_store(e, c);
	engine_mark(e, c, ENGINE_TIME_ROPE);
	attention_run(e, c);
	engine_mark(e, c, ENGINE_TIME_ATTENTION);
	/* tile.attended is tile.norm: the input of the next product. */
	tile_quantize(e, y->o.cols, 1u << step_form(&y->o));
	o = tile_product(e, &y->o, &w->o, e->tile.out);
	step_products(e, &o, 1);
	for (uint32_t i = 0; i < e->tile.n; i++)
		e->kernels->add(row_x(e, c, e->tile.rows[i]), e->tile.out + (size_t)i * d->hidden,
			d->hidden);
	check_finite(e, c, "the attention");
	engine_mark(e, c, ENGINE_TIME_OUTPUT);
	tile_norm(e, c, w->ffn_norm);
	engine_mark(e, c, ENGINE_TIME_NORM);
	moe_route(e, c);
}

static void step_sum(struct engine *e, struct context *c)
{
	step_tile_rows(e, c, SCRATCH_TILE);
	moe_sum(e, c);
	check_finite(e, c, "the feed-forward block");
	engine_mark(e, c, ENGINE_TIME_SUM);
}

static void step_head(struct engine *e, struct context *c)
{
	const struct desc *d = e->desc;
	uint32_t most = num_min(
		step_fitting(e, d->output.rows * d->output.cols, 0), (uint32_t)SCRATCH_HEAD_ROWS);
	struct tile *t = &e->tile;
	struct step_product p;

	t->n = 0;
	for (; c->row < c->n_rows && t->n < most; c->row++) {
		if (c->rows[c->row].seq && c->rows[c->row].want & ENGINE_WANT_LOGITS)
			t->rows[t->n++] = c->row;
	}
	if (t->n == 0)
		return;
	tile_norm(e, c, e->weights.output_norm);
	tile_quantize(e, d->hidden, 1u << step_form(&d->output));
	p = tile_product(e, &d->output, e->weights.output, t->head);
	step_products(e, &p, 1);
	engine_mark(e, c, ENGINE_TIME_HEAD);
	for (uint32_t i = 0; i < t->n; i++) {
		const float *logits = t->head + (size_t)i * d->output.rows;
		const struct step_row *r = &c->rows[t->rows[i]];

		if (!r->seq)
			continue; /* dropped in a callback just now */
		if (!e->kernels->is_finite(logits, d->output.rows)) {
			step_row_fail(e, c, t->rows[i], -EDOM,
				"a logit is not finite: the output tensor of the model file is "
				"damaged");
			continue;
		}
		if (c->callbacks.on_logits)
			c->callbacks.on_logits(r->arg, logits);
	}
	engine_mark(e, c, ENGINE_TIME_SAMPLE);
}

static void finish(struct context *c)
{
	for (uint32_t i = 0; i < c->n_rows; i++) {
		if (c->rows[i].seq)
			c->rows[i].seq->busy--;
		c->rows[i].seq = NULL;
	}
	c->n_rows = 0;
	c->active = false;
}

static void enter(struct context *c, enum step_phase phase)
{
	c->phase = phase;
	c->row = 0;
}

/* The phase is over: the next one. */
static void step_next(struct engine *e, struct context *c)
{
	switch (c->phase) {
	case STEP_EMBED:
		c->layer = 0;
		enter(c, STEP_ATTENTION);
		return;
	case STEP_ATTENTION:
		enter(c, STEP_EXPERTS);
		moe_begin(e, c);
		return;
	case STEP_EXPERTS:
		enter(c, STEP_SUM);
		return;
	case STEP_SUM:
		c->layer++;
		enter(c, c->layer < e->desc->n_layers ? STEP_ATTENTION : STEP_HEAD);
		return;
	case STEP_HEAD:
		finish(c);
		return;
	}
}

static bool any_alive(const struct context *c)
{
	for (uint32_t i = 0; i < c->n_rows; i++) {
		if (c->rows[i].seq)
			return true;
	}
	return false;
}

void step_abandon(struct engine *e, struct context *c)
{
	moe_release(e, c);
	for (uint32_t i = 0; i < c->n_rows; i++) {
		struct engine_seq *s = c->rows[i].seq;

		if (s)
			s->length = num_min(s->length, c->rows[i].position);
	}
	finish(c);
}

int step_advance(struct engine *e, struct context *c)
{
	int r;

	if (!any_alive(c)) {
		moe_release(e, c);
		finish(c);
		return ENGINE_IDLE;
	}
	switch (c->phase) {
	case STEP_EMBED:
		step_embed(e, c);
		break;
	case STEP_ATTENTION:
		step_attention(e, c);
		break;
	case STEP_EXPERTS:
		r = moe_advance(e, c);
		if (r != ENGINE_IDLE)
			return r;
		c->row = c->n_rows;
		break;
	case STEP_SUM:
		step_sum(e, c);
		break;
	case STEP_HEAD:
		step_head(e, c);
		break;
	}
	if (c->row >= c->n_rows)
		step_next(e, c);
	return c->active ? ENGINE_MORE : ENGINE_IDLE;
}
