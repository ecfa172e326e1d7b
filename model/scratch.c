/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include "num.h"

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

/*
 * Bytes of one row in one context.  The shapes passed LIMIT_HIDDEN and LIMIT_HEADS, so that none of
 * this can overflow: each row length is at most 2^20 elements.
 */
static uint64_t row_bytes(const struct desc *d)
{
	uint64_t hidden = d->hidden, ff = widest_ff(d);
	uint64_t q = (uint64_t)d->heads * d->head_size, kv = (uint64_t)d->kv_heads * d->head_size;
	uint64_t f32 = 4 * hidden		/* residual, normed, attention out, experts' sum */
		       + 2 * q			/* queries, attended values */
		       + 2 * kv			/* keys and values before they are stored */
		       + (uint64_t)d->top_k * 2 /* experts and weights */
		       + d->experts		/* router logits */
		       + 3 * ff + hidden	/* one expert's gate, up, product and output */
		       + 2 * (uint64_t)d->head_size /* rope angles */;
	/* Quantised forms, at worst in both block sizes: about 1.25 bytes an element. */
	uint64_t quantised = 3 * (hidden + q + ff) + 4 * PART_ALIGN;

	return 4 * f32 + quantised + 512 /* bookkeeping */;
}

uint64_t scratch_bytes(
	const struct desc *d, uint32_t live_rows, uint32_t bulk_rows, uint32_t threads)
{
	uint64_t rows = (uint64_t)live_rows + bulk_rows, n = rows * row_bytes(d);

	/* Logits and their candidates, for a batch of rows at a time. */
	n += (uint64_t)num_min(live_rows, 8u) * d->vocabulary * 4;
	/* Queries of one key-value head over a tile of rows: running state of attention. */
	n += (uint64_t)threads * d->heads * (d->head_size + 2) * 4 * 8;
	n += (uint64_t)threads * widest_ff(d) * 4 * 2;
	/* Lists of rows by expert. */
	n += rows * ((uint64_t)d->top_k + 1) * 32 + (uint64_t)d->experts * 64;
	n += ((uint64_t)d->n_layers + PARTS + threads) * PART_ALIGN;
	return n;
}
