/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One block of sixteen rows, turned so that a lane is a row, and its codes unpacked: what the
 * products with many columns work on, here and in the AMX tier (internal to kernels/x86).  Static
 * functions only: this header is compiled with the flags of each tier.
 */

#include <immintrin.h>
#include "kernels.h"
#include "quant.h"

#define INLINE static inline __attribute__((always_inline))

/* One block of 16 rows: word k of lane r holds codes 4k to 4k + 3 of row r, unsigned. */
struct tile {
	__m512i q[64];
	__m512i scale[16]; /* by sub-block */
	__m512i pair[8];   /* scales or minima of sub-blocks 2i and 2i + 1, as two int16 */
	__m512 d;
	__m512 m;
};

/* Words (i, j) become (j, i). */
INLINE void tile_turn(__m512i v[16])
{
	__m512i t[16];

	for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
	}
	for (int i = 0; i < 16; i += 4) {
		v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	for (int i = 0; i < 4; i++) {
		t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
		t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
		t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
		t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
	}
	for (int i = 0; i < 4; i++) {
		v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
		v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
		v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
		v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
	}
}

/* 64 bytes at `at` of each row, turned: word k of lane r. */
INLINE void tile_load(const uint8_t *const w[16], size_t at, __m512i out[16])
{
	for (int r = 0; r < 16; r++)
		out[r] = _mm512_loadu_si512(w[r] + at);
	tile_turn(out);
}

/* The same with 32 bytes: words 0 to 7. */
INLINE void tile_load_half(const uint8_t *const w[16], size_t at, __m512i out[16])
{
	for (int r = 0; r < 16; r++)
		out[r] = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(w[r] + at)));
	tile_turn(out);
}

/* The same with 16 bytes: words 0 to 3. */
INLINE void tile_load_quarter(const uint8_t *const w[16], size_t at, __m512i out[4])
{
	__m512i v[4], t[4];

	/* Lane group g of v[i] is row 4g + i. */
	for (int i = 0; i < 4; i++) {
		v[i] = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(w[i] + at)));
		v[i] = _mm512_inserti32x4(v[i], _mm_loadu_si128((const void *)(w[4 + i] + at)), 1);
		v[i] = _mm512_inserti32x4(v[i], _mm_loadu_si128((const void *)(w[8 + i] + at)), 2);
		v[i] = _mm512_inserti32x4(v[i], _mm_loadu_si128((const void *)(w[12 + i] + at)), 3);
	}
	t[0] = _mm512_unpacklo_epi32(v[0], v[1]);
	t[1] = _mm512_unpackhi_epi32(v[0], v[1]);
	t[2] = _mm512_unpacklo_epi32(v[2], v[3]);
	t[3] = _mm512_unpackhi_epi32(v[2], v[3]);
	out[0] = _mm512_unpacklo_epi64(t[0], t[2]);
	out[1] = _mm512_unpackhi_epi64(t[0], t[2]);
	out[2] = _mm512_unpacklo_epi64(t[1], t[3]);
	out[3] = _mm512_unpackhi_epi64(t[1], t[3]);
}

/* The half float at `at` of each row. */
INLINE __m512 tile_halves(const uint8_t *const w[16], size_t at)
{
	uint16_t h[16];

	for (int r = 0; r < 16; r++)
		h[r] = quant_u16(w[r] + at);
	return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)h));
}

INLINE __m512i tile_byte(__m512i words, int i)
{
	return _mm512_and_si512(_mm512_srli_epi32(words, 8 * i), _mm512_set1_epi32(255));
}

/* Scales and minima of Q4_K and Q5_K, from the 12 bytes turned to three words. */
INLINE void tile_scales(__m512i a, __m512i b, __m512i c, struct tile *t)
{
	const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f);
	const __m512i two = _mm512_set1_epi32(0x30303030);
	__m512i s[2], m[2];

	s[0] = _mm512_and_si512(a, six);
	s[1] = _mm512_or_si512(
		_mm512_and_si512(c, four), _mm512_and_si512(_mm512_srli_epi32(a, 2), two));
	m[0] = _mm512_and_si512(b, six);
	m[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), four),
		_mm512_and_si512(_mm512_srli_epi32(b, 2), two));
	for (int j = 0; j < 8; j++)
		t->scale[j] = tile_byte(s[j / 4], j % 4);
	for (int j = 0; j < 4; j++)
		t->pair[j] = _mm512_or_si512(tile_byte(m[j / 2], j % 2 * 2),
			_mm512_slli_epi32(tile_byte(m[j / 2], j % 2 * 2 + 1), 16));
}

