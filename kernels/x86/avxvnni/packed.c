/* SPDX-License-Identifier: MIT */

/*
 * Products of packed weights: packed256.h has the loops, this is how AVX-VNNI multiplies.
 *
 * vpdpbusd (without saturation) multiplies four u8 codes by four s8 activations and adds them to an
 * int32, which holds any block: 256 elements of Q6_K are at most 256 * 63 * 127 * 128 = 2^28.
 */

#include "avxvnni.h"
#include <immintrin.h>
#include "inline.h"

#define PACKED(name) avxvnni_packed_##name

#define DOT_CHAIN(most) 8

/* Codes of Q8_0 become unsigned: 128 more. */
#define DOT_Q8_OFFSET 128

/* Four codes by four activations in each lane: the first of a part, and the others. */
INLINE __m256i dot_first(__m256i codes, __m256i x)
{
	return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), codes, x);
}

INLINE __m256i dot(__m256i part, __m256i codes, __m256i x)
{
	return _mm256_dpbusd_avx_epi32(part, codes, x);
}

/* A scale, given as two int16, as dot_scaled() wants it. */
INLINE __m256i dot_scale(__m256i twice)
{
	return _mm256_srai_epi32(twice, 16);
}

INLINE __m256i dot_scaled(__m256i sum, __m256i part, __m256i scale)
{
	sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(part, scale));
	__asm__("" : "+x"(sum));
	return sum;
}

/* The first of a part that goes to `sum`, and its end. */
INLINE __m256i dot_begin(__m256i sum, __m256i codes, __m256i x)
{
	return dot(sum, codes, x);
}

INLINE __m256i dot_end(__m256i sum, __m256i part)
{
	return part;
}

INLINE __m256i dot_q8_code(__m256i word)
{
	return _mm256_xor_si256(word, _mm256_set1_epi8((char)0x80));
}

INLINE __m256i dot_q8(__m256i sum, __m256i codes, __m256i x)
{
	return dot(sum, codes, x);
}

/* Two int16 by two. */
INLINE __m256i dot_pairs(__m256i sum, __m256i a, __m256i b)
{
	return _mm256_dpwssd_avx_epi32(sum, a, b);
}

#include "packed256.h"
