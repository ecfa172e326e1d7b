/* SPDX-License-Identifier: MIT */

/*
 * Conversations rendered by each known template against what Jinja makes of them; control tokens
 * come from the template alone; other templates are refused.  The first argument is the folder of
 * fixtures, see the README in it.
 */

#include "chat.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chat-private.h"
#include "cleanup.h"
#include "maker.h"
#include "num.h"

#define MAX_TURNS 16

static const char *folder;

static struct tokenizer *load_tokenizer(const char *name)
{
	struct error err = ERROR_NONE;
	struct tokenizer *t = NULL;
	struct gguf *g = NULL;
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/%s.gguf", folder, name);
	if (gguf_open(&g, path, &err) < 0 || tokenizer_new(&t, g, &err) < 0)
		fail_msg("%s", err.text);
	gguf_free(g);
	return t;
}

/* A chat with this template, NULL for a file without. */
static struct chat *make_chat(const struct tokenizer *t, const char *template)
{
	struct error err = ERROR_NONE;
	struct chat *c = NULL;
	struct gguf *g = NULL;
	struct maker m;

	maker_init(&m);
	maker_key_string(&m, "general.architecture", "llama");
	if (template)
		maker_key_string(&m, "tokenizer.chat_template", template);
	maker_finish(&m);
	if (gguf_parse(&g, m.bytes, m.n, m.n, &err) < 0 || chat_new(&c, g, t, &err) < 0)
		fail_msg("%s", err.text);
	gguf_free(g);
	maker_deinit(&m);
	return c;
}

static char *load_template(const char *name)
{
	char path[4096], *text = calloc(1, 65536);
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/templates/%s.jinja", folder, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(text);
	assert_true(fread(text, 1, 65535, f) > 0);
	(void)fclose(f);
	return text;
}

static char *unhex(const char *hex, size_t *ret_n)
{
	size_t n = *hex == '-' ? 0 : strlen(hex) / 2;
	char *out = malloc(n + 1);

	assert_non_null(out);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(sscanf(hex + 2 * i, "%2hhx", (unsigned char *)out + i), 1);
	out[n] = '\0';
	*ret_n = n;
	return out;
}

struct conversation {
	char *template, *prompt;
	size_t n_prompt;
	bool fails;
	struct chat_turn turns[MAX_TURNS];
	char *texts[MAX_TURNS];
	size_t n;
};

static void conversation_parse(struct conversation *c, char *line)
{
	char *save, *word;

	*c = (struct conversation){.template = strtok_r(line, " \n", &save)};
	word = strtok_r(NULL, " \n", &save);
	c->fails = *word == '!';
	c->prompt = unhex(word + c->fails, &c->n_prompt);
	while ((word = strtok_r(NULL, " \n", &save))) {
		struct chat_turn *t = &c->turns[c->n];

		assert_true(c->n < MAX_TURNS);
		t->role = word;
		t->text = c->texts[c->n++] = unhex(strtok_r(NULL, " \n", &save), &t->size);
	}
}

static void conversation_free(struct conversation *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->texts[i]);
	free(c->prompt);
}

/* Spoils the marks in the texts.  True where there were any. */
static bool spoil_marks(struct conversation *c)
{
	static const char *const marks[] = {"<|", "<s>", "</s>"};
	bool found = false;

	for (size_t i = 0; i < c->n; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(marks); k++) {
			char *at;

			while ((at = strstr(c->texts[i], marks[k]))) {
				*at = '(';
				found = true;
			}
		}
	}
	return found;
}

/* The text of the ids; sentencepiece drops the blank that it put before each plain stretch. */
static char *decode(const struct tokenizer *t, const struct tokenizer_ids *ids, size_t *ret_n)
{
	bool first = true;
	char *out = NULL;
	FILE *f = open_memstream(&out, ret_n);

	assert_non_null(f);
	for (size_t i = 0; i < ids->n; i++) {
		const char *piece;
		size_t k;

		assert_int_equal(tokenizer_piece(t, ids->ids[i], first, true, &piece, &k), 0);
		first = tokenizer_is_control(t, ids->ids[i]);
		(void)fwrite(piece, 1, k, f);
	}
	assert_int_equal(fclose(f), 0);
	return out;
}

