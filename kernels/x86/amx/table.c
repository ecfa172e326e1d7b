/* SPDX-License-Identifier: MIT */

#include "amx.h"
#include "avx2.h"
#include "vnni.h"

/* clang-format off */
/* Few columns: the VNNI tier's. */
#define FEW(type)                                                                                  \
	{amx_packed_##type, "vpdpbusd", 1, 16, 1}, {amx_packed_##type, "vpdpbusd", 2, 16, 4}
#define SMALL(type)                                                                                \
	FEW(type), {amx_packed_##type, "vpdpbusd", 5, 32, 4},                                      \
	{amx_packed_##type, "tdpbssd", 12, 16, 16}
#define LARGE(type)                                                                                \
	FEW(type), {amx_packed_##type, "tdpbsud", 5, 16, 16},                                      \
	{amx_packed_##type, "tdpbsud", 17, 16, 32}

static const struct kernels_way ways[] = {
	SMALL(q4_0), SMALL(q4_1), SMALL(q5_0), SMALL(q5_1), SMALL(q8_0),
	LARGE(q4_k), LARGE(q5_k), LARGE(q6_k),
	{0},
};
/* clang-format on */

const struct kernels kernels_tier_amx = {
	.tier = KERNELS_AMX,
	.name = "amx",
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
			REF_QUANTS(amx_packed),
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
