/* SPDX-License-Identifier: MIT */

/*
 * Ids of texts against those of the reference libraries, for every kind of vocabulary, and back to
 * the same bytes.  The first argument is the folder of fixtures, see the README in it.
 */

#include "tokenizer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "num.h"

#define LINE_MAX_IDS 512

static const char *folder;
static const char *const byte_level[] = {
	"gpt-2", "smollm", "qwen2", "llama-bpe", "qwen35", "tekken", "gpt-4o", "deepseek-v3"};

static bool is_spm(const char *name)
{
	return !strncmp(name, "spm", 3);
}

/* Text comes out changed where the vocabulary sees normal form C only. */
static bool normalises(const char *name)
{
	return !strncmp(name, "qwen", 4);
}

static struct tokenizer *load(const char *name)
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

/* One line "FLAGS HEX IDS..." of a file of cases. */
struct line {
	unsigned flags;
	char *text; /* its own allocation, so that a sanitizer sees the end */
	size_t n;
	uint32_t ids[LINE_MAX_IDS];
	size_t n_ids;
};

static void line_parse(struct line *l, char *s)
{
	char *save, *word = strtok_r(s, " \n", &save);

	l->flags = (unsigned)strtoul(word, NULL, 10);
	word = strtok_r(NULL, " \n", &save);
	l->n = *word == '-' ? 0 : strlen(word) / 2;
	l->text = malloc(l->n ? l->n : 1);
	assert_non_null(l->text);
	for (size_t i = 0; i < l->n; i++)
		assert_int_equal(sscanf(word + 2 * i, "%2hhx", (unsigned char *)l->text + i), 1);
	for (l->n_ids = 0; (word = strtok_r(NULL, " \n", &save)); l->n_ids++) {
		assert_true(l->n_ids < LINE_MAX_IDS);
		l->ids[l->n_ids] = (uint32_t)strtoul(word, NULL, 10);
	}
}

/* The text of all tokens, control tokens by their names. */
static char *decode(const struct tokenizer *t, const uint32_t *ids, size_t n, size_t *ret_n)
{
	bool first = true;
	char *out = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&out, &size);

	assert_non_null(f);
	for (size_t i = 0; i < n; i++) {
		const char *piece;
		size_t k;

		assert_int_equal(tokenizer_piece(t, ids[i], first, true, &piece, &k), 0);
		first &= tokenizer_is_control(t, ids[i]);
		(void)fwrite(piece, 1, k, f);
	}
	assert_int_equal(fclose(f), 0);
	*ret_n = size;
	return out;
}

static void check_line(const struct tokenizer *t, const char *name, const struct line *l, int at)
{
	cleanup_free_ uint32_t *ids = NULL;
	cleanup_free_ char *back = NULL;
	size_t n = 0, n_back;

	assert_int_equal(tokenizer_encode(t, l->text, l->n, l->flags, &ids, &n), 0);
	if (n != l->n_ids || memcmp(ids, l->ids, n * sizeof(*ids)) != 0)
		fail_msg("%s, line %d: other ids", name, at);
	if (l->flags & TOKENIZER_ADD_SPECIAL || normalises(name))
		return;
	/* Sentencepiece gives each part around a control token a blank of its own. */
	if (is_spm(name) && l->flags & TOKENIZER_PARSE_SPECIAL)
		return;
	back = decode(t, ids, n, &n_back);
	if (is_spm(name)) {
		/* U+2581 and the blank are one there. */
		if (memmem(l->text, l->n, "\xe2\x96\x81", 3))
			return;
	}
	if (n_back != l->n || memcmp(back, l->text, l->n) != 0)
		fail_msg("%s, line %d: the text does not come back", name, at);
}

static void check_cases(const char *name)
{
	struct tokenizer *t = load(name);
	cleanup_free_ char *line = NULL;
	struct line l = {0};
	size_t room = 0;
	char path[4096];
	int at = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s.txt", folder, name);
	f = fopen(path, "r");
	assert_non_null(f);
	while (getline(&line, &room, f) > 0) {
		line_parse(&l, line);
		check_line(t, name, &l, ++at);
		free(l.text);
	}
	(void)fclose(f);
	assert_true(at > 400);
	tokenizer_free(t);
}

