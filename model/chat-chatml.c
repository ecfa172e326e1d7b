/* SPDX-License-Identifier: MIT */

/* ChatML and what Qwen makes of it. */

#include <errno.h>
#include <string.h>

#include "chat-private.h"

static void put_turn(struct prompt *p, const char *role, const char *text, size_t n)
{
	prompt_words(p, "<|im_start|>");
	prompt_text(p, role, strlen(role));
	prompt_words(p, "\n");
	prompt_text(p, text, n);
	prompt_words(p, "<|im_end|>\n");
}

/* What tools said stands in a turn of the user, all that follows each other in one. */
static void put_tool(struct prompt *p, const struct chat_turn *turns, size_t n, size_t i)
{
	if (!i || !chat_is_role(&turns[i - 1], "tool"))
		prompt_words(p, "<|im_start|>user");
	prompt_words(p, "\n<tool_response>\n");
	prompt_text(p, turns[i].text, turns[i].size);
	prompt_words(p, "\n</tool_response>");
	if (i + 1 == n || !chat_is_role(&turns[i + 1], "tool"))
		prompt_words(p, "<|im_end|>\n");
}

/* A turn of anybody but the assistant. */
static void put_other(struct prompt *p, const struct chat_turn *turns, size_t n, size_t i)
{
	if (chat_is_role(&turns[i], "tool"))
		put_tool(p, turns, n, i);
	else
		put_turn(p, turns[i].role, turns[i].text, turns[i].size);
}

static int check_roles(const struct chat_turn *turns, size_t n, struct error *err)
{
	if (!n)
		return error_set(err, -EINVAL, "the model's chat template wants at least one turn");
	for (size_t i = 0; i < n; i++)
		if (!chat_is_role(&turns[i], "system") && !chat_is_role(&turns[i], "user") &&
			!chat_is_role(&turns[i], "assistant") && !chat_is_role(&turns[i], "tool"))
			return error_set(err, -EINVAL, "unknown role: %s", turns[i].role);
	return 0;
}

int chatml_render(const struct chat_style *style, struct prompt *p, const struct chat_turn *turns,
	size_t n, struct error *err)
{
	const bool roles = style->flags & CHATML_ROLES;
	int r = roles ? check_roles(turns, n, err) : 0;

	if (r < 0)
		return r;
	if (style->system && n && !chat_is_role(&turns[0], "system")) {
		prompt_words(p, "<|im_start|>system\n");
		prompt_words(p, style->system);
		prompt_words(p, "<|im_end|>\n");
	}
	for (size_t i = 0; i < n; i++) {
		if (roles)
			put_other(p, turns, n, i);
		else
			put_turn(p, turns[i].role, turns[i].text, turns[i].size);
	}
	prompt_words(p, "<|im_start|>assistant\n");
	return 0;
}

static const char *find_last(const char *s, size_t n, const char *what)
{
	size_t k = strlen(what);

	for (size_t at = n; at >= k; at--)
		if (!memcmp(s + at - k, what, k))
			return s + at - k;
	return NULL;
}

/* Takes newlines off both ends. */
static void strip_lines(const char **s, size_t *n)
{
	while (*n && (*s)[*n - 1] == '\n')
		--*n;
	while (*n && **s == '\n') {
		++*s;
		--*n;
	}
}

struct part {
	const char *s;
	size_t n;
};

static void skip_lines(struct part *p)
{
	while (p->n && *p->s == '\n') {
		p->s++;
		p->n--;
	}
}

/* An answer into the thought before </think>, where there is one, and the rest. */
static void split_thought(const struct chat_turn *turn, struct part *thought, struct part *rest)
{
	static const char open[] = "<think>", close[] = "</think>";
	const char *end = memmem(turn->text, turn->size, close, 8), *at;

	*thought = (struct part){"", 0};
	*rest = (struct part){turn->text, turn->size};
	if (!end)
		return;
	*thought = (struct part){turn->text, (size_t)(end - turn->text)};
	at = find_last(thought->s, thought->n, open);
	if (at)
		*thought = (struct part){at + 7, (size_t)(end - at) - 7};
	strip_lines(&thought->s, &thought->n);
	at = find_last(turn->text, turn->size, close) + 8;
	*rest = (struct part){at, turn->size - (size_t)(at - turn->text)};
	skip_lines(rest);
}

static void put_thought(struct prompt *p, const struct part *thought)
{
	prompt_words(p, "<think>\n");
	prompt_text(p, thought->s, thought->n);
	prompt_words(p, "\n</think>\n\n");
}

int chatml_render_thinking(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err)
{
	size_t asked = 0; /* one more than the last turn of the user */

	for (size_t i = 0; i < n; i++)
		if (chat_is_role(&turns[i], "user"))
			asked = i + 1;
	for (size_t i = 0; i < n; i++) {
		struct part thought, rest;

		if (!chat_is_role(&turns[i], "assistant")) {
			int r = check_roles(&turns[i], 1, err);

			if (r < 0)
				return r;
			put_other(p, turns, n, i);
			continue;
		}
		split_thought(&turns[i], &thought, &rest);
		prompt_words(p, "<|im_start|>assistant\n");
		if (thought.n && i >= asked)
			put_thought(p, &thought);
		prompt_text(p, rest.s, rest.n);
		prompt_words(p, "<|im_end|>\n");
	}
	prompt_words(p, "<|im_start|>assistant\n");
	return 0;
}

/* A turn of the user that hands in what a tool said is no question. */
static bool is_question(const struct chat_turn *t)
{
	static const char open[] = "<tool_response>", close[] = "</tool_response>";
	const size_t n_open = sizeof(open) - 1, n_close = sizeof(close) - 1;

	return chat_is_role(t, "user") &&
	       !(t->size >= n_open && !memcmp(t->text, open, n_open) && t->size >= n_close &&
		       !memcmp(t->text + t->size - n_close, close, n_close));
}

int chatml_render_qwen3(const struct chat_style *style, struct prompt *p,
	const struct chat_turn *turns, size_t n, struct error *err)
{
	size_t asked = n - 1;
	int r = check_roles(turns, n, err);

	if (r < 0)
		return r;
	for (size_t i = n; i--;) {
		if (!is_question(&turns[i]))
			continue;
		asked = i;
		break;
	}
	for (size_t i = 0; i < n; i++) {
		struct part thought, rest;

		if (!chat_is_role(&turns[i], "assistant")) {
			put_other(p, turns, n, i);
			continue;
		}
		split_thought(&turns[i], &thought, &rest);
		prompt_words(p, "<|im_start|>assistant\n");
		if (i > asked && (i + 1 == n || thought.n)) {
			put_thought(p, &thought);
			skip_lines(&rest);
		}
		prompt_text(p, rest.s, rest.n);
		prompt_words(p, "<|im_end|>\n");
	}
	prompt_words(p, "<|im_start|>assistant\n");
	return 0;
}
