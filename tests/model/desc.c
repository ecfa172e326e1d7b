/* SPDX-License-Identifier: MIT */

/* Descriptions of the three families, what they refuse by name, and online upcycling. */

#include "desc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels.h"
#include "maker.h"

/* Parses and describes; want 0 or -errno whose text holds `text`. */
static struct desc *describe(struct maker *m, int want, const char *text)
{
	struct error err = ERROR_NONE;
	struct gguf *g = NULL;
	struct desc *d = NULL;
	int r;

	maker_finish(m);
	if (gguf_parse(&g, m->bytes, m->n, m->n, &err) < 0)
		fail_msg("%s", err.text);
	r = desc_new(&d, g, &err);
	if (r != want || (text && !strstr(err.text, text)))
		fail_msg("%d '%s', expected is %d '%s'", r, err.text, want, text ? text : "");
	gguf_free(g);
	maker_deinit(m);
	return d;
}

static struct desc *describe_model(const struct maker_model *model, int want, const char *text)
{
	struct maker m;

	maker_init(&m);
	maker_model_keys(&m, model);
	maker_model_tensors(&m, model);
	return describe(&m, want, text);
}

static void families(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct desc *d;

	(void)state;
	d = describe_model(&model, 0, NULL);
	assert_true(d->rope_neighbours);
	assert_int_equal(d->router, DESC_TOPK_SOFTMAX);
	assert_int_equal(d->experts, 4);
	assert_int_equal(d->top_k, 2);
	assert_int_equal(d->expert_ff, 64);
	assert_int_equal(d->head_size, 8);
	assert_int_equal(d->layers[1].q_norm.size, 0);
	/* Experts lie one behind the other. */
	assert_int_equal(desc_expert(d, 1, 3, DESC_UP).offset,
		d->layers[1].expert[DESC_UP].offset + (uint64_t)3 * 64 * 32 * 4);
	assert_int_equal(desc_expert(d, 1, 3, DESC_UP).size, 64 * 32 * 4);
	assert_int_equal(desc_expert_bytes(d, 0), 3 * 64 * 32 * 4);
	assert_int_equal(desc_cycle_bytes(d), (uint64_t)2 * 2 * 3 * 64 * 32 * 4);
	assert_true(desc_kv_f32(d));
	assert_int_equal(desc_kv_bytes(d, 65), (uint64_t)128 * 2 * 16 * 2 * 4);
	desc_free(d);

	model.arch = "qwen3moe";
	model.qk_norm = true;
	d = describe_model(&model, 0, NULL);
	assert_false(d->rope_neighbours);
	assert_false(d->qk_norm_whole);
	assert_int_equal(d->router, DESC_SOFTMAX_TOPK);
	assert_true(d->router_normalize);
	assert_int_equal(d->layers[0].k_norm.cols, 8);
	desc_free(d);

	model.arch = "olmoe";
	model.qk_norm = false;
	model.qk_whole = true;
	d = describe_model(&model, 0, NULL);
	assert_true(d->qk_norm_whole);
	assert_false(d->router_normalize);
	assert_int_equal(d->layers[0].k_norm.cols, 16);
	desc_free(d);
}

static void tied_and_dense(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct desc *d;

	(void)state;
	model.dense = true;
	model.skip = "output.weight";
	d = describe_model(&model, 0, NULL);
	assert_int_equal(d->experts, 0);
	assert_int_equal(d->output.offset, d->embedding.offset);
	assert_int_equal(desc_cycle_bytes(d), 0);
	assert_false(d->layers[0].moe);
	assert_int_equal(d->layers[0].expert[DESC_DOWN].cols, 64);
	desc_free(d);
}

/* Experts one by one, and what newer converters put together: each part is where its tensor says.
 */
static void layouts(void **state)
{
	struct maker_model model = MAKER_MODEL;
	const uint64_t row = 32 * sizeof(float), part = 64 * row;
	struct desc *d;

	(void)state;
	model.separate = true;
	model.half_router = true;
	d = describe_model(&model, 0, NULL);
	assert_int_equal(d->layers[1].router.type, KERNELS_F16);
	for (uint32_t e = 0; e < 4; e++)
		for (int p = 0; p < DESC_PARTS; p++) {
			struct desc_weight w = desc_expert(d, 1, e, p);

			/* The maker puts all experts of a part one after the other. */
			assert_int_equal(w.offset, desc_expert(d, 1, 0, p).offset + e * part);
			assert_int_equal(w.size, part);
		}
	desc_free(d);
	model.skip = "blk.1.ffn_up.3.weight";
	describe_model(&model, -EBADMSG, "'blk.1.ffn_up.3.weight' is missing");
	model = MAKER_MODEL;
	model.fused = true;
	d = describe_model(&model, 0, NULL);
	for (uint32_t e = 0; e < 4; e++) {
		struct desc_weight gate = desc_expert(d, 1, e, DESC_GATE);

		assert_int_equal(
			gate.offset, desc_expert(d, 1, 0, DESC_GATE).offset + e * 2 * part);
		assert_int_equal(desc_expert(d, 1, e, DESC_UP).offset, gate.offset + part);
		assert_int_equal(gate.size, part);
	}
	assert_int_equal(desc_expert_bytes(d, 1), 3 * part);
	assert_int_equal(d->layers[0].k.offset, d->layers[0].q.offset + 32 * row);
	assert_int_equal(d->layers[0].v.offset, d->layers[0].k.offset + 16 * row);
	desc_free(d);
}

