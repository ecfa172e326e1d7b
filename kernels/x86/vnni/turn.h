/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One block of sixteen rows, a lane each, with its codes unpacked: what the products of packed
 * weights work on, here and in the AMX tier; and how rows are turned so (internal to kernels/x86).
 * Static functions only: this header is compiled with the flags of each tier.
 */

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* One block of 16 rows: word k of lane r holds codes 4k to 4k + 3 of row r, unsigned. */
struct tile {
	__m512i q[64];
	__m512i scale[16]; /* by sub-block: int16, below 16 bits of 0 */
	__m512i pair[4];   /* minima of sub-blocks 2i and 2i + 1, as two int16 */
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
