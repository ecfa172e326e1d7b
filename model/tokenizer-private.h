/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of the tokenizer share: the vocabulary in memory, the growing array of ids, and
 * the merging of symbols that both kinds of vocabulary need.  Immutable once loaded.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tokenizer.h"

enum token_type {
	TOKEN_NORMAL = 1,
	TOKEN_UNKNOWN = 2,
	TOKEN_CONTROL = 3,
	TOKEN_USER = 4, /* always recognised in text */
	TOKEN_UNUSED = 5,
	TOKEN_BYTE = 6,
};

#define TOKEN_NONE UINT32_MAX
#define TOKEN_MASK(type) (1u << (type))
#define TOKEN_ALL (~0u)

enum tokenizer_model {
	TOKENIZER_BPE, /* "gpt2" */
	TOKENIZER_SPM, /* "llama" */
};

struct bpe_pre; /* a pre-tokenizer, see bpe-scan.c */

struct bpe_merge {
	uint32_t left, right, result;
};

struct tokenizer {
	enum tokenizer_model model;
	uint32_t n;
	char *blob;   /* bytes of all tokens as they stand in a text */
	uint32_t *at; /* [n + 1] into blob */
	uint8_t *types;
	uint64_t seed;
	uint32_t *slots; /* ids by bytes */
	uint32_t slots_mask;
	uint32_t byte_id[256];
	uint32_t longest; /* bytes of the longest token that merging may make */

	/* Sorted by bytes: what may be cut out of a text before all else. */
	uint32_t *specials;
	uint32_t n_specials;
	uint32_t special_first[257]; /* range of specials by their first byte */

	uint32_t bos, eos, unknown; /* or TOKEN_NONE */
	bool add_bos, add_eos;
	uint8_t *ends; /* [n] bits: 1 is an end */

	const struct bpe_pre *pre;
	struct bpe_merge *merges; /* by rank */
	uint32_t n_merges;
	uint32_t *pairs; /* ranks by (left, right) */
	uint32_t pairs_mask;

	uint32_t *ranks; /* [n] sentencepiece: the smaller the better */
	bool space_prefix;
	bool words_apart; /* sentencepiece: no token reaches from one word into the next */

	size_t memory;
};

static inline size_t token_length(const struct tokenizer *t, uint32_t id)
{
	return t->at[id + 1] - t->at[id];
}

/* Heap that is counted in t->memory; zeroed. */
void *tokenizer_alloc(struct tokenizer *t, uint64_t n, size_t size);
uint64_t tokenizer_hash(const struct tokenizer *t, const char *s, size_t n);
/* The first id with these bytes and a type in the mask, or TOKEN_NONE. */
uint32_t tokenizer_lookup(const struct tokenizer *t, const char *s, size_t n, unsigned types);

/* tokenizer-load.c */
int tokenizer_load(struct tokenizer *t, const struct gguf *g, struct error *err);

/* Appends one id.  0, -ENOMEM. */
int ids_push(struct tokenizer_ids *ids, uint32_t id);

/* bpe.c, spm.c: plain text, no special tokens in it (sentencepiece: user-defined ones). */
int bpe_load(struct tokenizer *t, const struct gguf *g, struct error *err);
int bpe_encode(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n);
int spm_load(struct tokenizer *t, const struct gguf *g, struct error *err);
int spm_encode(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n);

/* Spelling of the file to bytes of text: at most n of them; returns how many. */
size_t bpe_unspell(const char *s, size_t n, char *out);
size_t spm_unescape(const char *s, size_t n, char *out);

/* The longest special token of these types that begins s; TOKEN_NONE where there is none. */
uint32_t special_match(
	const struct tokenizer *t, const char *s, size_t n, unsigned types, size_t *ret_n);

/*
 * Symbols are numbered by the byte at which they begin; joined ones keep the left number.  Joining
 * takes the best pair first and, of equals, the leftmost: O(n log n).
 */
struct merge_symbol {
	uint32_t id, next; /* next: the byte after the symbol */
	uint32_t before;   /* the symbol before, or MERGE_NONE */
	/* The pair that begins here, kept by merge_run(): MERGE_NONE where there is none. */
	uint32_t rank, joined;
};
#define MERGE_NONE UINT32_MAX

struct merge {
	const struct tokenizer *t;
	const char *text;
	uint32_t n;
	struct merge_symbol *symbols;
	/* True and rank (smaller first) and id of the joined symbol where a and b may join. */
	bool (*pair)(const struct merge *m, uint32_t a, uint32_t b, uint32_t *rank, uint32_t *id);
};
int merge_run(struct merge *m);

/* bpe-scan.c */
const struct bpe_pre *bpe_pre_find(const char *name, size_t n);
const char *bpe_pre_names(void);
bool bpe_pre_nfc(const struct bpe_pre *p);
bool bpe_pre_whole(const struct bpe_pre *p); /* a word that is a token stays whole */
bool bpe_pre_adds_bos(const struct bpe_pre *p);

/* Calls word(arg, word, size) for every pre-token; stops on and returns anything but 0. */
int bpe_pre_run(const struct bpe_pre *p, const char *s, size_t n,
	int (*word)(void *arg, const char *s, size_t n), void *arg);
