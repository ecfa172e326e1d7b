/* SPDX-License-Identifier: MIT */

#include "dotprod.h"

/* clang-format off */
#define FLOATS(type) {dotprod_product_##type, "fmla", 1, 4, 1}
#define CODES(type)                                                                                \
	{dotprod_product_##type, "sdot", 1, 16, 1}, {dotprod_product_##type, "sdot", 2, 16, 4},                  \
	{dotprod_packed_##type, "sdot", 1, 16, 1}, {dotprod_packed_##type, "sdot", 2, 16, 4}

static const struct kernels_way ways[] = {
	FLOATS(f32), FLOATS(f16), FLOATS(bf16),
	CODES(q4_0), CODES(q4_1), CODES(q5_0), CODES(q5_1), CODES(q8_0),
	CODES(q4_k), CODES(q5_k), CODES(q6_k),
	{0},
};
/* clang-format on */

const struct kernels kernels_tier_dotprod = {
	.tier = KERNELS_DOTPROD,
	.name = "dotprod",
	.quantize = dotprod_quantize,
	.product =
		{
			[KERNELS_F32] = dotprod_product_f32,
			[KERNELS_F16] = dotprod_product_f16,
			[KERNELS_BF16] = dotprod_product_bf16,
			REF_QUANTS(dotprod_product),
		},
	.product_packed =
		{
			REF_QUANTS(dotprod_packed),
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
