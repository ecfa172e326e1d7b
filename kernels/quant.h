/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How GGUF packs blocks of weights, for the kernels of all tiers (internal to kernels/).  The
 * structs mirror the file; fields wider than a byte are little-endian half floats and are read with
 * quant_half(), because a block has no alignment.  Static functions only: this header is compiled
 * with the flags of every instruction set.
 */

#include <stdint.h>
#include <string.h>

#define QUANT_SMALL 32u	 /* elements of a block of Q4_0 to Q8_0 */
#define QUANT_LARGE 256u /* of a K-quant */

struct quant_q4_0 {
	uint8_t d[2];
	uint8_t q[16]; /* low nibbles first half, high nibbles second half; less 8 */
};

struct quant_q4_1 {
	uint8_t d[2];
	uint8_t m[2];
	uint8_t q[16];
};

struct quant_q5_0 {
	uint8_t d[2];
	uint8_t high[4]; /* bit i is the fifth bit of element i; less 16 */
	uint8_t q[16];
};

struct quant_q5_1 {
	uint8_t d[2];
	uint8_t m[2];
	uint8_t high[4];
	uint8_t q[16];
};

struct quant_q8_0 {
	uint8_t d[2];
	int8_t q[32];
};

struct quant_q4_k {
	uint8_t d[2];
	uint8_t m[2];
	uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits */
	uint8_t q[128];	    /* 32 bytes: low nibbles sub-block 2i, high nibbles 2i + 1 */
};

struct quant_q5_k {
	uint8_t d[2];
	uint8_t m[2];
	uint8_t scales[12];
	uint8_t high[32]; /* bit j of byte i: fifth bit of element i of sub-block j */
	uint8_t q[128];
};

struct quant_q6_k {
	uint8_t q[128];	   /* per half of 128: 64 bytes, low nibbles first 64, high the rest */
	uint8_t high[64];  /* per half: 32 bytes, two bits for each quarter of 32; less 32 */
	int8_t scales[16]; /* of each 16 elements */
	uint8_t d[2];
};

#define QUANT_BYTES_MAX sizeof(struct quant_q6_k) /* of a block */

_Static_assert(sizeof(struct quant_q4_0) == 18, "format");
_Static_assert(sizeof(struct quant_q4_1) == 20, "format");
_Static_assert(sizeof(struct quant_q5_0) == 22, "format");
_Static_assert(sizeof(struct quant_q5_1) == 24, "format");
_Static_assert(sizeof(struct quant_q8_0) == 34, "format");
_Static_assert(sizeof(struct quant_q4_k) == 144, "format");
_Static_assert(sizeof(struct quant_q5_k) == 176, "format");
_Static_assert(sizeof(struct quant_q6_k) == 210, "format");

static inline uint32_t quant_bits(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static inline float quant_float(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

static inline uint16_t quant_u16(const void *p)
{
	uint16_t u;

	memcpy(&u, p, sizeof(u));
	return u;
}

static inline uint32_t quant_u32(const void *p)
{
	uint32_t u;

	memcpy(&u, p, sizeof(u));
	return u;
}

/* Exact; a NaN becomes quiet and keeps its payload, as the conversion instructions do. */
static inline float quant_half_value(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;

	if (e == 31)
		return quant_float(sign | 0x7f800000 | (m ? 0x400000 | m << 13 : 0));
	if (e)
		return quant_float(sign | (e + 112) << 23 | m << 13);
	/* A denormal is m * 2^-24, exact in f32. */
	return quant_float(sign | quant_bits((float)m * 0x1p-24f));
}

static inline float quant_half(const uint8_t p[2])
{
	return quant_half_value(quant_u16(p));
}

/*
 * The 8 scales and 8 minima of Q4_K and Q5_K, a byte each, the first in the lowest.  Kept in
 * registers: bytes stored and loaded again in another width would wait for the store.
 */
static inline void quant_k_scales(
	const uint8_t packed[12], uint64_t *ret_scales, uint64_t *ret_minima)
{
	uint32_t a = quant_u32(packed), b = quant_u32(packed + 4), c = quant_u32(packed + 8);
	uint32_t high_scales = (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030);
	uint32_t high_minima = ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030);

	*ret_scales = (uint64_t)high_scales << 32 | (a & 0x3f3f3f3f);
	*ret_minima = (uint64_t)high_minima << 32 | (b & 0x3f3f3f3f);
}
