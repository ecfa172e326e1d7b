/* SPDX-License-Identifier: MIT */

/*
 * Memory of slots given back under pressure, and taken again: the tokens stay the same, the slots
 * become fewer and come back.  The model is made here, since those of tests/data are smaller than a
 * huge page.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine-drive.h"
#include "fd.h"
#include "maker.h"
#include "mem.h"

#define N 40u
#define STEPS 8u

static char path[] = "./engine-give-XXXXXX";
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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_give_and_take)};

	return cmocka_run_group_tests(tests, make, clean);
}
