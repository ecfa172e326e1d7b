/* SPDX-License-Identifier: MIT */

/*
 * The products of quantised weights, packed and native, once for both ARM tiers: included by one
 * source file of each, after TIER() and what it does with many columns: struct tile, tile_unpack()
 * and tile_columns().
 *
 * One column reads each line of codes once, takes the codes apart in registers and multiplies them
 * by sdot: for Q4_K gcc makes about 650 instructions for the 1152 bytes of a block of eight rows,
 * of which 128 multiply and 128 unpack; memory is the limit that it approaches.  More columns take
 * a block apart once for all, into the first cache, and approach the rate of sdot (smmla).  Native
 * rows are turned, block by block, into what packed rows are.
 *
 * Everything is int32 and exact, so the order of additions is free: a block of a K-quant is below
 * 256 * 63 * 127 * 128 = 2^28, a small one below 32 * 128 * 127, minima below 2^24.
 */

#include "tile.h"

/* Columns whose sums stay in the first cache beside a tile. */
#define TILE_COLS 64

/* One block of each of 16 native rows as that of a packed tile whose rows have one block. */
INLINE void tile_gather(uint32_t type, const uint8_t *const rows[16], uint8_t *out)
{
	if (tile_has_pairs(type))
		for (int r = 0; r < 16; r++, out += 2)
			memcpy(out, rows[r] + tile_factor_at(type), 2);
	tile_turn_words(type, rows, out);
}

/* What minima add to a quad, or for Q6_K what its offset takes away. */
INLINE int32x4_t tile_single_min(
	uint32_t type, const struct tile_scales *s, const struct kernels_q256 *x)
{
	int32x4_t low = vdupq_n_s32(0), high = low;

	if (type == KERNELS_Q6_K) {
		int16x8_t a = vld1q_s16(x->sums), b = vld1q_s16(x->sums + 8);
		int8x16_t w[4];

		for (int i = 0; i < 4; i++)
			w[i] = vreinterpretq_s8_u32(s->scale[i]);
		low = tile_dot(low, w, vcombine_s8(tile_low(a), tile_low(b)));
		high = tile_dot(high, w, vcombine_s8(tile_high(a), tile_high(b)));
	} else {
		int16x8_t a = vld1q_s16(x->pairs);
		int8x16_t m = vreinterpretq_s8_u32(s->min[0]);
		int8x16_t n = vreinterpretq_s8_u32(s->min[1]);

		low = vdotq_lane_s32(low, m, tile_low(a), 0);
		low = vdotq_lane_s32(low, n, tile_low(a), 1);
		high = vdotq_lane_s32(high, m, tile_high(a), 0);
		high = vdotq_lane_s32(high, n, tile_high(a), 1);
	}
	return vaddq_s32(low, vshlq_n_s32(high, 8));
}

INLINE void tile_single_large(
	uint32_t type, const struct tile_block *w, const struct kernels_q256 *x, float32x4_t acc[4])
{
	/* Groups that share their scales. */
	const int words = tile_part(type), step = words / 4;

	/* Two quads at a time: sums and codes stay in registers. */
	ROLLED
	for (int h = 0; h < 4; h += 2) {
		int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)}, part[2][2];
		struct tile_scales scales[2];

		tile_read_scales(type, w->words, h, &scales[0]);
		tile_read_scales(type, w->words, h + 1, &scales[1]);
		ROLLED
		for (int i = 0; i < 8; i += step) {
			const struct tile_group f = tile_group(type, i);

			for (int j = 0; j < 2; j++)
				part[j][0] = part[j][1] = vdupq_n_s32(0);
			for (int k = i; k < i + step; k++) {
				const struct tile_group g = tile_group(type, k);
				int8x16_t low[4], high[4], x0 = vld1q_s8(x->q + 4 * g.low);
				int8x16_t x1 = vld1q_s8(x->q + 4 * g.high);

				for (int j = 0; j < 2; j++) {
					tile_codes(type, w->words, &g, h + j, low, high);
					part[j][0] = tile_dot(part[j][0], low, x0);
					part[j][1] = tile_dot(part[j][1], high, x1);
				}
			}
			for (int j = 0; j < 2; j++) {
				int32x4_t low = tile_scale(&scales[j], f.low / words);
				int32x4_t high = tile_scale(&scales[j], f.high / words);

				sum[j] = vmlaq_s32(sum[j], part[j][0], low);
				sum[j] = vmlaq_s32(sum[j], part[j][1], high);
			}
		}
		for (int j = 0; j < 2; j++) {
			int32x4_t min = tile_single_min(type, &scales[j], x);
			float32x4_t *a = &acc[h + j];

			if (type == KERNELS_Q6_K)
				sum[j] = vsubq_s32(sum[j], vshlq_n_s32(min, 5));
			*a = tile_add(*a, w->d[h + j], x->d, sum[j]);
			if (type != KERNELS_Q6_K)
				*a = tile_add(*a, w->m[h + j], x->d, min);
		}
	}
}

