/* SPDX-License-Identifier: MIT */

/*
 * Attention of the rows of a tile over the blocks of their sequences: a task is one key-value head
 * and a run of rows of one sequence; blocks go in ascending order (NUMERICS rule 3).
 */

#include "engine-internal.h"

#include <string.h>

#include "num.h"

#define TASKS 2u       /* of each thread at least, where there are so many */
#define STORE_ROWS 16u /* whose keys and values one worker stores at least */

struct attend {
	struct engine *e;
	struct context *c;
	uint32_t run; /* rows of a task at most */
};

/* Keys go where kernels_attention_key() says, values row by row. */
static void store_row(
	const struct engine *e, void *block, size_t at, const float *k, const float *v)
{
	size_t head = e->desc->head_size;
	void *values = (char *)block + e->kv.head_bytes + at * head * e->kv.element;

	if (e->kv.f32) {
		float *keys = block;

		for (size_t i = 0; i < head; i++)
			keys[kernels_attention_key(head, at, i)] = k[i];
		memcpy(values, v, head * sizeof *v);
	} else {
		uint16_t *keys = block, row[LIMIT_HEAD_SIZE];

		e->kernels->f32_to_f16(row, k, head);
		for (size_t i = 0; i < head; i++)
			keys[kernels_attention_key(head, at, i)] = row[i];
		e->kernels->f32_to_f16(values, v, head);
	}
}

static void store_part(void *arg, unsigned worker, size_t begin, size_t end)
{
	const struct attend *a = arg;
	struct engine *e = a->e;
	const struct desc *d = e->desc;

	for (size_t i = begin; i < end; i++) {
		const struct step_row *r = &a->c->rows[e->tile.rows[i]];

		for (uint32_t h = 0; h < d->kv_heads; h++) {
			size_t from = (i * d->kv_heads + h) * d->head_size;

			store_row(e,
				kv_keys(&e->kv, r->seq, r->position / KV_BLOCK, a->c->layer, h),
				r->position % KV_BLOCK, e->tile.k + from, e->tile.v + from);
		}
	}
}

void attention_store(struct engine *e, struct context *c)
{
	struct attend a = {.e = e, .c = c};

	step_run(e, store_part, &a, e->tile.n, STORE_ROWS);
}

/* One key-value head for rows [first, first + n) of the tile, all of one sequence. */
static void attend(struct engine *e, struct context *c, unsigned worker, uint32_t head,
	uint32_t first, uint32_t n)
{
	const struct desc *d = e->desc;
	size_t size = d->head_size, group = d->heads / d->kv_heads, n_q = n * group, skip = 0;
	float *work = e->tile.attention + worker * e->tile.attention_stride;
	float *state = work + kernels_attention_work(size);
	float *q = state + n_q * kernels_attention_state(size);
	uint32_t *keys = (uint32_t *)(q + n_q * size);
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
		const char *k = kv_keys(&e->kv, s, b, c->layer, head), *next = NULL;

		if (b < last / KV_BLOCK)
			next = kv_keys(&e->kv, s, b + 1, c->layer, head);

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
			.work = work,
			.next_k = next,
			.next_v = next ? next + e->kv.head_bytes : NULL,
		});
	}
	for (size_t i = 0; i < n_q; i++)
		e->kernels->attention_finish(state + i * kernels_attention_state(size), size,
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
	struct attend a = {.e = e, .c = c, .run = scratch_attention_rows(e->desc)};
	uint32_t heads = e->desc->kv_heads, threads = team_size(e->team);
	uint32_t even = num_max(e->tile.n * heads / (threads * TASKS), 1u);
	size_t runs;

	a.run = num_min(a.run, even);
	runs = (e->tile.n + a.run - 1) / a.run;
	step_run(e, attend_part, &a, runs * heads, 1);
}