static void test_cases_byte_level(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(byte_level); i++)
		check_cases(byte_level[i]);
}

static void test_cases_spm(void **state)
{
	check_cases("spm");
	check_cases("spm-bare"); /* no blank before the text; ends, and does not begin */
}

static void check_bytes(const struct tokenizer *t, const char *s, size_t n)
{
	cleanup_free_ uint32_t *ids = NULL;
	cleanup_free_ char *back = NULL, *copy = malloc(n ? n : 1);
	size_t n_ids, n_back;

	assert_non_null(copy);
	memcpy(copy, s, n);
	assert_int_equal(tokenizer_encode(t, copy, n, 0, &ids, &n_ids), 0);
	back = decode(t, ids, n_ids, &n_back);
	assert_int_equal(n_back, n);
	assert_memory_equal(back, s, n);
}

/* What is no UTF-8 comes back byte for byte, in every vocabulary that has all bytes. */
static void test_broken_utf8(void **state)
{
	static const char *const broken[] = {"\xff", "\x80", "\xc3", "\xc3\x28", "\xe2\x82\x28",
		"\xe2\x82", "\xf0\x9f\x98", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"a\xff b\xc3 \xc3", "\xe4\xbd\xa0\xe5\xa5", " \xff\xff 1\xfe\r\n\xfd's",
		"\xcc\x81\xffo\xcc"};

	for (size_t i = 0; i <= ARRAY_SIZE(byte_level); i++) {
		struct tokenizer *t = load(i < ARRAY_SIZE(byte_level) ? byte_level[i] : "spm");

		for (size_t k = 0; k < ARRAY_SIZE(broken); k++)
			check_bytes(t, broken[k], strlen(broken[k]));
		for (unsigned a = 0; a < 256; a++) {
			char two[2] = {(char)a, (char)(a * 7 + 3)};

			check_bytes(t, two, 1);
			check_bytes(t, two, 2);
		}
		tokenizer_free(t);
	}
}

static uint32_t find(const struct tokenizer *t, const char *token)
{
	uint32_t id = UINT32_MAX;

	assert_int_equal(tokenizer_find(t, token, &id), 1);
	return id;
}

