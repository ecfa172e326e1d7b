/* SPDX-License-Identifier: MIT */

/*
 * Walks the table of options: every one has a default that stands, takes what it says and nothing
 * else, acts on its field, is reloaded or named, and stands in the example file and the manual.
 */

#include "configuration.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fd.h"
#include "limit.h"
#include "num.h"

#define VALUES_MAX 4

/* What each option takes besides its default, and what it refuses; every option has a line. */
static const struct row {
	const char *name;
	const char *good[VALUES_MAX];
	const char *bad[VALUES_MAX + 2];
} rows[] = {
	{"model", {"/m.gguf", "/a b/ü"}, {"m.gguf", "./m"}},
	{"memory.limit", {"512M", "6G", "60%"}, {"", "0", "12Q", "101%", "0%", "-1G"}},
	{"memory.lock", {"required"}, {"", "yes", "Try", "try|required", "required "}},
	{"socket", {"/run/x"}, {"x", ""}},
	{"socket-mode", {"0600", "0", "777"}, {"", "0778", "1000", "08", "0x1", "00660"}},
	{"socket-group", {"users", ""}, {NULL}},
	{"state", {"/s"}, {"s", ""}},
	{"sessions-on-disk", {"0", "512M", "2T"},
		{"", "auto", "10%", "-1", "1Q", "99999999999999999999"}},
	{"threads", {"1", "256"}, {"257", "-1", "", "1.0", "0x1", "two"}},
	{"pin", {"yes"}, {"", "true", "Yes", "1"}},
	{"context", {"4096", "16777216"}, {"16777217", "-1", "4k"}},
	{"sessions", {"1", "64"}, {"65", "-1", " 1"}},
	{"chunk", {"1", "4096"}, {"4097", "-1", "1 "}},
	{"io", {"uring", "pread"}, {"io_uring", "", "Auto"}},
	{"log", {"error", "debug"}, {"loud", "", "INFO"}},
	{"limits.connections", {"1", "256"}, {"0", "257"}},
	{"limits.requests", {"1", "1024"}, {"0", "1025"}},
	{"limits.sessions", {"1", "256"}, {"0", "257"}},
	{"limits.tokens", {"1", "16777216"}, {"16777217", "-1"}},
	{"drain", {"0", "600"}, {"601", "-1", "20s"}},
	{"upcycle.experts", {"8", "4096"}, {"4097", "-1"}},
	{"upcycle.top-k", {"1", "64"}, {"0", "65"}},
	{"upcycle.router", {"random"}, {"", "tree"}},
	{"upcycle.router-seed", {"1", "4294967295"}, {"4294967296", "-1"}},
};

static bool is_text(const struct config_option *o)
{
	return o->type == CONFIG_TEXT || o->type == CONFIG_PATH || o->type == CONFIG_SIZE;
}

static bool equal(const struct config *a, const struct config *b, const struct config_option *o)
{
	const char *const *x = (const void *)((const char *)a + o->at);
	const char *const *y = (const void *)((const char *)b + o->at);

	return is_text(o) ? !strcmp(*x, *y) : !memcmp(x, y, sizeof(uint64_t));
}

/* "a.b" as a file says it. */
static void as_yaml(char *text, size_t size, const char *name, const char *value)
{
	const char *dot = strchr(name, '.');

	if (dot)
		(void)snprintf(text, size, "%.*s:\n  %s: \"%s\"\n", (int)(dot - name), name,
			dot + 1, value);
	else
		(void)snprintf(text, size, "%s: \"%s\"\n", name, value);
}

static void test_every_option(void **state)
{
	assert_int_equal(ARRAY_SIZE(rows), config_n_options);
	for (size_t i = 0; i < config_n_options; ++i) {
		const struct config_option *o = &config_options[i];
		struct config base;

		assert_string_equal(rows[i].name, o->name);
		assert_true(strlen(o->help) > 10);
		assert_int_equal(config_init(&base), 0);
		for (size_t k = 0; k < ARRAY_SIZE(rows[i].good) && rows[i].good[k]; ++k) {
			struct error err = ERROR_NONE;
			struct config c, d;
			char yaml[256];

			assert_int_equal(config_init(&c), 0);
			assert_int_equal(config_init(&d), 0);
			assert_int_equal(config_set(&c, o->name, rows[i].good[k], &err), 0);
			/* It acts on its field, and on no other. */
			for (size_t j = 0; j < config_n_options; ++j)
				assert_int_equal(equal(&base, &c, &config_options[j]), j != i);
			as_yaml(yaml, sizeof yaml, o->name, rows[i].good[k]);
			assert_int_equal(config_parse(&d, yaml, strlen(yaml), "f", &err), 0);
			assert_true(equal(&c, &d, o));
			config_deinit(&c);
			config_deinit(&d);
		}
		config_deinit(&base);
	}
}

static void test_refused(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); ++i)
		for (size_t k = 0; k < ARRAY_SIZE(rows[i].bad) && rows[i].bad[k]; ++k) {
			struct error err = ERROR_NONE;
			char yaml[256], takes[160], place[32];
			struct config c;

			assert_int_equal(config_init(&c), 0);
			assert_true(config_set(&c, rows[i].name, rows[i].bad[k], &err) < 0);
			config_takes(rows[i].name, takes, sizeof takes);
			assert_non_null(strstr(err.text, rows[i].name));
			assert_non_null(strstr(err.text, takes));
			err = ERROR_NONE;
			as_yaml(yaml, sizeof yaml, rows[i].name, rows[i].bad[k]);
			assert_int_equal(
				config_parse(&c, yaml, strlen(yaml), "f.yaml", &err), -EINVAL);
			(void)snprintf(place, sizeof place,
				"f.yaml:%d:", strchr(rows[i].name, '.') ? 2 : 1);
			assert_int_equal(strncmp(err.text, place, strlen(place)), 0);
			assert_non_null(strstr(err.text, takes));
			config_deinit(&c);
		}
}

