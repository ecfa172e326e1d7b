/* SPDX-License-Identifier: MIT */

/* From keys to a description, and questions to it. */

#include "desc.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "desc-private.h"
#include "kernels.h"
#include "num.h"

#define KV_BLOCK 64u /* positions (NUMERICS rule 3) */

/* Sorted by name. */
static const struct desc_family *const families[] = {
	&desc_family_llama,
	&desc_family_olmoe,
	&desc_family_qwen3moe,
};

const char *desc_key(const struct desc_reader *r, const char *suffix, char buf[DESC_KEY_MAX])
{
	(void)snprintf(buf, DESC_KEY_MAX, "%s.%s", r->d->arch, suffix);
	return buf;
}

int desc_u32(struct desc_reader *r, const char *suffix, uint32_t *ret)
{
	char key[DESC_KEY_MAX];
	int x = gguf_get_u32(r->g, desc_key(r, suffix, key), ret, r->err);

	return x < 0 ? -EBADMSG : x;
}

int desc_f32(struct desc_reader *r, const char *suffix, float *ret)
{
	char key[DESC_KEY_MAX];
	float v = 0;
	int x = gguf_get_f32(r->g, desc_key(r, suffix, key), &v, r->err);

	if (x <= 0)
		return x < 0 ? -EBADMSG : 0;
	if (!isfinite(v))
		return error_set(r->err, -EBADMSG, "key '%s' is not a finite number", key);
	*ret = v;
	return 1;
}

int desc_need_u32(
	struct desc_reader *r, const char *suffix, uint64_t min, uint64_t max, uint32_t *ret)
{
	char key[DESC_KEY_MAX];
	uint32_t v = 0;
	int x = desc_u32(r, suffix, &v);

	if (x < 0)
		return x;
	desc_key(r, suffix, key);
	if (!x)
		return error_set(r->err, -EBADMSG, "key '%s' is missing", key);
	if (v < min || v > max)
		return error_set(r->err, -EBADMSG,
			"key '%s' is %" PRIu32 ", allowed are %" PRIu64 " to %" PRIu64, key, v, min,
			max);
	*ret = v;
	return 0;
}

/* As desc_need_u32(), with a value for an absent key. */
static int default_u32(struct desc_reader *r, const char *suffix, uint64_t min, uint64_t max,
	uint32_t value, uint32_t *ret)
{
	uint32_t v;
	int x = desc_u32(r, suffix, &v);

	if (x < 0)
		return x;
	if (x == 0) {
		*ret = value;
		return 0;
	}
	return desc_need_u32(r, suffix, min, max, ret);
}

static int read_family(struct desc_reader *r, const struct desc_family **ret)
{
	struct gguf_string s = {"", 0};
	int x = gguf_get_string(r->g, "general.name", &s, NULL);

	if (x > 0)
		(void)gguf_text(s, r->d->name, sizeof r->d->name);
	x = gguf_get_string(r->g, "general.architecture", &s, r->err);
	if (x < 0)
		return -EBADMSG;
	if (!x)
		return error_set(r->err, -EBADMSG, "key 'general.architecture' is missing");
	(void)gguf_text(s, r->d->arch, sizeof r->d->arch);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		if (strcmp(families[i]->arch, r->d->arch) != 0)
			continue;
		*ret = families[i];
		return 0;
	}
	return error_set(r->err, -ENOTSUP,
		"key 'general.architecture' is '%s'; supported are llama (with Mixtral), olmoe and "
		"qwen3moe",
		r->d->arch);
}

