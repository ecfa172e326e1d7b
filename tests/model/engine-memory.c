/* SPDX-License-Identifier: MIT */

/*
 * Memory of slots that comes after the start, is given back under pressure and taken again, and
 * experts that are read into it before anybody wants them: the tokens stay the same, whatever is
 * there.  The model is made here, since those of tests/data are smaller than a huge page.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "engine-drive.h"
#include "fd.h"
#include "maker.h"
#include "mem.h"

#define N 40u
#define STEPS 8u

static char path[] = "./engine-memory-XXXXXX";
static uint32_t ids[N];

static int make(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct maker m;
	uint32_t seed = 1;
	int fd = mkstemp(path);

	if (fd < 0)
		return -1;
	model.layers = 4;
	model.hidden = 64;
	model.ff = 512;
	model.experts = 8;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	for (size_t i = m.n - m.data; i + 4 <= m.n; i += 4) {
		float x;

		seed = seed * 1664525u + 1013904223u;
		x = (float)(int32_t)seed / 2147483648.0f * 0.2f;
		memcpy(m.bytes + i, &x, sizeof x);
	}
	for (uint32_t i = 0; i < N; i++)
		ids[i] = i * 7 % model.vocabulary;
	if (fd_write_all(fd, m.bytes, m.n) < 0 || fsync(fd) < 0)
		return -1;
	maker_deinit(&m);
	return close(fd);
}

static int clean(void **state)
{
	return unlink(path);
}

static void answer(struct drive *d, struct drive_answer *ret)
{
	struct drive_text text = {.ids = ids, .n = N, .sampling = SAMPLER_DEFAULT};

	*ret = (struct drive_answer){0};
	drive_run(d, &text, 1, STEPS, false, 0, ret);
	assert_int_equal(ret->code, 0);
}

static void check(struct drive *d, const struct drive_answer *expected)
{
	struct drive_text text = {.ids = ids, .n = N, .sampling = SAMPLER_DEFAULT};
	struct drive_answer a;

	answer(d, &a);
	assert_true(drive_equal(d, &text, expected, &a));
	drive_answers_free(&a, 1);
}

static void test_give_and_take(void **state)
{
	struct drive_how how = {.path = path, .cache = DRIVE_RESIDENT};
	struct engine_stats before, less, after;
	struct drive_answer expected;
	struct drive d;
	unsigned given = 0, taken = 0;
	int64_t n;

	drive_start(&d, &how);
	answer(&d, &expected);
	engine_stats(d.engine, &before);
	assert_int_equal(before.given_bytes, 0);
	assert_int_equal(before.misses, 0);
	assert_int_equal(engine_take_again(d.engine), 0);
	for (unsigned round = 0; round < 3; round++) {
		while ((n = engine_give_back(d.engine)) > 0) {
			assert_int_equal(n % MEM_HUGE_PAGE, 0);
			given++;
			check(&d, &expected);
		}
		assert_int_equal(n, 0);
		engine_stats(d.engine, &less);
		assert_int_equal(less.given_bytes, (given - taken) * MEM_HUGE_PAGE);
		assert_in_range(less.slots, 16, before.slots - 1);
		assert_true(!before.locked_bytes ||
			    less.locked_bytes == before.locked_bytes - less.given_bytes);
		while ((n = engine_take_again(d.engine)) > 0) {
			taken++;
			check(&d, &expected);
		}
		assert_int_equal(n, 0);
		assert_int_equal(taken, given);
		engine_stats(d.engine, &after);
		assert_int_equal(after.given_bytes, 0);
		assert_int_equal(after.slots, before.slots);
		assert_int_equal(after.locked_bytes, before.locked_bytes);
	}
	assert_true(given > 3);
	assert_true(after.misses > 0);
	drive_answers_free(&expected, 1);
	drive_stop(&d);
}

/* A lower limit: what it takes stays given back, however calm it is, until it is raised again. */
static void test_less(void **state)
{
	struct drive_how how = {.path = path, .cache = DRIVE_RESIDENT};
	struct drive_answer expected;
	struct engine_stats s;
	struct drive d;

	(void)state;
	drive_start(&d, &how);
	answer(&d, &expected);
	assert_int_equal(engine_owes(d.engine), 0);
	engine_set_less(d.engine, MEM_HUGE_PAGE + 1);
	assert_int_equal(engine_owes(d.engine), MEM_HUGE_PAGE + 1);
	while (engine_owes(d.engine) > 0)
		assert_true(engine_give_back(d.engine) > 0);
	assert_int_equal(engine_take_again(d.engine), 0);
	check(&d, &expected);
	/* One more, for others: that one may come again. */
	assert_true(engine_give_back(d.engine) > 0);
	assert_true(engine_take_again(d.engine) > 0);
	assert_int_equal(engine_take_again(d.engine), 0);
	engine_set_less(d.engine, 0);
	while (engine_take_again(d.engine) > 0)
		;
	engine_stats(d.engine, &s);
	assert_int_equal(s.given_bytes, 0);
	check(&d, &expected);
	drive_answers_free(&expected, 1);
	drive_stop(&d);
}

static struct engine_stats stats(struct drive *d)
{
	struct engine_stats s;

	engine_stats(d->engine, &s);
	return s;
}

