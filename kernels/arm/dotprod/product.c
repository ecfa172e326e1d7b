/* SPDX-License-Identifier: MIT */

/*
 * Products by sdot, which takes four codes of each of four rows and four activations of a column.
 * With many columns 16 rows by 4 columns of a block of 256 are 1024 sdot and about 500 loads.
 */

#include <arm_neon.h>
#include "tile.h"
#include "dotprod.h"

/* Codes taken apart, signed but those of types with a minimum or an offset by sums. */
struct tile {
	int8x16_t q[64][4];
	int32x4_t scale[16][4];
	int8x16_t min[2][4];
};

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
				t->q[g.low + l][j] = vsubq_s8(low[l], offset);
				t->q[g.high + l][j] = vsubq_s8(high[l], offset);
			}
		}
		if (!tile_large_type(type))
			continue;
		tile_read_scales(type, w->words, j, &s);
		for (int i = 0; i < tile_parts(type); i++)
			t->scale[i][j] = tile_scale(&s, i);
		for (int i = 0; i < 2 && type != KERNELS_Q6_K; i++)
			t->min[i][j] = vreinterpretq_s8_u32(s.min[i]);
	}
}

/* Two quads by up to four columns. */
INLINE void tile_large(uint32_t type, const struct tile_block *w, const struct tile *t, int h,
	const struct kernels_q256 *const x[4], size_t cols, float *acc)
{
	const int words = tile_part(type);
	int32x4_t sum[4][2];

	for (size_t c = 0; c < cols; c++)
		sum[c][0] = sum[c][1] = vdupq_n_s32(0);
	for (int i = 0; i < tile_parts(type); i++) {
		int32x4_t part[4][2];

		for (size_t c = 0; c < cols; c++)
			part[c][0] = part[c][1] = vdupq_n_s32(0);
		for (int k = words * i; k < words * (i + 1); k += 4) {
			int8x16_t v[2][4];

			for (int j = 0; j < 2; j++)
				for (int l = 0; l < 4; l++)
					v[j][l] = t->q[k + l][h + j];
			for (size_t c = 0; c < cols; c++) {
				int8x16_t y = vld1q_s8(x[c]->q + 4 * k);

				part[c][0] = tile_dot(part[c][0], v[0], y);
				part[c][1] = tile_dot(part[c][1], v[1], y);
			}
		}
		for (size_t c = 0; c < cols; c++)
			for (int j = 0; j < 2; j++)
				sum[c][j] = vmlaq_s32(sum[c][j], part[c][j], t->scale[i][h + j]);
	}
	for (size_t c = 0; c < cols; c++) {
		int16x8_t pairs = vld1q_s16(x[c]->pairs);

		for (int j = 0; j < 2; j++) {
			float *to = acc + 16 * c + 4 * (h + j);
			int32x4_t low = vdupq_n_s32(0), high = low;
			float32x4_t a;

			a = tile_add(vld1q_f32(to), w->d[h + j], x[c]->d, sum[c][j]);
			if (type != KERNELS_Q6_K) {
				for (int i = 0; i < 2; i++) {
					int8x8_t l = tile_low(pairs), u = tile_high(pairs);
					int8x16_t m = t->min[i][h + j];

					low = i ? vdotq_lane_s32(low, m, l, 1)
						: vdotq_lane_s32(low, m, l, 0);
					high = i ? vdotq_lane_s32(high, m, u, 1)
						 : vdotq_lane_s32(high, m, u, 0);
				}
				low = vaddq_s32(low, vshlq_n_s32(high, 8));
				a = tile_add(a, w->m[h + j], x[c]->d, low);
			}
			vst1q_f32(to, a);
		}
	}
}

INLINE void tile_small(uint32_t type, const struct tile_block *w, const struct tile *t,
	const struct kernels_q32 *const x[4], size_t cols, float *acc)
{
	int8x16_t y[4][2];

	for (size_t c = 0; c < cols; c++)
		for (int k = 0; k < 2; k++)
			y[c][k] = vld1q_s8(x[c]->q + 16 * k);
	ROLLED
	for (int j = 0; j < 4; j++) {
		int32x4_t sum[4];

		for (size_t c = 0; c < cols; c++)
			sum[c] = vdupq_n_s32(-tile_offset(type) * x[c]->sum);
		for (int k = 0; k < 2; k++) {
			int8x16_t v[4];

			for (int l = 0; l < 4; l++)
				v[l] = t->q[4 * k + l][j];
			for (size_t c = 0; c < cols; c++)
				sum[c] = tile_dot(sum[c], v, y[c][k]);
		}
		for (size_t c = 0; c < cols; c++) {
			float *to = acc + 16 * c + 4 * j;
			float32x4_t a = tile_add(vld1q_f32(to), w->d[j], x[c]->d, sum[c]);

			if (tile_has_minimum(type))
				a = tile_add(a, w->m[j], x[c]->d, vdupq_n_s32(x[c]->sum));
			vst1q_f32(to, a);
		}
	}
}

INLINE void tile_some(uint32_t type, const struct tile_block *w, const struct tile *t,
	const uint8_t *x, size_t x_stride, size_t cols, float *acc)
{
	const struct kernels_q256 *large[4];
	const struct kernels_q32 *small[4];

	for (size_t c = 0; c < cols; c++) {
		large[c] = (const void *)(x + c * x_stride);
		small[c] = (const void *)(x + c * x_stride);
	}
	if (!tile_large_type(type)) {
		tile_small(type, w, t, small, cols, acc);
		return;
	}
	for (int h = 0; h < 4; h += 2)
		tile_large(type, w, t, h, large, cols, acc);
}

INLINE void tile_columns(uint32_t type, const struct tile_block *w, const struct tile *t,
	const uint8_t *x, size_t x_stride, size_t cols, float *acc)
{
	size_t c = 0;

	for (; c + 4 <= cols; c += 4)
		tile_some(type, w, t, x + c * x_stride, x_stride, 4, acc + 16 * c);
	if (cols - c >= 2) {
		tile_some(type, w, t, x + c * x_stride, x_stride, 2, acc + 16 * c);
		c += 2;
	}
	if (c < cols)
		tile_some(type, w, t, x + c * x_stride, x_stride, 1, acc + 16 * c);
}

#include "product.h"
