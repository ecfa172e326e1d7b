/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The AVX-VNNI tier (internal to kernels/x86): products of packed weights with the int8 dot product
 * of 256 bits, which desktop processors without AVX-512 have.  Everything else is the AVX2 tier's.
 * Contracts as in struct kernels.
 */

#include "kernels.h"

void avxvnni_packed_q4_0(const struct kernels_product *p);
void avxvnni_packed_q4_1(const struct kernels_product *p);
void avxvnni_packed_q5_0(const struct kernels_product *p);
void avxvnni_packed_q5_1(const struct kernels_product *p);
void avxvnni_packed_q8_0(const struct kernels_product *p);
void avxvnni_packed_q4_k(const struct kernels_product *p);
void avxvnni_packed_q5_k(const struct kernels_product *p);
void avxvnni_packed_q6_k(const struct kernels_product *p);
