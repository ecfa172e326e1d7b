/* SPDX-License-Identifier: MIT */

/* The canonical form of a chat template: its tokens as Jinja cuts them, with trim_blocks and
 * lstrip_blocks set as the models' own library has them. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chat-private.h"
#include "cleanup.h"
#include "num.h"

#define TAG_TOKENS 512 /* of one tag */

struct buffer {
	char *s;
	size_t n, room;
	bool failed;
};

static void put(struct buffer *b, const char *s, size_t n)
{
	if (b->room - b->n < n + 1) {
		size_t room = num_max(b->room * 2, b->n + n + 256);
		void *p = realloc(b->s, room);

		if (!p) {
			b->failed = true;
			return;
		}
		b->s = p;
		b->room = room;
	}
	if (n)
		memcpy(b->s + b->n, s, n);
	b->n += n;
	b->s[b->n] = '\0';
}

enum token_kind {
	TAG_NAME,
	TAG_STRING,
	TAG_OTHER,
};

struct tag_token {
	enum token_kind kind;
	size_t at, n; /* into canon.words */
};

struct canon {
	const char *s;
	size_t n, at;
	struct buffer words; /* of the tag being read */
	struct tag_token tokens[TAG_TOKENS];
	size_t n_tokens;
	struct buffer text; /* printed, up to the next tag that is no text */
	/* Inside {% if tools %} or the like, which is never true here: only what else says counts.
	 */
	bool in_tools, dropping;
	size_t depth; /* of the ifs in it */
	struct buffer out;
	struct buffer system;
};

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_name(char c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
	       (!first && c >= '0' && c <= '9');
}

static bool token_is(const struct canon *c, size_t i, const char *what)
{
	size_t n = strlen(what);

	return i < c->n_tokens && c->tokens[i].kind != TAG_STRING && c->tokens[i].n == n &&
	       !memcmp(c->words.s + c->tokens[i].at, what, n);
}

/* Text before a tag.  A default text of the system is kept apart, and a hole left for it. */
static void flush_text(struct canon *c)
{
	static const char head[] = "<|im_start|>system\n", tail[] = "<|im_end|>\n";
	const size_t n_head = sizeof(head) - 1, n_tail = sizeof(tail) - 1;
	struct buffer *t = &c->text;

	if (!t->n)
		return;
	put(&c->out, "T", 1);
	if (!c->system.n && t->n > n_head + n_tail && !memcmp(t->s, head, n_head) &&
		!memcmp(t->s + t->n - n_tail, tail, n_tail)) {
		put(&c->system, t->s + n_head, t->n - n_head - n_tail);
		put(&c->out, "\2", 1);
	} else {
		put(&c->out, t->s, t->n);
	}
	put(&c->out, "\1", 1);
	t->n = 0;
}

static void put_tokens(struct canon *c, char kind, size_t begin, size_t end)
{
	flush_text(c);
	put(&c->out, &kind, 1);
	for (size_t i = begin; i < end; i++) {
		const struct tag_token *t = &c->tokens[i];
		const char *word = c->words.s + t->at;

		if (t->kind == TAG_NAME &&
			((t->n == 1 && *word == 'm') || (t->n == 3 && !memcmp(word, "msg", 3)))) {
			put(&c->out, "message\1", 8);
			continue;
		}
		if (t->kind == TAG_STRING)
			put(&c->out, "\3", 1);
		put(&c->out, word, t->n);
		put(&c->out, "\1", 1);
	}
}

/* Whether the tag is part of an {% if tools %}, and gone.  -EINVAL where that has an elif. */
static int skip_tools(struct canon *c)
{
	bool begins = token_is(c, 0, "if"), ends = token_is(c, 0, "endif");

	if (!c->in_tools) {
		bool tools = c->n_tokens == 2 && token_is(c, 1, "tools");
		bool calls = c->n_tokens == 4 && token_is(c, 1, "message") && token_is(c, 2, ".") &&
			     token_is(c, 3, "tool_calls");

		if (!begins || (!tools && !calls))
			return 0;
		c->in_tools = c->dropping = true;
		c->depth = 0;
		return 1;
	}
	if (begins) {
		c->depth++;
	} else if (ends && c->depth) {
		c->depth--;
	} else if (ends) {
		c->in_tools = c->dropping = false;
		return 1;
	} else if (!c->depth && token_is(c, 0, "elif")) {
		return -EINVAL;
	} else if (!c->depth && token_is(c, 0, "else")) {
		c->dropping = false;
		return 1;
	}
	return c->dropping;
}

