/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Sixteen rows of packed weights (kernels.h) as both ARM tiers take them: a line of 64 bytes is
 * four registers, of which a lane is a row, and holds four codes of it.  A register of word k and
 * quad j has codes 4k to 4k + 3 of rows 4j to 4j + 3 (internal to kernels/arm).  Static functions
 * only: this header is compiled with the flags of each tier.
 */

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "kernels.h"
#include "quant.h"

#define INLINE static inline __attribute__((always_inline))

/* For loops that would need more registers than there are if they were unrolled. */
#ifdef __clang__
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define ROLLED _Pragma("GCC unroll 1")
#endif

/* One block of 16 rows: where its words lie, and what its integers are multiplied with. */
struct tile_block {
	const uint8_t *words;
	float32x4_t d[4];
	float32x4_t m[4]; /* of types with a minimum, with its sign */
};

INLINE bool tile_large_type(uint32_t type)
{
	return type >= KERNELS_Q2_K;
}

INLINE bool tile_has_minimum(uint32_t type)
{
	return type == KERNELS_Q4_1 || type == KERNELS_Q5_1 || type == KERNELS_Q4_K ||
	       type == KERNELS_Q5_K;
}

INLINE size_t tile_bytes(uint32_t type)
{
	return type == KERNELS_Q4_0   ? sizeof(struct quant_q4_0)
	       : type == KERNELS_Q4_1 ? sizeof(struct quant_q4_1)
	       : type == KERNELS_Q5_0 ? sizeof(struct quant_q5_0)
	       : type == KERNELS_Q5_1 ? sizeof(struct quant_q5_1)
	       : type == KERNELS_Q8_0 ? sizeof(struct quant_q8_0)
	       : type == KERNELS_Q4_K ? sizeof(struct quant_q4_k)
	       : type == KERNELS_Q5_K ? sizeof(struct quant_q5_k)
				      : sizeof(struct quant_q6_k);
}

/* Where d of a native block lies. */
INLINE size_t tile_factor_at(uint32_t type)
{
	return type == KERNELS_Q6_K ? offsetof(struct quant_q6_k, d) : 0;
}

/* Block columns come in pairs, because d stands beside whole words. */
INLINE bool tile_has_pairs(uint32_t type)
{
	return tile_bytes(type) % 4 != 0;
}

/* Words of a block that stand line by line: all, or all but a lone d. */
INLINE size_t tile_lines(uint32_t type)
{
	return tile_bytes(type) / 4;
}

INLINE uint8x16_t tile_line(const uint8_t *words, int line, int quad)
{
	return vld1q_u8(words + 64 * line + 16 * quad);
}

INLINE uint32x4_t tile_word(const uint8_t *words, int line, int quad)
{
	return vreinterpretq_u32_u8(tile_line(words, line, quad));
}

INLINE float32x4_t tile_halves(uint16x4_t h)
{
	return vcvt_f32_f16(vreinterpret_f16_u16(h));
}

/* Block b of a tile whose rows have `blocks` blocks. */
INLINE void tile_locate(
	uint32_t type, const uint8_t *tile, size_t blocks, size_t b, struct tile_block *ret)
{
	const size_t bytes = tile_bytes(type), words = 64 * tile_lines(type);
	const uint8_t *at;

	if (!tile_has_pairs(type)) {
		at = tile + b * 16 * bytes;
		ret->words = at;
		for (int j = 0; j < 4; j++) {
			uint32x4_t h = tile_word(at, 0, j);

			ret->d[j] = tile_halves(vmovn_u32(h));
			ret->m[j] = tile_halves(vshrn_n_u32(h, 16));
			if (tile_large_type(type))
				ret->m[j] = vnegq_f32(ret->m[j]);
		}
		return;
	}
	at = tile + b / 2 * 2 * 16 * bytes;
	if (b % 2 == 0 && b + 1 == blocks) {
		ret->words = at + 32;
		for (int j = 0; j < 4; j++)
			ret->d[j] = tile_halves(vreinterpret_u16_u8(vld1_u8(at + 8 * j)));
		return;
	}
	ret->words = at + 64 + b % 2 * words;
	for (int j = 0; j < 4; j++) {
		uint32x4_t h = tile_word(at, 0, j);

		ret->d[j] = tile_halves(b % 2 ? vshrn_n_u32(h, 16) : vmovn_u32(h));
	}
}

