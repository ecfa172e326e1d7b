/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The first sixteen of p->rows (the others are only read ahead) by at most TILE_COLS columns, for
 * rows.c, which takes what is left over.
 */

#include "kernels.h"

/* Their accumulators stay in the first cache beside a tile, and they in the second. */
#define TILE_COLS 128

void tile_product_q4_0(const struct kernels_product *p);
void tile_product_q4_1(const struct kernels_product *p);
void tile_product_q5_0(const struct kernels_product *p);
void tile_product_q5_1(const struct kernels_product *p);
void tile_product_q8_0(const struct kernels_product *p);
void tile_product_q4_k(const struct kernels_product *p);
void tile_product_q5_k(const struct kernels_product *p);
void tile_product_q6_k(const struct kernels_product *p);
