/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One line of `moe-model tokenize --jsonl` and of its other way, apart from where lines come from:
 * for the verbs and for a fuzzer.  The line is hostile.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "tokenizer.h"

/*
 * The object that answers, a new reference; NULL with the reason in *err: -EINVAL for a line that
 * cannot be served, -ENOMEM.
 */
json_t *tokenize_line(const struct tokenizer *t, const char *line, size_t n, struct error *err);
json_t *detokenize_line(const struct tokenizer *t, const char *line, size_t n, struct error *err);

/* Bytes that grow. */
struct tokenize_bytes {
	char *s;
	size_t n, room;
};
int tokenize_bytes_add(struct tokenize_bytes *b, const char *s, size_t n);

/*
 * Appends the text of one id.  *first, true at the beginning, is whether it begins a stretch of
 * plain text: there sentencepiece drops the blank that it had put.  -ERANGE.
 */
int tokenize_bytes_add_id(struct tokenize_bytes *b, const struct tokenizer *t, uint32_t id,
	bool skip_special, bool *first);
