/* SPDX-License-Identifier: MIT */

#include "avx2.h"
#include "vnni.h"

/* clang-format off */
#define FLOATS(type)                                                                               \
	{vnni_product_##type, "vfmadd", 1, 4, 1}, {vnni_product_##type, "vfmadd", 4, 4, 4}
#define PACKED(type)                                                                               \
	{vnni_packed_##type, "vpdpbusd", 1, 16, 1}, {vnni_packed_##type, "vpdpbusd", 2, 16, 4},    \
	{vnni_packed_##type, "vpdpbusd", 5, 32, 4}

static const struct kernels_way ways[] = {
	FLOATS(f32), FLOATS(f16), FLOATS(bf16),
	PACKED(q4_0), PACKED(q4_1), PACKED(q5_0), PACKED(q5_1), PACKED(q8_0),
	PACKED(q4_k), PACKED(q5_k), PACKED(q6_k),
	{0},
};
/* clang-format on */

const struct kernels kernels_tier_vnni = {
	.tier = KERNELS_VNNI,
	.name = "vnni",
	.quantize = vnni_quantize,
	.product =
		{
			[KERNELS_F32] = vnni_product_f32,
			[KERNELS_F16] = vnni_product_f16,
			[KERNELS_BF16] = vnni_product_bf16,
			[KERNELS_Q4_0] = avx2_product_q4_0,
			[KERNELS_Q4_1] = avx2_product_q4_1,
			[KERNELS_Q5_0] = avx2_product_q5_0,
			[KERNELS_Q5_1] = avx2_product_q5_1,
			[KERNELS_Q8_0] = avx2_product_q8_0,
			[KERNELS_Q4_K] = avx2_product_q4_k,
			[KERNELS_Q5_K] = avx2_product_q5_k,
			[KERNELS_Q6_K] = avx2_product_q6_k,
		},
	.product_packed =
		{
			[KERNELS_Q4_0] = vnni_packed_q4_0,
			[KERNELS_Q4_1] = vnni_packed_q4_1,
			[KERNELS_Q5_0] = vnni_packed_q5_0,
			[KERNELS_Q5_1] = vnni_packed_q5_1,
			[KERNELS_Q8_0] = vnni_packed_q8_0,
			[KERNELS_Q4_K] = vnni_packed_q4_k,
			[KERNELS_Q5_K] = vnni_packed_q5_k,
			[KERNELS_Q6_K] = vnni_packed_q6_k,
		},
	.pack = vnni_pack,
	.dequantize = ref_dequantize,
	.rms_norm = vnni_rms_norm,
	.rope = vnni_rope,
	.swiglu = vnni_swiglu,
	.add = vnni_add,
	.add_scaled = vnni_add_scaled,
	.softmax = vnni_softmax,
	.sum_exp = vnni_sum_exp,
	.attention = vnni_attention,
	.attention_finish = vnni_attention_finish,
	.is_finite = vnni_is_finite,
	.f32_to_f16 = vnni_f32_to_f16,
	.f16_to_f32 = vnni_f16_to_f32,
	.ways = ways,
};
