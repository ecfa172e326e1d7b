/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One block of any quantised type in its plain form: what the products and dequantize work on.
 * Value of element i: d * scale[i / 16] * q[i] + m * min[i / 16], where small blocks have scale 1
 * and min 1 (or 0 without a minimum), and K-quants have the minus of their minimum in m.
 */

#include <stdint.h>

struct unpack_small {
	float d;
	float m;
	int8_t q[32];
};

struct unpack_large {
	float d;
	float m;
	int8_t scale[16];
	uint8_t min[16];
	int8_t q[256];
};

void unpack_q4_0(const void *block, struct unpack_small *out);
void unpack_q4_1(const void *block, struct unpack_small *out);
void unpack_q5_0(const void *block, struct unpack_small *out);
void unpack_q5_1(const void *block, struct unpack_small *out);
void unpack_q8_0(const void *block, struct unpack_small *out);
void unpack_q4_k(const void *block, struct unpack_large *out);
void unpack_q5_k(const void *block, struct unpack_large *out);
void unpack_q6_k(const void *block, struct unpack_large *out);
