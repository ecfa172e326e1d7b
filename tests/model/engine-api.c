/* SPDX-License-Identifier: MIT */

/* The engine's calls: what they refuse, and what dropping, cutting back and resuming leave. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine-case.h"
#include "engine-drive.h"
#include "num.h"

#define MOST 128u

static struct engine_case the_case;
static struct drive d;

/* Logits of the last row of each sequence. */
struct seen {
	float logits[512];
	unsigned rows, errors;
};

static void on_logits(void *arg, const float *logits)
{
	struct seen *s = arg;

	memcpy(s->logits, logits, the_case.vocabulary * sizeof *logits);
	s->rows++;
}

static void on_error(void *arg, int code, const char *text)
{
	((struct seen *)arg)->errors++;
}

static const struct engine_callbacks callbacks = {.on_logits = on_logits, .on_error = on_error};

static void finish(enum engine_context c)
{
	int r;

	while ((r = engine_advance(d.engine, c)) != ENGINE_IDLE) {
		assert_true(r >= 0);
		if (r == ENGINE_WAITING)
			assert_int_equal(engine_wait(d.engine, 1000000000), 0);
	}
}

static size_t make_rows(struct engine_row *rows, struct engine_seq *s, const uint32_t *ids,
	size_t n, struct seen *seen)
{
	assert_int_equal(engine_seq_reserve(d.engine, s, (uint32_t)n), 0);
	for (size_t i = 0; i < n; i++)
		rows[i] = (struct engine_row){
			.seq = s, .token = ids[i], .want = ENGINE_WANT_LOGITS, .arg = seen};
	return n;
}

static void feed(enum engine_context c, struct engine_seq *s, const uint32_t *ids, size_t n,
	struct seen *seen)
{
	struct engine_row rows[MOST];

	make_rows(rows, s, ids, n, seen);
	assert_int_equal(engine_begin(d.engine, c, rows, n, &callbacks), 0);
	finish(c);
}

static void same(const struct seen *a, const struct seen *b)
{
	assert_true(memcmp(a->logits, b->logits, the_case.vocabulary * sizeof(float)) == 0);
}

static void test_refused(void **state)
{
	struct engine_row rows[MOST];
	struct engine_seq *s, *t;
	struct seen seen = {0};
	uint32_t free_before, free_after, all;

	(void)state;
	assert_int_equal(engine_seq_new(d.engine, &s), 0);
	assert_int_equal(engine_seq_new(d.engine, &t), 0);
	engine_kv(d.engine, &free_before, &all);
	rows[0] = (struct engine_row){.seq = s, .token = 1};
	assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, rows, 1, NULL), -EINVAL);
	assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, rows, 0, NULL), -EINVAL);
	make_rows(rows, s, the_case.prompts[1].ids, 3, &seen);
	rows[2].token = (uint32_t)the_case.vocabulary;
	assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, rows, 3, NULL), -ERANGE);
	assert_int_equal(engine_seq_length(s), 0);
	assert_int_equal(
		engine_begin(d.engine, ENGINE_LIVE, rows, d.plan.live_rows + 1, NULL), -EINVAL);
	rows[2].token = 0;
	assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, rows, 2, &callbacks), 0);
	assert_int_equal(engine_seq_length(s), 2);
	assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, rows, 1, NULL), -EBUSY);
	assert_int_equal(engine_begin(d.engine, ENGINE_BULK, rows, 1, NULL), -EBUSY);
	assert_int_equal(engine_seq_length(s), 2);
	finish(ENGINE_LIVE);
	assert_int_equal(seen.rows, 2);
	assert_int_equal(engine_seq_reserve(d.engine, t, all + 1), -ENOSPC);
	assert_int_equal(engine_seq_reserve(d.engine, t, all), -ENOSPC);
	assert_int_equal(engine_seq_reserve(d.engine, t, UINT32_MAX), -ENOSPC);
	engine_seq_free(d.engine, s);
	assert_int_equal(engine_seq_reserve(d.engine, t, all), 0);
	engine_seq_free(d.engine, t);
	engine_kv(d.engine, &free_after, &all);
	assert_int_equal(free_before, free_after);
}

static void test_sessions(void **state)
{
	struct engine_seq *s[LIMIT_SESSIONS], *more;

	(void)state;
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		assert_int_equal(engine_seq_new(d.engine, &s[i]), 0);
	assert_int_equal(engine_seq_new(d.engine, &more), -ENOBUFS);
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		assert_null(engine_seq_free(d.engine, s[i]));
	assert_int_equal(engine_seq_new(d.engine, &more), 0);
	engine_seq_free(d.engine, more);
}

