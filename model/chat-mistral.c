/* SPDX-License-Identifier: MIT */

/* The templates of Mistral and Mixtral: [INST] question [/INST] answer, in many spacings. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chat-private.h"
#include "cleanup.h"
#include "unicode.h"
#include "utf8.h"

/* What Python's str.strip() takes off: White_Space and the four separators of ASCII. */
static bool is_blank(uint32_t c)
{
	return unicode_class(c) & UNICODE_SPACE || (c >= 0x1c && c <= 0x1f);
}

static void strip(const char **s, size_t *n)
{
	size_t end = 0;
	uint32_t c;

	while (*n) {
		unsigned k = utf8_decode(*s, *n, &c);

		if (!is_blank(c))
			break;
		*s += k;
		*n -= k;
	}
	for (size_t at = 0; at < *n;) {
		at += utf8_decode(*s + at, *n - at, &c);
		if (!is_blank(c))
			end = at;
	}
	*n = end;
}

static void put_answer(struct prompt *p, unsigned flags, const struct chat_turn *turn)
{
	const char *text = turn->text;
	size_t n = turn->size;

	if (flags & MISTRAL_BLANK)
		prompt_words(p, " ");
	if (flags & MISTRAL_STRIP)
		strip(&text, &n);
	prompt_text(p, text, n);
	if (flags & MISTRAL_AFTER)
		prompt_words(p, " ");
	prompt_id(p, p->t->eos);
	if (flags & MISTRAL_APART)
		prompt_words(p, " ");
}

/* What the templates say of turns out of order, in their own words. */
static int refuse_order(unsigned flags, const struct chat_turn *turn, size_t i, struct error *err)
{
	if (flags & MISTRAL_ANY_ROLE)
		return error_set(err, -EINVAL,
			"user and assistant must take turns, found %s at %zu", turn->role, i);
	return error_set(err, -EINVAL, "%s roles must alternate user/assistant/user/assistant/...",
		flags & MISTRAL_SYSTEM ? "After the optional system message, conversation"
				       : "Conversation");
}

static int refuse_role(unsigned flags, struct error *err)
{
	return error_set(err, -EINVAL,
		flags & MISTRAL_SYSTEM ? "Only user and assistant roles are supported, with the "
					 "exception of an initial optional system message!"
				       : "Only user and assistant roles are supported!");
}

int mistral_render(const struct chat_style *style, struct prompt *p, const struct chat_turn *turns,
	size_t n, struct error *err)
{
	const struct chat_turn *system = NULL;
	const unsigned flags = style->flags;

	if (flags & MISTRAL_ONE_TURN && !n)
		return error_set(err, -EINVAL, "the model's chat template wants at least one turn");
	if (flags & MISTRAL_SYSTEM && n && chat_is_role(&turns[0], "system")) {
		system = turns++;
		n--;
	}
	prompt_id(p, p->t->bos);
	for (size_t i = 0; i < n; i++) {
		bool user = chat_is_role(&turns[i], "user");

		if (user != (i % 2 == 0))
			return refuse_order(flags, &turns[i], i, err);
		if (!user && !(flags & MISTRAL_ANY_ROLE) && !chat_is_role(&turns[i], "assistant"))
			return refuse_role(flags, err);
		if (!user) {
			put_answer(p, flags, &turns[i]);
			continue;
		}
		prompt_words(p, flags & MISTRAL_LEAD ? " [INST] " : "[INST] ");
		if (system && !i) {
			prompt_text(p, system->text, system->size);
			prompt_words(p, "\n\n");
		}
		prompt_text(p, turns[i].text, turns[i].size);
		prompt_words(p, " [/INST]");
	}
	return 0;
}

/* The turns of one role from *at on, with empty lines between them; system turns stand apart. */
static void put_joined(
	struct prompt *p, const struct chat_turn *turns, size_t n, const char *role, size_t *at)
{
	bool first = true;

	for (; *at < n; ++*at) {
		if (strcmp(role, "system") != 0 && chat_is_role(&turns[*at], "system"))
			continue;
		if (!chat_is_role(&turns[*at], role)) {
			if (!strcmp(role, "system"))
				continue;
			return;
		}
		if (!first)
			prompt_words(p, "\n\n");
		first = false;
		prompt_text(p, turns[*at].text, turns[*at].size);
	}
}

/* Roles in order, and some text in every answer. */
static int check_joined(const struct chat_turn *turns, size_t n, struct error *err)
{
	const char *last = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *role = turns[i].role;

		if (chat_is_role(&turns[i], "system"))
			continue;
		if (!last && strcmp(role, "user") != 0)
			return error_set(err, -EINVAL,
				"Conversation must start with a user message, got %s.", role);
		if (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
			return error_set(
				err, -EINVAL, "Unexpected role '%s' after role '%s'", role, last);
		last = role;
	}
	for (size_t i = 0; i < n; i++) {
		size_t size = 0, parts = 0;

		for (; i < n && !chat_is_role(&turns[i], "user"); i++) {
			if (chat_is_role(&turns[i], "system"))
				continue;
			size += turns[i].size;
			parts++;
		}
		if (parts == 1 && !size)
			return error_set(
				err, -EINVAL, "Assistant message content must be non-empty.");
	}
	return 0;
}

int mistral_render_joined(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err)
{
	size_t n_system = 0, size_system = 0, last = 0, at = 0;
	int r = check_joined(turns, n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (chat_is_role(&turns[i], "system")) {
			n_system++;
			size_system += turns[i].size;
		} else {
			last = i;
		}
	}
	prompt_id(p, p->t->bos);
	for (bool first = true; at < n;) {
		if (chat_is_role(&turns[at], "system")) {
			at++;
			continue;
		}
		if (chat_is_role(&turns[at], "assistant")) {
			put_joined(p, turns, n, "assistant", &at);
			prompt_id(p, p->t->eos);
			continue;
		}
		prompt_words(p, " [INST] ");
		if (first && (size_system || n_system > 1)) {
			size_t from = 0;

			put_joined(p, turns, n, "system", &from);
			prompt_words(p, "\n\n");
		}
		first = false;
		put_joined(p, turns, n, "user", &at);
		prompt_words(p, at <= last ? " [/INST] " : " [/INST]");
	}
	return 0;
}