/* Until nothing is left to do. */
static void background(struct drive *d)
{
	for (unsigned i = 0; i < 1000000; i++) {
		enum engine_result r = engine_background(d->engine, false);

		if (r == ENGINE_IDLE)
			return;
		if (r == ENGINE_WAITING)
			assert_int_equal(engine_wait(d->engine, CLOCK_NS_PER_S), 0);
	}
	fail_msg("it never ends");
}

static void reference(struct drive_answer *ret)
{
	struct drive_how how = {.path = path, .cache = DRIVE_RESIDENT};
	struct drive d;

	drive_start(&d, &how);
	answer(&d, ret);
	drive_stop(&d);
}

/* Asked as soon as it has started; then everything is read, and nothing is missed. */
static void test_background(void **state)
{
	struct drive_how how = {.path = path, .cache = DRIVE_RESIDENT, .bare = true, .threads = 2};
	struct drive_answer expected;
	struct engine_stats before;
	struct drive d;

	reference(&expected);
	drive_start(&d, &how);
	assert_in_range(stats(&d).slots, 1, 32);
	assert_false(engine_is_filled(d.engine));
	check(&d, &expected);
	assert_true(stats(&d).misses > 0);
	background(&d);
	assert_true(engine_is_filled(d.engine));
	before = stats(&d);
	assert_int_equal(before.experts, 32);
	assert_int_equal(before.ready, 32);
	assert_int_equal(before.slots, 32);
	assert_int_equal(before.taken_bytes, before.arena_bytes);
	assert_int_equal(before.given_bytes, 0);
	assert_true(before.dense_bytes > 0 && before.dense_ns > 0);
	assert_true(before.memory_ns >= before.dense_ns);
	check(&d, &expected);
	assert_int_equal(stats(&d).misses, before.misses);
	assert_int_equal(stats(&d).reads, before.reads);
	assert_int_equal(engine_background(d.engine, true), ENGINE_IDLE);
	drive_stop(&d);
	drive_answers_free(&expected, 1);
}

/* It goes on while rows are computed, in every size of cache. */
static void test_between_tiles(void **state)
{
	static const enum drive_cache caches[] = {
		DRIVE_RESIDENT, DRIVE_AMPLE, DRIVE_SMALLEST, DRIVE_ONE};
	struct drive_answer expected;

	reference(&expected);
	for (size_t i = 0; i < 4; i++) {
		struct drive_how how = {.path = path,
			.cache = caches[i],
			.bare = true,
			.background = true,
			.threads = 1 + i % 2};
		struct drive d;

		drive_start(&d, &how);
		check(&d, &expected);
		check(&d, &expected);
		background(&d);
		assert_true(engine_is_filled(d.engine));
		assert_int_equal(stats(&d).ready, stats(&d).slots);
		assert_int_equal(stats(&d).slots, caches[i] == DRIVE_RESIDENT ? 32
						  : caches[i] == DRIVE_AMPLE  ? 31
						  : caches[i] == DRIVE_ONE    ? 1
									      : 4);
		check(&d, &expected);
		drive_stop(&d);
	}
	drive_answers_free(&expected, 1);
}

/* Stopped anywhere: nothing more is read that nobody wants, but answers go on. */
static void test_stop(void **state)
{
	struct drive_how how = {.path = path, .cache = DRIVE_RESIDENT, .bare = true};
	struct drive_answer expected;

	reference(&expected);
	for (unsigned steps = 0; steps < 40; steps += 1 + steps / 4) {
		struct drive d;
		uint64_t reads;

		drive_start(&d, &how);
		for (unsigned i = 0; i < steps; i++)
			if (engine_background(d.engine, false) == ENGINE_WAITING)
				assert_int_equal(engine_wait(d.engine, CLOCK_NS_PER_MS), 0);
		engine_background_stop(d.engine);
		/* An expert of which a part was asked for comes whole. */
		for (unsigned i = 0; i < 100; i++)
			assert_int_equal(engine_wait(d.engine, CLOCK_NS_PER_S), 0);
		reads = stats(&d).reads;
		assert_int_equal(engine_background(d.engine, false), ENGINE_IDLE);
		assert_int_equal(engine_wait(d.engine, 0), 0);
		assert_int_equal(stats(&d).reads, reads);
		check(&d, &expected);
		drive_stop(&d);
	}
	drive_answers_free(&expected, 1);
}

/* Pressure while memory is still to come: that goes first, and comes again. */
static void test_pressure_at_start(void **state)
{
	struct drive_how how = {.path = path, .cache = DRIVE_RESIDENT, .bare = true, .threads = 2};
	struct drive_answer expected;
	struct drive d;

	reference(&expected);
	drive_start(&d, &how);
	assert_true(engine_give_back(d.engine) > 0);
	assert_true(stats(&d).given_bytes > 0);
	assert_true(stats(&d).slots < 32);
	check(&d, &expected);
	background(&d);
	assert_true(stats(&d).ready < 32);
	while (engine_take_again(d.engine) > 0)
		;
	assert_int_equal(stats(&d).given_bytes, 0);
	assert_false(engine_is_filled(d.engine));
	background(&d);
	assert_int_equal(stats(&d).ready, 32);
	check(&d, &expected);
	drive_stop(&d);
	drive_answers_free(&expected, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_give_and_take),
		cmocka_unit_test(test_less),
		cmocka_unit_test(test_background),
		cmocka_unit_test(test_between_tiles),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_pressure_at_start),
	};

	return cmocka_run_group_tests(tests, make, clean);
}