/* Words (i, j) become (j, i). */
INLINE void tile_turn(uint32x4_t v[4])
{
	uint32x4_t a = vzip1q_u32(v[0], v[2]), b = vzip2q_u32(v[0], v[2]);
	uint32x4_t c = vzip1q_u32(v[1], v[3]), d = vzip2q_u32(v[1], v[3]);

	v[0] = vzip1q_u32(a, c);
	v[1] = vzip2q_u32(a, c);
	v[2] = vzip1q_u32(b, d);
	v[3] = vzip2q_u32(b, d);
}

/* The words of a block of each of 16 native rows, line by line. */
INLINE void tile_turn_words(uint32_t type, const uint8_t *const rows[16], uint8_t *out)
{
	const size_t lines = tile_lines(type),
		     at = tile_has_pairs(type) && !tile_factor_at(type) ? 2 : 0;

	for (size_t i = 0; i + 4 <= lines; i += 4)
		for (size_t j = 0; j < 4; j++) {
			uint32x4_t v[4];

			for (size_t k = 0; k < 4; k++)
				v[k] = vreinterpretq_u32_u8(vld1q_u8(rows[4 * j + k] + at + 4 * i));
			tile_turn(v);
			for (size_t k = 0; k < 4; k++)
				vst1q_u8(out + 64 * (i + k) + 16 * j, vreinterpretq_u8_u32(v[k]));
		}
	for (size_t i = lines / 4 * 4; i < lines; i++)
		for (size_t r = 0; r < 16; r++)
			memcpy(out + 64 * i + 4 * r, rows[r] + at + 4 * i, 4);
}

/* `bits` bits of each byte from bit `from` on, moved to bit 4. */
INLINE uint8x16_t tile_above(uint8x16_t v, int from, int bits)
{
	v = vshlq_u8(v, vdupq_n_s8((int8_t)(4 - from)));
	return vandq_u8(v, vdupq_n_u8((uint8_t)(((1 << bits) - 1) << 4)));
}

