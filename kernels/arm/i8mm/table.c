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
			REF_QUANTS(i8mm_product),
		},
	.product_packed =
		{
			REF_QUANTS(i8mm_packed),
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
