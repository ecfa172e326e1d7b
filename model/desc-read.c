/* SPDX-License-Identifier: MIT */

/* The tensors of a description: each where it must be, of the right shape, of a type we can use. */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "desc-private.h"
#include "kernels.h"
#include "num.h"

static int check_type(struct desc_reader *r, const struct gguf_tensor *t, unsigned flags)
{
	const struct kernels_format *f = kernels_format(t->type);

	if (!f)
		return error_set(r->err, -ENOTSUP, "tensor '%s' is of the unknown type %" PRIu32,
			t->name, t->type);
	if ((flags & DESC_F32) && t->type != KERNELS_F32)
		return error_set(r->err, -ENOTSUP, "tensor '%s' is of type %s; supported is F32",
			t->name, f->name);
	if (!f->product)
		return error_set(r->err, -ENOTSUP,
			"tensor '%s' is of type %s; supported are F32, F16, BF16, Q4_0, Q4_1, "
			"Q5_0, "
			"Q5_1, Q8_0, Q4_K, Q5_K and Q6_K",
			t->name, f->name);
	return 0;
}

static int check_shape(struct desc_reader *r, const struct gguf_tensor *t, uint64_t cols,
	uint64_t rows, uint64_t depth)
{
	if (t->dims[0] == cols && t->dims[1] == rows && t->dims[2] == depth && t->dims[3] == 1)
		return 0;
	return error_set(r->err, -EBADMSG,
		"tensor '%s' is of shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
		", the keys ask for %" PRIu64 " x %" PRIu64 " x %" PRIu64,
		t->name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], cols, rows, depth);
}

static const struct gguf_tensor *find(struct desc_reader *r, const char *name)
{
	const struct gguf_tensor *t = gguf_find(r->g, name);

	if (t)
		r->used[t - gguf_tensor(r->g, 0)] = true;
	return t;
}

int desc_take(struct desc_reader *r, struct desc_weight *ret, uint64_t cols, uint64_t rows,
	uint64_t depth, unsigned flags, const char *format, ...)
{
	char name[LIMIT_GGUF_NAME + 1];
	const struct gguf_tensor *t;
	va_list args;
	int x;

	va_start(args, format);
	(void)vsnprintf(name, sizeof name, format, args);
	va_end(args);
	t = find(r, name);
	if (!t && (flags & DESC_MAY_MISS))
		return 0;
	if (!t)
		return error_set(r->err, -EBADMSG, "tensor '%s' is missing", name);
	x = check_type(r, t, flags);
	if (!x)
		x = check_shape(r, t, cols, rows, depth);
	if (x)
		return x;
	*ret = (struct desc_weight){
		.type = t->type,
		.file = t->file,
		.rows = rows * depth,
		.cols = cols,
		.offset = t->offset,
		.size = t->size,
		.row_bytes = t->size / (rows * depth),
	};
	return 1;
}

/* Rows [first, first + rows) of w. */
static struct desc_weight rows_of(const struct desc_weight *w, uint64_t first, uint64_t rows)
{
	struct desc_weight part = *w;

	part.rows = rows;
	part.offset += first * w->row_bytes;
	part.size = rows * w->row_bytes;
	return part;
}

static int read_attention(struct desc_reader *r, const struct desc_family *f, uint32_t l)
{
	struct desc_layer *y = &r->d->layers[l];
	uint64_t hidden = r->d->hidden, head = r->d->head_size;
	uint64_t q = head * r->d->heads, kv = head * r->d->kv_heads;
	bool whole = f->qk_norm == DESC_QK_NORM_WHOLE;
	struct desc_weight qkv;
	int x = desc_take(r, &y->attn_norm, hidden, 1, 1, DESC_F32, "blk.%u.attn_norm.weight", l);

	if (x < 0)
		return x;
	x = desc_take(r, &qkv, hidden, q + 2 * kv, 1, DESC_MAY_MISS, "blk.%u.attn_qkv.weight", l);
	if (x < 0)
		return x;
	if (x) {
		y->q = rows_of(&qkv, 0, q);
		y->k = rows_of(&qkv, q, kv);
		y->v = rows_of(&qkv, q + kv, kv);
	} else {
		x = desc_take(r, &y->q, hidden, q, 1, 0, "blk.%u.attn_q.weight", l);
		if (x > 0)
			x = desc_take(r, &y->k, hidden, kv, 1, 0, "blk.%u.attn_k.weight", l);
		if (x > 0)
			x = desc_take(r, &y->v, hidden, kv, 1, 0, "blk.%u.attn_v.weight", l);
	}
	if (x >= 0)
		x = desc_take(r, &y->o, q, hidden, 1, 0, "blk.%u.attn_output.weight", l);
	if (x < 0 || f->qk_norm == DESC_QK_NORM_NONE)
		return x;
	x = desc_take(
		r, &y->q_norm, whole ? q : head, 1, 1, DESC_F32, "blk.%u.attn_q_norm.weight", l);
	if (x > 0)
		x = desc_take(r, &y->k_norm, whole ? kv : head, 1, 1, DESC_F32,
			"blk.%u.attn_k_norm.weight", l);
	return x;
}

