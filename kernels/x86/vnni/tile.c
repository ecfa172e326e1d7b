/* SPDX-License-Identifier: MIT */

/*
 * Products of quantised weights with many columns (prefill): sixteen rows are turned so that a lane
 * is a row, and their codes unpacked, once for all columns.  Then each vpdpbusd takes four codes of
 * each of 16 rows and four activations, broadcast; sums need no folding, and 4 columns share a load
 * of codes.  Everything is int32 and exact, so the order of additions is free: rows.c has the
 * bounds of the K-quants, and small types stay below 32 * 255 * 127.
 */

#include <immintrin.h>
#include "quant.h"
#include "vnni.h"
#include "tile.h"
#include "turn.h"

/* The four activations 4k to 4k + 3, in every lane. */
INLINE __m512i tile_four(const int8_t *q, int k)
{
	return _mm512_set1_epi32((int)quant_u32(q + 4 * k));
}

INLINE void tile_large(uint32_t type, const struct tile *t, const uint8_t *x, size_t x_stride,
	size_t cols, float *acc)
{
	const int words = type == KERNELS_Q6_K ? 4 : 8, parts = 64 / words;
	__m512i sum[4], min[4];

	for (size_t c = 0; c < cols; c++)
		sum[c] = min[c] = _mm512_setzero_si512();
	for (int j = 0; j < parts; j++) {
		__m512i part[4];

		for (size_t c = 0; c < cols; c++)
			part[c] = _mm512_setzero_si512();
		for (int k = words * j; k < words * (j + 1); k++)
			for (size_t c = 0; c < cols; c++) {
				const struct kernels_q256 *b = (const void *)(x + c * x_stride);

				part[c] = _mm512_dpbusd_epi32(part[c], t->q[k], tile_four(b->q, k));
			}
		for (size_t c = 0; c < cols; c++)
			sum[c] = _mm512_add_epi32(sum[c], _mm512_mullo_epi32(part[c], t->scale[j]));
	}
	for (size_t c = 0; c < cols; c++) {
		const struct kernels_q256 *b = (const void *)(x + c * x_stride);
		__m512 dx = _mm512_set1_ps(b->d), a = _mm512_loadu_ps(acc + 16 * c);

		if (type == KERNELS_Q6_K) {
			for (int j = 0; j < 8; j++)
				min[c] = _mm512_dpwssd_epi32(min[c], t->pair[j],
					_mm512_set1_epi32((int)quant_u32(&b->sums[2 * j])));
			sum[c] = _mm512_sub_epi32(sum[c], _mm512_slli_epi32(min[c], 5));
		} else {
			for (int j = 0; j < 4; j++)
				min[c] = _mm512_dpwssd_epi32(min[c], t->pair[j],
					_mm512_set1_epi32((int)quant_u32(&b->pairs[2 * j])));
		}
		a = _mm512_fmadd_ps(_mm512_mul_ps(t->d, dx), _mm512_cvtepi32_ps(sum[c]), a);
		if (type != KERNELS_Q6_K)
			a = _mm512_fmadd_ps(_mm512_mul_ps(t->m, dx), _mm512_cvtepi32_ps(min[c]), a);
		_mm512_storeu_ps(acc + 16 * c, a);
	}
}

INLINE void tile_small(uint32_t type, const struct tile *t, const uint8_t *x, size_t x_stride,
	size_t cols, float *acc)
{
	int offset = type == KERNELS_Q4_0   ? 8
		     : type == KERNELS_Q5_0 ? 16
		     : type == KERNELS_Q8_0 ? 128
					    : 0;
	__m512i sum[4];

	for (size_t c = 0; c < cols; c++) {
		const struct kernels_q32 *b = (const void *)(x + c * x_stride);

		sum[c] = _mm512_set1_epi32(-offset * b->sum);
	}
	for (int k = 0; k < 8; k++)
		for (size_t c = 0; c < cols; c++) {
			const struct kernels_q32 *b = (const void *)(x + c * x_stride);

			sum[c] = _mm512_dpbusd_epi32(sum[c], t->q[k], tile_four(b->q, k));
		}
	for (size_t c = 0; c < cols; c++) {
		const struct kernels_q32 *b = (const void *)(x + c * x_stride);
		__m512 dx = _mm512_set1_ps(b->d), a = _mm512_loadu_ps(acc + 16 * c);

		a = _mm512_fmadd_ps(_mm512_mul_ps(t->d, dx), _mm512_cvtepi32_ps(sum[c]), a);
		if (!offset)
			a = _mm512_fmadd_ps(
				_mm512_mul_ps(t->m, dx), _mm512_set1_ps((float)b->sum), a);
		_mm512_storeu_ps(acc + 16 * c, a);
	}
}

