/* SPDX-License-Identifier: MIT */

#include "ref.h"

static const struct kernels_way ways[] = {
	{ref_product_f32, "fmaf", 1, 1, 1},
	{ref_product_f16, "fmaf", 1, 1, 1},
	{ref_product_bf16, "fmaf", 1, 1, 1},
	{ref_product_quant, "int32", 1, 1, 1},
	{ref_product_packed, "int32", 1, 1, 1},
	{0},
};

const struct kernels kernels_tier_scalar = {
	.tier = KERNELS_SCALAR,
	.name = "scalar",
	.quantize = ref_quantize,
	.product =
		{
			[KERNELS_F32] = ref_product_f32,
			[KERNELS_F16] = ref_product_f16,
			[KERNELS_BF16] = ref_product_bf16,
			[KERNELS_Q4_0] = ref_product_quant,
			[KERNELS_Q4_1] = ref_product_quant,
			[KERNELS_Q5_0] = ref_product_quant,
			[KERNELS_Q5_1] = ref_product_quant,
			[KERNELS_Q8_0] = ref_product_quant,
			[KERNELS_Q4_K] = ref_product_quant,
			[KERNELS_Q5_K] = ref_product_quant,
			[KERNELS_Q6_K] = ref_product_quant,
		},
	.product_packed =
		{
			[KERNELS_Q4_0] = ref_product_packed,
			[KERNELS_Q4_1] = ref_product_packed,
			[KERNELS_Q5_0] = ref_product_packed,
			[KERNELS_Q5_1] = ref_product_packed,
			[KERNELS_Q8_0] = ref_product_packed,
			[KERNELS_Q4_K] = ref_product_packed,
			[KERNELS_Q5_K] = ref_product_packed,
			[KERNELS_Q6_K] = ref_product_packed,
		},
	.pack = ref_pack,
	.dequantize = ref_dequantize,
	.rms_norm = ref_rms_norm,
	.rope = ref_rope,
	.swiglu = ref_swiglu,
	.add = ref_add,
	.add_scaled = ref_add_scaled,
	.softmax = ref_softmax,
	.sum_exp = ref_sum_exp,
	.attention = ref_attention,
	.attention_finish = ref_attention_finish,
	.is_finite = ref_is_finite,
	.f32_to_f16 = ref_f32_to_f16,
	.f16_to_f32 = ref_f16_to_f32,
	.ways = ways,
};
