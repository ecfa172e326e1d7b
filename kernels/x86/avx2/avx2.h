/* SPDX-License-Identifier: MIT */
#pragma once

/* The kernels of the AVX2 tier (AVX2, FMA, F16C; internal); contracts as in struct kernels. */

#include "ref.h"

#define TIER(name) avx2_##name
#include "tier.h"

/* Native rows, for the tiers above as well: all other weights are packed. */
void avx2_product_q4_0(const struct kernels_product *p);
void avx2_product_q4_1(const struct kernels_product *p);
void avx2_product_q5_0(const struct kernels_product *p);
void avx2_product_q5_1(const struct kernels_product *p);
void avx2_product_q8_0(const struct kernels_product *p);
void avx2_product_q4_k(const struct kernels_product *p);
void avx2_product_q5_k(const struct kernels_product *p);
void avx2_product_q6_k(const struct kernels_product *p);

void avx2_packed_q4_0(const struct kernels_product *p);
void avx2_packed_q4_1(const struct kernels_product *p);
void avx2_packed_q5_0(const struct kernels_product *p);
void avx2_packed_q5_1(const struct kernels_product *p);
void avx2_packed_q8_0(const struct kernels_product *p);
void avx2_packed_q4_k(const struct kernels_product *p);
void avx2_packed_q5_k(const struct kernels_product *p);
void avx2_packed_q6_k(const struct kernels_product *p);
void avx2_pack(uint32_t type, void *w, size_t n, void *scratch);
