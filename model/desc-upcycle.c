/* SPDX-License-Identifier: MIT */

/*
 * Upcycling ("Llama 3 Meets MoE"): the feed-forward block of a dense model as every expert of a
 * Mixture-of-Experts, behind a router drawn at random.  The same rows for the file that
 * `moe-model upcycle` writes and for the form that writes nothing.
 */

#include "desc.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "num.h"

static uint64_t mix(uint64_t x)
{
	/* The finaliser of splitmix64: every bit of the input reaches every bit of the output. */
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/*
 * About normal, mean 0, deviation 1: sums of 16-bit integers, so that every machine draws the same
 * numbers (no libm).  Four uniforms of a counter are near enough to a bell for a router.
 */
static float draw(uint64_t key, uint64_t counter)
{
	uint64_t bits = mix(key ^ mix(counter));
	int64_t sum = 0;

	for (unsigned i = 0; i < 4; i++)
		sum += (int64_t)(bits >> (16 * i) & 0xffff);
	/* Mean 2 * 65535; variance of the sum 4 * 65536^2 / 12. */
	return (float)((double)(sum - 131070) * (1.7320508075688772 / 65536.0));
}

void desc_router_rows(const struct desc *d, uint32_t layer, float *rows)
{
	uint32_t group = d->router_exact ? d->top_k : 1;
	uint64_t key = mix(((uint64_t)d->router_seed << 32) | layer);
	float deviation = (float)(1.0 / sqrt((double)d->hidden));

	for (uint32_t e = 0; e < d->experts; e++) {
		float *row = rows + (size_t)e * d->hidden;

		if (e % group) {
			memcpy(row, row - d->hidden, d->hidden * sizeof *row);
			continue;
		}
		for (uint32_t i = 0; i < d->hidden; i++)
			row[i] = draw(key, ((uint64_t)(e / group) << 32) | i) * deviation;
	}
}

int desc_upcycle(struct desc *d, uint32_t experts, uint32_t top_k, uint32_t seed, bool exact,
	struct error *err)
{
	if (d->experts)
		return error_set(err, -EINVAL,
			"model '%s' has %" PRIu32 " experts already; only dense models can be "
			"upcycled",
			d->name, d->experts);
	if (experts < 1 || experts > LIMIT_EXPERTS)
		return error_set(err, -EINVAL, "%" PRIu32 " experts: allowed are 1 to %u", experts,
			LIMIT_EXPERTS);
	if (top_k < 1 || top_k > num_min(experts, LIMIT_TOP_K))
		return error_set(err, -EINVAL,
			"top-%" PRIu32 " of %" PRIu32 " experts: allowed are 1 to %u", top_k,
			experts, num_min(experts, LIMIT_TOP_K));
	if (exact && !num_is_pow2(top_k))
		return error_set(err, -EINVAL,
			"top-%" PRIu32 " with an exact router: k must be a power of two, so that "
			"the weights are exactly 1/k",
			top_k);
	if (exact && experts % top_k)
		return error_set(err, -EINVAL,
			"%" PRIu32 " experts with an exact router: they must be a multiple of k "
			"(%" PRIu32 ")",
			experts, top_k);
	d->experts = experts;
	d->top_k = top_k;
	d->router_seed = seed;
	d->router_exact = exact;
	d->router = DESC_TOPK_SOFTMAX;
	d->router_normalize = false;
	d->upcycled = true;
	for (uint32_t l = 0; l < d->n_layers; l++) {
		struct desc_layer *y = &d->layers[l];

		y->moe = true;
		y->shared = true;
		y->router = (struct desc_weight){
			.type = KERNELS_F32,
			.file = DESC_FILE_NONE,
			.rows = experts,
			.cols = d->hidden,
			.size = (uint64_t)experts * d->hidden * sizeof(float),
			.row_bytes = (uint64_t)d->hidden * sizeof(float),
		};
		d->expert_ff = num_max(d->expert_ff, (uint32_t)y->expert[DESC_DOWN].cols);
	}
	return 0;
}