/* Control tokens are the same where the marks in the texts are none. */
static void check_marks(const struct tokenizer *t, const struct chat *chat, struct conversation *c,
	const struct tokenizer_ids *ids)
{
	struct tokenizer_ids other = {0};
	bool marks = spoil_marks(c);
	size_t at = 0;

	assert_int_equal(chat_render(chat, c->turns, c->n, &other, NULL), 0);
	for (size_t i = 0; i < ids->n; i++) {
		if (!tokenizer_is_control(t, ids->ids[i]))
			continue;
		while (at < other.n && !tokenizer_is_control(t, other.ids[at]))
			at++;
		assert_true(at < other.n);
		assert_int_equal(ids->ids[i], other.ids[at++]);
	}
	while (at < other.n)
		assert_false(tokenizer_is_control(t, other.ids[at++]));
	free(other.ids);
	/* Without any, the prompt may as well be tokenized as a whole. */
	if (!marks) {
		cleanup_free_ uint32_t *whole = NULL;
		size_t n = 0;

		assert_int_equal(tokenizer_encode(t, c->prompt, c->n_prompt,
					 TOKENIZER_PARSE_SPECIAL, &whole, &n),
			0);
		assert_int_equal(n, ids->n);
		if (n)
			assert_memory_equal(whole, ids->ids, n * sizeof(*whole));
	}
}

static void check_conversation(struct conversation *c, const struct tokenizer *t, int at)
{
	cleanup_free_ char *template = load_template(c->template), *text = NULL;
	struct chat *chat = make_chat(t, template);
	struct tokenizer_ids ids = {0};
	struct error err = ERROR_NONE;
	size_t n;
	int r;

	if (!strcmp(chat_name(chat), "unsupported")) {
		struct chat_canon canon = {0};

		(void)chat_canon(&canon, template, strlen(template));
		fail_msg("%s is not known: its hash is 0x%016llx", c->template,
			(unsigned long long)canon.hash);
	}
	assert_string_equal(
		chat_name(chat), strncmp(c->template, "mi", 2) != 0 ? "chatml" : "mixtral");
	r = chat_render(chat, c->turns, c->n, &ids, &err);
	if ((r < 0) != c->fails)
		fail_msg("line %d: %s", at, r < 0 ? err.text : "not refused");
	if (c->fails) {
		assert_int_equal(r, -EINVAL);
		if (c->n_prompt)
			assert_string_equal(err.text, c->prompt);
		assert_true(*err.text);
		assert_int_equal(ids.n, 0);
	} else {
		text = decode(t, &ids, &n);
		/* U+2581 and the blank are one for sentencepiece. */
		if (!memmem(c->prompt, c->n_prompt, "\xe2\x96\x81", 3) ||
			strncmp(c->template, "mi", 2) != 0) {
			if (n != c->n_prompt || memcmp(text, c->prompt, n) != 0)
				fail_msg("line %d: %s gives '%s', not '%s'", at, c->template, text,
					c->prompt);
		}
		check_marks(t, chat, c, &ids);
	}
	free(ids.ids);
	chat_free(chat);
}

static void test_conversations(void **state)
{
	struct tokenizer *smollm = load_tokenizer("smollm"), *spm = load_tokenizer("spm");
	cleanup_free_ char *line = NULL;
	size_t room = 0;
	char path[4096];
	int at = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/chat.txt", folder);
	f = fopen(path, "r");
	assert_non_null(f);
	while (getline(&line, &room, f) > 0) {
		struct conversation c;

		conversation_parse(&c, line);
		check_conversation(&c, strncmp(c.template, "mi", 2) != 0 ? smollm : spm, ++at);
		conversation_free(&c);
	}
	(void)fclose(f);
	assert_true(at > 500);
	tokenizer_free(smollm);
	tokenizer_free(spm);
}

