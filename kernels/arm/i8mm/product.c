/* SPDX-License-Identifier: MIT */

/*
 * Products by smmla, which takes eight codes of each of two rows and eight activations of each of
 * two columns: for many columns half as many instructions as sdot.  16 rows by 4 columns of a block
 * of 256 are 512 smmla, about 400 loads and 64 zips.
 */

#include <arm_neon.h>
#include "tile.h"
#include "i8mm.h"

/*
 * A register has two words of rows 2i and 2i + 1: words 2k and 2k + 1 of row 2i, then of the other.
 * Sums are (row 2i, column c), (2i, c + 1), (2i + 1, c), (2i + 1, c + 1): scales come in pairs.
 */
struct tile {
	int8x16_t q[32][8];
	int32x4_t scale[16][8];
	int8x16_t min[8];
};

/* Words k and k + 1 of a quad into two pairs of rows. */
INLINE void tile_put(struct tile *t, int k, int quad, int8x16_t a, int8x16_t b)
{
	int32x4_t u = vreinterpretq_s32_s8(a), v = vreinterpretq_s32_s8(b);

	t->q[k / 2][2 * quad] = vreinterpretq_s8_s32(vzip1q_s32(u, v));
	t->q[k / 2][2 * quad + 1] = vreinterpretq_s8_s32(vzip2q_s32(u, v));
}

INLINE void tile_unpack(uint32_t type, const struct tile_block *w, struct tile *t)
{
	const int8x16_t offset = vdupq_n_s8(type == KERNELS_Q6_K ? 32 : 0);

	ROLLED
	for (int j = 0; j < 4; j++) {
		struct tile_scales s;

		ROLLED
		for (int i = 0; i < tile_groups(type); i++) {
			const struct tile_group g = tile_group(type, i);
			int8x16_t low[4], high[4];

			tile_codes(type, w->words, &g, j, low, high);
			for (int l = 0; l < 4; l++) {
				low[l] = vsubq_s8(low[l], offset);
				high[l] = vsubq_s8(high[l], offset);
			}
			for (int l = 0; l < 4; l += 2) {
				tile_put(t, g.low + l, j, low[l], low[l + 1]);
				tile_put(t, g.high + l, j, high[l], high[l + 1]);
			}
		}
		if (!tile_large_type(type))
			continue;
		tile_read_scales(type, w->words, j, &s);
		for (int i = 0; i < tile_parts(type); i++) {
			int32x4_t v = tile_scale(&s, i);

			t->scale[i][2 * j] = vzip1q_s32(v, v);
			t->scale[i][2 * j + 1] = vzip2q_s32(v, v);
		}
		if (type == KERNELS_Q6_K)
			continue;
		t->min[2 * j] = vreinterpretq_s8_u32(vzip1q_u32(s.min[0], s.min[1]));
		t->min[2 * j + 1] = vreinterpretq_s8_u32(vzip2q_u32(s.min[0], s.min[1]));
	}
}

/* 16 activations of two columns: the first eight of both, then the others. */
INLINE void tile_pair(const int8_t *a, const int8_t *b, int8x16_t ret[2])
{
	int64x2_t u = vreinterpretq_s64_s8(vld1q_s8(a)), v = vreinterpretq_s64_s8(vld1q_s8(b));

	ret[0] = vreinterpretq_s8_s64(vzip1q_s64(u, v));
	ret[1] = vreinterpretq_s8_s64(vzip2q_s64(u, v));
}

/* Sums of a quad for one of two columns, from those of its two pairs of rows. */
INLINE int32x4_t tile_column(int32x4_t a, int32x4_t b, size_t c)
{
	return c ? vuzp2q_s32(a, b) : vuzp1q_s32(a, b);
}

