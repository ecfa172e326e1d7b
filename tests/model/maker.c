/* SPDX-License-Identifier: MIT */
#include "maker.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"

void maker_init(struct maker *m)
{
	*m = (struct maker){0};
	maker_raw(m, "GGUF", 4);
	maker_u32(m, 3);
	maker_u64(m, 0);
	maker_u64(m, 0);
}

void maker_deinit(struct maker *m)
{
	free(m->bytes);
	m->bytes = NULL;
}

void maker_raw(struct maker *m, const void *p, size_t n)
{
	if (m->n + n > m->room) {
		m->room = (m->n + n) * 2;
		m->bytes = realloc(m->bytes, m->room);
		assert(m->bytes);
	}
	memcpy(m->bytes + m->n, p, n);
	m->n += n;
}

void maker_u32(struct maker *m, uint32_t v)
{
	maker_raw(m, &v, sizeof v);
}

void maker_u64(struct maker *m, uint64_t v)
{
	maker_raw(m, &v, sizeof v);
}

void maker_string(struct maker *m, const char *s)
{
	maker_u64(m, strlen(s));
	maker_raw(m, s, strlen(s));
}

static void key(struct maker *m, const char *name, uint32_t kind)
{
	maker_string(m, name);
	maker_u32(m, kind);
	m->n_keys++;
}

void maker_key_u32(struct maker *m, const char *name, uint32_t v)
{
	key(m, name, GGUF_U32);
	maker_u32(m, v);
}

void maker_key_f32(struct maker *m, const char *name, float v)
{
	key(m, name, GGUF_F32);
	maker_raw(m, &v, sizeof v);
}

void maker_key_bool(struct maker *m, const char *name, uint8_t v)
{
	key(m, name, GGUF_BOOL);
	maker_raw(m, &v, 1);
}

void maker_key_string(struct maker *m, const char *name, const char *v)
{
	key(m, name, GGUF_STRING);
	maker_string(m, v);
}

void maker_key_strings(struct maker *m, const char *name, const char *const *v, uint64_t n)
{
	key(m, name, GGUF_ARRAY);
	maker_u32(m, GGUF_STRING);
	maker_u64(m, n);
	for (uint64_t i = 0; i < n; i++)
		maker_string(m, v[i]);
}

void maker_tensor(struct maker *m, const char *name, uint32_t type, uint64_t d0, uint64_t d1,
	uint64_t d2, uint64_t size)
{
	maker_string(m, name);
	maker_u32(m, d2 ? 3 : d1 ? 2 : 1);
	maker_u64(m, d0);
	if (d1)
		maker_u64(m, d1);
	if (d2)
		maker_u64(m, d2);
	maker_u32(m, type);
	maker_u64(m, m->data);
	m->data += (size + 31) / 32 * 32;
	m->n_tensors++;
}

void maker_finish(struct maker *m)
{
	const float half = 0.5f;

	while (m->n % 32)
		maker_raw(m, "", 1);
	for (uint64_t i = 0; i < m->data; i += sizeof half)
		maker_raw(m, &half, sizeof half);
	memcpy(m->bytes + 8, &m->n_tensors, 8);
	memcpy(m->bytes + 16, &m->n_keys, 8);
}

static const char *arch_key(const struct maker_model *model, const char *suffix)
{
	static char buf[256];

	(void)snprintf(buf, sizeof buf, "%s.%s", model->arch, suffix);
	return buf;
}

void maker_model_keys(struct maker *m, const struct maker_model *model)
{
	maker_key_string(m, "general.architecture", model->arch);
	maker_key_string(m, "general.name", "made");
	maker_key_u32(m, arch_key(model, "block_count"), model->layers);
	maker_key_u32(m, arch_key(model, "embedding_length"), model->hidden);
	maker_key_u32(m, arch_key(model, "context_length"), model->context);
	maker_key_u32(m, arch_key(model, "attention.head_count"), model->heads);
	maker_key_u32(m, arch_key(model, "attention.head_count_kv"), model->kv_heads);
	maker_key_u32(m, arch_key(model, "feed_forward_length"), model->ff);
	maker_key_f32(m, arch_key(model, "attention.layer_norm_rms_epsilon"), 1e-5f);
	if (model->dense)
		return;
	maker_key_u32(m, arch_key(model, "expert_count"), model->experts);
	maker_key_u32(m, arch_key(model, "expert_used_count"), model->top_k);
}