/* Header of Q4_K and Q5_K: factors, scales, minima. */
INLINE void tile_unpack_header(const uint8_t *const w[16], struct tile *t)
{
	__m512i h[4];

	tile_load_quarter(w, 0, h);
	t->d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(h[0]));
	t->m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(h[0], 16)));
	t->m = _mm512_xor_ps(t->m, _mm512_set1_ps(-0.0f));
	tile_scales(h[1], h[2], h[3], t);
}

/* Word k of 64 bytes of nibbles: its low ones lie in group 2 (k / 8), its high ones in the next. */
INLINE void tile_unpack_q4_k(const uint8_t *const w[16], struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15);
	__m512i v[16];

	tile_unpack_header(w, t);
	for (int h = 0; h < 2; h++) {
		tile_load(w, 16 + 64 * (size_t)h, v);
		for (int k = 0; k < 16; k++) {
			__m512i *to = &t->q[32 * h + k / 8 * 16 + k % 8];

			to[0] = _mm512_and_si512(v[k], nibble);
			to[8] = _mm512_and_si512(_mm512_srli_epi32(v[k], 4), nibble);
		}
	}
}

INLINE void tile_unpack_q5_k(const uint8_t *const w[16], struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15), one = _mm512_set1_epi8(1);
	__m512i v[16], high[16];

	tile_unpack_header(w, t);
	tile_load_half(w, 16, high);
	for (int h = 0; h < 2; h++) {
		tile_load(w, 48 + 64 * (size_t)h, v);
		for (int k = 0; k < 16; k++) {
			__m512i *to = &t->q[32 * h + k / 8 * 16 + k % 8];
			int j = 4 * h + k / 8 * 2;
			__m512i e = _mm512_srli_epi32(high[k % 8], (unsigned)j);
			__m512i f = _mm512_srli_epi32(e, 1);

			e = _mm512_slli_epi32(_mm512_and_si512(e, one), 4);
			f = _mm512_slli_epi32(_mm512_and_si512(f, one), 4);
			to[0] = _mm512_or_si512(_mm512_and_si512(v[k], nibble), e);
			to[8] = _mm512_or_si512(
				_mm512_and_si512(_mm512_srli_epi32(v[k], 4), nibble), f);
		}
	}
}

INLINE void tile_unpack_q6_k(const uint8_t *const w[16], struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15), two = _mm512_set1_epi8(3);
	__m512i v[16], high[16], s[4];

	t->d = tile_halves(w, offsetof(struct quant_q6_k, d));
	tile_load_quarter(w, offsetof(struct quant_q6_k, scales), s);
	for (int j = 0; j < 16; j++)
		t->scale[j] = _mm512_srai_epi32(
			_mm512_slli_epi32(s[j / 4], (unsigned)(24 - 8 * (j % 4))), 24);
	for (int j = 0; j < 8; j++)
		t->pair[j] = _mm512_mask_blend_epi16(
			0xaaaaaaaa, t->scale[2 * j], _mm512_slli_epi32(t->scale[2 * j + 1], 16));
	tile_load(w, offsetof(struct quant_q6_k, high), high);
	for (int h = 0; h < 2; h++) {
		tile_load(w, 64 * (size_t)h, v);
		for (int k = 0; k < 16; k++) {
			__m512i *to = &t->q[32 * h + k];
			__m512i e = _mm512_srli_epi32(high[8 * h + k % 8], (unsigned)(k / 8 * 2));
			__m512i f = _mm512_srli_epi32(e, 4);

			e = _mm512_slli_epi32(_mm512_and_si512(e, two), 4);
			f = _mm512_slli_epi32(_mm512_and_si512(f, two), 4);
			to[0] = _mm512_or_si512(_mm512_and_si512(v[k], nibble), e);
			to[16] = _mm512_or_si512(
				_mm512_and_si512(_mm512_srli_epi32(v[k], 4), nibble), f);
		}
	}
}

/* Blocks of 32 whose factors are read at once: reading them takes stores and a load that waits. */
#define TILE_BLOCKS 8

/* Of 16 rows, block by block: half floats, and the fifth bits of Q5_0 and Q5_1. */
struct tile_factors {
	uint16_t d[TILE_BLOCKS][16];
	uint16_t m[TILE_BLOCKS][16];
	uint32_t high[TILE_BLOCKS][16];
} __attribute__((aligned(64)));