/* a["b"] to a.b, 'a' 'b' to 'ab'. */
static void simplify_tokens(struct canon *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_tokens; i++) {
		struct tag_token t = c->tokens[i], *last = n ? &c->tokens[n - 1] : NULL;
		bool name = t.kind == TAG_STRING && t.n;

		for (size_t k = 0; name && k < t.n; k++)
			name = is_name(c->words.s[t.at + k], !k);
		if (name && n > 1 && token_is(c, n - 1, "[") && token_is(c, i + 1, "]") &&
			(c->tokens[n - 2].kind == TAG_NAME || token_is(c, n - 2, "]") ||
				token_is(c, n - 2, ")"))) {
			c->words.s[last->at] = '.';
			t.kind = TAG_NAME;
			i++;
		} else if (t.kind == TAG_STRING && last && last->kind == TAG_STRING &&
			   last->at + last->n == t.at) {
			last->n += t.n;
			continue;
		}
		c->tokens[n++] = t;
	}
	c->n_tokens = n;
}

/* Whether the tokens are operands with + or ~ between them, and nothing that binds weaker. */
static bool is_sum(const struct canon *c)
{
	static const char *const others[] = {"if", "else", "and", "or", "not", "in", "is",
		"==", "!=", "<", ">", "<=", ">=", "-", "*", "/", "//", "%", "**", ","};

	for (size_t i = 0, depth = 0; i < c->n_tokens; i++) {
		if (token_is(c, i, "(") || token_is(c, i, "[") || token_is(c, i, "{"))
			depth++;
		else if (token_is(c, i, ")") || token_is(c, i, "]") || token_is(c, i, "}"))
			depth -= depth > 0;
		for (size_t k = 0; !depth && k < ARRAY_SIZE(others); k++)
			if (token_is(c, i, others[k]))
				return false;
	}
	return true;
}

/* One operand of what is printed. */
static void put_print(struct canon *c, size_t begin, size_t end)
{
	const struct tag_token *t = &c->tokens[begin];

	if (end - begin == 1 && t->kind == TAG_STRING)
		put(&c->text, c->words.s + t->at, t->n);
	else
		put_tokens(c, 'P', begin, end);
}

static void put_sum(struct canon *c)
{
	size_t begin = 0, depth = 0;

	if (!is_sum(c)) {
		put_tokens(c, 'P', 0, c->n_tokens);
		return;
	}
	for (size_t i = 0; i <= c->n_tokens; i++) {
		if (token_is(c, i, "(") || token_is(c, i, "[") || token_is(c, i, "{"))
			depth++;
		else if (token_is(c, i, ")") || token_is(c, i, "]") || token_is(c, i, "}"))
			depth -= depth > 0;
		if (i < c->n_tokens && (depth || (!token_is(c, i, "+") && !token_is(c, i, "~"))))
			continue;
		if (i > begin)
			put_print(c, begin, i);
		begin = i + 1;
	}
}

static char escaped(char c)
{
	return c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
}

static int read_string(struct canon *c)
{
	char quote = c->s[c->at++];

	for (; c->at < c->n && c->s[c->at] != quote; c->at++) {
		char one = c->s[c->at];

		if (one == '\\') {
			if (++c->at == c->n)
				return -EINVAL;
			one = escaped(c->s[c->at]);
			/* \x41, \u00e9, octal: in none of the templates that are known. */
			if (!strchr("nrt\\'\"", c->s[c->at]))
				return -EINVAL;
		}
		put(&c->words, &one, 1);
	}
	if (c->at == c->n)
		return -EINVAL;
	c->at++;
	return 0;
}

static int read_token(struct canon *c)
{
	static const char *const twos[] = {"==", "!=", "<=", ">=", "//", "**"};
	struct tag_token *t = &c->tokens[c->n_tokens];
	size_t n = 1;
	int r = 0;

	if (c->n_tokens == TAG_TOKENS)
		return -EINVAL;
	*t = (struct tag_token){.kind = TAG_OTHER, .at = c->words.n};
	if (c->s[c->at] == '\'' || c->s[c->at] == '"') {
		t->kind = TAG_STRING;
		r = read_string(c);
	} else {
		if (is_name(c->s[c->at], false)) {
			t->kind = is_name(c->s[c->at], true) ? TAG_NAME : TAG_OTHER;
			while (c->at + n < c->n && is_name(c->s[c->at + n], false))
				n++;
		}
		for (size_t i = 0; i < ARRAY_SIZE(twos); i++)
			if (c->n - c->at >= 2 && !memcmp(c->s + c->at, twos[i], 2))
				n = 2;
		put(&c->words, c->s + c->at, n);
		c->at += n;
	}
	t->n = c->words.n - t->at;
	c->n_tokens++;
	return c->words.failed ? -ENOMEM : r;
}

static bool at_close(const struct canon *c, size_t at, const char *close)
{
	return c->n - at >= 2 && !memcmp(c->s + at, close, 2);
}