static void tensor(struct maker *m, const struct maker_model *model, const char *name, uint64_t d0,
	uint64_t d1, uint64_t d2)
{
	if (model->skip && !strcmp(model->skip, name))
		return;
	maker_tensor(m, name, 0, d0, d1, d2, 4 * d0 * (d1 ? d1 : 1) * (d2 ? d2 : 1));
}

/* The experts' three tensors: stacked, one by one, or with gate and up in one. */
static void experts(struct maker *m, const struct maker_model *model, uint32_t l)
{
	static const char *const parts[] = {"gate", "up", "down"};
	uint64_t hidden = model->hidden, ff = model->ff;
	char name[64];

	for (size_t p = model->fused ? 2 : 0; p < 3; p++) {
		uint64_t d0 = p == 2 ? ff : hidden, d1 = p == 2 ? hidden : ff;

		for (uint32_t e = 0; model->separate && e < model->experts; e++) {
			(void)snprintf(
				name, sizeof name, "blk.%u.ffn_%s.%u.weight", l, parts[p], e);
			tensor(m, model, name, d0, d1, 0);
		}
		(void)snprintf(name, sizeof name, "blk.%u.ffn_%s_exps.weight", l, parts[p]);
		if (!model->separate)
			tensor(m, model, name, d0, d1, model->experts);
	}
	(void)snprintf(name, sizeof name, "blk.%u.ffn_gate_up_exps.weight", l);
	if (model->fused)
		tensor(m, model, name, hidden, 2 * ff, model->experts);
	(void)snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", l);
	if (model->half_router)
		maker_tensor(m, name, 1, hidden, model->experts, 0, 2 * hidden * model->experts);
	else
		tensor(m, model, name, hidden, model->experts, 0);
}

static void block(struct maker *m, const struct maker_model *model, uint32_t l)
{
	uint64_t hidden = model->hidden, head = hidden / model->heads, ff = model->ff;
	uint64_t kv = head * model->kv_heads;
	const struct {
		const char *rest;
		uint64_t d0, d1, d2;
		bool skip;
	} all[] = {
		{"attn_norm", hidden, 0, 0, false},
		{"attn_q", hidden, hidden, 0, model->fused},
		{"attn_k", hidden, kv, 0, model->fused},
		{"attn_v", hidden, kv, 0, model->fused},
		{"attn_qkv", hidden, hidden + 2 * kv, 0, !model->fused},
		{"attn_output", hidden, hidden, 0, false},
		{"attn_q_norm", model->qk_whole ? hidden : head, 0, 0,
			!model->qk_norm && !model->qk_whole},
		{"attn_k_norm", model->qk_whole ? kv : head, 0, 0,
			!model->qk_norm && !model->qk_whole},
		{"ffn_norm", hidden, 0, 0, false},
		{"ffn_gate", hidden, ff, 0, !model->dense},
		{"ffn_up", hidden, ff, 0, !model->dense},
		{"ffn_down", ff, hidden, 0, !model->dense},
	};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		char name[64];

		(void)snprintf(name, sizeof name, "blk.%u.%s.weight", l, all[i].rest);
		if (!all[i].skip)
			tensor(m, model, name, all[i].d0, all[i].d1, all[i].d2);
	}
	if (!model->dense)
		experts(m, model, l);
}

void maker_model_tensors(struct maker *m, const struct maker_model *model)
{
	tensor(m, model, "token_embd.weight", model->hidden, model->vocabulary, 0);
	tensor(m, model, "output_norm.weight", model->hidden, 0, 0);
	tensor(m, model, "output.weight", model->hidden, model->vocabulary, 0);
	for (uint32_t l = 0; l < model->layers; l++)
		block(m, model, l);
	if (model->extra)
		tensor(m, model, model->extra, model->hidden, 0, 0);
}