/* Keys that change the arithmetic in ways that these families do not have, unless neutral. */
static int refuse_keys(struct desc_reader *r)
{
	static const struct {
		const char *suffix;
		float neutral, also;
	} floats[] = {
		{"attention.clamp_kqv", 0, 0},
		{"attention.max_alibi_bias", 0, 0},
		{"attn_logit_softcapping", 0, 0},
		{"embedding_scale", 1, 0},
		{"expert_weights_scale", 1, 0},
		{"final_logit_softcapping", 0, 0},
		{"logit_scale", 1, 0},
		{"residual_scale", 1, 0},
		{"rope.scaling.attn_factor", 1, 0},
		{"rope.scaling.yarn_log_multiplier", 0, 0},
		{"router_logit_softcapping", 0, 0},
	};
	static const struct {
		const char *suffix;
		uint32_t max;
	} numbers[] = {
		{"expert_gating_func", 1}, /* 1: softmax */
		{"expert_group_count", 1},
		{"expert_group_used_count", 1},
		{"expert_shared_count", 0},
		{"expert_shared_feed_forward_length", 0},
		{"interleave_moe_layer_step", 1},
		{"nextn_predict_layers", 0},
	};
	char key[DESC_KEY_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(floats); i++) {
		float v = floats[i].neutral;

		if (desc_f32(r, floats[i].suffix, &v) < 0)
			return -EBADMSG;
		if (v != floats[i].neutral && v != floats[i].also)
			return error_set(r->err, -ENOTSUP,
				"key '%s' is %g, supported is %g in this family",
				desc_key(r, floats[i].suffix, key), (double)v,
				(double)floats[i].neutral);
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uint32_t v = 0;

		if (desc_u32(r, numbers[i].suffix, &v) < 0)
			return -EBADMSG;
		if (v > numbers[i].max)
			return error_set(r->err, -ENOTSUP,
				"key '%s' is %" PRIu32 ", supported is %" PRIu32 " in this family",
				desc_key(r, numbers[i].suffix, key), v, numbers[i].max);
	}
	return 0;
}

static int refuse_flags(struct desc_reader *r, const struct desc_family *f)
{
	static const struct {
		const char *suffix;
		bool supported;
	} flags[] = {
		{"attention.causal", true},
		{"swin_norm", false},
		{"use_parallel_residual", false},
	};
	bool norm = f->router_normalize || f->router == DESC_TOPK_SOFTMAX;
	char key[DESC_KEY_MAX];
	uint32_t window = 0;
	bool v;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		v = flags[i].supported;
		if (gguf_get_bool(r->g, desc_key(r, flags[i].suffix, key), &v, r->err) < 0)
			return -EBADMSG;
		if (v != flags[i].supported)
			return error_set(r->err, -ENOTSUP, "key '%s' is %s, which is not supported",
				key, v ? "true" : "false");
	}
	v = norm;
	if (gguf_get_bool(r->g, desc_key(r, "expert_weights_norm", key), &v, r->err) < 0)
		return -EBADMSG;
	if (v != norm)
		return error_set(r->err, -ENOTSUP, "key '%s' is %s, this family has %s", key,
			v ? "true" : "false", norm ? "true" : "false");
	if (gguf_get_u32(r->g, desc_key(r, "attention.sliding_window", key), &window, r->err) < 0)
		return -EBADMSG;
	/* A window as long as the context never closes. */
	if (window && window < r->d->context)
		return error_set(r->err, -ENOTSUP,
			"key '%s' is %" PRIu32 ": sliding windows are not supported", key, window);
	return 0;
}

static int read_rope(struct desc_reader *r)
{
	struct desc *d = r->d;
	int x = default_u32(
		r, "rope.dimension_count", 2, d->head_size, d->head_size, &d->rope_dims);

	return x < 0 ? x : desc_read_rope(r);
}

static int read_experts(struct desc_reader *r, const struct desc_family *f)
{
	struct desc *d = r->d;
	int x = default_u32(r, "expert_count", 0, LIMIT_EXPERTS, 0, &d->experts);

	if (x < 0)
		return x;
	if (!d->experts)
		return f->dense ? 0
				: error_set(r->err, -EBADMSG,
					  "key '%s.expert_count' is missing or 0: a model of this "
					  "family has experts",
					  d->arch);
	x = desc_need_u32(r, "expert_used_count", 1, num_min(d->experts, LIMIT_TOP_K), &d->top_k);
	if (x < 0)
		return x;
	return default_u32(r, "expert_feed_forward_length", 0, LIMIT_HIDDEN, 0, &r->expert_ff_key);
}

