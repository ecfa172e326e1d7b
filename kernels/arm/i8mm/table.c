/* SPDX-License-Identifier: MIT */

#include "i8mm.h"
#undef TIER
#include "dotprod.h"

/* clang-format off */
#define CODES(type)                                                                                \
	{i8mm_product_##type, "sdot", 1, 16, 1}, {i8mm_product_##type, "smmla", 2, 16, 4},                  \
	{i8mm_packed_##type, "sdot", 1, 16, 1}, {i8mm_packed_##type, "smmla", 2, 16, 4}

static const struct kernels_way ways[] = {
	CODES(q4_0), CODES(q4_1), CODES(q5_0), CODES(q5_1), CODES(q8_0),
	CODES(q4_k), CODES(q5_k), CODES(q6_k),
	{0},
};
/* clang-format on */

/* Products by smmla; what has no use for it is the dotprod tier's. */
const struct kernels kernels_tier_i8mm = {
	.tier = KERNELS_I8MM,
	.name = "i8mm",
	.quantize = dotprod_quantize,
	.product =
		{
			[KERNELS_F32] = dotprod_product_f32,
			[KERNELS_F16] = dotprod_product_f16,
			[KERNELS_BF16] = dotprod_product_bf16,
			[KERNELS_Q4_0] = i8mm_product_q4_0,
			[KERNELS_Q4_1] = i8mm_product_q4_1,
			[KERNELS_Q5_0] = i8mm_product_q5_0,
			[KERNELS_Q5_1] = i8mm_product_q5_1,
			[KERNELS_Q8_0] = i8mm_product_q8_0,
			[KERNELS_Q4_K] = i8mm_product_q4_k,
			[KERNELS_Q5_K] = i8mm_product_q5_k,
			[KERNELS_Q6_K] = i8mm_product_q6_k,
		},
	.product_packed =
		{
			[KERNELS_Q4_0] = i8mm_packed_q4_0,
			[KERNELS_Q4_1] = i8mm_packed_q4_1,
			[KERNELS_Q5_0] = i8mm_packed_q5_0,
			[KERNELS_Q5_1] = i8mm_packed_q5_1,
			[KERNELS_Q8_0] = i8mm_packed_q8_0,
			[KERNELS_Q4_K] = i8mm_packed_q4_k,
			[KERNELS_Q5_K] = i8mm_packed_q5_k,
			[KERNELS_Q6_K] = i8mm_packed_q6_k,
		},
	.pack = dotprod_pack,
	.dequantize = ref_dequantize,
	.rms_norm = dotprod_rms_norm,
	.rope = dotprod_rope,
	.swiglu = dotprod_swiglu,
	.add = dotprod_add,
	.add_scaled = dotprod_add_scaled,
	.softmax = dotprod_softmax,
	.sum_exp = dotprod_sum_exp,
	.attention = dotprod_attention,
	.attention_finish = dotprod_attention_finish,
	.is_finite = dotprod_is_finite,
	.f32_to_f16 = dotprod_f32_to_f16,
	.f16_to_f32 = dotprod_f16_to_f32,
	.ways = ways,
};
