/* SPDX-License-Identifier: MIT */

/*
 * The chat templates that we render ourselves.  A template is known by its very bytes, so that what
 * comes out is what the file's own template says, and nothing is guessed; any other is refused.
 *
 * A prompt is built as plain text between control tokens.  Only the template's own words may become
 * control tokens; they end the run of plain text, which is tokenized as one.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"
#include "unicode.h"
#include "utf8.h"

struct prompt {
	const struct tokenizer *t;
	struct tokenizer_ids *ids;
	char *plain; /* not yet tokenized */
	size_t n, room;
	int failed; /* the first error; everything after it is ignored */
};

typedef int (*chat_render_fn)(
	struct prompt *p, const struct chat_turn *turns, size_t n, struct error *err);

struct chat {
	const struct tokenizer *t;
	const char *name;
	chat_render_fn render; /* NULL: none or unsupported */
};

static void prompt_text(struct prompt *p, const char *s, size_t n)
{
	if (p->failed || !n)
		return;
	if (p->room - p->n < n) {
		size_t room = num_max(p->room * 2, p->n + n);
		void *q = realloc(p->plain, room);

		if (!q) {
			p->failed = -ENOMEM;
			return;
		}
		p->plain = q;
		p->room = room;
	}
	memcpy(p->plain + p->n, s, n);
	p->n += n;
}

static void prompt_flush(struct prompt *p)
{
	if (!p->failed && p->n)
		p->failed = tokenizer_append(p->t, p->ids, p->plain, p->n, 0);
	p->n = 0;
}

static void prompt_id(struct prompt *p, uint32_t id)
{
	if (id == TOKEN_NONE)
		return;
	prompt_flush(p);
	if (!p->failed)
		p->failed = ids_push(p->ids, id);
}

/* Words of the template: control tokens in them count. */
static void prompt_words(struct prompt *p, const char *s)
{
	size_t n = strlen(s), begin = 0, size;

	for (size_t at = 0; at < n;) {
		uint32_t id = special_match(p->t, s + at, n - at, TOKEN_MASK(TOKEN_CONTROL), &size);

		if (id == TOKEN_NONE) {
			at++;
			continue;
		}
		prompt_text(p, s + begin, at - begin);
		prompt_id(p, id);
		at += size;
		begin = at;
	}
	prompt_text(p, s + begin, n - begin);
}

static bool is_role(const struct chat_turn *t, const char *role)
{
	return !strcmp(t->role, role);
}

static void chatml_turn(struct prompt *p, const char *role, const char *text, size_t n)
{
	prompt_words(p, "<|im_start|>");
	prompt_text(p, role, strlen(role));
	prompt_words(p, "\n");
	prompt_text(p, text, n);
	prompt_words(p, "<|im_end|>\n");
}

static int chatml_render(
	struct prompt *p, const struct chat_turn *turns, size_t n, struct error *err)
{
	for (size_t i = 0; i < n; i++)
		chatml_turn(p, turns[i].role, turns[i].text, turns[i].size);
	prompt_words(p, "<|im_start|>assistant\n");
	return 0;
}

/* SmolLM2: as ChatML, with a system turn of its own where the conversation begins without. */
static int smollm_render(
	struct prompt *p, const struct chat_turn *turns, size_t n, struct error *err)
{
	static const char self[] =
		"You are a helpful AI assistant named SmolLM, trained by Hugging Face";

	if (n && !is_role(&turns[0], "system"))
		chatml_turn(p, "system", self, sizeof(self) - 1);
	return chatml_render(p, turns, n, err);
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

/* Thoughts stand before </think>; they are shown only after the last turn of the user. */
static void think_turn(struct prompt *p, const struct chat_turn *turn, bool show)
{
	static const char open[] = "<think>", close[] = "</think>";
	const char *text = turn->text, *end = memmem(text, turn->size, close, 8), *thought = text,
		   *at;
	size_t n = turn->size, n_thought = 0;

	prompt_words(p, "<|im_start|>assistant\n");
	if (end) {
		n_thought = (size_t)(end - text);
		at = find_last(text, n_thought, open);
		if (at) {
			thought = at + 7;
			n_thought -= (size_t)(thought - text);
		}
		strip_lines(&thought, &n_thought);
		at = find_last(text, n, close) + 8;
		n -= (size_t)(at - text);
		for (text = at; n && *text == '\n'; n--)
			text++;
	}
	if (n_thought && show) {
		prompt_words(p, "<think>\n");
		prompt_text(p, thought, n_thought);
		prompt_words(p, "\n</think>\n\n");
	}
	prompt_text(p, text, n);
	prompt_words(p, "<|im_end|>\n");
}

static int think_render(
	struct prompt *p, const struct chat_turn *turns, size_t n, struct error *err)
{
	size_t last = SIZE_MAX;

