/* SPDX-License-Identifier: MIT */

#include "pack.h"

#include <string.h>

#include "quant.h"
#include "ref.h"

#define ROWS KERNELS_PACK_ROWS

static const struct pack_shape shapes[KERNELS_TYPE_MAX] = {
	[KERNELS_Q4_0] = {sizeof(struct quant_q4_0), true, 0, 2, 4},
	[KERNELS_Q4_1] = {sizeof(struct quant_q4_1), false, 0, 0, 5},
	[KERNELS_Q5_0] = {sizeof(struct quant_q5_0), true, 0, 2, 5},
	[KERNELS_Q5_1] = {sizeof(struct quant_q5_1), false, 0, 0, 6},
	[KERNELS_Q8_0] = {sizeof(struct quant_q8_0), true, 0, 2, 8},
	[KERNELS_Q4_K] = {sizeof(struct quant_q4_k), false, 0, 0, 36},
	[KERNELS_Q5_K] = {sizeof(struct quant_q5_k), false, 0, 0, 44},
	[KERNELS_Q6_K] = {sizeof(struct quant_q6_k), true, offsetof(struct quant_q6_k, d), 0, 52},
};

const struct pack_shape *pack_shape(uint32_t type)
{
	return type < KERNELS_TYPE_MAX && shapes[type].bytes ? &shapes[type] : NULL;
}

bool kernels_can_pack(uint32_t type)
{
	return pack_shape(type) != NULL;
}

size_t pack_column(const struct pack_shape *s, size_t b)
{
	return (s->pairs ? b / 2 * 2 : b) * ROWS * s->bytes;
}

/* Where the words of block b begin, and its d (if pairs) in bytes `*ret_step` apart by row. */
static size_t locate(
	const struct pack_shape *s, size_t blocks, size_t b, size_t *ret_d, size_t *ret_step)
{
	size_t at = pack_column(s, b), words = (size_t)4 * ROWS * s->words;

	if (!s->pairs)
		return at;
	if (b % 2 == 0 && b + 1 == blocks) {
		*ret_d = at;
		*ret_step = 2;
		return at + (size_t)2 * ROWS;
	}
	*ret_d = at + b % 2 * 2;
	*ret_step = 4;
	return at + (size_t)4 * ROWS + b % 2 * words;
}

void pack_block(const struct pack_shape *s, const void *tile, size_t blocks, unsigned row, size_t b,
	void *out)
{
	size_t d = 0, step = 0, at = locate(s, blocks, b, &d, &step);
	const uint8_t *from = tile;
	uint8_t *to = out;

	if (s->pairs)
		memcpy(to + s->half, from + d + row * step, 2);
	for (size_t i = 0; i < s->words; i++)
		memcpy(to + s->words_at + 4 * i, from + at + 4 * (i * ROWS + row), 4);
}

static void put_block(const struct pack_shape *s, void *tile, size_t blocks, unsigned row, size_t b,
	const void *block)
{
	size_t d = 0, step = 0, at = locate(s, blocks, b, &d, &step);
	const uint8_t *from = block;
	uint8_t *to = tile;

	if (s->pairs)
		memcpy(to + d + row * step, from + s->half, 2);
	for (size_t i = 0; i < s->words; i++)
		memcpy(to + at + 4 * (i * ROWS + row), from + s->words_at + 4 * i, 4);
}

void ref_pack(uint32_t type, void *w, size_t n, void *scratch)
{
	const struct pack_shape *s = pack_shape(type);
	size_t blocks = n / kernels_format(type)->block, row_bytes = blocks * s->bytes;

	memcpy(scratch, w, ROWS * row_bytes);
	for (unsigned r = 0; r < ROWS; r++)
		for (size_t b = 0; b < blocks; b++)
			put_block(s, w, blocks, r, b,
				(const uint8_t *)scratch + r * row_bytes + b * s->bytes);
}

void kernels_packed_row(uint32_t type, const void *tile, unsigned row, size_t n, void *out)
{
	const struct pack_shape *s = pack_shape(type);
	size_t blocks = n / kernels_format(type)->block;

	for (size_t b = 0; b < blocks; b++)
		pack_block(s, tile, blocks, row, b, (uint8_t *)out + b * s->bytes);
}
