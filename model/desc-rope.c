/* SPDX-License-Identifier: MIT */

/*
 * Rotary positions as a file describes them: plain, linear scaling, YaRN ("YaRN: Efficient Context
 * Window Extension of Large Language Models"), whose scaling is one factor a frequency.
 */

#include "desc-private.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "num.h"

#define TWO_PI 6.28318530717958648
#define YARN_FAST 32.0f /* turns within the original context above which nothing is scaled */
#define YARN_SLOW 1.0f	/* turns below which all is */

static int read_range(struct desc_reader *r, const char *suffix, float min, float max, float *ret)
{
	char key[DESC_KEY_MAX];

	if (desc_f32(r, suffix, ret) < 0)
		return -EBADMSG;
	if (!(*ret >= min && *ret <= max))
		return error_set(r->err, -EBADMSG, "key '%s' is %g, allowed are %g to %g",
			desc_key(r, suffix, key), (double)*ret, (double)min, (double)max);
	return 0;
}

/* The pair that turns so often within the original context. */
static double yarn_pair(const struct desc *d, uint32_t original, float turns)
{
	float x = (float)((double)original / ((double)turns * TWO_PI));

	return (double)d->rope_dims * (double)kernels_log(x) /
	       (2.0 * (double)kernels_log(d->rope_base));
}

static int read_yarn(struct desc_reader *r, float factor)
{
	float fast = YARN_FAST, slow = YARN_SLOW, extrapolate = 1.0f, gain = 1.0f;
	struct desc *d = r->d;
	uint32_t original;
	char key[DESC_KEY_MAX];

	if (desc_need_u32(r, "rope.scaling.original_context_length", 1, LIMIT_CONTEXT, &original) <
			0 ||
		read_range(r, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, &fast) < 0 ||
		read_range(r, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, &slow) < 0 ||
		read_range(r, "rope.scaling.yarn_ext_factor", -1.0f, 1e6f, &extrapolate) < 0 ||
		read_range(r, "rope.scaling.yarn_attn_factor", -1.0f, 1e6f, &gain) < 0)
		return -EBADMSG;
	if (factor < 1.0f)
		return error_set(r->err, -EBADMSG, "key '%s' is %g, with yarn at least 1",
			desc_key(r, "rope.scaling.factor", key), (double)factor);
	/* -1 stands for absent. */
	if (extrapolate != 1.0f && extrapolate != -1.0f)
		return error_set(r->err, -ENOTSUP, "key '%s' is %g, supported is 1",
			desc_key(r, "rope.scaling.yarn_ext_factor", key), (double)extrapolate);
	if (gain != 1.0f && gain != -1.0f)
		return error_set(r->err, -ENOTSUP, "key '%s' is %g, supported is 1",
			desc_key(r, "rope.scaling.yarn_attn_factor", key), (double)gain);
	if (d->rope_base <= 1.0f)
		return error_set(r->err, -EBADMSG, "key '%s' is %g, with yarn above 1",
			desc_key(r, "rope.freq_base", key), (double)d->rope_base);
	d->yarn_factor = factor;
	d->yarn_low = (float)num_max(floor(yarn_pair(d, original, fast)), 0.0);
	d->yarn_high =
		(float)num_min(ceil(yarn_pair(d, original, slow)), (double)d->rope_dims - 1.0);
	d->rope_gain = (float)(0.1 * (double)kernels_log(factor) + 1.0);
	return 0;
}

int desc_read_rope(struct desc_reader *r)
{
	struct gguf_string type = {"", 0};
	char key[DESC_KEY_MAX], shown[32];
	float factor = 1;
	struct desc *d = r->d;
	bool none, yarn;
	int x;

	if (d->rope_dims % 2)
		return error_set(r->err, -EBADMSG, "key '%s' is odd",
			desc_key(r, "rope.dimension_count", key));
	x = gguf_get_string(r->g, desc_key(r, "rope.scaling.type", key), &type, r->err);
	if (x < 0)
		return -EBADMSG;
	(void)gguf_text(type, shown, sizeof shown);
	none = !strcmp(shown, "none");
	yarn = !strcmp(shown, "yarn");
	if (x > 0 && !none && !yarn && strcmp(shown, "linear") != 0)
		return error_set(r->err, -ENOTSUP,
			"key '%s' is '%s'; supported are 'none', 'linear' and 'yarn'", key, shown);
	d->rope_base = 10000;
	d->rope_scale = d->rope_gain = 1;
	if (read_range(r, "rope.freq_base", 1, 1e12f, &d->rope_base) < 0 ||
		desc_f32(r, "rope.scale_linear", &factor) < 0 ||
		desc_f32(r, "rope.scaling.factor", &factor) < 0)
		return -EBADMSG;
	if (factor == 0 || none)
		factor = 1; /* 0 stands for absent */
	if (!(factor >= 1e-3f && factor <= 1e6f))
		return error_set(r->err, -EBADMSG, "key '%s' is %g, allowed are 0.001 to 1000000",
			desc_key(r, "rope.scaling.factor", key), (double)factor);
	if (yarn)
		return read_yarn(r, factor);
	d->rope_scale = 1.0f / factor;
	return 0;
}

bool desc_rope_factors(const struct desc *d, const float *given, float *out)
{
	double width = (double)d->yarn_high - (double)d->yarn_low;

	for (uint32_t i = 0; i < d->rope_dims / 2; i++) {
		/* How much is scaled: 0 for the fast pairs, 1 for the slow ones. */
		double share = ((double)i - (double)d->yarn_low) / num_max(width, 0.001);

		out[i] = given ? given[i] : 1.0f;
		if (d->yarn_factor == 0.0f)
			continue;
		share = share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share;
		out[i] = (float)((double)out[i] / (1.0 - share + share / (double)d->yarn_factor));
	}
	return given || d->yarn_factor != 0.0f;
}