INLINE void tile_columns(uint32_t type, const struct tile *t, const uint8_t *x, size_t x_stride,
	size_t cols, float *acc)
{
	size_t c = 0;

	for (; c + 4 <= cols; c += 4)
		if (type >= KERNELS_Q2_K)
			tile_large(type, t, x + c * x_stride, x_stride, 4, acc + 16 * c);
		else
			tile_small(type, t, x + c * x_stride, x_stride, 4, acc + 16 * c);
	for (; c < cols; c++)
		if (type >= KERNELS_Q2_K)
			tile_large(type, t, x + c * x_stride, x_stride, 1, acc + 16 * c);
		else
			tile_small(type, t, x + c * x_stride, x_stride, 1, acc + 16 * c);
}

/* The first sixteen rows of p->rows. */
INLINE void tile_product(uint32_t type, size_t bytes, const struct kernels_product *p)
{
	const bool large = type >= KERNELS_Q2_K;
	const size_t step = large ? 1 : TILE_BLOCKS, block = large ? 256 : 32;
	const size_t unit = large ? sizeof(struct kernels_q256) : sizeof(struct kernels_q32);
	size_t blocks = p->n / block;
	float acc[16 * TILE_COLS];
	struct tile_factors f;
	struct tile t;

	memset(acc, 0, 16 * p->cols * sizeof(float));
	for (size_t b0 = 0; b0 < blocks; b0 += step) {
		size_t count = blocks - b0 < step ? blocks - b0 : step;
		const uint8_t *x = (const uint8_t *)p->x + b0 * unit;
		const uint8_t *w[16];

		for (size_t r = 0; r < 16; r++)
			w[r] = (const uint8_t *)p->w + r * p->w_stride + b0 * bytes;
		tile_ahead(p, blocks * bytes, (b0 + TILE_AHEAD * step) * bytes, step * bytes);
		if (large) {
			tile_unpack_large(type, w, &t);
			tile_columns(type, &t, x, p->x_stride, p->cols, acc);
			continue;
		}
		tile_read_factors(type, bytes, w, count, &f);
		for (size_t b = 0; b < count; b++) {
			tile_unpack_small(type, w, &f, b, &t);
			tile_columns(type, &t, x + b * unit, p->x_stride, p->cols, acc);
		}
	}
	for (size_t c = 0; c < p->cols; c++)
		memcpy(p->out + c * p->out_stride, acc + 16 * c, 16 * sizeof(float));
}

void tile_product_q4_0(const struct kernels_product *p)
{
	tile_product(KERNELS_Q4_0, sizeof(struct quant_q4_0), p);
}

void tile_product_q4_1(const struct kernels_product *p)
{
	tile_product(KERNELS_Q4_1, sizeof(struct quant_q4_1), p);
}

void tile_product_q5_0(const struct kernels_product *p)
{
	tile_product(KERNELS_Q5_0, sizeof(struct quant_q5_0), p);
}

void tile_product_q5_1(const struct kernels_product *p)
{
	tile_product(KERNELS_Q5_1, sizeof(struct quant_q5_1), p);
}

void tile_product_q8_0(const struct kernels_product *p)
{
	tile_product(KERNELS_Q8_0, sizeof(struct quant_q8_0), p);
}

void tile_product_q4_k(const struct kernels_product *p)
{
	tile_product(KERNELS_Q4_K, sizeof(struct quant_q4_k), p);
}

void tile_product_q5_k(const struct kernels_product *p)
{
	tile_product(KERNELS_Q5_K, sizeof(struct quant_q5_k), p);
}

void tile_product_q6_k(const struct kernels_product *p)
{
	tile_product(KERNELS_Q6_K, sizeof(struct quant_q6_k), p);
}