/* Two ways of writing one template, and two templates that look alike. */
static void test_canon(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
		{"{{ m['content'] }}", "{{message.content}}", true},
		{"{{ 'a' + x ~ \"b\\n\" }}", "a{{ x }}b{{ '\\n' }}", true},
		{"a{# c #}b", "ab", true},
		{"a\r\nb\r", "a\nb", true},
		{"{% if x %}\n  a\n  {% endif %}\nb", "{%if x%}  a\n{%endif%}b", true},
		{"{% if x -%}\n  a\n  {%- endif %}b", "{% if x %}a{% endif %}b", true},
		{"{% if tools %}{% if x %}a{% else %}b{% endif %}{% else %}c{% endif %}", "c",
			true},
		{"{{ 'a' 'b' }}", "ab", true},
		{"{{ x }}", "{{ 'x' }}", false},
		{"{{ x }}", "x", false},
		{"{{ x | trim }}", "{{ x }}", false},
		{"{{ 'a' + x if y else 'b' }}", "a{{ x if y else 'b' }}", false},
		{"{{ 'a' + x | f }}", "a{{ x | f }}", true},
		{"{{ ('a' + x) | f }}", "a{{ x | f }}", false},
		{"{{ x }}\n{{ y }}", "{{ x }}{{ y }}", false},
		{"{{ x }}\n  {{- y }}", "{{ x }}{{ y }}", true},
		{"{% if x %} a {% endif %}", "{% if x %}a{% endif %}", false},
		{"{{ [a]['b'] }}", "{{ [a].b }}", true},
		{"{{ ['b'] }}", "{{ .b }}", false},
		{"a  {% set b = 1 %}", "a{% set b = 1 %}", false},
		{"a\n  {% set b = 1 %}", "a\n{% set b = 1 %}", true},
		{"a\n  {%+ set b = 1 %}", "a\n{% set b = 1 %}", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct chat_canon a = {0}, b = {0};

		assert_int_equal(chat_canon(&a, cases[i].a, strlen(cases[i].a)), 0);
		assert_int_equal(chat_canon(&b, cases[i].b, strlen(cases[i].b)), 0);
		if ((a.hash == b.hash) != cases[i].same)
			fail_msg("%s and %s", cases[i].a, cases[i].b);
	}
}

static void test_canon_broken(void **state)
{
	static const char *const broken[] = {"{{", "{%", "{#", "{{ 'a", "{{ 'a\\", "{{ x", "{% if",
		"{{ '\\x41' }}", "{%-", "{{-", "{#-", "{{ { }}", "a{% raw",
		"{% if tools %}a{% elif x %}b{% endif %}"};
	struct chat_canon canon;
	char *long_one = malloc(LIMIT_TEMPLATE + 1);

	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		size_t n = strlen(broken[i]);
		char *copy = malloc(n);

		memcpy(copy, broken[i], n);
		assert_int_equal(chat_canon(&canon, copy, n), -EINVAL);
		free(copy);
	}
	assert_non_null(long_one);
	memset(long_one, 'a', LIMIT_TEMPLATE + 1);
	assert_int_equal(chat_canon(&canon, long_one, LIMIT_TEMPLATE + 1), -EINVAL);
	assert_int_equal(chat_canon(&canon, long_one, LIMIT_TEMPLATE), 0);
	for (size_t i = 0; i < LIMIT_TEMPLATE; i++)
		long_one[i] = "{{x "[i % 4];
	assert_int_equal(chat_canon(&canon, long_one, LIMIT_TEMPLATE), -EINVAL);
	free(long_one);
}

static void test_refused(void **state)
{
	static const char *const others[] = {NULL, "", "{{ messages[0].content }}", "{{ broken",
		"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim "
		"}}<|im_end|>\n"
		"{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
		"{{ bos_token }}{% for message in messages %}<|start_header_id|>"
		"{{ message.role }}<|end_header_id|>\n\n{{ message.content }}<|eot_id|>"
		"{% endfor %}"};
	const struct chat_turn turn = {"user", "Hello", 5};
	struct tokenizer *t = load_tokenizer("smollm");

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct chat *c = make_chat(t, others[i]);
		struct tokenizer_ids ids = {0};
		struct error err = ERROR_NONE;

		assert_string_equal(chat_name(c), others[i] ? "unsupported" : "none");
		assert_int_equal(chat_render(c, &turn, 1, &ids, &err), -ENOTSUP);
		assert_non_null(strstr(err.text, "--raw"));
		assert_int_equal(ids.n, 0);
		chat_free(c);
	}
	tokenizer_free(t);
}

/* What was in the array stays, after a success and after a failure. */
static void test_appends(void **state)
{
	const struct chat_turn good = {"user", "x", 1}, bad = {"critic", "x", 1};
	struct tokenizer *t = load_tokenizer("spm");
	cleanup_free_ char *template = load_template("mixtral-8x7b");
	struct chat *c = make_chat(t, template);
	struct tokenizer_ids ids = {0};
	size_t n;

	assert_int_equal(tokenizer_append(t, &ids, "before", 6, 0), 0);
	n = ids.n;
	assert_int_equal(chat_render(c, &bad, 1, &ids, NULL), -EINVAL);
	assert_int_equal(ids.n, n);
	assert_int_equal(chat_render(c, &good, 1, &ids, NULL), 0);
	assert_true(ids.n > n);
	assert_true(tokenizer_is_control(t, ids.ids[n]));
	free(ids.ids);
	chat_free(c);
	tokenizer_free(t);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conversations),
		cmocka_unit_test(test_canon),
		cmocka_unit_test(test_canon_broken),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_appends),
	};

	if (argc < 2)
		return 2;
	folder = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