INLINE void tile_read_factors(uint32_t type, size_t bytes, const uint8_t *const w[16],
	size_t blocks, struct tile_factors *out)
{
	for (size_t b = 0; b < blocks; b++)
		for (int r = 0; r < 16; r++)
			out->d[b][r] = quant_u16(w[r] + b * bytes);
	for (size_t b = 0; (type == KERNELS_Q4_1 || type == KERNELS_Q5_1) && b < blocks; b++)
		for (int r = 0; r < 16; r++)
			out->m[b][r] = quant_u16(w[r] + b * bytes + 2);
	for (size_t b = 0; (type == KERNELS_Q5_0 || type == KERNELS_Q5_1) && b < blocks; b++)
		for (int r = 0; r < 16; r++)
			out->high[b][r] =
				quant_u32(w[r] + b * bytes + (type == KERNELS_Q5_0 ? 2 : 4));
}

/* Block b of those that `f` was read from. */
INLINE void tile_unpack_small(uint32_t type, const uint8_t *const w[16],
	const struct tile_factors *f, size_t b, struct tile *t)
{
	size_t at = type == KERNELS_Q4_0   ? sizeof(struct quant_q4_0) * b + 2
		    : type == KERNELS_Q4_1 ? sizeof(struct quant_q4_1) * b + 4
		    : type == KERNELS_Q5_0 ? sizeof(struct quant_q5_0) * b + 6
		    : type == KERNELS_Q5_1 ? sizeof(struct quant_q5_1) * b + 8
					   : sizeof(struct quant_q8_0) * b + 2;
	const __m512i nibble = _mm512_set1_epi8(15), bits = _mm512_set1_epi32(0x08040201);
	__m512i v[16], high;

	t->d = _mm512_cvtph_ps(_mm256_load_si256((const void *)f->d[b]));
	if (type == KERNELS_Q4_1 || type == KERNELS_Q5_1)
		t->m = _mm512_cvtph_ps(_mm256_load_si256((const void *)f->m[b]));
	if (type == KERNELS_Q8_0) {
		tile_load_half(w, at, v);
		for (int k = 0; k < 8; k++)
			t->q[k] = _mm512_xor_si512(v[k], _mm512_set1_epi8((char)0x80));
		return;
	}
	tile_load_quarter(w, at, v);
	for (int k = 0; k < 4; k++) {
		t->q[k] = _mm512_and_si512(v[k], nibble);
		t->q[k + 4] = _mm512_and_si512(_mm512_srli_epi32(v[k], 4), nibble);
	}
	if (type != KERNELS_Q5_0 && type != KERNELS_Q5_1)
		return;
	high = _mm512_load_si512(f->high[b]);
	for (int k = 0; k < 8; k++) {
		/* The four bits of word k, copied to each of its bytes, of which each tests one. */
		__m512i n = _mm512_and_si512(
			_mm512_srli_epi32(high, (unsigned)(4 * k)), _mm512_set1_epi32(15));

		n = _mm512_shuffle_epi8(
			n, _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
		t->q[k] = _mm512_mask_add_epi8(
			t->q[k], _mm512_test_epi8_mask(n, bits), t->q[k], _mm512_set1_epi8(16));
	}
}

/*
 * Blocks of 256 elements from what is multiplied to what is read ahead.  Weights come out of memory
 * once, and sixteen rows are more than the processor foresees by itself; with two it is less fast.
 */
#define TILE_AHEAD 1

/* Reads ahead what the 16 rows hold from `at` on, and where they end the next 16. */
INLINE void tile_ahead(const struct kernels_product *p, size_t row, size_t at, size_t bytes)
{
	const char *w = p->w;

	if (at >= row) {
		if (p->rows < 32)
			return;
		at -= row;
		w += 16 * p->w_stride;
	}
	for (size_t r = 0; r < 16; r++)
		for (size_t i = 0; i < bytes; i += 64)
			_mm_prefetch(w + r * p->w_stride + at + i, _MM_HINT_T0);
}

INLINE void tile_unpack_large(uint32_t type, const uint8_t *const w[16], struct tile *t)
{
	if (type == KERNELS_Q4_K)
		tile_unpack_q4_k(w, t);
	else if (type == KERNELS_Q5_K)
		tile_unpack_q5_k(w, t);
	else
		tile_unpack_q6_k(w, t);
}
