/* SPDX-License-Identifier: MIT */

/*
 * The chat templates that we render ourselves.  A template is known by its canonical form, so that
 * what comes out is what the file's own template says, and nothing is guessed; any other is
 * refused.
 */

#include "chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chat-private.h"
#include "num.h"

struct chat {
	const struct tokenizer *t;
	const char *name;
	struct chat_style style; /* render is NULL: none or unsupported */
	char *system;		 /* style.system, on the heap */
};

void prompt_text(struct prompt *p, const char *s, size_t n)
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

void prompt_id(struct prompt *p, uint32_t id)
{
	if (id == TOKEN_NONE)
		return;
	prompt_flush(p);
	if (!p->failed)
		p->failed = ids_push(p->ids, id);
}

void prompt_words(struct prompt *p, const char *s)
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

bool chat_is_role(const struct chat_turn *t, const char *role)
{
	return !strcmp(t->role, role);
}

/* tests/model/chat.c says the hash of a template that is not here. */
static const struct chat_style styles[] = {
	/* Any role, as it is. */
	{.hash = 0x2e726822121af5b9, .name = "chatml", .render = chatml_render},
	{.hash = 0x3e04fe610650fb0a, .name = "chatml", .render = chatml_render},
	/* SmolLM2, Qwen2: with a default text of the system. */
	{.hash = 0xd9d9695a11cb0b96, .name = "chatml", .render = chatml_render},
	/* Qwen2.5; Qwen3 of 2507. */
	{.hash = 0xa58bf46d1f1037fd,
		.name = "chatml",
		.render = chatml_render,
		.flags = CHATML_ROLES},
	{.hash = 0xd0dce4e153c6f1f9,
		.name = "chatml",
		.render = chatml_render,
		.flags = CHATML_ROLES},
	/* Qwen3: as first published, and where contents may be missing. */
	{.hash = 0x896d45ae2efbd970, .name = "chatml", .render = chatml_render_qwen3},
	{.hash = 0xb9b6c729c8e4558d, .name = "chatml", .render = chatml_render_qwen3},
	{.hash = 0x15b15a0526d45d40, .name = "chatml", .render = chatml_render_thinking},
	/* Mistral 7B. */
	{.hash = 0xc02a4342513b3e80,
		.name = "mixtral",
		.render = mistral_render,
		.flags = MISTRAL_APART},
	/* Mixtral 8x7B: as first published, and later. */
	{.hash = 0xb61af592bea97c7d, .name = "mixtral", .render = mistral_render},
	{.hash = 0xca366c729cc9ccbc,
		.name = "mixtral",
		.render = mistral_render,
		.flags = MISTRAL_LEAD | MISTRAL_BLANK | MISTRAL_SYSTEM | MISTRAL_ONE_TURN},
	/* Mixtral 8x22B. */
	{.hash = 0xed7df33e5678b513,
		.name = "mixtral",
		.render = mistral_render,
		.flags = MISTRAL_LEAD | MISTRAL_BLANK | MISTRAL_AFTER},
	{.hash = 0xcaab245ee26b6e96,
		.name = "mixtral",
		.render = mistral_render,
		.flags = MISTRAL_LEAD | MISTRAL_BLANK | MISTRAL_SYSTEM | MISTRAL_STRIP |
			 MISTRAL_ANY_ROLE},
	/* What mistral-common writes for the first version of the tokenizer. */
	{.hash = 0x40aaca4a14cd9627, .name = "mixtral", .render = mistral_render_joined},
};

int chat_new(struct chat **ret, const struct gguf *g, const struct tokenizer *t, struct error *err)
{
	struct chat_canon canon = {0};
	struct gguf_string s;
	struct chat *c;
	int r = gguf_get_string(g, "tokenizer.chat_template", &s, err), found;

	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	found = c && r ? chat_canon(&canon, s.data, s.size) : -EINVAL;
	if (!c || found == -ENOMEM) {
		free(c);
		return error_set(err, -ENOMEM, "cannot keep the chat template: out of memory");
	}
	c->t = t;
	c->name = r ? "unsupported" : "none";
	for (size_t i = 0; !found && i < ARRAY_SIZE(styles); i++) {
		if (canon.hash != styles[i].hash)
			continue;
		c->style = styles[i];
		c->name = c->style.name;
	}
	c->style.system = c->system = canon.system;
	*ret = c;
	return 0;
}

struct chat *chat_free(struct chat *c)
{
	if (!c)
		return NULL;
	free(c->system);
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

	if (!c->style.render)
		return error_set(err, -ENOTSUP,
			"the model's chat template %s: give the whole prompt yourself with --raw",
			!strcmp(c->name, "none") ? "is missing" : "is not one that is supported");
	r = c->style.render(&c->style, &p, turns, n_turns, err);
	prompt_flush(&p);
	free(p.plain);
	if (!r && p.failed)
		r = error_set(err, p.failed, "cannot tokenize the conversation: %s",
			error_text(NULL, p.failed));
	if (r < 0)
		ids->n = before;
	return r;
}
