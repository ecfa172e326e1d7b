/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Packed weights (kernels.h) as registers: a block column of a tile unpacked, for the products here
 * and in the AMX tier (internal to kernels/x86).  Static functions only: this header is compiled
 * with the flags of each tier.
 */

#include <immintrin.h>
#include "kernels.h"
#include "quant.h"
#include "turn.h"

/* Bytes of a native block. */
INLINE size_t packed_bytes(uint32_t type)
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

/* Where a block column lies: d of 16 rows, for types whose columns come in pairs, and its words. */
struct packed_at {
	const uint8_t *d;
	const uint8_t *words;
	bool lone;   /* d is 16 half floats */
	bool second; /* d is the high halves of words, else the low ones */
};

/* Block column b of a tile whose rows have `blocks` blocks. */
INLINE struct packed_at packed_column(uint32_t type, const uint8_t *tile, size_t blocks, size_t b)
{
	const size_t bytes = packed_bytes(type);
	struct packed_at at = {.second = b % 2, .lone = b % 2 == 0 && b + 1 == blocks};

	if (bytes % 4 == 0) {
		at.d = at.words = tile + b * bytes * 16;
		return at;
	}
	at.d = tile + b / 2 * 2 * bytes * 16;
	at.words = at.d + (at.lone ? 32 : at.second ? 64 + (bytes - 2) * 16 : 64);
	return at;
}

INLINE __m512i packed_word(const uint8_t *words, int k)
{
	return _mm512_loadu_si512(words + 64 * k);
}

INLINE __m512 packed_d(const struct packed_at *at)
{
	__m512i w;

	if (at->lone)
		return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)at->d));
	w = _mm512_loadu_si512(at->d);
	return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(at->second ? _mm512_srli_epi32(w, 16) : w));
}

/* Both factors of the types that have a minimum, from word 0. */
INLINE void packed_factors(const uint8_t *words, __m512 *ret_d, __m512 *ret_m)
{
	__m512i w = packed_word(words, 0);

	*ret_d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w));
	*ret_m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(w, 16)));
}

/* Header of Q4_K and Q5_K: factors, scales, minima. */
INLINE void packed_header(const uint8_t *words, struct tile *t)
{
	packed_factors(words, &t->d, &t->m);
	t->m = _mm512_xor_ps(t->m, _mm512_set1_ps(-0.0f));
	tile_scales(packed_word(words, 1), packed_word(words, 2), packed_word(words, 3), t);
}

INLINE void packed_q4_k(const uint8_t *words, struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15);

	packed_header(words, t);
	for (int k = 0; k < 32; k++) {
		__m512i v = packed_word(words, 4 + k), *to = &t->q[k / 8 * 16 + k % 8];

		to[0] = _mm512_and_si512(v, nibble);
		to[8] = _mm512_and_si512(_mm512_srli_epi32(v, 4), nibble);
	}
}

INLINE void packed_q5_k(const uint8_t *words, struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16);

	packed_header(words, t);
	for (int k = 0; k < 32; k++) {
		__m512i v = packed_word(words, 12 + k), *to = &t->q[k / 8 * 16 + k % 8];
		__m512i high = packed_word(words, 4 + k % 8);
		/* Bits 2i and 2i + 1 go to bit 4. */
		const int i = k / 8;
		__m512i e = i < 2    ? _mm512_slli_epi32(high, (unsigned)(4 - 2 * i))
			    : i == 2 ? high
				     : _mm512_srli_epi32(high, 2);
		__m512i f = i < 2 ? _mm512_slli_epi32(high, (unsigned)(3 - 2 * i))
				  : _mm512_srli_epi32(high, (unsigned)(2 * i - 3));

		/* codes | (bits & 16) */
		to[0] = _mm512_ternarylogic_epi32(_mm512_and_si512(v, nibble), e, fifth, 0xf8);
		to[8] = _mm512_ternarylogic_epi32(
			_mm512_and_si512(_mm512_srli_epi32(v, 4), nibble), f, fifth, 0xf8);
	}
}

