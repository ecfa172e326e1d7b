/* SPDX-License-Identifier: MIT */

/* What every x86 tier has, under the names that TIER() makes.  Contracts as in struct kernels. */

#include "kernels.h"

void TIER(quantize)(enum kernels_input input, const float *x, void *out, size_t n);
void TIER(product_f32)(const struct kernels_product *p);
void TIER(product_f16)(const struct kernels_product *p);
void TIER(product_bf16)(const struct kernels_product *p);
void TIER(rms_norm)(float *out, const float *x, const float *w, size_t n, float eps);
void TIER(rope)(float *x, const float *cos, const float *sin, size_t n_rot, bool neighbours);
void TIER(swiglu)(float *out, const float *gate, const float *up, size_t n);
void TIER(add)(float *acc, const float *y, size_t n);
void TIER(add_scaled)(float *acc, const float *y, float a, size_t n);
void TIER(softmax)(float *x, size_t n);
void TIER(sum_exp)(const float *x, size_t n, float *ret_max, float *ret_sum);
void TIER(attention)(const struct kernels_attention *a);
void TIER(attention_finish)(const float *state, size_t head, float *out);
bool TIER(is_finite)(const float *x, size_t n);
void TIER(f32_to_f16)(uint16_t *out, const float *x, size_t n);
void TIER(f16_to_f32)(float *out, const uint16_t *x, size_t n);
