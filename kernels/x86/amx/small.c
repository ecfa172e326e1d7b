/* SPDX-License-Identifier: MIT */

/*
 * Products of packed blocks of 32 with many columns: a block is one tile of half the height, its
 * sums are at most 32 * 128 * 127, and between blocks come the float steps of NUMERICS rule 1.
 *
 * A block of 16 rows by 16 columns takes one multiplication, of 16 cycles, and its float steps
 * three operations a column that only port 0 has (that of port 5 rests while tiles are in use),
 * with a minimum five: 48 or 80 cycles, 170 or 102 MAC a cycle.  About 105 and 75 are reached:
 * tiles alone take 51 cycles, float steps alone 38, and the two hardly go side by side.
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

/* Blocks of 32 whose codes are unpacked before their products, so that sums stay in registers. */
#define BLOCKS 8

/* MAGIC + i is the float 1.5 * 2^23 + i while |i| <= 2^22. */
#define MAGIC 0x4b400000
#define MAGIC_VALUE 12582912.0f

struct codes {
	__m512i q[8];
	__m512 d;
	__m512 m;
};

/*
 * Sums of 16 columns are in tiles 0 and 1 by turns, and their activations in tile 4; those of fewer
 * in tiles 2, 3 and 5, which have as many rows.  Weights are in 6 and 7.
 */
INLINE void configure(size_t cols)
{
	struct tile_config config = {.palette = 1};
	uint8_t rest = cols % 16 ? (uint8_t)(cols % 16) : 16;

	for (int i = 0; i < 8; i++) {
		config.bytes[i] = i == 4 || i == 5 ? 32 : 64;
		config.rows[i] = i >= 6 ? 8 : i == 2 || i == 3 || i == 5 ? rest : 16;
	}
	tile_configure(&config);
}

/* The product of a block; odd and whole are constants. */
INLINE void begin(bool whole, bool odd, const struct codes *w, const int8_t *x, size_t x_stride)
{
	const size_t row = 64;

	if (odd)
		TILE_LOAD(7, w->q, row);
	else
		TILE_LOAD(6, w->q, row);
	if (whole) {
		TILE_LOAD(4, x, x_stride);
		if (odd) {
			TILE_ZERO(1);
			TILE_SIGNED(1, 4, 7);
		} else {
			TILE_ZERO(0);
			TILE_SIGNED(0, 4, 6);
		}
		return;
	}
	TILE_LOAD(5, x, x_stride);
	if (odd) {
		TILE_ZERO(3);
		TILE_SIGNED(3, 5, 7);
	} else {
		TILE_ZERO(2);
		TILE_SIGNED(2, 5, 6);
	}
}

INLINE void end(bool whole, bool odd, int32_t *out)
{
	const size_t row = 64;

	if (whole && odd)
		TILE_STORE(1, out, row);
	else if (whole)
		TILE_STORE(0, out, row);
	else if (odd)
		TILE_STORE(3, out, row);
	else
		TILE_STORE(2, out, row);
}

/* The sum of a column's activations, without what port 0 has to do for others. */
INLINE __m512 float_of(int32_t sum)
{
	__m512i i = _mm512_add_epi32(_mm512_set1_epi32(sum), _mm512_set1_epi32(MAGIC));

	return _mm512_sub_ps(_mm512_castsi512_ps(i), _mm512_set1_ps(MAGIC_VALUE));
}

INLINE void add_small(bool minimum, const struct codes *w, const int32_t s[16][16],
	const uint8_t *x, size_t x_stride, size_t cols, __m512 acc[16])
{
#pragma GCC unroll 16
	for (size_t c = 0; c < cols; c++) {
		const struct kernels_q32 *b = (const void *)(x + c * x_stride);
		__m512 dx = _mm512_set1_ps(b->d);

		acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(w->d, dx),
			_mm512_cvtepi32_ps(_mm512_load_si512(s[c])), acc[c]);
		if (minimum)
			acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(w->m, dx), float_of(b->sum), acc[c]);
	}
}

