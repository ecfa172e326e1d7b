/* SPDX-License-Identifier: MIT */

/* The steps of ref_quantize(), sixteen at a time; the conversion rounds to nearest even. */

#include <immintrin.h>
#include <string.h>
#include "quant.h"
#include "vnni.h"

/* Codes of 16 elements, and their sum. */
static inline int quantize_codes(const float *x, __m512 inverse, int8_t *q)
{
	__m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));

	v = _mm512_max_epi32(v, _mm512_set1_epi32(-127));
	v = _mm512_min_epi32(v, _mm512_set1_epi32(127));
	_mm_storeu_si128((void *)q, _mm512_cvtepi32_epi8(v));
	return _mm512_reduce_add_epi32(v);
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
	__m512 inverse;
	float f;

	b->d = quantize_scale(x, 32, &f);
	if (f == 0) {
		memset(b->q, 0, sizeof(b->q));
		b->sum = 0;
		return;
	}
	inverse = _mm512_set1_ps(f);
	b->sum = quantize_codes(x, inverse, b->q);
	b->sum += quantize_codes(x + 16, inverse, b->q + 16);
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
	for (unsigned j = 0; j < 16; j++)
		b->sums[j] = (int16_t)quantize_codes(x + j * 16, inverse, b->q + j * 16);
	b->peak = quantize_peak(b->q);
	for (unsigned j = 0; j < 8; j++)
		b->pairs[j] = (int16_t)(b->sums[2 * j] + b->sums[2 * j + 1]);
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
