/* SPDX-License-Identifier: MIT */

/*
 * Attention of the rows of a tile over the blocks of their sequences: a task is one key-value head
 * and a run of rows of one sequence; blocks go in ascending order (NUMERICS rule 3).
 */

#include "engine-internal.h"

#include <string.h>

#include "num.h"

struct attend {
	struct engine *e;
	struct context *c;
	uint32_t run; /* rows of a task at most */
};

static void store_row(const struct engine *e, void *to, const float *x)
{
	size_t head = e->desc->head_size;

	if (e->kv.f32)
		memcpy(to, x, head * sizeof *x);
	else
		e->kernels->f32_to_f16(to, x, head);
}

void attention_store(struct engine *e, struct context *c)
{
	const struct desc *d = e->desc;
	size_t row_bytes = d->head_size * e->kv.element;

	for (uint32_t i = 0; i < e->tile.n; i++) {
		const struct step_row *r = &c->rows[e->tile.rows[i]];
		size_t at = r->position % KV_BLOCK * row_bytes;

		for (uint32_t h = 0; h < d->kv_heads; h++) {
			char *keys = kv_keys(&e->kv, r->seq, r->position / KV_BLOCK, c->layer, h);
			size_t from = ((size_t)i * d->kv_heads + h) * d->head_size;

			store_row(e, keys + at, e->tile.k + from);
			store_row(e, keys + e->kv.head_bytes + at, e->tile.v + from);
		}
	}
}

/* One key-value head for rows [first, first + n) of the tile, all of one sequence. */
static void attend(struct engine *e, struct context *c, unsigned worker, uint32_t head,
	uint32_t first, uint32_t n)
{
	const struct desc *d = e->desc;
	size_t size = d->head_size, group = d->heads / d->kv_heads, n_q = n * group, skip = 0;
	float *q = e->tile.attention + worker * e->tile.attention_stride;
	float *state = q + n_q * size;
	uint32_t *keys = (uint32_t *)(state + n_q * kernels_attention_state(size));
	const struct step_row *rows = c->rows;
	const uint32_t *at = e->tile.rows + first;
	const struct engine_seq *s = rows[at[0]].seq;
	uint32_t last = rows[at[n - 1]].position;

	for (size_t i = 0; i < n; i++) {
		memcpy(q + i * group * size,
			e->tile.q + ((first + i) * d->heads + head * group) * size,
			group * size * sizeof *q);
	}
	for (size_t i = 0; i < n_q; i++)
		kernels_attention_reset(state + i * kernels_attention_state(size), size);
	for (uint32_t b = 0; b <= last / KV_BLOCK; b++) {
		const char *k = kv_keys(&e->kv, s, b, c->layer, head);

		/* Rows ascend: those before this block are the first ones. */
		while (rows[at[skip / group]].position < b * KV_BLOCK)
			skip += group;
		for (size_t i = skip; i < n_q; i++)
			keys[i] =
				num_min(rows[at[i / group]].position + 1 - b * KV_BLOCK, KV_BLOCK);
		e->kernels->attention(&(struct kernels_attention){
			.q = q + skip * size,
			.q_stride = size,
			.k = k,
			.v = k + e->kv.head_bytes,
			.kv_f32 = e->kv.f32,
			.head = size,
			.n_q = n_q - skip,
			.keys = keys + skip,
			.scale = kernels_attention_scale(size),
			.state = state + skip * kernels_attention_state(size),
		});
	}
	for (size_t i = 0; i < n_q; i++)
		kernels_attention_finish(state + i * kernels_attention_state(size), size,
			e->tile.attended +
				((first + i / group) * d->heads + head * group + i % group) * size);
}

/* Items are (row of the tile, head); a run of rows is taken by its first row. */
static void attend_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct attend *a = arg;
	const struct tile *t = &a->e->tile;
	uint32_t heads = a->e->desc->kv_heads;

	for (size_t i = begin; i < end; i++) {
		uint32_t first = (uint32_t)(i / heads) * a->run;
		uint32_t stop = num_min(first + a->run, t->n);

		while (first < stop) {
			const struct engine_seq *s = a->c->rows[t->rows[first]].seq;
			uint32_t n = 1;

			while (first + n < stop && a->c->rows[t->rows[first + n]].seq == s)
				n++;
			attend(a->e, a->c, worker, (uint32_t)(i % heads), first, n);
			first += n;
		}
	}
}

void attention_run(struct engine *e, struct context *c)
{
	struct attend a = {.e = e, .c = c, .run = SCRATCH_ATTENTION_ROWS};
	size_t runs = (e->tile.n + a.run - 1) / a.run;

	step_run(e, attend_part, &a, runs * e->desc->kv_heads, 1);
}
