/* SPDX-License-Identifier: MIT */
#pragma once

/* The kernels of the AVX-512 VNNI tier (internal); contracts as in struct kernels. */

#include "ref.h"

/* Its table lends what the AVX2 tier has. */
#undef TIER
#define TIER(name) vnni_##name
#include "tier.h"

void vnni_pack(uint32_t type, void *w, size_t n, void *scratch);
void vnni_packed_q4_0(const struct kernels_product *p);
void vnni_packed_q4_1(const struct kernels_product *p);
void vnni_packed_q5_0(const struct kernels_product *p);
void vnni_packed_q5_1(const struct kernels_product *p);
void vnni_packed_q8_0(const struct kernels_product *p);
void vnni_packed_q4_k(const struct kernels_product *p);
void vnni_packed_q5_k(const struct kernels_product *p);
void vnni_packed_q6_k(const struct kernels_product *p);