static int read_shapes(struct desc_reader *r, const struct desc_family *f)
{
	struct desc *d = r->d;
	uint32_t value_length;
	char key[DESC_KEY_MAX];
	int x = desc_need_u32(r, "block_count", 1, LIMIT_LAYERS, &d->n_layers);

	if (!x)
		x = desc_need_u32(r, "embedding_length", 1, LIMIT_HIDDEN, &d->hidden);
	if (!x)
		x = desc_need_u32(r, "context_length", 1, LIMIT_CONTEXT, &d->context);
	if (!x)
		x = desc_need_u32(r, "attention.head_count", 1, LIMIT_HEADS, &d->heads);
	if (!x)
		x = default_u32(r, "attention.head_count_kv", 1, d->heads, d->heads, &d->kv_heads);
	if (!x)
		x = default_u32(r, "feed_forward_length", 0, LIMIT_HIDDEN, 0, &r->ff);
	if (x < 0)
		return x;
	if (d->heads % d->kv_heads)
		return error_set(r->err, -EBADMSG,
			"%" PRIu32 " attention heads do not divide among %" PRIu32
			" key-value heads ('%s')",
			d->heads, d->kv_heads, desc_key(r, "attention.head_count_kv", key));
	if (d->hidden % d->heads && gguf_get_u32(r->g, desc_key(r, "attention.key_length", key),
					    &value_length, NULL) == 0)
		return error_set(r->err, -EBADMSG,
			"%" PRIu32 " attention heads do not divide '%s', %" PRIu32
			", and '%s.attention.key_length' is missing",
			d->heads, desc_key(r, "embedding_length", key), d->hidden, d->arch);
	x = default_u32(
		r, "attention.key_length", 2, LIMIT_HEAD_SIZE, d->hidden / d->heads, &d->head_size);
	if (!x && (d->head_size < 2 || d->head_size > LIMIT_HEAD_SIZE ||
			  (uint64_t)d->head_size * d->heads > LIMIT_HIDDEN))
		return error_set(r->err, -EBADMSG,
			"%" PRIu32 " heads of %" PRIu32 " elements are out of range ('%s')",
			d->heads, d->head_size, desc_key(r, "attention.key_length", key));
	if (!x)
		x = default_u32(r, "attention.value_length", 1, LIMIT_HEAD_SIZE, d->head_size,
			&value_length);
	if (!x && value_length != d->head_size)
		return error_set(r->err, -ENOTSUP,
			"key '%s' is %" PRIu32 "; values as long as keys (%" PRIu32
			") are supported",
			desc_key(r, "attention.value_length", key), value_length, d->head_size);
	if (!x)
		x = read_experts(r, f);
	return x;
}

static int read_keys(struct desc_reader *r, const struct desc_family *f)
{
	struct desc *d = r->d;
	char key[DESC_KEY_MAX];
	int x = read_shapes(r, f);

	if (!x)
		x = read_rope(r);
	if (!x)
		x = refuse_keys(r);
	if (!x)
		x = refuse_flags(r, f);
	if (x < 0)
		return x;
	x = desc_f32(r, "attention.layer_norm_rms_epsilon", &d->norm_eps);
	if (x < 0)
		return x;
	desc_key(r, "attention.layer_norm_rms_epsilon", key);
	if (!x)
		return error_set(r->err, -EBADMSG, "key '%s' is missing", key);
	if (d->norm_eps < 0 || d->norm_eps > 1)
		return error_set(r->err, -EBADMSG, "key '%s' is %g, allowed are 0 to 1", key,
			(double)d->norm_eps);
	d->rope_neighbours = f->rope_neighbours;
	d->qk_norm_whole = f->qk_norm == DESC_QK_NORM_WHOLE;
	d->router = f->router;
	d->router_normalize = f->router_normalize;
	d->router_scale = 1;
	return f->finish ? f->finish(r) : 0;
}

/* Tensors of which nobody knew what to do change the model in a way that we do not have. */
static int refuse_unused(struct desc_reader *r)
{
	for (uint64_t i = 0; i < gguf_n_tensors(r->g); i++) {
		const char *name = gguf_tensor(r->g, i)->name;
		size_t n = strlen(name);

		if (r->used[i])
			continue;
		if (n > 5 && !strcmp(name + n - 5, ".bias"))
			return error_set(r->err, -ENOTSUP,
				"tensor '%s': biases are not supported in family %s", name,
				r->d->arch);
		return error_set(r->err, -ENOTSUP,
			"tensor '%s' has no place in family %s as it is supported", name,
			r->d->arch);
	}
	return 0;
}

static int keep_paths(struct desc *d, const struct gguf *g)
{
	d->files = calloc(gguf_n_files(g), sizeof *d->files);
	if (!d->files)
		return -ENOMEM;
	for (; d->n_files < gguf_n_files(g); d->n_files++) {
		d->files[d->n_files] = strdup(gguf_file_path(g, d->n_files));
		if (!d->files[d->n_files])
			return -ENOMEM;
	}
	return 0;
}