	for (size_t i = 0; i < n; i++)
		if (is_role(&turns[i], "user"))
			last = i;
	for (size_t i = 0; i < n; i++) {
		if (is_role(&turns[i], "assistant"))
			think_turn(p, &turns[i], last == SIZE_MAX || i > last);
		else if (is_role(&turns[i], "system") || is_role(&turns[i], "user"))
			chatml_turn(p, turns[i].role, turns[i].text, turns[i].size);
		else
			return error_set(err, -EINVAL, "unknown role: %s", turns[i].role);
	}
	prompt_words(p, "<|im_start|>assistant\n");
	return 0;
}

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

/* Mixtral: the system turn leads the first user turn; user and assistant take turns. */
static int mixtral_render(
	struct prompt *p, const struct chat_turn *turns, size_t n, struct error *err)
{
	const struct chat_turn *system = n && is_role(&turns[0], "system") ? turns : NULL;

	prompt_id(p, p->t->bos);
	if (system) {
		turns++;
		n--;
	}
	for (size_t i = 0; i < n; i++) {
		const char *text = turns[i].text;
		size_t size = turns[i].size;
		bool user = is_role(&turns[i], "user");

		if (user != (i % 2 == 0))
			return error_set(err, -EINVAL,
				"user and assistant must take turns, found %s at %zu",
				turns[i].role, i);
		if (!user) {
			prompt_words(p, " ");
			strip(&text, &size);
			prompt_text(p, text, size);
			prompt_id(p, p->t->eos);
			continue;
		}
		prompt_words(p, " [INST] ");
		if (system && !i) {
			prompt_text(p, system->text, system->size);
			prompt_words(p, "\n\n");
		}
		prompt_text(p, text, size);
		prompt_words(p, " [/INST]");
	}
	return 0;
}

/* Size and FNV-1a of the bytes. */
static const struct known {
	size_t size;
	uint64_t hash;
	const char *name;
	chat_render_fn render;
} knowns[] = {
	{149, 0x6ebfc99958218d77, "chatml", chatml_render},
	{196, 0x88bf4138d5c826f0, "chatml", chatml_render},
	{199, 0xa41d6bae9b9141bc, "chatml", chatml_render},
	{368, 0x45ec583d4d25bc3a, "chatml", smollm_render},
	{373, 0x09b5156a5cf6abfc, "chatml", smollm_render},
	{2434, 0xf017ffab956392c4, "chatml", think_render},
	{634, 0x103f6ff1567ad199, "mixtral", mixtral_render},
};

static uint64_t fnv(const char *s, size_t n)
{
	uint64_t h = 0xcbf29ce484222325;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)s[i]) * 0x100000001b3;
	return h;
}

int chat_new(struct chat **ret, const struct gguf *g, const struct tokenizer *t, struct error *err)
{
	struct gguf_string s;
	struct chat *c;
	int r = gguf_get_string(g, "tokenizer.chat_template", &s, err);

	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, -ENOMEM, "cannot keep the chat template: out of memory");
	c->t = t;
	c->name = r ? "unsupported" : "none";
	for (size_t i = 0; r && i < ARRAY_SIZE(knowns); i++) {
		const struct known *k = &knowns[i];

		if (s.size != k->size || fnv(s.data, s.size) != k->hash)
			continue;
		c->name = k->name;
		c->render = k->render;
	}
	*ret = c;
	return 0;
}

struct chat *chat_free(struct chat *c)
{
	free(c);
	return NULL;
}

const char *chat_name(const struct chat *c)
{
	return c->name;
}

int chat_render(const struct chat *c, const struct chat_turn *turns, size_t n_turns,
	struct tokenizer_ids *ids, struct error *err)
{
	struct prompt p = {.t = c->t, .ids = ids};
	size_t before = ids->n;
	int r;

	if (!c->render)
		return error_set(err, -ENOTSUP,
			"the model's chat template %s: give the whole prompt yourself with --raw",
			!strcmp(c->name, "none") ? "is missing" : "is not one that is supported");
	r = c->render(&p, turns, n_turns, err);
	prompt_flush(&p);
	free(p.plain);
	if (!r && p.failed)
		r = error_set(err, p.failed, "cannot tokenize the conversation: %s",
			error_text(NULL, p.failed));
	if (r < 0)
		ids->n = before;
	return r;
}
