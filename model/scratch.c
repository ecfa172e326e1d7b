/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include "kernels.h"
#include "mem.h"
#include "num.h"
#include "weights.h"

/* Every part is aligned to this in the arena. */
#define PART_ALIGN 256u
#define PARTS 64u /* more than the parts that are placed one by one */

/* Widest feed-forward row of the model. */
static uint64_t widest_ff(const struct desc *d)
{
	uint64_t n = d->expert_ff;

	for (uint32_t l = 0; l < d->n_layers; l++)
		n = num_max(n, d->layers[l].expert[DESC_DOWN].cols);
	return n;
}

/* Both quantised forms of n elements: 1.25 bytes an element each. */
static uint64_t forms(uint64_t n)
{
	return (n / 32 + 1) * sizeof(struct kernels_q32) +
	       (n / 256 + 1) * sizeof(struct kernels_q256);
}

/* What a row keeps in its context from tile to tile. */
static uint64_t row_bytes(const struct desc *d)
{
	uint64_t k = num_max(d->top_k, 1u), hidden = d->hidden;

	return 4 * (hidden * 2			     /* residual and input of the experts */
			   + k * scratch_y_stride(d) /* their outputs */
			   + d->rope_dims	     /* angles */
			   + 3 * k + 1) +	     /* experts, weights, pairs; added */
	       forms(hidden) +
	       64;
}

/* What a row of the tile needs. */
static uint64_t tile_bytes(const struct desc *d)
{
	uint64_t hidden = d->hidden, ff = widest_ff(d);
	uint64_t q = (uint64_t)d->heads * d->head_size, kv = (uint64_t)d->kv_heads * d->head_size;
	uint64_t widest = num_max(hidden, q);

	widest = num_max(widest, ff);
	return 4 * (widest + q + 2 * kv + hidden + d->experts + ff + hidden) + forms(widest) +
	       forms(hidden);
}

static uint64_t packing_of(uint64_t most, const struct desc_weight *w)
{
	return num_max(most, w->row_bytes * (kernels_can_pack(w->type) ? KERNELS_PACK_ROWS : 1));
}

uint64_t scratch_packing(const struct desc *d)
{
	uint64_t most = packing_of(packing_of(64, &d->embedding), &d->output);

	for (uint32_t l = 0; l < d->n_layers; l++) {
		const struct desc_layer *y = &d->layers[l];

		most = packing_of(packing_of(packing_of(most, &y->q), &y->k), &y->v);
		most = packing_of(packing_of(most, &y->o), &y->router);
		for (unsigned p = 0; p < DESC_PARTS; p++)
			most = packing_of(most, &y->expert[p]);
	}
	return num_align_up(most, (uint64_t)64);
}

static uint32_t attention_group(const struct desc *d)
{
	return d->kv_heads ? d->heads / d->kv_heads : 1;
}

uint32_t scratch_attention_rows(const struct desc *d)
{
	uint32_t rows = (uint32_t)KERNELS_ATTENTION_BATCH / num_max(attention_group(d), 1u);

	rows = num_max(rows, 1u);
	return num_min(rows, SCRATCH_TILE);
}

uint64_t scratch_attention_floats(const struct desc *d)
{
	uint64_t queries = (uint64_t)scratch_attention_rows(d) * attention_group(d);
	uint64_t each = d->head_size + kernels_attention_state(d->head_size) + 1;

	return num_align_up(queries * each + kernels_attention_work(d->head_size), UINT64_C(16));
}

/*
 * The shapes passed LIMIT_HIDDEN, LIMIT_HEADS and LIMIT_VOCABULARY, so that none of this can
 * overflow.
 */
uint64_t scratch_bytes(
	const struct desc *d, uint32_t live_rows, uint32_t bulk_rows, uint32_t threads)
{
	uint64_t rows = (uint64_t)live_rows + bulk_rows;
	uint64_t n = rows * row_bytes(d) + SCRATCH_TILE * tile_bytes(d);

	n += (uint64_t)SCRATCH_HEAD_ROWS * d->vocabulary * 4;
	n += num_max(threads, 1u) * (scratch_attention_floats(d) * 4 + PART_ALIGN);
	n += num_max(threads, 1u) * (scratch_packing(d) + SCRATCH_BLOCKS * sizeof(float));
	n += ((uint64_t)d->experts + 1) * 32 * 2;
	n += PARTS * PART_ALIGN;
	/* The slots begin on a huge page. */
	return n + weights_overhead(d) + MEM_HUGE_PAGE;
}
