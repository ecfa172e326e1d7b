/* SPDX-License-Identifier: MIT */

/* The parser against sound, truncated and hostile bytes. */

#include "gguf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "maker.h"

static struct gguf *parse(const struct maker *m, int want, const char *text)
{
	struct error err = ERROR_NONE;
	struct gguf *g = NULL;
	int r = gguf_parse(&g, m->bytes, m->n, m->n, &err);

	if (r != want || (text && !strstr(err.text, text)))
		fail_msg("%d '%s', expected is %d '%s'", r, err.text, want, text ? text : "");
	return g;
}

static void sound(void **state)
{
	static const char *const words[] = {"a", "", "ccc"};
	struct gguf_string s;
	const struct gguf_tensor *t;
	enum gguf_kind kind;
	struct maker m;
	struct gguf *g;
	uint64_t n;
	uint32_t u;
	float f;
	bool b;

	(void)state;
	maker_init(&m);
	maker_key_u32(&m, "z.number", 7);
	maker_key_f32(&m, "float", 0.25f);
	maker_key_bool(&m, "flag", 1);
	maker_key_string(&m, "text", "hello");
	maker_key_strings(&m, "words", words, 3);
	maker_tensor(&m, "one", 0, 8, 2, 0, 64);
	maker_tensor(&m, "two", 2, 32, 3, 0, 54);
	maker_finish(&m);
	g = parse(&m, 0, NULL);
	assert_int_equal(gguf_get_u32(g, "z.number", &u, NULL), 1);
	assert_int_equal(u, 7);
	assert_int_equal(gguf_get_u32(g, "absent", &u, NULL), 0);
	assert_int_equal(gguf_get_u32(g, "text", &u, NULL), -EINVAL);
	assert_int_equal(gguf_get_f32(g, "float", &f, NULL), 1);
	assert_true(f == 0.25f);
	assert_int_equal(gguf_get_bool(g, "flag", &b, NULL), 1);
	assert_true(b);
	assert_int_equal(gguf_get_string(g, "text", &s, NULL), 1);
	assert_int_equal(s.size, 5);
	assert_memory_equal(s.data, "hello", 5);
	assert_int_equal(gguf_get_array(g, "words", &kind, &n, NULL), 1);
	assert_int_equal(kind, GGUF_STRING);
	assert_int_equal(n, 3);
	for (uint64_t i = 0; i < n; i++) {
		s = gguf_array_string(g, "words", i);
		assert_int_equal(s.size, strlen(words[i]));
		assert_memory_equal(s.data, words[i], s.size);
	}
	assert_int_equal(gguf_array_string(g, "words", 3).size, 0);
	assert_null(gguf_array_data(g, "words"));
	t = gguf_find(g, "two");
	assert_non_null(t);
	assert_int_equal(t->size, 54);
	assert_int_equal(t->offset, gguf_data_offset(g) + 64);
	assert_null(gguf_find(g, "three"));
	gguf_free(g);
	maker_deinit(&m);
}

/* A file cut anywhere is refused, and never read past its end (the sanitizers look). */
static void truncated(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct gguf *whole;
	struct maker m;
	uint64_t header;

	(void)state;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	whole = parse(&m, 0, NULL);
	header = gguf_data_offset(whole) - 32;
	gguf_free(whole);
	for (size_t n = 0; n < m.n; n += n < 8192 ? 1 : 4001) {
		uint8_t *exact = malloc(n ? n : 1);
		struct error err = ERROR_NONE;
		struct gguf *g = NULL;

		memcpy(exact, m.bytes, n);
		assert_int_equal(gguf_parse(&g, exact, n, n, &err), -EBADMSG);
		assert_true(err.text[0]);
		assert_null(g);
		/* The same where only the bytes at hand end. */
		if (n < header)
			assert_int_equal(gguf_parse(&g, exact, n, m.n, NULL), -EBADMSG);
		free(exact);
	}
	maker_deinit(&m);
}

static void counts(void **state)
{
	static const uint64_t hostile[] = {65537, UINT32_MAX, (uint64_t)1 << 61, UINT64_MAX};
	struct maker m;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		maker_init(&m);
		memcpy(m.bytes + 8, &hostile[i], 8);
		parse(&m, -EBADMSG, "limits");
		maker_deinit(&m);
		maker_init(&m);
		memcpy(m.bytes + 16, &hostile[i], 8);
		parse(&m, -EBADMSG, "limits");
		maker_deinit(&m);
	}
}