/* Four pairs of rows, from h on, by two or four columns, of which the first `real` are stored. */
INLINE void tile_large(uint32_t type, const struct tile_block *w, const struct tile *t, int h,
	const struct kernels_q256 *const x[4], size_t cols, size_t real, float *acc)
{
	const int words = tile_part(type);
	const size_t pairs = cols / 2;
	int32x4_t sum[2][4], min[2][4];

	for (size_t c = 0; c < pairs; c++)
		for (int r = 0; r < 4; r++)
			sum[c][r] = vdupq_n_s32(0);
	for (int i = 0; i < tile_parts(type); i++) {
		int32x4_t part[2][4];

		for (size_t c = 0; c < pairs; c++)
			for (int r = 0; r < 4; r++)
				part[c][r] = vdupq_n_s32(0);
		for (int k = words * i; k < words * (i + 1); k += 4) {
			int8x16_t y[2][2];

			for (size_t c = 0; c < pairs; c++)
				tile_pair(x[2 * c]->q + 4 * k, x[2 * c + 1]->q + 4 * k, y[c]);
			for (int l = 0; l < 2; l++)
				for (int r = 0; r < 4; r++)
					for (size_t c = 0; c < pairs; c++)
						part[c][r] = vmmlaq_s32(part[c][r],
							t->q[k / 2 + l][h + r], y[c][l]);
		}
		for (size_t c = 0; c < pairs; c++)
			for (int r = 0; r < 4; r++)
				sum[c][r] = vmlaq_s32(sum[c][r], part[c][r], t->scale[i][h + r]);
	}
	for (size_t c = 0; c < pairs && type != KERNELS_Q6_K; c++) {
		int16x8_t a = vld1q_s16(x[2 * c]->pairs), b = vld1q_s16(x[2 * c + 1]->pairs);
		int8x16_t low = vcombine_s8(tile_low(a), tile_low(b));
		int8x16_t high = vcombine_s8(tile_high(a), tile_high(b));

		for (int r = 0; r < 4; r++) {
			min[c][r] = vmmlaq_s32(vdupq_n_s32(0), t->min[h + r], high);
			min[c][r] = vmmlaq_s32(vshlq_n_s32(min[c][r], 8), t->min[h + r], low);
		}
	}
	for (size_t c = 0; c < real; c++)
		for (int j = 0; j < 2; j++) {
			const int quad = h / 2 + j;
			float *to = acc + 16 * c + 4 * quad;
			int32x4_t s = tile_column(sum[c / 2][2 * j], sum[c / 2][2 * j + 1], c % 2);
			float32x4_t a = tile_add(vld1q_f32(to), w->d[quad], x[c]->d, s);

			if (type != KERNELS_Q6_K) {
				s = tile_column(min[c / 2][2 * j], min[c / 2][2 * j + 1], c % 2);
				a = tile_add(a, w->m[quad], x[c]->d, s);
			}
			vst1q_f32(to, a);
		}
}

INLINE void tile_small(uint32_t type, const struct tile_block *w, const struct tile *t,
	const struct kernels_q32 *const x[4], size_t cols, size_t real, float *acc)
{
	const size_t pairs = cols / 2;
	int32x4_t start[2];
	int8x16_t y[2][4];

	for (size_t c = 0; c < pairs; c++) {
		const struct kernels_q32 *a = x[2 * c], *b = x[2 * c + 1];

		start[c] = vzip1q_s32(vdupq_n_s32(-tile_offset(type) * a->sum),
			vdupq_n_s32(-tile_offset(type) * b->sum));
		for (int k = 0; k < 2; k++)
			tile_pair(a->q + 16 * k, b->q + 16 * k, y[c] + 2 * k);
	}
	ROLLED
	for (int j = 0; j < 4; j++) {
		int32x4_t sum[2][2];

		for (size_t c = 0; c < pairs; c++)
			sum[c][0] = sum[c][1] = start[c];
		for (int k = 0; k < 4; k++)
			for (int r = 0; r < 2; r++)
				for (size_t c = 0; c < pairs; c++)
					sum[c][r] =
						vmmlaq_s32(sum[c][r], t->q[k][2 * j + r], y[c][k]);
		for (size_t c = 0; c < real; c++) {
			float *to = acc + 16 * c + 4 * j;
			int32x4_t s = tile_column(sum[c / 2][0], sum[c / 2][1], c % 2);
			float32x4_t a = tile_add(vld1q_f32(to), w->d[j], x[c]->d, s);

			if (tile_has_minimum(type))
				a = tile_add(a, w->m[j], x[c]->d, vdupq_n_s32(x[c]->sum));
			vst1q_f32(to, a);
		}
	}
}

/* A column without a partner is its own. */
INLINE void tile_some(uint32_t type, const struct tile_block *w, const struct tile *t,
	const uint8_t *x, size_t x_stride, size_t cols, size_t real, float *acc)
{
	const struct kernels_q256 *large[4];
	const struct kernels_q32 *small[4];

	for (size_t c = 0; c < cols; c++) {
		large[c] = (const void *)(x + (c < real ? c : real - 1) * x_stride);
		small[c] = (const void *)(x + (c < real ? c : real - 1) * x_stride);
	}
	if (!tile_large_type(type)) {
		tile_small(type, w, t, small, cols, real, acc);
		return;
	}
	for (int h = 0; h < 8; h += 4)
		tile_large(type, w, t, h, large, cols, real, acc);
}

INLINE void tile_columns(uint32_t type, const struct tile_block *w, const struct tile *t,
	const uint8_t *x, size_t x_stride, size_t cols, float *acc)
{
	size_t c = 0;

	for (; c + 4 <= cols; c += 4)
		tile_some(type, w, t, x + c * x_stride, x_stride, 4, 4, acc + 16 * c);
	if (cols - c >= 2) {
		tile_some(type, w, t, x + c * x_stride, x_stride, 2, 2, acc + 16 * c);
		c += 2;
	}
	if (c < cols)
		tile_some(type, w, t, x + c * x_stride, x_stride, 2, 1, acc + 16 * c);
}

#include "product.h"
