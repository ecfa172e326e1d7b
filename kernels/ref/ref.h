/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The scalar kernels, which are docs/NUMERICS.md in C (internal to kernels/).  Other tiers take
 * from here what they have no faster form of; the contracts are those of struct kernels.
 */

#include "kernels.h"

void ref_quantize(enum kernels_input input, const float *x, void *out, size_t n);
void ref_dequantize(uint32_t type, const void *w, float *out, size_t n);

void ref_product_f32(const struct kernels_product *p);
void ref_product_f16(const struct kernels_product *p);
void ref_product_bf16(const struct kernels_product *p);
/* Quantised weights of any type that has a product; dispatches on p->type. */
void ref_product_quant(const struct kernels_product *p);

/* Packed weights of any type that can be packed; dispatches on p->type. */
void ref_product_packed(const struct kernels_product *p);
void ref_pack(uint32_t type, void *w, size_t n, void *scratch);

/* The tree 8-4-2-1 of rule 2; destroys s. */
float ref_tree(float s[16]);

void ref_rms_norm(float *out, const float *x, const float *w, size_t n, float eps);
void ref_rope(float *x, const float *cos, const float *sin, size_t n_rot, bool neighbours);
void ref_swiglu(float *out, const float *gate, const float *up, size_t n);
void ref_add(float *acc, const float *y, size_t n);
void ref_add_scaled(float *acc, const float *y, float a, size_t n);
void ref_softmax(float *x, size_t n);
void ref_sum_exp(const float *x, size_t n, float *ret_max, float *ret_sum);
void ref_attention(const struct kernels_attention *a);
void ref_attention_finish(const float *state, size_t head, float *out);
bool ref_is_finite(const float *x, size_t n);
void ref_f32_to_f16(uint16_t *out, const float *x, size_t n);
void ref_f16_to_f32(float *out, const uint16_t *x, size_t n);

/* Lines of a table of products: the quantised types, each with prefix_type. */
#define REF_QUANTS(prefix)                                                                         \
	[KERNELS_Q4_0] = prefix##_q4_0, [KERNELS_Q4_1] = prefix##_q4_1,                            \
	[KERNELS_Q5_0] = prefix##_q5_0, [KERNELS_Q5_1] = prefix##_q5_1,                            \
	[KERNELS_Q8_0] = prefix##_q8_0, [KERNELS_Q4_K] = prefix##_q4_k,                            \
	[KERNELS_Q5_K] = prefix##_q5_k, [KERNELS_Q6_K] = prefix##_q6_k

/* The tables of the tiers; which of them are linked is known to cpu.c. */
extern const struct kernels kernels_tier_scalar;
extern const struct kernels kernels_tier_avx2;
extern const struct kernels kernels_tier_avxvnni;
extern const struct kernels kernels_tier_vnni;
extern const struct kernels kernels_tier_amx;
extern const struct kernels kernels_tier_dotprod;
extern const struct kernels kernels_tier_i8mm;
