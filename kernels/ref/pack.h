/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The layout of packed weights (kernels.h) as numbers, and single blocks of it: what the scalar
 * kernels, the tests and the tiers' packers share (internal to kernels/).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pack_shape {
	uint16_t bytes; /* of a block */
	bool pairs;	/* block columns come in pairs, d first */
	uint16_t half;	/* where d is, if pairs */
	uint16_t words_at;
	uint16_t words; /* all the others */
};

/* NULL for a type that cannot be packed. */
const struct pack_shape *pack_shape(uint32_t type);

/* Where block column b begins in a tile whose rows have `blocks` blocks: for a pair, the pair. */
size_t pack_column(const struct pack_shape *s, size_t b);

/* Native bytes of block b of row `row` of a tile whose rows have `blocks` blocks. */
void pack_block(const struct pack_shape *s, const void *tile, size_t blocks, unsigned row, size_t b,
	void *out);
