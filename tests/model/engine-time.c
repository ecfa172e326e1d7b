/* SPDX-License-Identifier: MIT */

/*
 * Where the time goes: the buckets together are the whole time between two marks, each is filled by
 * what it is named for, and by nothing else.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "engine-drive.h"
#include "fd.h"
#include "maker.h"

#define N 20u
#define STEPS 8u
#define BIT(t) (1u << ENGINE_TIME_##t)

enum {
	OUTSIDE = BIT(SCHEDULE) | BIT(EMBED) | BIT(HEAD) | BIT(SAMPLE),
	DENSE = BIT(NORM) | BIT(QKV) | BIT(ROPE) | BIT(ATTENTION) | BIT(OUTPUT) | BIT(GATE_UP) |
		BIT(DOWN) | BIT(SUM),
	MOE = DENSE | BIT(ROUTER) | BIT(CACHE),
	STREAMED = MOE | BIT(WAIT),
};

static char moe[] = "./engine-time-XXXXXX", dense[] = "./engine-time-XXXXXX";

static int make_one(char *path, bool is_dense)
{
	struct maker_model model = MAKER_MODEL;
	struct maker m;
	int fd = mkstemp(path), r;

	if (fd < 0)
		return -1;
	model.dense = is_dense;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	r = fd_write_all(fd, m.bytes, m.n);
	maker_deinit(&m);
	return close(fd) < 0 || r < 0 ? -1 : 0;
}

static int make(void **state)
{
	return make_one(moe, false) || make_one(dense, true) ? -1 : 0;
}

static int clean(void **state)
{
	return unlink(moe) || unlink(dense) ? -1 : 0;
}

static uint64_t sum(const struct engine_stats *s, unsigned but)
{
	uint64_t all = 0;

	for (unsigned c = 0; c < ENGINE_CONTEXTS; c++) {
		for (unsigned y = 0; y < ENGINE_LAYERS; y++) {
			for (unsigned t = 0; t < ENGINE_TIMES; t++)
				all += but & 1u << t ? 0 : s->times.ns[c][y][t];
		}
	}
	return all;
}

/* Exactly these buckets are filled. */
static void check_filled(const struct engine_stats *s, enum engine_layer y, unsigned which)
{
	for (unsigned c = 0; c < ENGINE_CONTEXTS; c++) {
		for (unsigned t = 0; t < ENGINE_TIMES; t++) {
			if (!(which & 1u << t) == !s->times.ns[c][y][t])
				continue;
			fail_msg("context %u, %s, %s: %llu ns", c, engine_layer_name(y),
				engine_time_name(t), (unsigned long long)s->times.ns[c][y][t]);
		}
	}
}

/* Prompts, some while others are answered, between two marks that the clock here surrounds. */
static void check(const struct drive_how *how, enum engine_layer y, unsigned which)
{
	static const uint32_t ids[N] = {1, 5, 9, 2, 7, 11, 3};
	struct drive_text texts[3];
	struct drive_answer answers[3];
	struct engine_stats before, after;
	uint64_t t[4], took;
	struct drive d;

	for (unsigned i = 0; i < 3; i++)
		texts[i] = (struct drive_text){ids, N - i * 5, SAMPLER_DEFAULT};
	drive_start(&d, how);
	t[0] = clock_now();
	engine_rested(d.engine);
	t[1] = clock_now();
	engine_stats(d.engine, &before);
	assert_int_equal(sum(&before, 0), 0);
	drive_run(&d, texts, 3, STEPS, true, 6, answers);
	t[2] = clock_now();
	engine_rested(d.engine);
	t[3] = clock_now();
	engine_stats(d.engine, &after);
	took = sum(&after, 0) + after.times.idle_ns - before.times.idle_ns;
	assert_in_range(took, t[2] - t[1], t[3] - t[0]);
	check_filled(&after, ENGINE_LAYER_NONE, OUTSIDE);
	check_filled(&after, y, which);
	check_filled(&after, y == ENGINE_LAYER_MOE ? ENGINE_LAYER_DENSE : ENGINE_LAYER_MOE, 0);
	assert_int_equal(sum(&after, ~BIT(WAIT)), after.wait_ns);
	/* Where no tile waits for reads, all marks lie in tiles. */
	if (!(which & BIT(WAIT)))
		assert_int_equal(sum(&after, BIT(SCHEDULE)), after.compute_ns);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(answers[i].code, 0);
	drive_answers_free(answers, 3);
	drive_stop(&d);
}

static void test_resident(void **state)
{
	check(&(struct drive_how){.path = moe, .cache = DRIVE_RESIDENT}, ENGINE_LAYER_MOE, MOE);
}

static void test_team(void **state)
{
	check(&(struct drive_how){.path = moe, .cache = DRIVE_RESIDENT, .threads = 3},
		ENGINE_LAYER_MOE, MOE);
}

static void test_streamed(void **state)
{
	check(&(struct drive_how){.path = moe, .cache = DRIVE_ONE}, ENGINE_LAYER_MOE, STREAMED);
}

static void test_dense(void **state)
{
	check(&(struct drive_how){.path = dense, .cache = DRIVE_RESIDENT}, ENGINE_LAYER_DENSE,
		DENSE);
}

static void test_names(void **state)
{
	for (unsigned t = 0; t < ENGINE_TIMES; t++)
		assert_non_null(engine_time_name(t));
	for (unsigned y = 0; y < ENGINE_LAYERS; y++)
		assert_non_null(engine_layer_name(y));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resident),
		cmocka_unit_test(test_team),
		cmocka_unit_test(test_streamed),
		cmocka_unit_test(test_dense),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, make, clean);
}