INLINE void packed_q6_k(const struct packed_at *at, struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);

	t->d = packed_d(at);
	for (int j = 0; j < 16; j++)
		t->scale[j] =
			_mm512_srai_epi32(_mm512_slli_epi32(packed_word(at->words, 48 + j / 4),
						  (unsigned)(24 - 8 * (j % 4))),
				24);
	for (int j = 0; j < 8; j++)
		t->pair[j] = _mm512_mask_blend_epi16(
			0xaaaaaaaa, t->scale[2 * j], _mm512_slli_epi32(t->scale[2 * j + 1], 16));
	for (int k = 0; k < 32; k++) {
		__m512i v = packed_word(at->words, k), *to = &t->q[k / 16 * 32 + k % 16];
		__m512i high = packed_word(at->words, 32 + k / 16 * 8 + k % 8);
		/* Of four pairs of bits the first two are of low nibbles. */
		__m512i e = k % 16 < 8 ? _mm512_slli_epi32(high, 4) : _mm512_slli_epi32(high, 2);
		__m512i f = k % 16 < 8 ? high : _mm512_srli_epi32(high, 2);

		to[0] = _mm512_ternarylogic_epi32(_mm512_and_si512(v, nibble), e, two, 0xf8);
		to[16] = _mm512_ternarylogic_epi32(
			_mm512_and_si512(_mm512_srli_epi32(v, 4), nibble), f, two, 0xf8);
	}
}

/* Blocks of 32: 8 words of codes; m where the type has one. */
INLINE void packed_small(uint32_t type, const struct packed_at *at, struct tile *t)
{
	const __m512i nibble = _mm512_set1_epi8(15), bits = _mm512_set1_epi32(0x08040201);
	const int first = type == KERNELS_Q4_1 || type == KERNELS_Q5_0 ? 1
			  : type == KERNELS_Q5_1		       ? 2
								       : 0;
	__m512i high;

	if (type == KERNELS_Q4_1 || type == KERNELS_Q5_1)
		packed_factors(at->words, &t->d, &t->m);
	else
		t->d = packed_d(at);
	if (type == KERNELS_Q8_0) {
		for (int k = 0; k < 8; k++)
			t->q[k] = _mm512_xor_si512(
				packed_word(at->words, k), _mm512_set1_epi8((char)0x80));
		return;
	}
	for (int k = 0; k < 4; k++) {
		__m512i v = packed_word(at->words, first + k);

		t->q[k] = _mm512_and_si512(v, nibble);
		t->q[k + 4] = _mm512_and_si512(_mm512_srli_epi32(v, 4), nibble);
	}
	if (type != KERNELS_Q5_0 && type != KERNELS_Q5_1)
		return;
	high = packed_word(at->words, first - 1);
	for (int k = 0; k < 8; k++) {
		/* The four bits of word k, copied to each of its bytes, of which each tests one. */
		const __m512i byte = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
		__m512i n = _mm512_shuffle_epi8(
			high, _mm512_add_epi8(byte, _mm512_set1_epi8((char)(k / 2))));

		if (k % 2)
			n = _mm512_srli_epi16(n, 4);
		t->q[k] = _mm512_mask_add_epi8(
			t->q[k], _mm512_test_epi8_mask(n, bits), t->q[k], _mm512_set1_epi8(16));
	}
}

/* Block column b of a tile whose rows have `blocks` blocks. */
INLINE void packed_unpack(
	uint32_t type, const uint8_t *tile, size_t blocks, size_t b, struct tile *t)
{
	struct packed_at at = packed_column(type, tile, blocks, b);

	if (type == KERNELS_Q4_K)
		packed_q4_k(at.words, t);
	else if (type == KERNELS_Q5_K)
		packed_q5_k(at.words, t);
	else if (type == KERNELS_Q6_K)
		packed_q6_k(&at, t);
	else
		packed_small(type, &at, t);
}
