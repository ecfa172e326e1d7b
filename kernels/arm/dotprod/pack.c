/* SPDX-License-Identifier: MIT */

/* ref_pack(), four words of four rows at a time: reads and writes each byte twice. */

#include "dotprod.h"
#include "tile.h"

INLINE void pack_tile(uint32_t type, uint8_t *w, size_t blocks, const uint8_t *native)
{
	const size_t bytes = tile_bytes(type);

	for (size_t b = 0; b < blocks; b++) {
		/* A column without a partner has its halves side by side. */
		const bool alone = b % 2 == 0 && b + 1 == blocks;
		uint8_t *to = w + b * 16 * bytes;
		const uint8_t *rows[16];

		for (size_t r = 0; r < 16; r++)
			rows[r] = native + (r * blocks + b) * bytes;
		if (tile_has_pairs(type)) {
			to = w + b / 2 * 2 * 16 * bytes;
			for (size_t r = 0; r < 16; r++)
				memcpy(to + (alone ? 2 * r : 4 * r + b % 2 * 2),
					rows[r] + tile_factor_at(type), 2);
			to += alone ? 32 : 64 + b % 2 * 64 * tile_lines(type);
		}
		tile_turn_words(type, rows, to);
	}
}

void dotprod_pack(uint32_t type, void *w, size_t n, void *scratch)
{
	size_t blocks = n / kernels_format(type)->block;

	memcpy(scratch, w, 16 * blocks * kernels_format(type)->bytes);
	switch (type) {
	case KERNELS_Q4_0:
		pack_tile(KERNELS_Q4_0, w, blocks, scratch);
		break;
	case KERNELS_Q4_1:
		pack_tile(KERNELS_Q4_1, w, blocks, scratch);
		break;
	case KERNELS_Q5_0:
		pack_tile(KERNELS_Q5_0, w, blocks, scratch);
		break;
	case KERNELS_Q5_1:
		pack_tile(KERNELS_Q5_1, w, blocks, scratch);
		break;
	case KERNELS_Q8_0:
		pack_tile(KERNELS_Q8_0, w, blocks, scratch);
		break;
	case KERNELS_Q4_K:
		pack_tile(KERNELS_Q4_K, w, blocks, scratch);
		break;
	case KERNELS_Q5_K:
		pack_tile(KERNELS_Q5_K, w, blocks, scratch);
		break;
	case KERNELS_Q6_K:
		pack_tile(KERNELS_Q6_K, w, blocks, scratch);
		break;
	default: /* no other type can be packed */
		break;
	}
}
