/* SPDX-License-Identifier: MIT */

/* qwen3moe: Qwen3 30B-A3B, 235B-A22B, Coder.  The chosen weights are normalised; no key says so. */

#include "desc-private.h"

const struct desc_family desc_family_qwen3moe = {
	.arch = "qwen3moe",
	.rope_neighbours = false,
	.qk_norm = DESC_QK_NORM_HEAD,
	.router = DESC_SOFTMAX_TOPK,
	.router_normalize = true,
};
