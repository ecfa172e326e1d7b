/* SPDX-License-Identifier: MIT */
#pragma once

/* Makes small GGUF files in memory, sound or broken, for the tests of the model folder. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct maker {
	uint8_t *bytes;
	size_t n, room;
	uint64_t n_keys, n_tensors;
	uint64_t data; /* bytes of tensor data so far */
};

void maker_init(struct maker *m);
void maker_deinit(struct maker *m);

void maker_raw(struct maker *m, const void *p, size_t n);
void maker_u32(struct maker *m, uint32_t v);
void maker_u64(struct maker *m, uint64_t v);
void maker_string(struct maker *m, const char *s);

/* All keys come before all tensors. */
void maker_key_u32(struct maker *m, const char *key, uint32_t v);
void maker_key_f32(struct maker *m, const char *key, float v);
void maker_key_bool(struct maker *m, const char *key, uint8_t v);
void maker_key_string(struct maker *m, const char *key, const char *v);
void maker_key_strings(struct maker *m, const char *key, const char *const *v, uint64_t n);
/* Absent dimensions are 0.  Data follows the last one, aligned to 32. */
void maker_tensor(struct maker *m, const char *name, uint32_t type, uint64_t d0, uint64_t d1,
	uint64_t d2, uint64_t size);

/* Pads the header, appends the data (floats of 0.5) and writes the counts into the start. */
void maker_finish(struct maker *m);

struct maker_model {
	const char *arch;
	uint32_t layers, hidden, heads, kv_heads, ff, experts, top_k, vocabulary, context;
	bool dense;	   /* no experts */
	bool qk_norm;	   /* per head */
	bool qk_whole;	   /* over all heads */
	bool separate;	   /* a tensor for each expert, as old files have them */
	bool fused;	   /* gate and up in one tensor, q, k and v in one */
	bool half_router;  /* in F16 */
	const char *skip;  /* a tensor that is left out */
	const char *extra; /* a tensor that is added */
};

#define MAKER_MODEL                                                                                \
	((struct maker_model){.arch = "llama",                                                     \
		.layers = 2,                                                                       \
		.hidden = 32,                                                                      \
		.heads = 4,                                                                        \
		.kv_heads = 2,                                                                     \
		.ff = 64,                                                                          \
		.experts = 4,                                                                      \
		.top_k = 2,                                                                        \
		.vocabulary = 48,                                                                  \
		.context = 256})

/* The keys of a model, and then its tensors, in F32. */
void maker_model_keys(struct maker *m, const struct maker_model *model);
void maker_model_tensors(struct maker *m, const struct maker_model *model);