static const char *const part_names[DESC_PARTS] = {
	[DESC_GATE] = "gate",
	[DESC_UP] = "up",
	[DESC_DOWN] = "down",
};

/* Second dimension of a tensor by name, 0 where it is absent: where keys do not say the width. */
static uint64_t second_dim(struct desc_reader *r, uint32_t l, const char *rest)
{
	char name[LIMIT_GGUF_NAME + 1];
	const struct gguf_tensor *t;

	(void)snprintf(name, sizeof name, "blk.%u.%s.weight", l, rest);
	t = gguf_find(r->g, name);
	return t ? t->dims[1] : 0;
}

static int check_ff(struct desc_reader *r, uint32_t l, uint64_t ff, uint32_t key)
{
	if (ff < 1 || ff > LIMIT_HIDDEN)
		return error_set(r->err, -EBADMSG,
			"layer %" PRIu32 " has a feed-forward block of %" PRIu64
			" rows, allowed are 1 to %" PRIu64,
			l, ff, LIMIT_HIDDEN);
	if (key && ff != key)
		return error_set(r->err, -EBADMSG,
			"layer %" PRIu32 " has a feed-forward block of %" PRIu64
			" rows, the keys say %" PRIu32,
			l, ff, key);
	return 0;
}

static int read_dense(struct desc_reader *r, const struct desc_family *f, uint32_t l)
{
	struct desc_layer *y = &r->d->layers[l];
	uint64_t ff = second_dim(r, l, "ffn_up"), hidden = r->d->hidden;
	int x;

	if (!ff)
		return error_set(r->err, -EBADMSG, "tensor 'blk.%" PRIu32 ".%s' is missing", l,
			r->d->experts ? "ffn_gate_inp.weight" : "ffn_up.weight");
	if (!f->dense)
		return error_set(r->err, -ENOTSUP,
			"layer %" PRIu32 " has no experts, which family %s does not have", l,
			r->d->arch);
	x = check_ff(r, l, ff, r->ff);
	for (int p = 0; x >= 0 && p < DESC_PARTS; p++)
		x = desc_take(r, &y->expert[p], p == DESC_DOWN ? ff : hidden,
			p == DESC_DOWN ? hidden : ff, 1, 0, "blk.%u.ffn_%s.weight", l,
			part_names[p]);
	return x;
}

/* One tensor for all experts, cut to the first. */
static void stack(struct desc_layer *y, enum desc_part p, const struct desc_weight *w,
	uint64_t first, uint64_t rows, uint64_t stride_rows)
{
	y->expert[p] = rows_of(w, first, rows);
	y->expert_stride[p] = stride_rows * w->row_bytes;
}

/* Old files: a tensor for each expert. */
static int read_separate(struct desc_reader *r, uint32_t l, enum desc_part p, uint64_t ff)
{
	struct desc_layer *y = &r->d->layers[l];
	uint64_t hidden = r->d->hidden, cols = p == DESC_DOWN ? ff : hidden;
	struct desc_weight w;

	y->expert_offset[p] = calloc(r->d->experts, sizeof *y->expert_offset[p]);
	y->expert_file[p] = calloc(r->d->experts, sizeof *y->expert_file[p]);
	if (!y->expert_offset[p] || !y->expert_file[p])
		return -ENOMEM;
	for (uint32_t e = 0; e < r->d->experts; e++) {
		int x = desc_take(r, &w, cols, p == DESC_DOWN ? hidden : ff, 1,
			e ? 0 : DESC_MAY_MISS, "blk.%u.ffn_%s.%u.weight", l, part_names[p], e);

		if (x < 0)
			return x;
		if (!x)
			return error_set(r->err, -EBADMSG,
				"tensor 'blk.%" PRIu32 ".ffn_%s_exps.weight' is missing", l,
				part_names[p]);
		if (e && w.type != y->expert[p].type)
			return error_set(r->err, -ENOTSUP,
				"tensor 'blk.%" PRIu32 ".ffn_%s.%" PRIu32
				".weight' has another type than that of expert 0",
				l, part_names[p], e);
		if (!e)
			y->expert[p] = w;
		y->expert_offset[p][e] = w.offset;
		y->expert_file[p][e] = w.file;
	}
	return 0;
}

static int read_part(struct desc_reader *r, uint32_t l, enum desc_part p, uint64_t ff)
{
	uint64_t cols = p == DESC_DOWN ? ff : r->d->hidden,
		 rows = p == DESC_DOWN ? r->d->hidden : ff;
	struct desc_weight w;
	int x = desc_take(r, &w, cols, rows, r->d->experts, DESC_MAY_MISS,
		"blk.%u.ffn_%s_exps.weight", l, part_names[p]);

	if (x < 0)
		return x;
	if (!x)
		return read_separate(r, l, p, ff);
	stack(&r->d->layers[l], p, &w, 0, rows, rows);
	return 0;
}