/* Bits 4k to 4k + 3 of each lane, one in each of its bytes, at bit 4. */
INLINE uint8x16_t tile_spread(uint8x16_t lanes, int k)
{
	static const uint8_t at[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
	const uint8x16_t bit = vreinterpretq_u8_u32(vdupq_n_u32(k % 2 ? 0x80402010 : 0x08040201));
	uint8x16_t v = vqtbl1q_u8(lanes, vaddq_u8(vld1q_u8(at), vdupq_n_u8((uint8_t)(k / 2))));

	return vandq_u8(vtstq_u8(v, bit), vdupq_n_u8(16));
}

/*
 * Codes come in groups of eight words, which share four lines: their low and high halves of bytes.
 * Group i of a block has words `low` to low + 3, and `high` to high + 3; `line` is its first line,
 * `above` the first of those with the codes' upper bits, `bit` where these begin for the low words.
 */
struct tile_group {
	int low, high, line, above, bit;
};

INLINE int tile_groups(uint32_t type)
{
	return tile_large_type(type) ? 8 : 1;
}

INLINE struct tile_group tile_group(uint32_t type, int i)
{
	switch (type) {
	case KERNELS_Q8_0:
	case KERNELS_Q4_0:
		return (struct tile_group){.high = 4};
	case KERNELS_Q4_1:
	case KERNELS_Q5_0:
		return (struct tile_group){.high = 4, .line = 1};
	case KERNELS_Q5_1:
		return (struct tile_group){.high = 4, .line = 2, .above = 1};
	case KERNELS_Q4_K:
	case KERNELS_Q5_K:
		return (struct tile_group){.low = i / 2 * 16 + i % 2 * 4,
			.high = i / 2 * 16 + i % 2 * 4 + 8,
			.line = (type == KERNELS_Q4_K ? 4 : 12) + 4 * i,
			.above = 4 + i % 2 * 4,
			.bit = i / 2 * 2};
	default: /* Q6_K */
		return (struct tile_group){.low = i / 4 * 32 + i % 4 * 4,
			.high = i / 4 * 32 + i % 4 * 4 + 16,
			.line = 4 * i,
			.above = 32 + i / 4 * 8 + i % 2 * 4,
			.bit = i % 4 / 2 * 2};
	}
}

/* Codes of a group and a quad, unsigned with their offset; those of Q8_0 are signed. */
INLINE void tile_codes(uint32_t type, const uint8_t *w, const struct tile_group *g, int quad,
	int8x16_t low[4], int8x16_t high[4])
{
	for (int l = 0; l < 4; l++) {
		uint8x16_t v = tile_line(w, g->line + l, quad), u;

		if (type == KERNELS_Q8_0) {
			low[l] = vreinterpretq_s8_u8(v);
			high[l] = vreinterpretq_s8_u8(tile_line(w, g->line + 4 + l, quad));
			continue;
		}
		u = vshrq_n_u8(v, 4);
		v = vandq_u8(v, vdupq_n_u8(15));
		if (type == KERNELS_Q5_0 || type == KERNELS_Q5_1) {
			uint8x16_t a = tile_line(w, g->above, quad);

			v = vorrq_u8(v, tile_spread(a, l));
			u = vorrq_u8(u, tile_spread(a, 4 + l));
		} else if (type == KERNELS_Q5_K || type == KERNELS_Q6_K) {
			const int bits = type == KERNELS_Q5_K ? 1 : 2;
			uint8x16_t a = tile_line(w, g->above + l, quad);

			v = vorrq_u8(v, tile_above(a, g->bit, bits));
			u = vorrq_u8(u, tile_above(a, g->bit + (bits == 1 ? 1 : 4), bits));
		}
		low[l] = vreinterpretq_s8_u8(v);
		high[l] = vreinterpretq_s8_u8(u);
	}
}

/* What is to be subtracted from codes of a small type. */
INLINE int tile_offset(uint32_t type)
{
	return type == KERNELS_Q4_0 ? 8 : type == KERNELS_Q5_0 ? 16 : 0;
}

/* Elements of a sub-block, in words, and how many there are. */
INLINE int tile_part(uint32_t type)
{
	return type == KERNELS_Q6_K ? 4 : 8;
}

INLINE int tile_parts(uint32_t type)
{
	return 64 / tile_part(type);
}

/*
 * Scales of a quad of a K-quant, and its minima, as bytes of words: of Q4_K and Q5_K two words
 * each; of Q6_K four words of scales.
 */
struct tile_scales {
	uint32x4_t scale[4];
	uint32x4_t min[2];
};

INLINE void tile_read_scales(uint32_t type, const uint8_t *w, int quad, struct tile_scales *ret)
{
	const uint32x4_t six = vdupq_n_u32(0x3f3f3f3f), four = vdupq_n_u32(0x0f0f0f0f);
	const uint32x4_t two = vdupq_n_u32(0x30303030);
	uint32x4_t a, b, c;

	if (type == KERNELS_Q6_K) {
		for (int i = 0; i < 4; i++)
			ret->scale[i] = tile_word(w, 48 + i, quad);
		return;
	}
	a = tile_word(w, 1, quad);
	b = tile_word(w, 2, quad);
	c = tile_word(w, 3, quad);
	ret->scale[0] = vandq_u32(a, six);
	ret->scale[1] = vorrq_u32(vandq_u32(c, four), vandq_u32(vshrq_n_u32(a, 2), two));
	ret->min[0] = vandq_u32(b, six);
	ret->min[1] =
		vorrq_u32(vandq_u32(vshrq_n_u32(c, 4), four), vandq_u32(vshrq_n_u32(b, 2), two));
}

/* Scale of sub-block i as a number in each lane. */
INLINE int32x4_t tile_scale(const struct tile_scales *s, int i)
{
	int32x4_t v = vreinterpretq_s32_u32(s->scale[i / 4]);

	/* Up to the sign and down again: the scales of the other types are below 64. */
	v = vshlq_s32(v, vdupq_n_s32(24 - i % 4 * 8));
	return vshrq_n_s32(v, 24);
}

/* Four words of four rows by 16 activations. */
INLINE int32x4_t tile_dot(int32x4_t s, const int8x16_t w[4], int8x16_t x)
{
	s = vdotq_laneq_s32(s, w[0], x, 0);
	s = vdotq_laneq_s32(s, w[1], x, 1);
	s = vdotq_laneq_s32(s, w[2], x, 2);
	return vdotq_laneq_s32(s, w[3], x, 3);
}

/* The low bytes of int16, signed, and what is left of them: low + 256 high. */
INLINE int8x8_t tile_low(int16x8_t v)
{
	return vmovn_s16(v);
}

INLINE int8x8_t tile_high(int16x8_t v)
{
	return vrshrn_n_s16(v, 8);
}

/* acc + (d dx) sum, and (m dx) min. */
INLINE float32x4_t tile_add(float32x4_t acc, float32x4_t d, float dx, int32x4_t sum)
{
	return vfmaq_f32(acc, vmulq_n_f32(d, dx), vcvtq_f32_s32(sum));
}
