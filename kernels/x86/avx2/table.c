/* SPDX-License-Identifier: MIT */

#include "avx2.h"

/* clang-format off */
#define FLOATS(type)                                                                               \
	{avx2_product_##type, "vfmadd", 1, 4, 1}, {avx2_product_##type, "vfmadd", 4, 4, 4}
#define CODES(type) {avx2_product_##type, "vpmaddubsw", 1, 4, 1}
#define PACKED(type)                                                                               \
	{avx2_packed_##type, "vpmaddubsw", 1, 16, 1}, {avx2_packed_##type, "vpmaddubsw", 2, 16, 3}

static const struct kernels_way ways[] = {
	FLOATS(f32), FLOATS(f16), FLOATS(bf16),
	CODES(q4_0), CODES(q4_1), CODES(q5_0), CODES(q5_1), CODES(q8_0),
	CODES(q4_k), CODES(q5_k), CODES(q6_k),
	PACKED(q4_0), PACKED(q4_1), PACKED(q5_0), PACKED(q5_1), PACKED(q8_0),
	PACKED(q4_k), PACKED(q5_k), PACKED(q6_k),
	{0},
};
/* clang-format on */

const struct kernels kernels_tier_avx2 = {
	.tier = KERNELS_AVX2,
	.name = "avx2",
	.quantize = avx2_quantize,
	.product =
		{
			[KERNELS_F32] = avx2_product_f32,
			[KERNELS_F16] = avx2_product_f16,
			[KERNELS_BF16] = avx2_product_bf16,
			REF_QUANTS(avx2_product),
		},
	.product_packed =
		{
			REF_QUANTS(avx2_packed),
		},
	.pack = avx2_pack,
	.dequantize = ref_dequantize,
	.rms_norm = avx2_rms_norm,
	.rope = avx2_rope,
	.swiglu = avx2_swiglu,
	.add = avx2_add,
	.add_scaled = avx2_add_scaled,
	.softmax = avx2_softmax,
	.sum_exp = avx2_sum_exp,
	.attention = avx2_attention,
	.attention_finish = avx2_attention_finish,
	.is_finite = avx2_is_finite,
	.f32_to_f16 = avx2_f32_to_f16,
	.f16_to_f32 = avx2_f16_to_f32,
	.ways = ways,
};