static void start(void **state)
{
	static const struct {
		uint32_t version;
		const char *text;
	} cases[] = {
		{1, "version 1"}, {4, "version 4"}, {0x03000000, "big-endian"}, {0, "version 0"}};
	struct maker m;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		maker_init(&m);
		memcpy(m.bytes + 4, &cases[i].version, 4);
		parse(&m, -EBADMSG, cases[i].text);
		maker_deinit(&m);
	}
	maker_init(&m);
	m.bytes[0] = 'g';
	parse(&m, -EBADMSG, "not a GGUF file");
	maker_deinit(&m);
	maker_init(&m);
	m.bytes[4] = 2;
	gguf_free(parse(&m, 0, NULL));
	maker_deinit(&m);
}

/* One broken key each. */
static void keys(void **state)
{
	struct maker m;

	(void)state;
	for (int i = 0; i < 9; i++) {
		const char *text = NULL;

		maker_init(&m);
		m.n_keys = 1;
		switch (i) {
		case 0: /* a string beyond the limit */
			maker_string(&m, "k");
			maker_u32(&m, GGUF_STRING);
			maker_u64(&m, UINT64_MAX);
			text = "limit";
			break;
		case 1: /* a string beyond the file */
			maker_string(&m, "k");
			maker_u32(&m, GGUF_STRING);
			maker_u64(&m, 1000);
			text = "truncated";
			break;
		case 2:
			maker_string(&m, "k");
			maker_u32(&m, 13);
			text = "unknown kind 13";
			break;
		case 3: /* arrays in arrays */
			maker_string(&m, "k");
			maker_u32(&m, GGUF_ARRAY);
			maker_u32(&m, GGUF_ARRAY);
			maker_u64(&m, 1);
			text = "holds arrays";
			break;
		case 4:
			maker_string(&m, "k");
			maker_u32(&m, GGUF_ARRAY);
			maker_u32(&m, GGUF_U64);
			maker_u64(&m, UINT64_MAX / 4);
			text = "limit";
			break;
		case 5:
			maker_string(&m, "k");
			maker_u32(&m, GGUF_ARRAY);
			maker_u32(&m, GGUF_STRING);
			maker_u64(&m, 1 << 20);
			text = "truncated";
			break;
		case 6:
			m.n_keys = 0;
			maker_key_bool(&m, "k", 2);
			text = "boolean";
			break;
		case 7:
			m.n_keys = 0;
			maker_key_u32(&m, "k", 1);
			maker_key_u32(&m, "k", 1);
			text = "twice";
			break;
		default:
			m.n_keys = 0;
			maker_key_u32(&m, "k\033[2J", 1);
			text = "0x1b";
			break;
		}
		maker_finish(&m);
		parse(&m, -EBADMSG, text);
		maker_deinit(&m);
	}
}

static void tensors(void **state)
{
	static const struct {
		const char *text;
		uint32_t type;
		uint64_t d0, d1, size;
	} cases[] = {
		{"empty dimension", 0, 0, 0, 0},
		{"whole blocks", 2, 33, 1, 18},
		{"too many elements", 0, (uint64_t)1 << 40, (uint64_t)1 << 40, 0},
		{"too many elements", 0, INT64_MAX, 2, 0},
		{"past the end", 0, (uint64_t)1 << 30, 1, 0},
		{"overlap", 0, 64, 1, 32},
	};
	struct maker m;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		maker_init(&m);
		maker_tensor(&m, "t", cases[i].type, cases[i].d0, cases[i].d1, 0, cases[i].size);
		maker_tensor(&m, "u", 0, 64, 1, 0, 256);
		maker_finish(&m);
		parse(&m, -EBADMSG, cases[i].text);
		maker_deinit(&m);
	}
	maker_init(&m);
	maker_tensor(&m, "t", 0, 8, 0, 0, 32);
	maker_tensor(&m, "t", 0, 8, 0, 0, 32);
	maker_finish(&m);
	parse(&m, -EBADMSG, "twice");
	maker_deinit(&m);
	/* An unknown type is no reason to refuse: its bytes are not counted. */
	maker_init(&m);
	maker_tensor(&m, "t", 4711, 8, 0, 0, 32);
	maker_finish(&m);
	gguf_free(parse(&m, 0, NULL));
	maker_deinit(&m);
	maker_init(&m);
	m.data = 4;
	maker_tensor(&m, "t", 0, 8, 0, 0, 32);
	maker_finish(&m);
	parse(&m, -EBADMSG, "alignment");
	maker_deinit(&m);
}

static void alignment(void **state)
{
	static const uint32_t bad[] = {0, 3, 131072};
	struct maker m;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		maker_init(&m);
		maker_key_u32(&m, "general.alignment", bad[i]);
		maker_finish(&m);
		parse(&m, -EBADMSG, "general.alignment");
		maker_deinit(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound),
		cmocka_unit_test(truncated),
		cmocka_unit_test(counts),
		cmocka_unit_test(start),
		cmocka_unit_test(keys),
		cmocka_unit_test(tensors),
		cmocka_unit_test(alignment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