/* Past a tag; the text after it begins where -, or trim_blocks, lets it. */
static void close_tag(struct canon *c, bool strip, bool block)
{
	c->at += 2;
	if (strip)
		while (c->at < c->n && is_blank(c->s[c->at]))
			c->at++;
	else if (block && c->at < c->n && c->s[c->at] == '\n')
		c->at++;
}

static int read_comment(struct canon *c)
{
	const char *begin = c->s + c->at, *end = memmem(begin, c->n - c->at, "#}", 2);

	if (!end)
		return -EINVAL;
	c->at = (size_t)(end - c->s);
	close_tag(c, end > begin && end[-1] == '-', true);
	return 0;
}

static int read_tag(struct canon *c, bool block)
{
	const char *close = block ? "%}" : "}}";
	size_t depth = 0;

	c->n_tokens = c->words.n = 0;
	for (;;) {
		bool minus;
		int r;

		while (c->at < c->n && is_blank(c->s[c->at]))
			c->at++;
		if (c->at == c->n)
			return -EINVAL;
		minus = c->s[c->at] == '-' && at_close(c, c->at + 1, close);
		if (minus || (!depth && at_close(c, c->at, close))) {
			c->at += minus;
			close_tag(c, minus, block);
			break;
		}
		/* "}}" may end two dictionaries. */
		if (c->s[c->at] == '{')
			depth++;
		else if (c->s[c->at] == '}' && depth)
			depth--;
		r = read_token(c);
		if (r < 0)
			return r;
	}
	simplify_tokens(c);
	if (block) {
		int r = skip_tools(c);

		if (r < 0)
			return r;
		if (!r)
			put_tokens(c, 'B', 0, c->n_tokens);
	} else if (!c->dropping) {
		put_sum(c);
	}
	return 0;
}

/* Text up to the next tag, as that tag lets it end. */
static void put_text(struct canon *c, size_t begin, size_t end, bool line)
{
	char kind = end < c->n ? c->s[end + 1] : 0, mark = end + 2 < c->n ? c->s[end + 2] : 0;
	size_t k = end;

	if (kind && mark == '-') {
		while (end > begin && is_blank(c->s[end - 1]))
			end--;
	} else if ((kind == '%' || kind == '#') && mark != '+') {
		while (k > begin && is_blank(c->s[k - 1]) && c->s[k - 1] != '\n')
			k--;
		if (k > begin ? c->s[k - 1] == '\n' : line)
			end = k;
	}
	if (!c->dropping)
		put(&c->text, c->s + begin, end - begin);
}

static int canon_run(struct canon *c)
{
	bool line = true; /* what was read last ended a line */
	int r = 0;

	while (!r && c->at < c->n) {
		size_t begin = c->at, end = begin;
		char kind;

		while (end < c->n &&
			!(c->s[end] == '{' && end + 1 < c->n && memchr("{%#", c->s[end + 1], 3)))
			end++;
		put_text(c, begin, end, line);
		if (end == c->n)
			break;
		kind = c->s[end + 1];
		c->at = end + 2;
		if (c->at < c->n && (c->s[c->at] == '-' || c->s[c->at] == '+'))
			c->at++;
		r = kind == '#' ? read_comment(c) : read_tag(c, kind == '%');
		line = c->s[c->at - 1] == '\n';
	}
	flush_text(c);
	return r;
}

/* Ends of lines as \n, and none at the very end. */
static char *read_lines(const char *s, size_t n, size_t *ret_n)
{
	char *out = malloc(n + 1);
	size_t size = 0;

	for (size_t i = 0; out && i < n; i++) {
		if (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n')
			continue;
		out[size++] = s[i] == '\r' ? '\n' : s[i];
	}
	if (out && size && out[size - 1] == '\n')
		size--;
	*ret_n = size;
	return out;
}

int chat_canon(struct chat_canon *ret, const char *s, size_t n)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
	cleanup_free_ struct canon *c = NULL;
	cleanup_free_ char *lines = NULL;
	int r;

	if (n > LIMIT_TEMPLATE)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	lines = read_lines(s, n, &n);
	if (!c || !lines)
		return -ENOMEM;
	c->s = lines;
	c->n = n;
	r = canon_run(c);
	if (c->words.failed || c->text.failed || c->out.failed || c->system.failed)
		r = -ENOMEM;
	for (size_t i = 0; i < c->out.n; i++)
		hash = (hash ^ (unsigned char)c->out.s[i]) * 0x100000001b3;
	free(c->words.s);
	free(c->text.s);
	free(c->out.s);
	/* A NUL in it: no text of any template. */
	if (!r && c->system.n && memchr(c->system.s, '\0', c->system.n))
		r = -EINVAL;
	if (r < 0 || !c->system.n)
		free(steal_ptr(c->system.s));
	if (!r)
		*ret = (struct chat_canon){.hash = hash, .system = c->system.s};
	return r;
}
