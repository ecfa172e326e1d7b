/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of the chat templates share: a prompt as it grows, the canonical form by which a
 * template is known, and what a renderer is told.  Immutable once recognised.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chat.h"
#include "tokenizer-private.h"

/*
 * Plain text between control tokens.  Only the template's own words may become control tokens;
 * they end the run of plain text, which is tokenized as one.
 */
struct prompt {
	const struct tokenizer *t;
	struct tokenizer_ids *ids;
	char *plain; /* not yet tokenized */
	size_t n, room;
	int failed; /* the first error; everything after it is ignored */
};

void prompt_text(struct prompt *p, const char *s, size_t n); /* of a turn: no control tokens */
void prompt_words(struct prompt *p, const char *s);	     /* of the template */
void prompt_id(struct prompt *p, uint32_t id);		     /* TOKEN_NONE: nothing */

struct chat_style;

/* Renders the turns up to where the assistant answers.  -EINVAL with the reason. */
typedef int (*chat_render_fn)(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err);

struct chat_style {
	uint64_t hash; /* of the canonical form */
	const char *name;
	chat_render_fn render;
	unsigned flags; /* each renderer's own */

	/* Set where the template is recognised. */
	const char *system; /* of conversations without: NULL or a text of the template */
};

bool chat_is_role(const struct chat_turn *t, const char *role);

/* chat-chatml.c */
enum chatml_flags {
	CHATML_ROLES = 1 << 0, /* system, user, assistant, tool and nothing else; at least one turn */
};
int chatml_render(const struct chat_style *style, struct prompt *p, const struct chat_turn *turns,
	size_t n, struct error *err);
/* Thoughts of the assistant before </think> are dropped, but for those after the last question. */
int chatml_render_thinking(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err);
/* As Qwen3 does it: without thoughts too, an answer after the last question shows empty ones. */
int chatml_render_qwen3(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err);

/* chat-mistral.c */
enum mistral_flags {
	MISTRAL_LEAD = 1 << 0,	   /* a blank before [INST] */
	MISTRAL_BLANK = 1 << 1,	   /* a blank before the answer */
	MISTRAL_AFTER = 1 << 2,	   /* a blank between the answer and its end */
	MISTRAL_APART = 1 << 3,	   /* a blank after the end of the answer */
	MISTRAL_SYSTEM = 1 << 4,   /* a first turn of the system leads the first of the user */
	MISTRAL_STRIP = 1 << 5,	   /* blanks around the answer are dropped */
	MISTRAL_ANY_ROLE = 1 << 6, /* who is not the user is the assistant */
	MISTRAL_ONE_TURN = 1 << 7, /* at least one turn */
};
int mistral_render(const struct chat_style *style, struct prompt *p, const struct chat_turn *turns,
	size_t n, struct error *err);
/* Turns of one role in a row become one; system turns lead, wherever they stand. */
int mistral_render_joined(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err);

/*
 * chat-canon.c: templates that differ only in how they are written (blanks in tags, quotes,
 * comments, m['x'] for m.x, text printed or written down, + or several prints), or in what they do
 * with tools, have one canonical form.  A default text of the system is taken out of it.
 */
struct chat_canon {
	uint64_t hash;
	char *system; /* on the heap, NUL-terminated; or NULL */
};
/* 0; -EINVAL for what is no template, or larger than any; -ENOMEM. */
int chat_canon(struct chat_canon *ret, const char *s, size_t n);