/* A prefix is kept and another end follows: as if the whole had come at once. */
static void test_truncate(void **state)
{
	const struct case_prompt *p = &the_case.prompts[1];
	static const size_t cuts[] = {0, 1, 5, 63, 64, 65, 69};

	(void)state;
	assert_true(p->n == 70);
	for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
		struct seen once = {0}, again = {0};
		uint32_t other[MOST];
		struct engine_seq *s;

		for (size_t j = 0; j < p->n; j++)
			other[j] = j < cuts[i] ? p->ids[j] : p->ids[p->n - 1 - j] ^ 1u;
		assert_int_equal(engine_seq_new(d.engine, &s), 0);
		feed(ENGINE_BULK, s, other, p->n, &again);
		engine_seq_truncate(d.engine, s, (uint32_t)cuts[i]);
		assert_int_equal(engine_seq_length(s), cuts[i]);
		feed(ENGINE_BULK, s, p->ids + cuts[i], p->n - cuts[i], &again);
		engine_seq_free(d.engine, s);
		assert_int_equal(engine_seq_new(d.engine, &s), 0);
		feed(ENGINE_BULK, s, p->ids, p->n, &once);
		engine_seq_free(d.engine, s);
		same(&once, &again);
	}
}

/*
 * A prefix that is another sequence's too, and one that came back as bytes, into other blocks: what
 * follows has the same bits, and so has what follows in the first.
 */
static void test_carried(void **state)
{
	const struct case_prompt *p = &the_case.prompts[1];
	static const uint32_t cuts[] = {1, 30, 64, 65, 69};
	size_t block = engine_seq_block_bytes(d.engine);
	char *bytes = malloc(2 * block);

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
		struct seen once = {0}, shared = {0}, carried = {0}, first = {0};
		uint32_t n = cuts[i], rest = (uint32_t)p->n - n;
		struct engine_seq *s, *t, *u;
		size_t all = (n + 63) / 64 * block;

		assert_int_equal(engine_seq_new(d.engine, &s), 0);
		assert_int_equal(engine_seq_new(d.engine, &t), 0);
		assert_int_equal(engine_seq_new(d.engine, &u), 0);
		feed(ENGINE_BULK, t, p->ids, p->n, &once);
		feed(ENGINE_BULK, s, p->ids, n, &first);
		assert_int_equal(engine_seq_reserve(d.engine, u, n), 0);
		engine_seq_read(d.engine, s, n, 0, bytes, all);
		engine_seq_write(d.engine, u, 0, bytes, all);
		engine_seq_written(d.engine, u, n);
		assert_int_equal(engine_seq_length(u), n);
		assert_int_equal(engine_seq_share(d.engine, t, s, n), 0);
		assert_int_equal(engine_seq_length(t), n);
		feed(ENGINE_BULK, t, p->ids + n, rest, &shared);
		same(&once, &shared);
		feed(ENGINE_LIVE, u, p->ids + n, 1, &carried);
		if (rest > 1)
			feed(ENGINE_BULK, u, p->ids + n + 1, rest - 1, &carried);
		same(&once, &carried);
		feed(ENGINE_BULK, s, p->ids + n, rest, &first);
		same(&once, &first);
		engine_seq_free(d.engine, s);
		engine_seq_free(d.engine, t);
		engine_seq_free(d.engine, u);
	}
	free(bytes);
}

/* Dropped after any number of tiles: no callback any more, the other's bits stay, all is given
 * back. */
static void test_drop(void **state)
{
	const struct case_prompt *p = &the_case.prompts[1];
	struct engine_row rows[MOST];
	struct seen alone = {0};
	struct engine_seq *s;
	bool ended = false;

	(void)state;
	assert_int_equal(engine_seq_new(d.engine, &s), 0);
	feed(ENGINE_BULK, s, p->ids, 20, &alone);
	engine_seq_free(d.engine, s);
	for (unsigned tiles = 0; !ended; tiles++) {
		struct seen kept = {0}, dropped = {0}, later = {0};
		unsigned rows_seen;
		struct engine_seq *t;
		size_t n;

		assert_int_equal(engine_seq_new(d.engine, &s), 0);
		assert_int_equal(engine_seq_new(d.engine, &t), 0);
		n = make_rows(rows, s, p->ids + 10, 30, &dropped);
		n += make_rows(rows + n, t, p->ids, 20, &kept);
		assert_int_equal(engine_begin(d.engine, ENGINE_BULK, rows, n, &callbacks), 0);
		for (unsigned i = 0; i < tiles && !ended; i++)
			ended = engine_advance(d.engine, ENGINE_BULK) == ENGINE_IDLE;
		rows_seen = dropped.rows;
		engine_drop(d.engine, s);
		/* Nothing of what was under way is kept; a finished step stays whole. */
		if (!ended)
			assert_int_equal(engine_seq_length(s), 0);
		finish(ENGINE_BULK);
		assert_int_equal(dropped.rows, rows_seen);
		assert_int_equal(dropped.errors, 0);
		same(&alone, &kept);
		engine_seq_free(d.engine, t);
		/* The same sequence goes on as a new one. */
		engine_seq_truncate(d.engine, s, 0);
		feed(ENGINE_BULK, s, p->ids, 20, &later);
		same(&alone, &later);
		engine_seq_free(d.engine, s);
	}
}