static void test_files(void **state)
{
	static const struct {
		const char *text, *where, *says;
	} bad[] = {
		{"modl: x\n", "f:1:1", "unknown key 'modl'"},
		{"memory:\n  limt: 1G\n", "f:2:3", "unknown key 'memory.limt'"},
		{"memory.limit: 1G\n", "f:1:1", ""},
		{"threads: 1\nthreads: 1\n", "f:2:1", "twice"},
		{"memory:\n  lock: try\nmemory:\n  limit: 1G\n", "f:3:1", "twice"},
		{"threads: [1]\n", "f:1:10", "from 0 to 256"},
		{"threads:\n  a: 1\n", "f:2:3", "from 0 to 256"},
		{"memory: 5\n", "f:1:9", "mapping"},
		{"memory: [5]\n", "f:1:9", "mapping"},
		{"- a\n", "f:1:1", "mapping"},
		{"text\n", "f:1:1", "mapping"},
		{"threads: &a 1\nchunk: *a\n", "f:2:8", "alias"},
		{"threads: 1\n---\nchunk: 1\n", "f:2:1", "document"},
		{"threads: 'b\n", "f:", "not YAML"},
		{"{", "f:", "not YAML"},
		{"\t: x", "f:", "not YAML"},
		{"[a]: 1\n", "f:1:1", ""},
		{"? {a: b}\n: 1\n", "f:1:3", "key"},
		{"memory:\n  limit:\n    a: b\n", "f:3:5", "60%"},
		{"model: \"/a\\0b\"\n", "f:1:8", "NUL"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); ++i) {
		struct error err = ERROR_NONE;
		struct config c;

		assert_int_equal(config_init(&c), 0);
		assert_int_equal(
			config_parse(&c, bad[i].text, strlen(bad[i].text), "f", &err), -EINVAL);
		if (strncmp(err.text, bad[i].where, strlen(bad[i].where)) ||
			!strstr(err.text, bad[i].says))
			fail_msg("%s gave: %s", bad[i].text, err.text);
		config_deinit(&c);
	}
}

static void test_empty_files(void **state)
{
	static const char *const good[] = {
		"", "# nothing\n", "---\n", "memory:\n", "{}\n", "limits: {}\n"};

	for (size_t i = 0; i < ARRAY_SIZE(good); ++i) {
		struct error err = ERROR_NONE;
		struct config c, d;

		assert_int_equal(config_init(&c), 0);
		assert_int_equal(config_init(&d), 0);
		if (config_parse(&c, good[i], strlen(good[i]), "f", &err) < 0)
			fail_msg("%s gave: %s", good[i], err.text);
		for (size_t j = 0; j < config_n_options; ++j)
			assert_true(equal(&c, &d, &config_options[j]));
		config_deinit(&c);
		config_deinit(&d);
	}
}

static void on_change(void *arg, const struct config_option *o)
{
	size_t *n = arg;

	++n[o->when];
}

/* Live options change; the others stay and are named. */
static void test_reload(void **state)
{
	for (size_t i = 0; i < config_n_options; ++i) {
		const struct config_option *o = &config_options[i];
		struct error err = ERROR_NONE;
		size_t n[2] = {0, 0};
		struct config c, d;

		assert_int_equal(config_init(&c), 0);
		assert_int_equal(config_init(&d), 0);
		assert_int_equal(config_set(&d, o->name, rows[i].good[0], &err), 0);
		config_reload(&c, &d, on_change, n);
		assert_int_equal(n[o->when], 1);
		assert_int_equal(n[!o->when], 0);
		assert_int_equal(equal(&c, &d, o), o->when == CONFIG_LIVE);
		config_deinit(&c);
		config_deinit(&d);
	}
}

/* What is printed, and what is installed, are the defaults; the manual names every option. */
static void test_documents(void **state)
{
	char *text = NULL, *manual = NULL;
	struct error err = ERROR_NONE;
	struct config c, d;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	config_print(f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(config_init(&c), 0);
	assert_int_equal(config_init(&d), 0);
	assert_int_equal(config_parse(&c, text, size, "printed", &err), 0);
	for (size_t j = 0; j < config_n_options; ++j)
		assert_true(equal(&c, &d, &config_options[j]));
	assert_int_equal(config_read(&c, SOURCE_ROOT "/etc/moed.yaml", &err), 0);
	assert_int_equal(
		fd_read_file(SOURCE_ROOT "/docs/man/moed.yaml.5", 1 << 20, &manual, NULL), 0);
	for (size_t j = 0; j < config_n_options; ++j) {
		const struct config_option *o = &config_options[j];
		char name[160];
		size_t n = 0;

		assert_true(equal(&c, &d, o));
		/* In the manual '-' is written '\-'. */
		n += (size_t)snprintf(name, sizeof name, ".B ");
		for (const char *p = o->name; *p; ++p)
			n += (size_t)snprintf(
				name + n, sizeof name - n, "%s%c", *p == '-' ? "\\" : "", *p);
		if (!strstr(manual, name))
			fail_msg("moed.yaml.5 does not have %s", o->name);
	}
	free(text);
	free(manual);
	config_deinit(&c);
	config_deinit(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_option),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_empty_files),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_documents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
