/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The AMX int8 tier (internal to kernels/x86): products of packed weights with many columns.
 * Everything else is the VNNI tier's.  Contracts as in struct kernels.
 */

#include "kernels.h"

void amx_packed_q4_0(const struct kernels_product *p);
void amx_packed_q4_1(const struct kernels_product *p);
void amx_packed_q5_0(const struct kernels_product *p);
void amx_packed_q5_1(const struct kernels_product *p);
void amx_packed_q8_0(const struct kernels_product *p);
void amx_packed_q4_k(const struct kernels_product *p);
void amx_packed_q5_k(const struct kernels_product *p);
void amx_packed_q6_k(const struct kernels_product *p);