/* A tile of each context by turns, until the prompt is done; how many tokens came meanwhile. */
static unsigned alternate(struct engine_seq *s, const uint32_t *ids, size_t *at, struct seen *seen)
{
	unsigned before = seen->rows;
	struct engine_row row;

	for (;;) {
		int live, bulk = engine_advance(d.engine, ENGINE_BULK);

		assert_true(bulk >= 0);
		if (bulk == ENGINE_IDLE)
			break;
		live = engine_advance(d.engine, ENGINE_LIVE);
		assert_true(live >= 0);
		if (live == ENGINE_IDLE && *at < 10) {
			make_rows(&row, s, ids + (*at)++, 1, seen);
			assert_int_equal(
				engine_begin(d.engine, ENGINE_LIVE, &row, 1, &callbacks), 0);
		} else if (bulk == ENGINE_WAITING && live != ENGINE_MORE) {
			assert_int_equal(engine_wait(d.engine, 1000000000), 0);
		}
	}
	before = seen->rows - before;
	finish(ENGINE_LIVE);
	return before;
}

/* Tokens of one session between the tiles of another's prompt; both say what they say alone. */
static void test_interleaved(void **state)
{
	const struct case_prompt *p = &the_case.prompts[1];
	struct seen live[2] = {0}, bulk[2] = {0};
	struct engine_row rows[MOST];
	unsigned between = 0;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct engine_seq *a, *b;
		size_t at = 4;

		assert_int_equal(engine_seq_new(d.engine, &a), 0);
		assert_int_equal(engine_seq_new(d.engine, &b), 0);
		feed(ENGINE_LIVE, a, p->ids, at, &live[i]);
		if (i == 0) {
			feed(ENGINE_BULK, b, p->ids, p->n, &bulk[i]);
		} else {
			make_rows(rows, b, p->ids, p->n, &bulk[i]);
			assert_int_equal(
				engine_begin(d.engine, ENGINE_BULK, rows, p->n, &callbacks), 0);
			between = alternate(a, p->ids, &at, &live[i]);
		}
		while (at < 10)
			feed(ENGINE_LIVE, a, p->ids + at++, 1, &live[i]);
		engine_seq_free(d.engine, a);
		engine_seq_free(d.engine, b);
	}
	assert_true(between > 0);
	same(&live[0], &live[1]);
	same(&bulk[0], &bulk[1]);
}

/* Freed with its step under way; both contexts empty afterwards. */
static void test_free_under_way(void **state)
{
	struct engine_row rows[MOST];
	struct seen seen = {0};
	struct engine_seq *s;

	(void)state;
	for (unsigned tiles = 0; tiles < 6; tiles++) {
		assert_int_equal(engine_seq_new(d.engine, &s), 0);
		make_rows(rows, s, the_case.prompts[1].ids, 8, &seen);
		assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, rows, 8, &callbacks), 0);
		for (unsigned i = 0; i < tiles; i++)
			(void)engine_advance(d.engine, ENGINE_LIVE);
		engine_seq_free(d.engine, s);
		assert_int_equal(engine_advance(d.engine, ENGINE_LIVE), ENGINE_IDLE);
	}
	assert_int_equal(seen.errors, 0);
}

/* The context given is used to its last position, and no further. */
static void test_full(void **state)
{
	const struct case_prompt *p = &the_case.prompts[1];
	struct engine_row row;
	struct engine_seq *s;
	struct seen seen = {0};
	uint32_t left, all;

	(void)state;
	assert_int_equal(engine_seq_new(d.engine, &s), 0);
	engine_kv(d.engine, &left, &all);
	while (engine_seq_length(s) < all)
		feed(ENGINE_BULK, s, p->ids, num_min(all - engine_seq_length(s), 64u), &seen);
	assert_int_equal(engine_seq_reserve(d.engine, s, 1), -ENOSPC);
	row = (struct engine_row){.seq = s, .token = 1};
	assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, &row, 1, NULL), -EINVAL);
	assert_int_equal(seen.rows, all);
	assert_int_equal(seen.errors, 0);
	engine_seq_free(d.engine, s);
}

static int set_up(void **state)
{
	struct drive_how how;

	(void)state;
	engine_case_load(&the_case, "mixtral-f32");
	assert_true(the_case.vocabulary <= sizeof((struct seen *)0)->logits / sizeof(float));
	how = (struct drive_how){.path = the_case.path, .cache = DRIVE_SMALLEST, .threads = 2};
	drive_start(&d, &how);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	drive_stop(&d);
	engine_case_free(&the_case);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_carried),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_interleaved),
		cmocka_unit_test(test_free_under_way),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