/* The embedding, all norms, all of a layer: what is missing or too much is named. */
static void refused_tensors(void **state)
{
	static const char *const needed[] = {"token_embd.weight", "output_norm.weight",
		"blk.0.attn_norm.weight", "blk.1.attn_q.weight", "blk.1.attn_k.weight",
		"blk.0.attn_v.weight", "blk.0.attn_output.weight", "blk.1.ffn_norm.weight",
		"blk.1.ffn_down_exps.weight"};
	struct maker_model model = MAKER_MODEL;

	(void)state;
	for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
		char stem[64];

		model.skip = needed[i];
		/* Experts may also be there one by one, so that the name that is missed is another.
		 */
		(void)snprintf(stem, sizeof stem, "%.*s", (int)strcspn(needed[i], "_"), needed[i]);
		describe_model(&model, -EBADMSG, stem);
	}
	model = MAKER_MODEL;
	model.extra = "blk.0.attn_q.bias";
	describe_model(&model, -ENOTSUP, "blk.0.attn_q.bias': biases");
	model.extra = "blk.2.attn_norm.weight";
	describe_model(&model, -ENOTSUP, "blk.2.attn_norm.weight");
	model = MAKER_MODEL;
	model.arch = "qwen3moe";
	describe_model(&model, -EBADMSG, "blk.0.attn_q_norm.weight' is missing");
	model.arch = "mamba";
	describe_model(&model, -ENOTSUP, "'mamba'");
}

static void refused_shapes(void **state)
{
	struct maker m;

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct maker_model keys = MAKER_MODEL, tensors = MAKER_MODEL;
		const char *text = "";

		switch (i) {
		case 0:
			keys.hidden = 64;
			text = "token_embd.weight' is of shape";
			break;
		case 1:
			keys.experts = 8;
			text = "ffn_gate_inp.weight' is of shape";
			break;
		case 2:
			keys.kv_heads = 4;
			text = "attn_k.weight' is of shape";
			break;
		case 3:
			keys.ff = 96;
			text = "feed-forward block of 64";
			break;
		case 4:
			keys.kv_heads = 3;
			text = "do not divide";
			break;
		default:
			keys.top_k = 5;
			text = "llama.expert_used_count' is 5";
			break;
		}
		maker_init(&m);
		maker_model_keys(&m, &keys);
		maker_model_tensors(&m, &tensors);
		describe(&m, -EBADMSG, text);
	}
}

static void refused_keys(void **state)
{
	static const struct {
		const char *key;
		const char *string;
		float f;
		uint32_t u;
		int code;
	} cases[] = {
		{"llama.rope.scaling.type", "longrope", 0, 0, -ENOTSUP},
		{"llama.attention.sliding_window", NULL, 0, 128, -ENOTSUP},
		{"llama.attention.clamp_kqv", NULL, 8, 0, -ENOTSUP},
		{"llama.logit_scale", NULL, 16, 0, -ENOTSUP},
		{"llama.expert_gating_func", NULL, 0, 2, -ENOTSUP},
		{"llama.expert_shared_count", NULL, 0, 1, -ENOTSUP},
		{"llama.attention.value_length", NULL, 0, 4, -ENOTSUP},
		{"llama.attention.key_length", NULL, 0, 2000, -EBADMSG},
		{"llama.rope.dimension_count", NULL, 0, 16, -EBADMSG},
		{"llama.rope.freq_base", NULL, 0.5f, 0, -EBADMSG},
		{"moed.router_order", "sideways", 0, 0, -ENOTSUP},
	};
	struct maker_model model = MAKER_MODEL;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct maker m;

		maker_init(&m);
		maker_model_keys(&m, &model);
		if (cases[i].string)
			maker_key_string(&m, cases[i].key, cases[i].string);
		else if (cases[i].u)
			maker_key_u32(&m, cases[i].key, cases[i].u);
		else
			maker_key_f32(&m, cases[i].key, cases[i].f);
		maker_model_tensors(&m, &model);
		describe(&m, cases[i].code, cases[i].key);
	}
}

