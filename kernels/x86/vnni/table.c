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
			REF_QUANTS(avx2_product),
		},
	.product_packed =
		{
			REF_QUANTS(vnni_packed),
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
