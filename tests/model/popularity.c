/* SPDX-License-Identifier: MIT */

/* Counts of experts: what is added, where, and copies. */

#include "popularity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_add(void **state)
{
	static const uint32_t first[2] = {3, 0}, second[2] = {3, 7};
	static const float weights[2] = {0.75f, 0.25f};
	struct popularity p, copy;

	assert_int_equal(popularity_init(&p, 4, 8), 0);
	assert_int_equal(popularity_init(&copy, 4, 8), 0);
	for (int i = 0; i < 1000; ++i)
		popularity_add(&p, 2, first, weights, 2);
	popularity_add(&p, 2, second, weights, 2);
	popularity_add(&p, 3, second, weights, 1);
	p.resident[31] = 1;
	popularity_copy(&copy, &p);
	popularity_add(&p, 0, first, weights, 2);
	for (uint32_t i = 0; i < 32; ++i) {
		uint64_t uses = i == 19 ? 1001 : i == 16 ? 1000 : i == 23 || i == 27 ? 1 : 0;

		assert_int_equal(copy.uses[i], uses);
		assert_int_equal(copy.resident[i], i == 31);
	}
	assert_true(copy.weights[19] == 1001 * 0.75);
	assert_true(copy.weights[16] == 1000 * 0.25);
	assert_true(copy.weights[27] == 0.75);
	assert_true(copy.weights[31] == 0);
	assert_int_equal(p.uses[3], 1);
	popularity_deinit(&p);
	popularity_deinit(&copy);
}

static void test_none(void **state)
{
	struct popularity p, copy;

	assert_int_equal(popularity_init(&p, 4, 0), 0);
	assert_int_equal(popularity_init(&copy, 4, 0), 0);
	popularity_copy(&copy, &p);
	assert_int_equal(popularity_heap(4, 0), 0);
	assert_int_equal(popularity_heap(4, 8), 4 * 8 * 17);
	popularity_deinit(&p);
	popularity_deinit(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_add), cmocka_unit_test(test_none)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
