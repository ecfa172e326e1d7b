/* SPDX-License-Identifier: MIT */

/*
 * Products of packed weights: packed256.h has the loops, this is how AVX2 multiplies.
 *
 * vpmaddubsw multiplies u8 codes by s8 activations (within 127 by rule 1) and adds pairs into an
 * int16, with saturation; such sums are added in int16 as long as they cannot leave it, and only
 * then become int32, by the vpmaddwd that multiplies by the scale.  With codes up to 15, eight
 * words: 8 * 2 * 15 * 127 = 30480; up to 31, four: 4 * 2 * 31 * 127 = 31496; up to 63, two: 2 * 2 *
 * 63 * 127 = 32004.  All are below 32768, so no step saturates or wraps.  Codes of Q8_0 are signed:
 * |w| <= 128 by x with the sign of w is 2 * 128 * 127 = 32512 for one word.  vpmaddwd is exact: its
 * operands are never -32768.
 */

#include "avx2.h"
#include <immintrin.h>
#include "inline.h"

#define PACKED(name) avx2_packed_##name

/* Words of codes up to `most` whose products fit one int16. */
#define DOT_CHAIN(most) ((most) <= 15 ? 8 : (most) <= 31 ? 4 : 2)

#define DOT_Q8_OFFSET 0

/* Four codes by four activations in each lane: the first of a part, and the others. */
INLINE __m256i dot_first(__m256i codes, __m256i x)
{
	return _mm256_maddubs_epi16(codes, x);
}

INLINE __m256i dot(__m256i part, __m256i codes, __m256i x)
{
	part = _mm256_add_epi16(part, _mm256_maddubs_epi16(codes, x));
	/* Compilers make a tree of such a chain, for which there are not enough registers. */
	__asm__("" : "+x"(part));
	return part;
}

/* A scale, given as two int16, as dot_scaled() wants it. */
INLINE __m256i dot_scale(__m256i twice)
{
	return twice;
}

INLINE __m256i dot_scaled(__m256i sum, __m256i part, __m256i scale)
{
	sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, scale));
	__asm__("" : "+x"(sum));
	return sum;
}

/* The first of a part that goes to `sum`, and its end. */
INLINE __m256i dot_begin(__m256i sum, __m256i codes, __m256i x)
{
	return dot_first(codes, x);
}

INLINE __m256i dot_end(__m256i sum, __m256i part)
{
	return _mm256_add_epi32(sum, _mm256_madd_epi16(part, _mm256_set1_epi16(1)));
}

INLINE __m256i dot_q8_code(__m256i word)
{
	return word;
}

INLINE __m256i dot_q8(__m256i sum, __m256i codes, __m256i x)
{
	__m256i s = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));

	return _mm256_add_epi32(sum, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}

/* Two int16 by two. */
INLINE __m256i dot_pairs(__m256i sum, __m256i a, __m256i b)
{
	return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

#include "packed256.h"
