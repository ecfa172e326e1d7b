/* SPDX-License-Identifier: MIT */

/* The steps of ref_quantize(), sixteen at a time; the conversion rounds to nearest even. */

#include <arm_neon.h>
#include <string.h>
#include "quant.h"
#include "dotprod.h"

static inline int32x4_t quantize_four(const float *x, float inverse)
{
	int32x4_t v = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));

	return vminq_s32(vmaxq_s32(v, vdupq_n_s32(-127)), vdupq_n_s32(127));
}

/* Codes of 16 elements. */
static inline int8x16_t quantize_codes(const float *x, float inverse)
{
	int16x8_t a = vcombine_s16(
		vmovn_s32(quantize_four(x, inverse)), vmovn_s32(quantize_four(x + 4, inverse)));
	int16x8_t b = vcombine_s16(vmovn_s32(quantize_four(x + 8, inverse)),
		vmovn_s32(quantize_four(x + 12, inverse)));

	return vcombine_s8(vmovn_s16(a), vmovn_s16(b));
}

/* The block's scale; *ret_inverse is 0 where all codes are. */
static float quantize_scale(const float *x, size_t n, float *ret_inverse)
{
	const uint32x4_t mask = vdupq_n_u32(0x7fffffff);
	uint32x4_t largest = vdupq_n_u32(0);
	uint32_t m;
	float d;

	for (size_t i = 0; i < n; i += 4)
		largest = vmaxq_u32(
			largest, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), mask));
	m = vmaxvq_u32(largest);
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
	for (unsigned j = 0; j < 32; j += 16) {
		int8x16_t q = quantize_codes(x + j, f);

		vst1q_s8(b->q + j, q);
		b->sum += vaddlvq_s8(q);
	}
}

static void quantize_large(const float *x, struct kernels_q256 *b)
{
	unsigned peak = 0;
	float f;

	/* All bytes, the unused ones too. */
	memset(b, 0, sizeof(*b));
	b->d = quantize_scale(x, 256, &f);
	if (f == 0)
		return;
	for (unsigned j = 0; j < 16; j++) {
		int8x16_t q = quantize_codes(x + 16 * j, f);
		unsigned sum = vaddlvq_u8(vreinterpretq_u8_s8(vabsq_s8(q)));

		vst1q_s8(b->q + 16 * j, q);
		b->sums[j] = vaddlvq_s8(q);
		peak = sum > peak ? sum : peak;
	}
	b->peak = (uint16_t)peak;
	for (unsigned j = 0; j < 8; j++)
		b->pairs[j] = (int16_t)(b->sums[2 * j] + b->sums[2 * j + 1]);
}

void dotprod_quantize(enum kernels_input input, const float *x, void *out, size_t n)
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