static int read_experts(struct desc_reader *r, uint32_t l)
{
	struct desc *d = r->d;
	struct desc_layer *y = &d->layers[l];
	uint64_t ff = second_dim(r, l, "ffn_up_exps"), fused = second_dim(r, l, "ffn_gate_up_exps");
	struct desc_weight w;
	int x;

	if (fused && !ff && !(fused % 2))
		ff = fused / 2;
	if (!ff)
		ff = second_dim(r, l, "ffn_up.0");
	/* Mixtral's files state the width of an expert as that of the block. */
	x = check_ff(r, l, ff, r->expert_ff_key ? r->expert_ff_key : r->ff);
	if (x < 0)
		return x;
	y->moe = true;
	d->expert_ff = (uint32_t)num_max(d->expert_ff, (uint32_t)ff);
	/* F16 in files from before converters kept routers in F32. */
	x = desc_take(r, &y->router, d->hidden, d->experts, 1, 0, "blk.%u.ffn_gate_inp.weight", l);
	if (x < 0)
		return x;
	if (fused) {
		x = desc_take(r, &w, d->hidden, 2 * ff, d->experts, 0,
			"blk.%u.ffn_gate_up_exps.weight", l);
		if (x < 0)
			return x;
		stack(y, DESC_GATE, &w, 0, ff, 2 * ff);
		stack(y, DESC_UP, &w, ff, ff, 2 * ff);
		return read_part(r, l, DESC_DOWN, ff);
	}
	for (int p = 0; x >= 0 && p < DESC_PARTS; p++)
		x = read_part(r, l, p, ff);
	return x;
}

static int read_layer(struct desc_reader *r, const struct desc_family *f, uint32_t l)
{
	struct desc_layer *y = &r->d->layers[l];
	int x = read_attention(r, f, l);

	if (x >= 0)
		x = desc_take(
			r, &y->ffn_norm, r->d->hidden, 1, 1, DESC_F32, "blk.%u.ffn_norm.weight", l);
	if (x < 0)
		return x;
	x = r->d->experts && second_dim(r, l, "ffn_gate_inp") ? read_experts(r, l)
							      : read_dense(r, f, l);
	return x < 0 ? x : 0;
}

static int read_outer(struct desc_reader *r)
{
	struct desc *d = r->d;
	const struct gguf_tensor *t = gguf_find(r->g, "token_embd.weight");
	enum gguf_kind kind;
	uint64_t tokens = 0;
	int x;

	if (!t)
		return error_set(r->err, -EBADMSG, "tensor 'token_embd.weight' is missing");
	if (t->dims[1] > LIMIT_VOCABULARY)
		return error_set(r->err, -EBADMSG,
			"tensor 'token_embd.weight' has %" PRIu64 " rows, the limit is %" PRIu64,
			t->dims[1], LIMIT_VOCABULARY);
	d->vocabulary = (uint32_t)t->dims[1];
	x = gguf_get_array(r->g, "tokenizer.ggml.tokens", &kind, &tokens, r->err);
	if (x < 0)
		return -EBADMSG;
	if (x > 0 && kind != GGUF_STRING)
		return error_set(
			r->err, -EBADMSG, "key 'tokenizer.ggml.tokens' is no array of strings");
	if (x > 0 && tokens != d->vocabulary)
		return error_set(r->err, -EBADMSG,
			"the tokenizer has %" PRIu64 " tokens, but 'token_embd.weight' %" PRIu32
			" rows",
			tokens, d->vocabulary);
	x = desc_take(r, &d->embedding, d->hidden, d->vocabulary, 1, 0, "token_embd.weight");
	if (x > 0)
		x = desc_take(r, &d->output_norm, d->hidden, 1, 1, DESC_F32, "output_norm.weight");
	if (x > 0)
		x = desc_take(
			r, &d->output, d->hidden, d->vocabulary, 1, DESC_MAY_MISS, "output.weight");
	if (x < 0)
		return x;
	if (!x)
		d->output = d->embedding;
	x = desc_take(r, &d->rope_factors, d->rope_dims / 2, 1, 1, DESC_F32 | DESC_MAY_MISS,
		"rope_freqs.weight");
	return x < 0 ? x : 0;
}

int desc_read_layers(struct desc_reader *r, const struct desc_family *f)
{
	struct desc *d = r->d;
	bool moe = false;
	int x = read_outer(r);

	if (x < 0)
		return x;
	d->layers = calloc(d->n_layers, sizeof *d->layers);
	if (!d->layers)
		return -ENOMEM;
	for (uint32_t l = 0; l < d->n_layers; l++) {
		x = read_layer(r, f, l);
		if (x < 0)
			return x;
		moe |= d->layers[l].moe;
	}
	if (d->experts && !moe)
		return error_set(r->err, -EBADMSG,
			"key '%s.expert_count' is %" PRIu32 ", but no layer has experts", d->arch,
			d->experts);
	return 0;
}