int desc_new(struct desc **ret, const struct gguf *g, struct error *err)
{
	cleanup_free_ bool *used = calloc(num_max(gguf_n_tensors(g), (uint64_t)1), sizeof *used);
	struct desc_reader r = {.g = g, .err = err, .used = used};
	const struct desc_family *f = NULL;
	int x;

	r.d = calloc(1, sizeof *r.d);
	if (!r.d || !used) {
		free(r.d);
		return -ENOMEM;
	}
	x = keep_paths(r.d, g);
	if (!x)
		x = read_family(&r, &f);
	if (!x)
		x = read_keys(&r, f);
	if (!x)
		x = desc_read_layers(&r, f);
	if (!x)
		x = refuse_unused(&r);
	if (x) {
		desc_free(r.d);
		if (*gguf_path(g))
			error_prefix(err, "model '%s'", gguf_path(g));
		return x;
	}
	*ret = r.d;
	return 0;
}

struct desc *desc_free(struct desc *d)
{
	if (!d)
		return NULL;
	for (uint32_t l = 0; d->layers && l < d->n_layers; l++)
		for (int p = 0; p < DESC_PARTS; p++) {
			free(d->layers[l].expert_offset[p]);
			free(d->layers[l].expert_file[p]);
		}
	free(d->layers);
	for (uint32_t i = 0; i < d->n_files; i++)
		free(d->files[i]);
	free(d->files);
	free(d);
	return NULL;
}

struct desc_weight desc_expert(const struct desc *d, uint32_t l, uint32_t e, enum desc_part p)
{
	const struct desc_layer *layer = &d->layers[l];
	struct desc_weight w = layer->expert[p];

	if (!layer->moe || layer->shared)
		return w;
	w.offset = layer->expert_offset[p] ? layer->expert_offset[p][e]
					   : w.offset + e * layer->expert_stride[p];
	if (layer->expert_file[p])
		w.file = layer->expert_file[p][e];
	return w;
}

uint64_t desc_expert_bytes(const struct desc *d, uint32_t l)
{
	uint64_t n = 0;

	if (!d->layers[l].moe)
		return 0;
	for (int p = 0; p < DESC_PARTS; p++)
		n += d->layers[l].expert[p].size;
	return n;
}

bool desc_is_tied(const struct desc *d)
{
	return d->output.file == d->embedding.file && d->output.offset == d->embedding.offset;
}

uint64_t desc_dense_bytes(const struct desc *d)
{
	uint64_t n = d->embedding.size + d->output_norm.size + d->rope_factors.size;

	if (!desc_is_tied(d))
		n += d->output.size;
	for (uint32_t l = 0; l < d->n_layers; l++) {
		const struct desc_layer *y = &d->layers[l];

		n += y->attn_norm.size + y->q.size + y->k.size + y->v.size + y->o.size +
		     y->q_norm.size + y->k_norm.size + y->ffn_norm.size + y->router.size;
		for (int p = 0; !y->moe && p < DESC_PARTS; p++)
			n += y->expert[p].size;
	}
	return n;
}

void desc_type_bytes(const struct desc *d, uint64_t *bytes)
{
	memset(bytes, 0, KERNELS_TYPE_MAX * sizeof *bytes);
	bytes[d->output.type] += d->output.size;
	for (uint32_t l = 0; l < d->n_layers; l++) {
		const struct desc_layer *y = &d->layers[l];
		const struct desc_weight *const dense[] = {&y->q, &y->k, &y->v, &y->o, &y->router};
		uint64_t copies = y->moe && !y->shared ? d->experts : 1;

		for (size_t i = 0; i < ARRAY_SIZE(dense); i++)
			bytes[dense[i]->type] += dense[i]->size;
		for (int p = 0; p < DESC_PARTS; p++)
			bytes[y->expert[p].type] += copies * y->expert[p].size;
	}
}

uint64_t desc_cycle_bytes(const struct desc *d)
{
	uint64_t n = 0;

	/* Experts that lie at the same place are read once. */
	for (uint32_t l = 0; l < d->n_layers; l++)
		n += desc_expert_bytes(d, l) * (d->layers[l].shared ? 1 : d->top_k);
	return n;
}

bool desc_kv_f32(const struct desc *d)
{
	return d->layers[0].k.type == KERNELS_F32;
}

uint64_t desc_kv_bytes(const struct desc *d, uint32_t positions)
{
	uint64_t n = num_align_up(positions, KV_BLOCK);

	return n * d->n_layers * d->kv_heads * d->head_size * 2 * (desc_kv_f32(d) ? 4 : 2);
}
