/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Matrices of weights in memory, and their products by tiles of KERNELS_PACK_ROWS rows.  A matrix
 * lies there as the file has it; the first product packs it in place, tile by tile, each worker
 * those that it is about to multiply, so that neither loading nor streaming waits for it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "desc.h"
#include "kernels.h"

struct matrix {
	void *data;  /* NULL: not there */
	bool packed; /* its tiles are */
};

struct matrix_product {
	const struct kernels *kernels;
	const struct desc_weight *weight;
	void *data;
	bool packed;
	const void *x; /* columns, in the form that the type wants */
	size_t x_stride, cols;
	float *out; /* of the first row of the first tile */
	size_t out_stride;
};

/* True where products of this type want packed tiles. */
static inline bool matrix_packs(const struct kernels *k, uint32_t type)
{
	return k->product_packed[type] != NULL;
}

/* Tiles of so many rows; the last may have fewer than KERNELS_PACK_ROWS. */
static inline uint32_t matrix_tiles(uint64_t rows)
{
	return (uint32_t)((rows + KERNELS_PACK_ROWS - 1) / KERNELS_PACK_ROWS);
}

/*
 * Rows of tiles [begin, end).  Where the matrix is not packed, these tiles are when it returns, so
 * each is to be given to one call only; `scratch` has room for one.
 */
void matrix_multiply(const struct matrix_product *p, size_t begin, size_t end, void *scratch);

/* One row as floats, packed or not; `room` has space for its bytes. */
void matrix_row(const struct kernels *k, const struct desc_weight *w, const struct matrix *m,
	uint64_t row, float *out, void *room);