static void test_questions(void **state)
{
	struct tokenizer *t = load("smollm");
	uint32_t end = find(t, "<|im_end|>"), bos = 0, none = 7;
	const char *s;
	size_t n;

	assert_true(tokenizer_is_end(t, end));
	assert_true(tokenizer_is_end(t, find(t, "<|endoftext|>")));
	assert_false(tokenizer_is_end(t, find(t, "<|im_start|>")));
	assert_false(tokenizer_is_end(t, UINT32_MAX));
	assert_true(tokenizer_is_control(t, end));
	assert_false(tokenizer_is_control(t, find(t, "<think>")));
	assert_false(tokenizer_is_control(t, tokenizer_size(t)));
	assert_int_equal(tokenizer_bos(t, &bos), 1);
	assert_int_equal(bos, find(t, "<|endoftext|>"));
	assert_int_equal(tokenizer_find(t, "no such token", &none), 0);
	assert_int_equal(none, 7);
	assert_int_equal(tokenizer_piece(t, tokenizer_size(t), false, true, &s, &n), -ERANGE);
	assert_int_equal(tokenizer_piece(t, UINT32_MAX, false, true, &s, &n), -ERANGE);
	assert_int_equal(tokenizer_piece(t, end, false, false, &s, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(tokenizer_piece(t, end, false, true, &s, &n), 0);
	assert_int_equal(n, 10);
	assert_memory_equal(s, "<|im_end|>", 10);
	tokenizer_free(t);
}

/* Pieces are appended apart from each other, and a failed one leaves what was there. */
static void test_append(void **state)
{
	struct tokenizer *t = load("smollm");
	struct tokenizer_ids ids = {0};

	assert_int_equal(tokenizer_append(t, &ids, "th", 2, 0), 0);
	assert_int_equal(ids.n, 1);
	assert_int_equal(tokenizer_append(t, &ids, "e", 1, 0), 0);
	assert_int_equal(ids.n, 2);
	assert_int_equal(tokenizer_append(t, &ids, "", 0, 0), 0);
	assert_int_equal(ids.n, 2);
	assert_int_equal(tokenizer_append(t, &ids, "the", (size_t)INT32_MAX, 0), -E2BIG);
	assert_int_equal(ids.n, 2);
	free(ids.ids);
	tokenizer_free(t);
}

/* No text of so many bytes is fewer tokens, in normal form or not. */
static void test_most_bytes(void **state)
{
	static const char *const texts[] = {"                                                ",
		"\xe1\xbe\xbe\xcc\x88\xcc\x81", "the the the <think>er", "<|im_start|>",
		"\xe2\x96\x81\xe2\x96\x81", "\xf0\x9f\x98\x80"};
	static const char *const names[] = {"qwen2", "smollm", "spm"};

	for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
		struct tokenizer *t = load(names[k]);

		assert_int_equal(tokenizer_most_bytes(t, 0), 0);
		assert_true(tokenizer_most_bytes(t, UINT32_MAX) > UINT32_MAX);
		for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
			cleanup_free_ uint32_t *ids = NULL;
			size_t n = strlen(texts[i]), n_ids;

			assert_int_equal(tokenizer_encode(t, texts[i], n, 0, &ids, &n_ids), 0);
			assert_true(n <= tokenizer_most_bytes(t, (uint32_t)n_ids));
		}
		tokenizer_free(t);
	}
}

/* A word of n equal letters, of marks that NFC must sort, of beginnings of control tokens. */
static void test_long(void **state)
{
	static const char *const many[] = {
		"a", " ", "ab", "\xcc\x81\xcc\xa3", "<|", "<think", "\n ", "\xff", "1"};
	static const char *const names[] = {"qwen2", "llama-bpe", "spm", "deepseek-v3"};
	const size_t n = 300000;
	char *text = malloc(n);

	assert_non_null(text);
	for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
		struct tokenizer *t = load(names[k]);

		for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
			cleanup_free_ uint32_t *ids = NULL;
			size_t n_ids, size = strlen(many[i]);

			for (size_t at = 0; at < n; at++)
				text[at] = many[i][at % size];
			assert_int_equal(tokenizer_encode(t, text, n, 3, &ids, &n_ids), 0);
			assert_true(n_ids > 0 && n_ids <= n + 2);
		}
		tokenizer_free(t);
	}
	free(text);
}

/* The stream gives what Python's bytes.decode("utf-8", "replace") gives, however it is cut. */
static void test_stream(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"", ""},
		{"a\xc3\xa9", "a\xc3\xa9"},
		{"\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80!"},
		{"\xf0\x9f\x98", "\xef\xbf\xbd"},
		{"\xe2\x82(", "\xef\xbf\xbd("},
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xc3\xc3\xa9", "\xef\xbf\xbd\xc3\xa9"},
		{"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xf0\x9f\xf0\x9f\x98\x80", "\xef\xbf\xbd\xf0\x9f\x98\x80"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = strlen(cases[i].in);

		for (size_t step = 1; step <= n + 1; step++) {
			struct utf8_stream s = {0};
			char out[128];
			size_t size = 0;

			for (size_t at = 0; at < n; at += step) {
				size_t k = num_min(step, n - at);

				size += utf8_stream_push(
					&s, cases[i].in + at, k, false, out + size);
			}
			size += utf8_stream_push(&s, NULL, 0, true, out + size);
			assert_int_equal(size, strlen(cases[i].out));
			assert_memory_equal(out, cases[i].out, size);
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases_byte_level),
		cmocka_unit_test(test_cases_spm),
		cmocka_unit_test(test_broken_utf8),
		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_most_bytes),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_stream),
	};

	if (argc < 2)
		return 2;
	folder = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
