/* SPDX-License-Identifier: MIT */

/*
 * The products that both ARM tiers have, of native rows and of packed ones, under the names that
 * TIER() makes.  Contracts as in struct kernels.
 */

#include "kernels.h"

void TIER(product_q4_0)(const struct kernels_product *p);
void TIER(product_q4_1)(const struct kernels_product *p);
void TIER(product_q5_0)(const struct kernels_product *p);
void TIER(product_q5_1)(const struct kernels_product *p);
void TIER(product_q8_0)(const struct kernels_product *p);
void TIER(product_q4_k)(const struct kernels_product *p);
void TIER(product_q5_k)(const struct kernels_product *p);
void TIER(product_q6_k)(const struct kernels_product *p);
void TIER(packed_q4_0)(const struct kernels_product *p);
void TIER(packed_q4_1)(const struct kernels_product *p);
void TIER(packed_q5_0)(const struct kernels_product *p);
void TIER(packed_q5_1)(const struct kernels_product *p);
void TIER(packed_q8_0)(const struct kernels_product *p);
void TIER(packed_q4_k)(const struct kernels_product *p);
void TIER(packed_q5_k)(const struct kernels_product *p);
void TIER(packed_q6_k)(const struct kernels_product *p);
