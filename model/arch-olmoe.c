/* SPDX-License-Identifier: MIT */

/* olmoe: OLMoE 1B-7B.  Norms of q and k over all heads; the chosen weights are not normalised. */

#include "desc-private.h"

const struct desc_family desc_family_olmoe = {
	.arch = "olmoe",
	.rope_neighbours = false,
	.qk_norm = DESC_QK_NORM_WHOLE,
	.router = DESC_SOFTMAX_TOPK,
};
