/* SPDX-License-Identifier: MIT */

/* Threads that take an arena's pages: order, gaps, waiting, and where there is no more memory. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "clock.h"
#include "taker.h"

#define MIB ((size_t)1 << 20)
#define FOREVER (100 * CLOCK_NS_PER_S)

/* Whether the kernel has a page at p. */
static bool is_there(void *p)
{
	unsigned char there = 0;

	assert_int_equal(mincore(p, 4096, &there), 0);
	return there & 1;
}

static void test_ranges(void **state)
{
	static const struct taker_range ranges[] = {
		{8 * MIB, 4 * MIB}, {0, 2 * MIB}, {6 * MIB, 0}, {2 * MIB, 4 * MIB}};
	char *base;

	for (unsigned threads = 1; threads <= 4; threads++) {
		struct mem_arena *a;
		struct taker *t;

		assert_int_equal(mem_arena_reserve(&a, 14 * MIB, 0, NULL), 0);
		base = mem_arena_base(a);
		assert_int_equal(mem_arena_taken(a), 0);
		assert_int_equal(taker_new(&t, a, ranges, 4, threads), 0);
		assert_int_equal(taker_wait(t, 3 * MIB, FOREVER), 1);
		assert_true(taker_done(t) >= 4 * MIB);
		assert_true(is_there(base + 8 * MIB) && is_there(base + 12 * MIB - 4096));
		assert_int_equal(taker_wait(t, 10 * MIB, FOREVER), 1);
		assert_int_equal(taker_wait(t, 10 * MIB, 0), 1);
		assert_int_equal(taker_done(t), 10 * MIB);
		assert_int_equal(mem_arena_taken(a), 10 * MIB);
		assert_true(is_there(base) && is_there(base + 6 * MIB - 4096));
		assert_false(is_there(base + 6 * MIB));
		assert_false(is_there(base + 12 * MIB));
		/* Nobody waits for what is in no range, but for so long. */
		assert_int_equal(taker_wait(t, 12 * MIB, CLOCK_NS_PER_MS), 0);
		assert_null(taker_free(t));
		mem_arena_free(a);
	}
	assert_null(taker_free(NULL));
}

static void test_stop(void **state)
{
	static const struct taker_range all = {0, 512 * MIB};
	struct mem_arena *a;
	struct taker *t;

	assert_int_equal(mem_arena_reserve(&a, all.size, 0, NULL), 0);
	assert_int_equal(taker_new(&t, a, &all, 1, 2), 0);
	assert_int_equal(taker_wait(t, 1, FOREVER), 1);
	taker_free(t);
	assert_in_range(mem_arena_taken(a), 2 * MIB, 511 * MIB);
	mem_arena_free(a);
}

/* Pages that somebody else takes too, as the engine does for keys, are counted once. */
static void test_together(void **state)
{
	static const struct taker_range all = {0, 64 * MIB};
	struct mem_arena *a;
	struct taker *t;
	char *base;

	assert_int_equal(mem_arena_reserve(&a, all.size, 0, NULL), 0);
	base = mem_arena_base(a);
	assert_int_equal(taker_new(&t, a, &all, 1, 2), 0);
	for (size_t at = all.size; at > 0; at -= 2 * MIB) {
		assert_int_equal(mem_arena_take(a, base + at - 2 * MIB, 2 * MIB), 0);
		base[at - 1] = 'x';
	}
	assert_int_equal(taker_wait(t, all.size, FOREVER), 1);
	assert_int_equal(mem_arena_taken(a), all.size);
	for (size_t at = all.size; at > 0; at -= 2 * MIB)
		assert_int_equal(base[at - 1], 'x');
	taker_free(t);
	assert_int_equal(mem_arena_give_back(a, base, all.size), 0);
	assert_int_equal(mem_arena_taken(a), 0);
	mem_arena_free(a);
}

/* A range that cannot be had: what was unmapped behind the arena's back. */
static void test_no_more(void **state)
{
	static const struct taker_range all = {0, 64 * MIB};

	for (unsigned threads = 1; threads <= 3; threads++) {
		struct mem_arena *a;
		struct taker *t;
		char *hole;

		assert_int_equal(mem_arena_reserve(&a, all.size, 0, NULL), 0);
		hole = (char *)mem_arena_base(a) + 32 * MIB;
		assert_int_equal(munmap(hole, 2 * MIB), 0);
		assert_int_equal(taker_new(&t, a, &all, 1, threads), 0);
		assert_int_equal(taker_wait(t, 34 * MIB, FOREVER), -ENOMEM);
		assert_int_equal(taker_done(t), 32 * MIB);
		assert_int_equal(taker_wait(t, 32 * MIB, FOREVER), 1);
		assert_int_equal(taker_wait(t, 64 * MIB, 0), -ENOMEM);
		taker_free(t);
		assert_in_range(mem_arena_taken(a), 32 * MIB, 62 * MIB);
		mem_arena_free(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_together),
		cmocka_unit_test(test_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