/* 16 columns, or up to 15, of up to 8 blocks: a block is multiplied while one is added. */
INLINE void blocks_small(bool minimum, bool whole, const struct codes *w, size_t blocks,
	const uint8_t *x, size_t x_stride, size_t cols, float out[][16])
{
	int32_t sums[2][16][16] __attribute__((aligned(64)));
	const int8_t *q = (const int8_t *)(x + offsetof(struct kernels_q32, q));
	const size_t step = sizeof(struct kernels_q32);
	__m512 acc[16];

	if (whole)
		cols = 16;
#pragma GCC unroll 16
	for (size_t c = 0; c < 16; c++)
		acc[c] = c < cols ? _mm512_load_ps(out[c]) : _mm512_setzero_ps();
	begin(whole, false, w, q, x_stride);
	if (blocks > 1)
		begin(whole, true, w + 1, q + step, x_stride);
	end(whole, false, sums[0][0]);
#pragma GCC unroll 1
	for (size_t b = 0; b < blocks; b += 2) {
		if (b + 2 < blocks)
			begin(whole, false, w + b + 2, q + (b + 2) * step, x_stride);
		if (b + 1 < blocks)
			end(whole, true, sums[1][0]);
		add_small(minimum, w + b, sums[0], x + b * step, x_stride, cols, acc);
		if (b + 1 == blocks)
			break;
		if (b + 3 < blocks)
			begin(whole, true, w + b + 3, q + (b + 3) * step, x_stride);
		if (b + 2 < blocks)
			end(whole, false, sums[0][0]);
		add_small(minimum, w + b + 1, sums[1], x + (b + 1) * step, x_stride, cols, acc);
	}
#pragma GCC unroll 16
	for (size_t c = 0; c < cols; c++)
		_mm512_store_ps(out[c], acc[c]);
}

/* Weights of the blocks to be unpacked next, which may be those behind the rows. */
INLINE void ahead(const uint8_t *w, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64)
		_mm_prefetch(w + i, _MM_HINT_T1);
}

INLINE void rows_small(
	uint32_t type, const struct kernels_product *p, const uint8_t *w, struct work *k)
{
	const char offset = type == KERNELS_Q4_0   ? 8
			    : type == KERNELS_Q5_0 ? 16
			    : type == KERNELS_Q8_0 ? (char)128
						   : 0;
	const size_t bytes = packed_bytes(type) * 16;
	struct codes codes[BLOCKS];
	struct tile t;

	for (size_t b0 = 0; b0 < p->n / 32; b0 += BLOCKS) {
		size_t blocks = p->n / 32 - b0 < BLOCKS ? p->n / 32 - b0 : BLOCKS, c = 0;
		const uint8_t *x = k->x + b0 * sizeof(struct kernels_q32);

		for (size_t b = 0; b < blocks; b++) {
			ahead(w + (b0 + b) * bytes + BLOCKS * bytes, bytes);
			packed_unpack(type, w, p->n / 32, b0 + b, &t);
			for (int i = 0; i < 8; i++)
				codes[b].q[i] = _mm512_sub_epi8(t.q[i], _mm512_set1_epi8(offset));
			codes[b].d = t.d;
			if (!offset)
				codes[b].m = t.m;
		}
		for (; c + 16 <= k->cols; c += 16)
			blocks_small(!offset, true, codes, blocks, x + c * k->x_stride, k->x_stride,
				16, k->acc + c);
		if (c < k->cols)
			blocks_small(!offset, false, codes, blocks, x + c * k->x_stride,
				k->x_stride, k->cols - c, k->acc + c);
	}
}

/*
 * From so many columns on tiles beat the VNNI tier.  With weights in the cache they do at 5
 * already, but so few columns are those of decode, out of memory: there 8 of Q4_0 are 125 GMAC/s,
 * VNNI 142.
 */
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
	configure(p->cols);
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
