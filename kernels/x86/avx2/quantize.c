/* SPDX-License-Identifier: MIT */

/* The steps of ref_quantize(), eight at a time; the conversion rounds to nearest even. */

#include <immintrin.h>
#include <string.h>
#include "quant.h"
#include "avx2.h"

static inline __m256i quantize_eight(const float *x, __m256 inverse)
{
	__m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));

	v = _mm256_max_epi32(v, _mm256_set1_epi32(-127));
	return _mm256_min_epi32(v, _mm256_set1_epi32(127));
}

/* Codes of 16 elements, and their sum. */
static inline int quantize_codes(const float *x, __m256 inverse, int8_t *q)
{
	__m256i a = quantize_eight(x, inverse), b = quantize_eight(x + 8, inverse);
	__m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
	__m256i s = _mm256_add_epi32(a, b);
	__m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

	_mm_storeu_si128((void *)q,
		_mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
	t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
	return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}

/* The block's scale; *ret_inverse is 0 where all codes are. */
static float quantize_scale(const float *x, size_t n, float *ret_inverse)
{
	__m256i largest = _mm256_setzero_si256(), mask = _mm256_set1_epi32(0x7fffffff);
	uint32_t lanes[8], m = 0;
	float d;

	for (size_t i = 0; i < n; i += 8)
		largest = _mm256_max_epu32(
			largest, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + i)), mask));
	_mm256_storeu_si256((void *)lanes, largest);
	for (unsigned i = 0; i < 8; i++)
		m = lanes[i] > m ? lanes[i] : m;
	*ret_inverse = 0;
	if (m >= 0x7f800000)
		return quant_float(0x7fc00000);
	d = quant_float(m) / 127.0f;
	if (d < 0x1p-126f)
		return 0;
	*ret_inverse = 1.0f / d;
	return d;
}

static void quantize_small(const float *x, struct kernels_q32 *b)
{
	float f;

	b->d = quantize_scale(x, 32, &f);
	b->sum = 0;
	memset(b->q, 0, sizeof(b->q));
	if (f == 0)
		return;
	for (unsigned j = 0; j < 32; j += 16)
		b->sum += quantize_codes(x + j, _mm256_set1_ps(f), b->q + j);
}

/* The sum of the magnitudes of 16 codes. */
static inline unsigned quantize_sum(const int8_t *q)
{
	__m128i a = _mm_abs_epi8(_mm_loadu_si128((const void *)q));

	a = _mm_sad_epu8(a, _mm_setzero_si128());
	return (unsigned)(_mm_cvtsi128_si32(a) + _mm_extract_epi16(a, 4));
}

static void quantize_large(const float *x, struct kernels_q256 *b)
{
	float f;

	b->d = quantize_scale(x, 256, &f);
	b->peak = 0;
	memset(b->unused, 0, sizeof(b->unused));
	memset(b->sums, 0, sizeof(b->sums));
	memset(b->pairs, 0, sizeof(b->pairs));
	memset(b->q, 0, sizeof(b->q));
	if (f == 0)
		return;
	for (unsigned j = 0; j < 16; j++)
		b->sums[j] = (int16_t)quantize_codes(x + j * 16, _mm256_set1_ps(f), b->q + j * 16);
	for (unsigned j = 0; j < 16; j++) {
		unsigned sum = quantize_sum(b->q + j * 16);

		b->peak = (uint16_t)(sum > b->peak ? sum : b->peak);
	}
	for (unsigned j = 0; j < 8; j++)
		b->pairs[j] = (int16_t)(b->sums[2 * j] + b->sums[2 * j + 1]);
}

void avx2_quantize(enum kernels_input input, const float *x, void *out, size_t n)
{
	if (input == KERNELS_INPUT_Q32)
		for (size_t i = 0; i < n / 32; i++)
			quantize_small(x + i * 32, (struct kernels_q32 *)out + i);
	else if (input == KERNELS_INPUT_Q256)
		for (size_t i = 0; i < n / 256; i++)
			quantize_large(x + i * 256, (struct kernels_q256 *)out + i);
	else
		memcpy(out, x, n * sizeof(float));
}
