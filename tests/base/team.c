/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "limit.h"
#include "team.h"

#define ITEMS 1000u

struct job {
	unsigned calls[LIMIT_THREADS];
	unsigned workers;
	unsigned char seen[ITEMS];
	struct team_shares shares;
	atomic_uint total;
	atomic_bool under_way;
};

/* Worker 0 stays until all have come. */
static void meet(void *arg, unsigned worker, unsigned workers)
{
	struct job *j = arg;

	assert_true(worker < workers);
	j->calls[worker]++; /* own cell: a race only if the team breaks its word */
	atomic_fetch_add(&j->total, 1);
	while (worker == 0 && atomic_load(&j->total) % workers)
		sched_yield();
}

/* Nobody stays: who comes late must not come at all. */
static void brief(void *arg, unsigned worker, unsigned workers)
{
	struct job *j = arg;

	atomic_fetch_add(&j->total, 1);
	assert_true(atomic_load(&j->under_way));
}

static void take_work(void *arg, unsigned worker, unsigned workers)
{
	struct job *j = arg;
	uint32_t begin, end;

	while (team_shares_take(&j->shares, worker, &begin, &end))
		for (uint32_t i = begin; i < end; i++)
			j->seen[i]++;
}

static void test_sizes(void **state)
{
	static const unsigned sizes[] = {1, 2, 3, 8, 33};

	for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
		struct job *j = calloc(1, sizeof *j);
		struct team *t;

		assert_int_equal(team_new(&t, sizes[s]), 0);
		assert_int_equal(team_size(t), sizes[s]);
		for (unsigned n = 1; n <= 100; n++) {
			team_run(t, meet, j);
			/* All have returned, and what they wrote is seen here without a lock. */
			assert_int_equal(atomic_load(&j->total), n * sizes[s]);
			for (unsigned w = 0; w < sizes[s]; w++)
				assert_int_equal(j->calls[w], n);
		}
		memset(j, 0, sizeof *j);
		for (unsigned n = 1; n <= 50; n++) {
			team_shares_init(&j->shares, sizes[s], ITEMS, 7, 7);
			team_run(t, take_work, j);
			for (size_t i = 0; i < ITEMS; i++)
				assert_int_equal(j->seen[i], n);
		}
		/* Once asleep, they wake again. */
		atomic_store(&j->total, 0);
		usleep(5000);
		team_run(t, meet, j);
		assert_null(team_free(t));
		free(j);
	}
}

static void test_ends(void **state)
{
	struct team *t = NULL;

	assert_int_equal(team_new(&t, 0), -EINVAL);
	assert_int_equal(team_new(&t, LIMIT_THREADS + 1), -EINVAL);
	assert_null(t);
	assert_null(team_free(NULL));
	/* Ended before, while and after its threads start. */
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(team_new(&t, 5), 0);
		if (i % 2)
			usleep(i * 10);
		team_free(t);
	}
}

static void test_late(void **state)
{
	struct job *j = calloc(1, sizeof *j);
	struct team *t;

	assert_int_equal(team_new(&t, 9), 0);
	for (unsigned n = 1; n <= 5000; n++) {
		atomic_store(&j->total, 0);
		atomic_store(&j->under_way, true);
		team_run(t, brief, j);
		atomic_store(&j->under_way, false);
		assert_in_range(atomic_load(&j->total), 1, 9);
		if (n % 1000 == 0)
			usleep(1000);
	}
	team_free(t);
	free(j);
}

/* All items once; each worker's own first and in order, then others' from the back. */
static void test_shares(void **state)
{
	static struct team_shares shares;

	for (unsigned workers = 1; workers < 6; workers++)
		for (uint32_t n = 0; n < 200; n += 13)
			for (uint32_t piece = 1; piece < 70; piece += 17) {
				unsigned char seen[200] = {0};
				uint32_t begin, end, taken = 0;

				team_shares_init(&shares, workers, n, piece, (piece + 1) / 2);
				while (team_shares_take(&shares, workers - 1, &begin, &end)) {
					assert_in_range(end, begin + 1, begin + piece);
					assert_true(end <= n);
					for (uint32_t i = begin; i < end; i++)
						assert_int_equal(seen[i]++, 0);
					taken += end - begin;
				}
				assert_int_equal(taken, n);
				assert_false(team_shares_take(&shares, 0, &begin, &end));
			}
	team_shares_init(&shares, 2, 24, 6, 2);
	{
		/* Halves of what is left of each share, at most 6 and at least 1. */
		static const uint32_t order[][2] = {
			{0, 6}, {6, 9}, {9, 11}, {11, 12}, {18, 24}, {15, 18}, {13, 15}, {12, 13}};

		for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
			uint32_t begin, end;

			assert_true(team_shares_take(&shares, 0, &begin, &end));
			assert_int_equal(begin, order[i][0]);
			assert_int_equal(end, order[i][1]);
		}
	}
}

struct places {
	cpu_set_t of[LIMIT_THREADS];
	atomic_uint total;
};

static void note_place(void *arg, unsigned worker, unsigned workers)
{
	struct places *p = arg;

	assert_return_code(sched_getaffinity(0, sizeof p->of[worker], &p->of[worker]), errno);
	atomic_fetch_add(&p->total, 1);
	while (worker == 0 && atomic_load(&p->total) < workers)
		sched_yield();
}

static void *pinned(void *arg)
{
	struct places *p = arg;
	cpu_set_t allowed;
	struct team *t;

	assert_return_code(sched_getaffinity(0, sizeof allowed, &allowed), errno);
	assert_int_equal(team_new(&t, (unsigned)CPU_COUNT(&allowed) + 1), 0);
	assert_int_equal(team_pin(t), 0);
	team_run(t, note_place, p);
	team_free(t);
	return NULL;
}

/* In a thread of its own, since the caller is bound too. */
static void test_pin(void **state)
{
	struct places *p = calloc(1, sizeof *p);
	cpu_set_t allowed, all;
	unsigned n;
	pthread_t thread;

	CPU_ZERO(&all);
	assert_return_code(sched_getaffinity(0, sizeof allowed, &allowed), errno);
	n = (unsigned)CPU_COUNT(&allowed);
	assert_int_equal(pthread_create(&thread, NULL, pinned, p), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(atomic_load(&p->total), n + 1);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(CPU_COUNT(&p->of[i]), 1);
		CPU_OR(&all, &all, &p->of[i]);
	}
	assert_true(CPU_EQUAL(&all, &allowed));
	assert_true(CPU_EQUAL(&p->of[n], &p->of[0]));
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_pin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
