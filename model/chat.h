/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Chat turns to ids with the model's own template.  Text of turns never becomes a control token.
 * Immutable after chat_new().
 */

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"
#include "tokenizer.h"

struct chat;

struct chat_turn {
	const char *role; /* "system", "user", "assistant"; NUL-terminated */
	const char *text;
	size_t size;
};

/*
 * Recognises the template of the file.  0 also where it is not supported: chat_render() then
 * answers -ENOTSUP with a sentence that names --raw.
 */
int chat_new(struct chat **ret, const struct gguf *g, const struct tokenizer *t, struct error *err);
struct chat *chat_free(struct chat *c);

const char *chat_name(const struct chat *c); /* "chatml", "mixtral", "none", "unsupported" */

/*
 * Appends the ids of the conversation, ready for the answer of the assistant.  -EINVAL for turns that
 * the template does not allow (order of roles), with the reason.
 */
int chat_render(const struct chat *c, const struct chat_turn *turns, size_t n_turns,
	struct tokenizer_ids *ids, struct error *err);
