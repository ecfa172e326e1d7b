/* SPDX-License-Identifier: MIT */

/*
 * Products of packed blocks of 32 with many columns: a block is one tile of half the height, its
 * sums are at most 32 * 128 * 127, and between blocks come the float steps of NUMERICS rule 1.
 */

#include <stdbool.h>
#include <string.h>
#include "amx.h"
#include "packed.h"
#include "quant.h"
#include "tiles.h"
#include "vnni.h"

#define COLS 128u

struct work {
	const uint8_t *x; /* of the chunk of columns */
	size_t x_stride;
	size_t cols;
	float acc[COLS][16] __attribute__((aligned(64)));
};

/* Tiles 0 to 3 are sums, 4 and 5 columns of 32 bytes, 6 and 7 weights. */
static const struct tile_config config_small = {
	.palette = 1,
	.bytes = {64, 64, 64, 64, 32, 32, 64, 64},
	.rows = {16, 16, 16, 16, 16, 16, 8, 8},
};

/* Blocks of 32 whose codes are unpacked before their products, so that sums stay in registers. */
#define BLOCKS 8

struct codes {
	__m512i q[8];
	__m512 d;
	__m512 m;
};

INLINE void multiply_small(const struct codes *w, const int8_t *x, size_t x_stride, int32_t *out)
{
	const size_t row = 64;

	TILE_ZERO(0);
	TILE_LOAD(4, x, x_stride);
	TILE_LOAD(6, w->q, row);
	TILE_SIGNED(0, 4, 6);
	TILE_STORE(0, out, row);
}

INLINE void add_small(bool minimum, const struct codes *w, const int32_t s[16][16],
	const uint8_t *x, size_t x_stride, size_t cols, __m512 acc[16])
{
	for (size_t c = 0; c < cols; c++) {
		const struct kernels_q32 *b = (const void *)(x + c * x_stride);
		__m512 dx = _mm512_set1_ps(b->d);

		acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(w->d, dx),
			_mm512_cvtepi32_ps(_mm512_load_si512(s[c])), acc[c]);
		if (minimum)
			acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(w->m, dx),
				_mm512_cvtepi32_ps(_mm512_set1_epi32(b->sum)), acc[c]);
	}
}

/* Up to 16 columns of up to 8 blocks. */
INLINE void blocks_small(bool minimum, const struct codes *w, size_t blocks, const uint8_t *x,
	size_t x_stride, size_t cols, float out[][16])
{
	int8_t padded[BLOCKS][16][32] __attribute__((aligned(64)));
	int32_t sums[2][16][16] __attribute__((aligned(64)));
	const int8_t *q = (const int8_t *)(x + offsetof(struct kernels_q32, q));
	size_t stride = x_stride, step = sizeof(struct kernels_q32);
	__m512 acc[16];

	if (cols < 16) {
		for (size_t b = 0; b < blocks; b++)
			for (size_t c = 0; c < cols; c++)
				memcpy(padded[b][c], q + c * stride + b * step, 32);
		q = padded[0][0];
		stride = 32;
		step = sizeof(padded[0]);
	}
	for (size_t c = 0; c < cols; c++)
		acc[c] = _mm512_load_ps(out[c]);
	multiply_small(w, q, stride, sums[0][0]);
	for (size_t b = 0; b < blocks; b++) {
		if (b + 1 < blocks)
			multiply_small(w + b + 1, q + (b + 1) * step, stride, sums[(b + 1) % 2][0]);
		add_small(minimum, w + b, sums[b % 2], x + b * sizeof(struct kernels_q32), x_stride,
			cols, acc);
	}
	for (size_t c = 0; c < cols; c++)
		_mm512_store_ps(out[c], acc[c]);
}

INLINE void rows_small(
	uint32_t type, const struct kernels_product *p, const uint8_t *w, struct work *k)
{
	const char offset = type == KERNELS_Q4_0   ? 8
			    : type == KERNELS_Q5_0 ? 16
			    : type == KERNELS_Q8_0 ? (char)128
						   : 0;
	struct codes codes[BLOCKS];
	struct tile t;

	for (size_t b0 = 0; b0 < p->n / 32; b0 += BLOCKS) {
		size_t blocks = p->n / 32 - b0 < BLOCKS ? p->n / 32 - b0 : BLOCKS, c = 0;
		const uint8_t *x = k->x + b0 * sizeof(struct kernels_q32);

		for (size_t b = 0; b < blocks; b++) {
			packed_unpack(type, w, p->n / 32, b0 + b, &t);
			for (int i = 0; i < 8; i++)
				codes[b].q[i] = _mm512_sub_epi8(t.q[i], _mm512_set1_epi8(offset));
			codes[b].d = t.d;
			if (!offset)
				codes[b].m = t.m;
		}
		for (; c + 16 <= k->cols; c += 16)
			blocks_small(!offset, codes, blocks, x + c * k->x_stride, k->x_stride, 16,
				k->acc + c);
		if (c < k->cols)
			blocks_small(!offset, codes, blocks, x + c * k->x_stride, k->x_stride,
				k->cols - c, k->acc + c);
	}
}

/* From so many columns on tiles beat the VNNI tier, even where most of them are padding. */
#define FROM 12

INLINE void product(uint32_t type, const struct kernels_product *p,
	void (*few)(const struct kernels_product *p))
{
	struct work k;

	if (p->cols < FROM) {
		few(p);
		return;
	}
	k.x_stride = p->x_stride;
	tile_configure(&config_small);
	for (size_t c0 = 0; c0 < p->cols; c0 += COLS)
		for (size_t r = 0; r < p->rows; r += 16) {
			k.x = (const uint8_t *)p->x + c0 * p->x_stride;
			k.cols = p->cols - c0 < COLS ? p->cols - c0 : COLS;
			memset(k.acc, 0, k.cols * sizeof(k.acc[0]));
			rows_small(type, p, (const uint8_t *)p->w + r * p->w_stride, &k);
			for (size_t c = 0; c < k.cols; c++)
				memcpy(p->out + (c0 + c) * p->out_stride + r, k.acc[c],
					sizeof(k.acc[c]));
		}
	tile_release();
}

void amx_packed_q4_0(const struct kernels_product *p)
{
	product(KERNELS_Q4_0, p, vnni_packed_q4_0);
}

void amx_packed_q4_1(const struct kernels_product *p)
{
	product(KERNELS_Q4_1, p, vnni_packed_q4_1);
}

void amx_packed_q5_0(const struct kernels_product *p)
{
	product(KERNELS_Q5_0, p, vnni_packed_q5_0);
}

void amx_packed_q5_1(const struct kernels_product *p)
{
	product(KERNELS_Q5_1, p, vnni_packed_q5_1);
}

void amx_packed_q8_0(const struct kernels_product *p)
{
	product(KERNELS_Q8_0, p, vnni_packed_q8_0);
}
