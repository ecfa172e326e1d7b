/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A model as a description: what the engine, the plan and `moe-model inspect` need to know of a
 * family, filled in from a GGUF by one file per family (arch-*.c).  Knows where bytes lie in the
 * file, not where they are in memory.  Immutable once made.
 */

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"
#include "limit.h"

/* A matrix or vector in the file: rows x cols of `type`; rows = 1 for vectors.  size 0: absent. */
struct desc_weight {
	uint32_t type;
	uint32_t file;
	uint64_t rows, cols;
	uint64_t offset, size;
	uint64_t row_bytes;
};

/* What multiplies what in an expert: gate and up [ff x hidden], down [hidden x ff]. */
enum desc_part {
	DESC_GATE,
	DESC_UP,
	DESC_DOWN,
	DESC_PARTS,
};

enum desc_router {
	DESC_SOFTMAX_TOPK, /* softmax over all, then the k best */
	DESC_TOPK_SOFTMAX, /* the k best, then softmax over them */
};

struct desc_layer {
	struct desc_weight attn_norm, q, k, v, o, q_norm, k_norm; /* norms of q, k may be absent */
	struct desc_weight ffn_norm;
	bool moe;
	struct desc_weight router; /* [experts x hidden]; moe only */
	/*
	 * Experts: part p of expert e lies at expert[p].offset + e * expert[p].rows * row_bytes, as
	 * expert[p].rows x cols of one expert; expert[p].size is that of ONE expert.  With `shared`
	 * (online upcycling) all experts lie at the same place.  A dense layer has its feed-forward
	 * block here too, as one expert that counts as dense weights.
	 */
	struct desc_weight expert[DESC_PARTS];
	bool shared;
	/* For desc_expert(): bytes from one expert to the next, or where each lies (own tensors).
	 */
	uint64_t expert_stride[DESC_PARTS];
	uint64_t *expert_offset[DESC_PARTS]; /* [experts], NULL where they are strided */
	uint32_t *expert_file[DESC_PARTS];   /* likewise */
};

/* In desc_weight.file: not in any file; desc_router_rows() makes the rows. */
#define DESC_FILE_NONE UINT32_MAX

struct desc {
	char arch[32];	/* general.architecture */
	char name[128]; /* general.name, "" where absent; printable */
	uint32_t n_layers, hidden, vocabulary, context; /* context: trained length */
	uint32_t heads, kv_heads, head_size;
	uint32_t rope_dims;
	bool rope_neighbours;
	float rope_base;
	float rope_scale; /* positions are multiplied by it (linear scaling), else 1 */
	float rope_gain;  /* cos and sin are multiplied by it (YaRN), else 1 */
	/* YaRN: slow pairs turn so much slower, those from low to high (exclusive) partly; else 0.
	 */
	float yarn_factor, yarn_low, yarn_high;
	struct desc_weight
		rope_factors; /* rope_freqs.weight, divides the frequencies; may be absent */
	float norm_eps;
	bool qk_norm_whole; /* q and k norms run over all heads together (olmoe), else per head */
	uint32_t experts, top_k; /* 0 for a dense model */
	uint32_t expert_ff;
	enum desc_router router;
	bool router_normalize; /* softmax-topk: divide the k weights by their sum */
	float router_scale;    /* of the weights afterwards; 1 */
	uint32_t router_seed;  /* online upcycling draws the router rows from it */
	bool router_exact;     /* in equal groups of top_k rows */
	bool upcycled;	       /* by desc_upcycle(): router.file is DESC_FILE_NONE in all layers */
	struct desc_weight embedding, output_norm, output; /* output = embedding where tied */
	uint32_t n_files;				   /* that desc_weight.file counts */
	char **files;					   /* their paths, as gguf_file_path() */
	struct desc_layer *layers;			   /* [n_layers] */
};

/*
 * Checks that the family and every detail are supported and every tensor is there with the right
 * shape and type.  0; -ENOTSUP with the key or tensor and what is supported; -EBADMSG where the
 * file contradicts itself.
 */
int desc_new(struct desc **ret, const struct gguf *g, struct error *err);
struct desc *desc_free(struct desc *d);

/*
 * Online upcycling: a dense description becomes one of `experts` experts, all of which lie where
 * the feed-forward block of the layer lies (desc_layer.shared), behind routers drawn from the seed.
 * exact: the rows come in equal groups of top_k, so that every weight is exactly 1 / top_k and the
 * model says bit for bit what the dense one says; top_k is a power of two then and divides experts.
 * -EINVAL with *err for other numbers, or where d has experts already; d is unchanged then.
 */
int desc_upcycle(struct desc *d, uint32_t experts, uint32_t top_k, uint32_t seed, bool exact,
	struct error *err);

/* The router rows of a layer of an upcycled description: rows[experts * hidden]. */
void desc_router_rows(const struct desc *d, uint32_t layer, float *rows);

/* Extent in the file of part p of expert e of layer l. */
struct desc_weight desc_expert(const struct desc *d, uint32_t l, uint32_t e, enum desc_part p);

/*
 * What divides the frequency of each pair: the file's rope_factors (NULL: none) with YaRN's,
 * [rope_dims / 2].  False where nothing does; `out` holds ones then.
 */
bool desc_rope_factors(const struct desc *d, const float *given, float *out);

/* Sums, in bytes. */
/* Of the matrices that products multiply with, by type; bytes[KERNELS_TYPE_MAX]. */
void desc_type_bytes(const struct desc *d, uint64_t *bytes);
/* Whether the output matrix is the embedding. */
bool desc_is_tied(const struct desc *d);
uint64_t desc_dense_bytes(const struct desc *d);	      /* as stored in the file */
uint64_t desc_expert_bytes(const struct desc *d, uint32_t l); /* one expert of a layer, 0: none */
uint64_t desc_cycle_bytes(const struct desc *d);	      /* token cycle */
uint64_t desc_kv_bytes(const struct desc *d, uint32_t positions); /* whole blocks of 64 */
bool desc_kv_f32(const struct desc *d); /* keys and values in f32: where the file's k weights are */
