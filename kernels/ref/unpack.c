/* SPDX-License-Identifier: MIT */

#include "quant.h"
#include "unpack.h"

void unpack_q4_0(const void *block, struct unpack_small *out)
{
	const struct quant_q4_0 *b = block;

	out->d = quant_half(b->d);
	out->m = 0;
	for (unsigned i = 0; i < 16; i++) {
		out->q[i] = (int8_t)((b->q[i] & 15) - 8);
		out->q[i + 16] = (int8_t)((b->q[i] >> 4) - 8);
	}
}

void unpack_q4_1(const void *block, struct unpack_small *out)
{
	const struct quant_q4_1 *b = block;

	out->d = quant_half(b->d);
	out->m = quant_half(b->m);
	for (unsigned i = 0; i < 16; i++) {
		out->q[i] = (int8_t)(b->q[i] & 15);
		out->q[i + 16] = (int8_t)(b->q[i] >> 4);
	}
}

void unpack_q5_0(const void *block, struct unpack_small *out)
{
	const struct quant_q5_0 *b = block;
	uint32_t high = quant_u32(b->high);

	out->d = quant_half(b->d);
	out->m = 0;
	for (unsigned i = 0; i < 16; i++) {
		out->q[i] = (int8_t)(((b->q[i] & 15) | (high >> i & 1) << 4) - 16);
		out->q[i + 16] = (int8_t)((b->q[i] >> 4 | (high >> (i + 16) & 1) << 4) - 16);
	}
}

void unpack_q5_1(const void *block, struct unpack_small *out)
{
	const struct quant_q5_1 *b = block;
	uint32_t high = quant_u32(b->high);

	out->d = quant_half(b->d);
	out->m = quant_half(b->m);
	for (unsigned i = 0; i < 16; i++) {
		out->q[i] = (int8_t)((b->q[i] & 15) | (high >> i & 1) << 4);
		out->q[i + 16] = (int8_t)(b->q[i] >> 4 | (high >> (i + 16) & 1) << 4);
	}
}

void unpack_q8_0(const void *block, struct unpack_small *out)
{
	const struct quant_q8_0 *b = block;

	out->d = quant_half(b->d);
	out->m = 0;
	memcpy(out->q, b->q, sizeof(out->q));
}

/* Sub-blocks of 32: both halves of 16 get the same scale. */
static void unpack_scales(const uint8_t packed[12], struct unpack_large *out)
{
	uint64_t scales, minima;

	quant_k_scales(packed, &scales, &minima);
	for (unsigned i = 0; i < 16; i++) {
		out->scale[i] = (int8_t)(scales >> (i / 2 * 8));
		out->min[i] = (uint8_t)(minima >> (i / 2 * 8));
	}
}

void unpack_q4_k(const void *block, struct unpack_large *out)
{
	const struct quant_q4_k *b = block;

	out->d = quant_half(b->d);
	out->m = -quant_half(b->m);
	unpack_scales(b->scales, out);
	for (unsigned i = 0; i < 128; i++) {
		unsigned e = i / 32 * 64 + i % 32;

		out->q[e] = (int8_t)(b->q[i] & 15);
		out->q[e + 32] = (int8_t)(b->q[i] >> 4);
	}
}

void unpack_q5_k(const void *block, struct unpack_large *out)
{
	const struct quant_q5_k *b = block;

	out->d = quant_half(b->d);
	out->m = -quant_half(b->m);
	unpack_scales(b->scales, out);
	for (unsigned i = 0; i < 128; i++) {
		unsigned j = i / 32 * 2, e = j * 32 + i % 32, high = b->high[i % 32];

		out->q[e] = (int8_t)((b->q[i] & 15) | (high >> j & 1) << 4);
		out->q[e + 32] = (int8_t)(b->q[i] >> 4 | (high >> (j + 1) & 1) << 4);
	}
}

void unpack_q6_k(const void *block, struct unpack_large *out)
{
	const struct quant_q6_k *b = block;

	out->d = quant_half(b->d);
	out->m = 0;
	memcpy(out->scale, b->scales, sizeof(out->scale));
	memset(out->min, 0, sizeof(out->min));
	for (unsigned i = 0; i < 256; i++) {
		unsigned half = i / 128, e = i % 128;
		unsigned low = b->q[half * 64 + e % 64] >> (e / 64 * 4) & 15;
		unsigned high = b->high[half * 32 + e % 32] >> (e / 32 * 2) & 3;

		out->q[i] = (int8_t)((int)(low | high << 4) - 32);
	}
}
