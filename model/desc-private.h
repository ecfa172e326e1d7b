/* SPDX-License-Identifier: MIT */
#pragma once

/* Between desc*.c and the families arch-*.c: how a family says what it is. */

#include "desc.h"

enum desc_qk_norm {
	DESC_QK_NORM_NONE,
	DESC_QK_NORM_HEAD,  /* one weight of head_size, each head by itself */
	DESC_QK_NORM_WHOLE, /* over all heads together */
};

struct desc_reader {
	const struct gguf *g;
	struct desc *d;
	struct error *err;
	bool *used;		    /* [gguf_n_tensors()] tensors that have a meaning here */
	uint32_t ff, expert_ff_key; /* 0: no such key */
};

struct desc_family {
	const char *arch;
	bool rope_neighbours;
	enum desc_qk_norm qk_norm;
	enum desc_router router;
	bool router_normalize;
	bool dense; /* layers, or whole models, without experts exist */
	/* What else the family needs, after all keys were read; may be NULL. */
	int (*finish)(struct desc_reader *r);
};

extern const struct desc_family desc_family_llama;
extern const struct desc_family desc_family_olmoe;
extern const struct desc_family desc_family_qwen3moe;

/* "{arch}.{suffix}" */
#define DESC_KEY_MAX 128
const char *desc_key(const struct desc_reader *r, const char *suffix, char buf[DESC_KEY_MAX]);

/* Keys of the architecture: 1, 0 where absent, -EBADMSG. */
int desc_u32(struct desc_reader *r, const char *suffix, uint32_t *ret);
int desc_f32(struct desc_reader *r, const char *suffix, float *ret);
/* The same, and absent or outside [min, max] is -EBADMSG; 0. */
int desc_need_u32(
	struct desc_reader *r, const char *suffix, uint64_t min, uint64_t max, uint32_t *ret);

enum desc_take {
	DESC_MAY_MISS = 1 << 0,
	DESC_F32 = 1 << 1, /* of no other type */
};

/* A tensor of dims {cols, rows, depth}; 1 taken, 0 absent and allowed to be, or negative errno. */
int desc_take(struct desc_reader *r, struct desc_weight *ret, uint64_t cols, uint64_t rows,
	uint64_t depth, unsigned flags, const char *format, ...)
	__attribute__((format(printf, 7, 8)));

/* desc-rope.c: base and scaling of the rotation; rope_dims is known. */
int desc_read_rope(struct desc_reader *r);

/* desc-read.c: all tensors of all layers. */
int desc_read_layers(struct desc_reader *r, const struct desc_family *f);
