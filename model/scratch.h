/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How much memory one engine needs beside weights, keys and values: activations of its two
 * contexts, logits, state of the threads.  The plan counts it, the engine allocates within it.
 * Pure.
 */

#include <stdint.h>

#include "desc.h"
#include "kernels.h"

#define SCRATCH_TILE 64u      /* rows that one tile takes through a product */
#define SCRATCH_HEAD_ROWS 16u /* rows whose logits are made at once */

/* Rows that one thread attends at once: as many as share what is made of a block. */
uint32_t scratch_attention_rows(const struct desc *d);
/* Floats that it needs for that: queries, states, key counts and room; whole cache lines. */
uint64_t scratch_attention_floats(const struct desc *d);

#define SCRATCH_PIECE                                                                              \
	8u /* tiles of rows of weights that a worker takes by SCRATCH_TILE columns                 \
	    */
#define SCRATCH_ROWS (SCRATCH_PIECE * KERNELS_PACK_ROWS)
#define SCRATCH_BLOCKS ((size_t)2 * SCRATCH_TILE * SCRATCH_ROWS) /* floats */

/* Floats from one expert's output to the next. */
static inline uint64_t scratch_y_stride(const struct desc *d)
{
	return d->hidden + 16;
}

/* Bytes of the largest tile of weights that can be packed, and of any row. */
uint64_t scratch_packing(const struct desc *d);

/* UINT64_MAX where the shapes are beyond counting. */
uint64_t scratch_bytes(
	const struct desc *d, uint32_t live_rows, uint32_t bulk_rows, uint32_t threads);