static void linear_scaling(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct maker m;
	struct desc *d;

	(void)state;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_key_string(&m, "llama.rope.scaling.type", "linear");
	maker_key_f32(&m, "llama.rope.scaling.factor", 4);
	maker_model_tensors(&m, &model);
	d = describe(&m, 0, NULL);
	assert_true(d->rope_scale == 0.25f);
	desc_free(d);
}

/* Factors of YaRN beside numbers worked out by hand, and what is refused. */
static void yarn(void **state)
{
	static const struct {
		const char *key;
		float value;
		int code;
	} cases[] = {
		{NULL, 0, 0},
		{"llama.rope.scaling.yarn_ext_factor", 0.5f, -ENOTSUP},
		{"llama.rope.scaling.yarn_attn_factor", 2, -ENOTSUP},
		{"llama.rope.scaling.yarn_beta_fast", 0, -EBADMSG},
		{"llama.rope.scaling.yarn_beta_slow", 1e9f, -EBADMSG},
		{"llama.rope.freq_base", 1, -EBADMSG},
	};
	struct maker_model model = MAKER_MODEL;
	float given[4] = {1, 2, 1, 1}, factors[4];
	struct maker m;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct desc *d;

		maker_init(&m);
		maker_model_keys(&m, &model);
		maker_key_string(&m, "llama.rope.scaling.type", "yarn");
		maker_key_f32(&m, "llama.rope.scaling.factor", 4);
		maker_key_u32(&m, "llama.rope.scaling.original_context_length", 64);
		if (cases[i].key)
			maker_key_f32(&m, cases[i].key, cases[i].value);
		maker_model_tensors(&m, &model);
		d = describe(&m, cases[i].code, cases[i].key);
		if (cases[i].code)
			continue;
		/* 8 ln(64 / 64 pi) / (2 ln 10000) = -0.50 and 8 ln(64 / 2 pi) / ... = 1.008 */
		assert_true(d->yarn_low == 0.0f && d->yarn_high == 2.0f);
		assert_true(d->rope_scale == 1.0f);
		assert_true(d->rope_gain > 1.138628f && d->rope_gain < 1.138631f);
		assert_true(desc_rope_factors(d, NULL, factors));
		assert_true(factors[0] == 1.0f && factors[1] == 1.6f);
		assert_true(factors[2] == 4.0f && factors[3] == 4.0f);
		assert_true(desc_rope_factors(d, given, factors));
		assert_true(factors[1] == 3.2f);
		desc_free(d);
	}
}

static void online(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct error err = ERROR_NONE;
	struct desc *d;
	float *rows, *again;
	bool differ = false;

	(void)state;
	d = describe_model(&model, 0, NULL);
	assert_int_equal(desc_upcycle(d, 8, 2, 1, true, NULL), -EINVAL);
	desc_free(d);
	model.dense = true;
	d = describe_model(&model, 0, NULL);
	assert_int_equal(desc_upcycle(d, 8, 3, 1, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "power of two"));
	assert_int_equal(desc_upcycle(d, 9, 2, 1, true, NULL), -EINVAL);
	assert_int_equal(desc_upcycle(d, 4, 8, 1, false, NULL), -EINVAL);
	assert_int_equal(desc_upcycle(d, 0, 0, 1, false, NULL), -EINVAL);
	assert_int_equal(d->experts, 0);
	assert_int_equal(desc_upcycle(d, 8, 2, 1, true, NULL), 0);
	assert_int_equal(d->layers[1].router.file, DESC_FILE_NONE);
	assert_int_equal(
		desc_expert(d, 1, 7, DESC_DOWN).offset, desc_expert(d, 1, 0, DESC_DOWN).offset);
	assert_int_equal(desc_cycle_bytes(d), (uint64_t)2 * 3 * 64 * 32 * 4);

	rows = calloc((size_t)2 * 8 * 32, sizeof *rows);
	again = rows + (size_t)8 * 32;
	desc_router_rows(d, 1, rows);
	desc_router_rows(d, 0, again);
	assert_memory_not_equal(rows, again, 8 * 32 * sizeof *rows);
	desc_router_rows(d, 1, again);
	assert_memory_equal(rows, again, 8 * 32 * sizeof *rows);
	for (int e = 0; e < 8; e += 2) {
		assert_memory_equal(rows + e * 32, rows + (e + 1) * 32, 32 * sizeof *rows);
		differ |= e && memcmp(rows, rows + e * 32, 32 * sizeof *rows);
	}
	assert_true(differ);
	free(rows);
	desc_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(families),
		cmocka_unit_test(tied_and_dense),
		cmocka_unit_test(layouts),
		cmocka_unit_test(refused_tensors),
		cmocka_unit_test(refused_shapes),
		cmocka_unit_test(refused_keys),
		cmocka_unit_test(linear_scaling),
		cmocka_unit_test(yarn),
		cmocka_unit_test(online),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
