/* SPDX-License-Identifier: MIT */

/* The steps of ref_quantize(), sixteen at a time; the conversion rounds to nearest even. */

#include <immintrin.h>
#include <string.h>
#include "quant.h"
#include "vnni.h"

/* Codes of 16 elements; at most 127, since |x| / 127 is rounded by less than half a code. */
static inline __m512i quantize_codes(const float *x, __m512 inverse)
{
	return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
}

static float quantize_scale(const float *x, size_t n, float *ret_inverse)
{
	__m512i largest = _mm512_setzero_si512(), mask = _mm512_set1_epi32(0x7fffffff);
	uint32_t m;
	float d;

	for (size_t i = 0; i < n; i += 16)
		largest = _mm512_max_epu32(
			largest, _mm512_and_si512(_mm512_loadu_si512(x + i), mask));
	m = _mm512_reduce_max_epu32(largest);
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
	__m512i low, high;
	__m512 inverse;
	float f;

	b->d = quantize_scale(x, 32, &f);
	if (f == 0) {
		memset(b->q, 0, sizeof(b->q));
		b->sum = 0;
		return;
	}
	inverse = _mm512_set1_ps(f);
	low = quantize_codes(x, inverse);
	high = quantize_codes(x + 16, inverse);
	_mm_storeu_si128((void *)b->q, _mm512_cvtepi32_epi8(low));
	_mm_storeu_si128((void *)(b->q + 16), _mm512_cvtepi32_epi8(high));
	b->sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
}

/* 64 codes; the sum of each 16 in all four words of their quarter. */
static inline __m512i quantize_quarter(const float *x, __m512 inverse, int8_t *q)
{
	__m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	__m512i a = _mm512_packs_epi32(quantize_codes(x, inverse), quantize_codes(x + 16, inverse));
	__m512i b = _mm512_packs_epi32(
		quantize_codes(x + 32, inverse), quantize_codes(x + 48, inverse));

	a = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(a, b));
	_mm512_storeu_si512(q, a);
	a = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), a);
	a = _mm512_add_epi32(a, _mm512_shuffle_epi32(a, _MM_PERM_CDAB));
	return _mm512_add_epi32(a, _mm512_shuffle_epi32(a, _MM_PERM_BADC));
}

/* The largest sum of magnitudes of 16 codes. */
static inline uint16_t quantize_peak(const int8_t q[256])
{
	__m512i peak = _mm512_setzero_si512();

	for (unsigned j = 0; j < 256; j += 64) {
		__m512i a = _mm512_abs_epi8(_mm512_loadu_si512(q + j));

		a = _mm512_sad_epu8(a, _mm512_setzero_si512());
		a = _mm512_add_epi64(a, _mm512_shuffle_epi32(a, _MM_PERM_BADC));
		peak = _mm512_max_epu32(peak, a);
	}
	return (uint16_t)_mm512_reduce_max_epu32(peak);
}

static void quantize_large(const float *x, struct kernels_q256 *b)
{
	/* Word j of each quarter is of the j-th 64 codes: back into the order of the codes. */
	__m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	__m512i sums;
	__m256i narrow;
	__m512 inverse;
	float f;

	b->d = quantize_scale(x, 256, &f);
	memset(b->unused, 0, sizeof(b->unused));
	if (f == 0) {
		memset(b->q, 0, sizeof(b->q));
		memset(b->sums, 0, sizeof(b->sums));
		memset(b->pairs, 0, sizeof(b->pairs));
		b->peak = 0;
		return;
	}
	inverse = _mm512_set1_ps(f);
	sums = quantize_quarter(x, inverse, b->q);
	for (unsigned j = 1; j < 4; j++)
		sums = _mm512_mask_mov_epi32(sums, (__mmask16)(0x1111 << j),
			quantize_quarter(x + j * 64, inverse, b->q + j * 64));
	b->peak = quantize_peak(b->q);
	sums = _mm512_permutexvar_epi32(order, sums);
	narrow = _mm512_cvtepi32_epi16(sums);
	_mm256_storeu_si256((void *)b->sums, narrow);
	narrow = _mm256_madd_epi16(narrow, _mm256_set1_epi16(1));
	_mm_storeu_si128((void *)b->pairs, _mm256_cvtepi32_epi16(narrow));
}

void vnni_quantize(enum kernels_input input, const float *x, void *out, size_t n)
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
