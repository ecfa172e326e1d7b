/* SPDX-License-Identifier: MIT */

/*
 * llama: dense Llama, Mistral, SmolLM2 and the like; with experts, Mixtral.  The rows of q and k
 * are permuted in the file so that neighbours rotate together.  Also what `moe-model upcycle`
 * writes.
 */

#include <errno.h>
#include <string.h>

#include "desc-private.h"

/* Our own key, in upcycled files: the order of softmax and choice where it is not Mixtral's. */
#define ORDER_KEY "moed.router_order"

static int finish(struct desc_reader *r)
{
	struct gguf_string s;
	int x = gguf_get_string(r->g, ORDER_KEY, &s, r->err);

	if (x <= 0)
		return x < 0 ? -EBADMSG : 0;
	if (s.size == strlen("topk-softmax") && !memcmp(s.data, "topk-softmax", s.size))
		return 0;
	if (s.size != strlen("softmax-topk") || memcmp(s.data, "softmax-topk", s.size) != 0)
		return error_set(r->err, -ENOTSUP,
			"key '" ORDER_KEY "' is neither 'topk-softmax' nor 'softmax-topk'");
	r->d->router = DESC_SOFTMAX_TOPK;
	r->d->router_normalize = true;
	return 0;
}

const struct desc_family desc_family_llama = {
	.arch = "llama",
	.rope_neighbours = true,
	.qk_norm = DESC_QK_NORM_NONE,
	.router = DESC_TOPK_SOFTMAX,
	.dense = true,
	.finish = finish,
};
