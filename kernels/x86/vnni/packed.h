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

/*
 * Written out, each: arrays of registers stay registers only where no loop is left over them.  Not
 * so in builds with the address sanitizer, which take minutes to check every one.
 */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define PACKED_CHECKED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(PACKED_CHECKED)
#define EACH(i, n) _Pragma("GCC unroll 1") for (int i = 0; i < (n); i++)
#elif defined(__clang__)
#define EACH(i, n) _Pragma("clang loop unroll(full)") for (int i = 0; i < (n); i++)
#else
#define EACH(i, n) _Pragma("GCC unroll 64") for (int i = 0; i < (n); i++)
#endif

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
	w = _mm512_srlv_epi32(w, _mm512_set1_epi32(at->second ? 16 : 0));
	return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w));
}

/* Both factors of the types that have a minimum, from word 0. */
INLINE void packed_factors(const uint8_t *words, __m512 *ret_d, __m512 *ret_m)
{
	__m512i w = packed_word(words, 0);

	*ret_d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w));
	*ret_m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(w, 16)));
}

/* Where codes begin, in words. */
INLINE int packed_first(uint32_t type)
{
	return type == KERNELS_Q4_1 || type == KERNELS_Q5_0 ? 1
	       : type == KERNELS_Q5_1			    ? 2
	       : type == KERNELS_Q4_K			    ? 4
	       : type == KERNELS_Q5_K			    ? 12
							    : 0;
}

/* The fifth bits of a block of 32, of its codes 4k to 4k + 3, as 0 or 16. */
INLINE __m512i packed_fifth(const uint8_t *words, int k)
{
	/* The byte that has them, in each of the four; k odd: in its upper half. */
	const __m512i byte = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
	const __m512i bits = _mm512_set1_epi32(k % 2 ? (int)0x80402010 : 0x08040201);
	__m512i n = _mm512_shuffle_epi8(
		packed_word(words, 0), _mm512_add_epi8(byte, _mm512_set1_epi8((char)(k / 2))));

	return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(n, bits), 16);
}

/*
 * Word i of a block's nibbles (there are 4, or 32 in a K-quant), with what high bits belong to it:
 * four codes, unsigned, from the low nibbles and four from the high ones.
 */
INLINE void packed_codes(
	uint32_t type, const uint8_t *words, int i, __m512i *ret_low, __m512i *ret_high)
{
	const __m512i nibble = _mm512_set1_epi8(15);
	const __m512i mask = _mm512_set1_epi8(type == KERNELS_Q6_K ? 0x30 : 0x10);
	__m512i v = packed_word(words, packed_first(type) + i), high;
	int low, up;

	*ret_low = _mm512_and_si512(v, nibble);
	*ret_high = _mm512_and_si512(_mm512_srli_epi32(v, 4), nibble);
	if (type == KERNELS_Q5_0 || type == KERNELS_Q5_1) {
		const uint8_t *bits = words + (type == KERNELS_Q5_1 ? 64 : 0);

		*ret_low = _mm512_or_si512(*ret_low, packed_fifth(bits, i));
		*ret_high = _mm512_or_si512(*ret_high, packed_fifth(bits, i + 4));
	}
	if (type != KERNELS_Q5_K && type != KERNELS_Q6_K)
		return;
	if (type == KERNELS_Q5_K) {
		/* Bits 2g and 2g + 1 go to bit 4, for group g of 8 words. */
		high = packed_word(words, 4 + i % 8);
		low = 4 - i / 8 * 2;
		up = low - 1;
	} else {
		/* Two bits go to bits 4 and 5, from those 0 or 2, and from those 4 or 6. */
		high = packed_word(words, 32 + i / 16 * 8 + i % 8);
		low = i % 16 < 8 ? 4 : 2;
		up = low - 4;
	}
	/* Rotated to the left, or right where it is below 0; codes | (bits & mask). */
	*ret_low = _mm512_ternarylogic_epi32(
		*ret_low, _mm512_rolv_epi32(high, _mm512_set1_epi32(low)), mask, 0xf8);
	*ret_high = _mm512_ternarylogic_epi32(
		*ret_high, _mm512_rolv_epi32(high, _mm512_set1_epi32(up)), mask, 0xf8);
}

/* Factors, scales and minima of a K-quant: all of a tile but its codes. */
INLINE void packed_header(uint32_t type, const struct packed_at *at, struct tile *t)
{
	const __m512i low = _mm512_set1_epi32(0xffff);

	if (type != KERNELS_Q6_K) {
		packed_factors(at->words, &t->d, &t->m);
		t->m = _mm512_xor_ps(t->m, _mm512_set1_ps(-0.0f));
		tile_scales(packed_word(at->words, 1), packed_word(at->words, 2),
			packed_word(at->words, 3), t);
		return;
	}
	t->d = packed_d(at);
	for (int j = 0; j < 4; j++) {
		__m512i w = packed_word(at->words, 48 + j);
		__m512i odd = _mm512_srai_epi16(w, 8);
		__m512i even = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);

		t->scale[4 * j] = _mm512_and_si512(even, low);
		t->scale[4 * j + 1] = _mm512_and_si512(odd, low);
		t->scale[4 * j + 2] = _mm512_srli_epi32(even, 16);
		t->scale[4 * j + 3] = _mm512_srli_epi32(odd, 16);
	}
}

/* Words of a sub-block of a K-quant: 32 codes, or 16 in Q6_K. */
INLINE int packed_sub(uint32_t type)
{
	return type == KERNELS_Q6_K ? 4 : 8;
}

/*
 * Sub-blocks of packed_codes() g * packed_sub() and on, g < 32 / packed_sub(): the low nibbles are
 * of the one returned, the high ones of that and *ret_next.
 */
INLINE int packed_sub_of(uint32_t type, int g, int *ret_next)
{
	*ret_next = type == KERNELS_Q6_K ? 4 : 1;
	return type == KERNELS_Q6_K ? g / 4 * 8 + g % 4 : 2 * g;
}

/* Block column b of a tile whose rows have `blocks` blocks; scales as packed_header() has them. */
INLINE void packed_unpack(
	uint32_t type, const uint8_t *tile, size_t blocks, size_t b, struct tile *t)
{
	const struct packed_at at = packed_column(type, tile, blocks, b);

	if (type >= KERNELS_Q2_K) {
		const int n = packed_sub(type);

		packed_header(type, &at, t);
		for (int g = 0; g < 32 / n; g++) {
			int next, j = packed_sub_of(type, g, &next);
			__m512i *to = &t->q[j * n];

			EACH (k, n)
				packed_codes(type, at.words, g * n + k, &to[k], &to[next * n + k]);
		}
		return;
	}
	if (type == KERNELS_Q4_1 || type == KERNELS_Q5_1)
		packed_factors(at.words, &t->d, &t->m);
	else
		t->d = packed_d(&at);
	if (type != KERNELS_Q8_0) {
		EACH (i, 4)
			packed_codes(type, at.words, i, &t->q[i], &t->q[i + 4]);
		return;
	}
	EACH (i, 8)
		t->q[i] = _mm512_xor_si512(packed_word(at.words, i), _mm512_set1_epi8((char)0x80));
}