INLINE void tile_single_small(
	uint32_t type, const struct tile_block *w, const struct kernels_q32 *x, float32x4_t acc[4])
{
	const struct tile_group g = tile_group(type, 0);
	int8x16_t x0 = vld1q_s8(x->q), x1 = vld1q_s8(x->q + 16), low[4], high[4];

	for (int j = 0; j < 4; j++) {
		int32x4_t sum = vdupq_n_s32(-tile_offset(type) * x->sum);

		tile_codes(type, w->words, &g, j, low, high);
		sum = tile_dot(tile_dot(sum, low, x0), high, x1);
		acc[j] = tile_add(acc[j], w->d[j], x->d, sum);
		if (tile_has_minimum(type))
			acc[j] = tile_add(acc[j], w->m[j], x->d, vdupq_n_s32(x->sum));
	}
}

/* Where 16 rows are; of native ones the missing repeat the last, and are not stored. */
struct tile_rows {
	const uint8_t *w;
	size_t stride; /* of native rows */
	size_t rows;
	size_t blocks;
};

/* Block b; native rows are turned into `room`. */
INLINE void tile_block(uint32_t type, bool packed, const struct tile_rows *t, size_t b,
	uint8_t *room, struct tile_block *ret)
{
	const uint8_t *rows[16];

	if (packed) {
		tile_locate(type, t->w, t->blocks, b, ret);
		return;
	}
	for (size_t r = 0; r < 16; r++)
		rows[r] = t->w + (r < t->rows ? r : t->rows - 1) * t->stride + b * tile_bytes(type);
	tile_gather(type, rows, room);
	tile_locate(type, room, 1, 0, ret);
}

INLINE void tile_single(
	uint32_t type, bool packed, const struct tile_rows *t, const void *x, float out[16])
{
	uint8_t room[16 * QUANT_BYTES_MAX] __attribute__((aligned(64)));
	float32x4_t acc[4];

	for (int j = 0; j < 4; j++)
		acc[j] = vdupq_n_f32(0);
	for (size_t b = 0; b < t->blocks; b++) {
		struct tile_block w;

		tile_block(type, packed, t, b, room, &w);
		if (tile_large_type(type))
			tile_single_large(type, &w, (const struct kernels_q256 *)x + b, acc);
		else
			tile_single_small(type, &w, (const struct kernels_q32 *)x + b, acc);
	}
	for (int j = 0; j < 4; j++)
		vst1q_f32(out + 4 * j, acc[j]);
}

INLINE void tile_many(uint32_t type, bool packed, const struct tile_rows *t, const uint8_t *x,
	size_t x_stride, size_t cols, float *acc)
{
	const size_t unit =
		tile_large_type(type) ? sizeof(struct kernels_q256) : sizeof(struct kernels_q32);
	uint8_t room[16 * QUANT_BYTES_MAX] __attribute__((aligned(64)));

	memset(acc, 0, 16 * cols * sizeof(float));
	for (size_t b = 0; b < t->blocks; b++) {
		struct tile_block w;
		struct tile u;

		tile_block(type, packed, t, b, room, &w);
		tile_unpack(type, &w, &u);
		tile_columns(type, &w, &u, x + b * unit, x_stride, cols, acc);
	}
}

INLINE void tile_product(uint32_t type, bool packed, const struct kernels_product *p)
{
	float acc[16 * TILE_COLS];
	struct tile_rows t = {
		.stride = p->w_stride, .blocks = p->n / (tile_large_type(type) ? 256 : 32)};

	for (size_t c = 0; c < p->cols; c += TILE_COLS) {
		size_t cols = p->cols - c < TILE_COLS ? p->cols - c : TILE_COLS;
		const uint8_t *x = (const uint8_t *)p->x + c * p->x_stride;

		for (size_t r = 0; r < p->rows; r += 16) {
			t.w = (const uint8_t *)p->w + r * p->w_stride;
			t.rows = p->rows - r < 16 ? p->rows - r : 16;
			if (cols == 1)
				tile_single(type, packed, &t, x, acc);
			else
				tile_many(type, packed, &t, x, p->x_stride, cols, acc);
			for (size_t i = 0; i < cols; i++)
				memcpy(p->out + (c + i) * p->out_stride + r, acc + 16 * i,
					t.rows * sizeof(float));
		}
	}
}

/* One body for both layouts: a product is large when all of it is written out. */
#define PRODUCT(name, type)                                                                        \
	static __attribute__((noinline)) void name##_any(                                          \
		const struct kernels_product *p, bool packed)                                      \
	{                                                                                          \
		tile_product(type, packed, p);                                                     \
	}                                                                                          \
	void TIER(product_##name)(const struct kernels_product *p)                                 \
	{                                                                                          \
		name##_any(p, false);                                                              \
	}                                                                                          \
	void TIER(packed_##name)(const struct kernels_product *p)                                  \
	{                                                                                          \
		name##_any(p, true);                                                               \
	}

PRODUCT(q4_0, KERNELS_Q4_0)
PRODUCT(q4_1, KERNELS_Q4_1)
PRODUCT(q5_0, KERNELS_Q5_0)
PRODUCT(q5_1, KERNELS_Q5_1)
PRODUCT(q8_0, KERNELS_Q8_0)
PRODUCT(q4_k, KERNELS_Q4_K)
PRODUCT(q5_k, KERNELS_Q5_K)
PRODUCT(q6_k, KERNELS_Q6_K)
