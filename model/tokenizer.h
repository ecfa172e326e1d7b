/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Text to ids and back, from the vocabulary in a GGUF.  Linear or near-linear in time on any input,
 * iterative.  Immutable after tokenizer_new(): any thread may use one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"

struct tokenizer;

enum tokenizer_flags {
	TOKENIZER_ADD_SPECIAL = 1 << 0, /* begin-of-text (and end) as the file says */
	TOKENIZER_PARSE_SPECIAL = 1
				  << 1, /* control tokens in the text become ids: templates only */
};

/* -ENOTSUP with the key and what is supported, -EBADMSG for a broken vocabulary. */
int tokenizer_new(struct tokenizer **ret, const struct gguf *g, struct error *err);
struct tokenizer *tokenizer_free(struct tokenizer *t);

uint32_t tokenizer_size(const struct tokenizer *t);
size_t tokenizer_memory(const struct tokenizer *t); /* heap bytes held */

/*
 * The most bytes of text that so many tokens can be: a longer text need not be tokenized to know
 * that it is too long.  Bytes for which a vocabulary has no token count too.  (Encoding takes some
 * 40 bytes of memory for each byte of the longest word.)
 */
uint64_t tokenizer_most_bytes(const struct tokenizer *t, uint32_t n_tokens);

/* Any bytes, NUL and broken UTF-8 included.  *ret is a heap array that the caller frees. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
	uint32_t **ret, size_t *ret_n);

/*
 * Appends the ids of the text to a growing array (for prompts made of template pieces and user
 * text, where only the pieces may hold control tokens).  The pieces are tokenized apart from each
 * other.
 */
struct tokenizer_ids {
	uint32_t *ids;
	size_t n, room;
};
int tokenizer_append(const struct tokenizer *t, struct tokenizer_ids *ids, const char *text,
	size_t n, unsigned flags);

/*
 * Bytes of one token as they stand in the text ("" for control tokens unless `special`).  Points
 * into the tokenizer; *ret_n may be 0.  first: the token starts a text (sentencepiece drops its
 * leading blank there).  -ERANGE for an id outside the vocabulary.
 */
int tokenizer_piece(const struct tokenizer *t, uint32_t id, bool first, bool special,
	const char **ret, size_t *ret_n);

bool tokenizer_is_end(const struct tokenizer *t, uint32_t id); /* end of text or of turn */
bool tokenizer_is_control(const struct tokenizer *t, uint32_t id);
int tokenizer_bos(const struct tokenizer *t, uint32_t *ret); /* 1 and the id, or 0 */
int tokenizer_find(const struct tokenizer *t, const char *token, uint32_t *ret); /* exact; 1 or 0 */

/*
 * Streaming text: collects bytes and hands out whole UTF-8 characters only.  Broken sequences come
 * out as U+FFFD once it is certain that they are broken.
 */
struct utf8_stream {
	unsigned char held[4];
	unsigned n;
};
/* Writes at most 3 * (n + 3) bytes to out, returns how many. `last`: flush what is held. */
size_t utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t n, bool last, char *out);
