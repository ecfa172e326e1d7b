/* SPDX-License-Identifier: MIT */

#include <math.h>
#include <stdlib.h>
#include "quant.h"
#include "ref.h"
#include "unpack.h"

#define QUIET_NAN 0x7fc00000u

/*
 * One block.  Magnitudes are compared as integers, so that a NaN is the largest of all: a block
 * with a NaN or an infinity gets the scale NaN and codes 0, and every product with it is NaN.
 * A scale that is not a normal number has a reciprocal that may overflow: such a block is 0.
 */
static float quantize_block(const float *x, int8_t *q, size_t n)
{
	uint32_t largest = 0;
	float d, inverse;

	for (size_t i = 0; i < n; i++) {
		uint32_t u = quant_bits(x[i]) & 0x7fffffff;

		largest = u > largest ? u : largest;
	}
	memset(q, 0, n);
	if (largest >= 0x7f800000)
		return quant_float(QUIET_NAN);
	d = quant_float(largest) / 127.0f;
	if (d < 0x1p-126f)
		return 0;
	inverse = 1.0f / d;
	for (size_t i = 0; i < n; i++) {
		/* Adding 1.5 * 2^23 rounds to the nearest even integer, in the low bits. */
		float r = x[i] * inverse + 0x1.8p23f;
		int v = (int)(quant_bits(r) - quant_bits(0x1.8p23f));

		q[i] = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
	}
	return d;
}

static uint16_t quantize_peak(const int8_t q[256])
{
	unsigned peak = 0;

	for (unsigned j = 0; j < 256; j += 16) {
		unsigned sum = 0;

		for (unsigned i = j; i < j + 16; i++)
			sum += (unsigned)abs(q[i]);
		peak = sum > peak ? sum : peak;
	}
	return (uint16_t)peak;
}

void ref_quantize(enum kernels_input input, const float *x, void *out, size_t n)
{
	if (input == KERNELS_INPUT_Q32) {
		struct kernels_q32 *b = out;

		for (size_t i = 0; i < n / 32; i++, b++) {
			b->d = quantize_block(x + i * 32, b->q, 32);
			b->sum = 0;
			for (unsigned j = 0; j < 32; j++)
				b->sum += b->q[j];
		}
	} else if (input == KERNELS_INPUT_Q256) {
		struct kernels_q256 *b = out;

		for (size_t i = 0; i < n / 256; i++, b++) {
			b->d = quantize_block(x + i * 256, b->q, 256);
			memset(b->sums, 0, sizeof(b->sums));
			memset(b->unused, 0, sizeof(b->unused));
			b->peak = quantize_peak(b->q);
			for (unsigned j = 0; j < 256; j++)
				b->sums[j / 16] = (int16_t)(b->sums[j / 16] + b->q[j]);
			for (unsigned j = 0; j < 8; j++)
				b->pairs[j] = (int16_t)(b->sums[2 * j] + b->sums[2 * j + 1]);
		}
	} else {
		memcpy(out, x, n * sizeof(float));
	}
}

static void dequantize_small(const uint8_t *w, size_t bytes, float *out, size_t n,
	void (*unpack)(const void *, struct unpack_small *))
{
	struct unpack_small b;

	for (size_t i = 0; i < n / 32; i++) {
		unpack(w + i * bytes, &b);
		for (unsigned j = 0; j < 32; j++)
			out[i * 32 + j] = fmaf(b.d, (float)b.q[j], b.m);
	}
}

static void dequantize_large(const uint8_t *w, size_t bytes, float *out, size_t n,
	void (*unpack)(const void *, struct unpack_large *))
{
	struct unpack_large b;

	for (size_t i = 0; i < n / 256; i++) {
		unpack(w + i * bytes, &b);
		for (unsigned j = 0; j < 256; j++)
			out[i * 256 + j] = fmaf(b.d * (float)b.scale[j / 16], (float)b.q[j],
				b.m * (float)b.min[j / 16]);
	}
}

void ref_dequantize(uint32_t type, const void *w, float *out, size_t n)
{
	switch (type) {
	case KERNELS_F32:
		memcpy(out, w, n * sizeof(float));
		break;
	case KERNELS_F16:
		for (size_t i = 0; i < n; i++)
			out[i] = quant_half((const uint8_t *)w + 2 * i);
		break;
	case KERNELS_BF16:
		for (size_t i = 0; i < n; i++)
			out[i] = quant_float((uint32_t)quant_u16((const uint8_t *)w + 2 * i) << 16);
		break;
	case KERNELS_Q4_0:
		dequantize_small(w, sizeof(struct quant_q4_0), out, n, unpack_q4_0);
		break;
	case KERNELS_Q4_1:
		dequantize_small(w, sizeof(struct quant_q4_1), out, n, unpack_q4_1);
		break;
	case KERNELS_Q5_0:
		dequantize_small(w, sizeof(struct quant_q5_0), out, n, unpack_q5_0);
		break;
	case KERNELS_Q5_1:
		dequantize_small(w, sizeof(struct quant_q5_1), out, n, unpack_q5_1);
		break;
	case KERNELS_Q8_0:
		dequantize_small(w, sizeof(struct quant_q8_0), out, n, unpack_q8_0);
		break;
	case KERNELS_Q4_K:
		dequantize_large(w, sizeof(struct quant_q4_k), out, n, unpack_q4_k);
		break;
	case KERNELS_Q5_K:
		dequantize_large(w, sizeof(struct quant_q5_k), out, n, unpack_q5_k);
		break;
	case KERNELS_Q6_K:
		dequantize_large(w, sizeof(struct quant_q6_k), out, n, unpack_q6_k);
		break;
	default:
		/* Without a product there is no value: a caller that asks anyway sees it. */
		for (size_t i = 0; i < n; i++)
			out[i] = quant_float(QUIET_NAN);
		break;
	}
}

static uint16_t half_round(float x)
{
	uint32_t u = quant_bits(x), sign = u >> 16 & 0x8000, m, shift, kept, rest, middle;

	u &= 0x7fffffff;
	if (u > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
	if (u >= 0x477ff000) /* 65520 and above round to infinity */
		return (uint16_t)(sign | 0x7c00);
	if (u < 0x33000000) /* below half of the least denormal */
		return (uint16_t)sign;
	if (u >= 0x38800000) {
		m = u - (112u << 23);
		shift = 13;
	} else {
		m = (u & 0x7fffff) | 0x800000;
		shift = 126 - (u >> 23);
	}
	kept = m >> shift;
	rest = m & ((1u << shift) - 1);
	middle = 1u << (shift - 1);
	kept += rest > middle || (rest == middle && (kept & 1));
	return (uint16_t)(sign | kept);
}

void ref_f32_to_f16(uint16_t *out, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = half_round(x[i]);
}

void ref_f16_to_f32(float *out, const uint16_t *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = quant_half_value(x[i]);
}
