/* SPDX-License-Identifier: MIT */

/*
 * Packing in place.  Where a block is whole words, a tile is nothing but its 16 rows turned, 16
 * words of each at a time.  The other types become so by moving each second d in front while the
 * rows are copied to scratch; a last column without a partner is turned by itself.
 *
 * Limit: memory.  Each byte is read and written once there and, in the first or second cache, once
 * more; 1 KiB takes 16 loads, 64 shuffles on one port and 16 stores, 16 bytes in a cycle.
 */

#include <immintrin.h>
#include <string.h>
#include "pack.h"
#include "quant.h"
#include "turn.h"
#include "vnni.h"

#define ROWS KERNELS_PACK_ROWS

/* Up to 16 words of 16 rows `stride` bytes apart, turned. */
INLINE void pack_turn_some(const uint8_t *from, size_t stride, size_t words, uint8_t *to)
{
	__mmask16 mask = (__mmask16)((1u << words) - 1);
	__m512i v[16];

	for (size_t r = 0; r < ROWS; r++)
		v[r] = _mm512_maskz_loadu_epi32(mask, from + r * stride);
	tile_turn(v);
	for (size_t i = 0; i < words; i++)
		_mm512_storeu_si512(to + 64 * i, v[i]);
}

static void pack_turn(const uint8_t *from, size_t stride, size_t words, uint8_t *to)
{
	size_t k = 0;

	for (; k + 16 <= words; k += 16)
		pack_turn_some(from + 4 * k, stride, 16, to + 64 * k);
	if (k < words)
		pack_turn_some(from + 4 * k, stride, words - k, to + 64 * k);
}

/*
 * A native row as words: both d of a pair, then the codes of one block and of the other.  Of a
 * last block without a partner the codes, then d.
 */
INLINE void pack_row(const uint8_t *from, size_t blocks, size_t bytes, size_t half, uint8_t *to)
{
	const size_t words = bytes - 2, at = half ? 0 : 2;

	for (; blocks >= 2; blocks -= 2) {
		memcpy(to, from + half, 2);
		memcpy(to + 2, from + bytes + half, 2);
		memcpy(to + 4, from + at, words);
		memcpy(to + 4 + words, from + bytes + at, words);
		from += 2 * bytes;
		to += 2 * bytes;
	}
	if (blocks) {
		memcpy(to, from + at, words);
		memcpy(to + words, from + half, 2);
	}
}

INLINE void pack_pairs(size_t bytes, size_t half, uint8_t *w, size_t blocks, uint8_t *scratch)
{
	size_t row = blocks * bytes, last = blocks / 2 * 2 * bytes;
	uint8_t *d = w + ROWS * last;

	for (size_t r = 0; r < ROWS; r++)
		pack_row(w + r * row, blocks, bytes, half, scratch + r * row);
	pack_turn(scratch, row, last / 4, w);
	if (blocks % 2 == 0)
		return;
	for (size_t r = 0; r < ROWS; r++)
		memcpy(d + 2 * r, scratch + r * row + row - 2, 2);
	pack_turn(scratch + last, row, (bytes - 2) / 4, d + (size_t)2 * ROWS);
}

void vnni_pack(uint32_t type, void *w, size_t n, void *scratch)
{
	const struct pack_shape *s = pack_shape(type);
	size_t blocks = n / kernels_format(type)->block;

	switch (type) {
	case KERNELS_Q4_0:
		pack_pairs(sizeof(struct quant_q4_0), 0, w, blocks, scratch);
		return;
	case KERNELS_Q5_0:
		pack_pairs(sizeof(struct quant_q5_0), 0, w, blocks, scratch);
		return;
	case KERNELS_Q8_0:
		pack_pairs(sizeof(struct quant_q8_0), 0, w, blocks, scratch);
		return;
	case KERNELS_Q6_K:
		pack_pairs(sizeof(struct quant_q6_k), offsetof(struct quant_q6_k, d), w, blocks,
			scratch);
		return;
	default:
		memcpy(scratch, w, ROWS * blocks * s->bytes);
		pack_turn(scratch, blocks * s->bytes, blocks * s->words, w);
	}
}
