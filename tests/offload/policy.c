/* SPDX-License-Identifier: MIT */

/* The policy gives up the least recently used slot that may go, and nothing else. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy.h"

#define SLOTS 16u

static bool any(void *arg, uint32_t slot)
{
	return true;
}

static bool not_marked(void *arg, uint32_t slot)
{
	return !((const bool *)arg)[slot];
}

static void test_order(void **state)
{
	struct policy *p;

	assert_int_equal(policy_new(&p, 4, 1), 0);
	assert_int_equal(policy_victim(p, any, NULL), -1);
	for (uint32_t i = 0; i < 4; i++)
		policy_insert(p, i, 0, i);
	assert_int_equal(policy_victim(p, any, NULL), 0);
	policy_touch(p, 0);
	assert_int_equal(policy_victim(p, any, NULL), 1);
	policy_remove(p, 1);
	assert_int_equal(policy_victim(p, any, NULL), 2);
	policy_touch(p, 1); /* not there: stays away */
	policy_touch(p, 2);
	assert_int_equal(policy_victim(p, any, NULL), 3);
	policy_insert(p, 3, 1, 7); /* another expert in the same slot */
	assert_int_equal(policy_victim(p, any, NULL), 0);
	policy_remove(p, 0);
	policy_remove(p, 0);
	policy_remove(p, 2);
	policy_remove(p, 3);
	assert_int_equal(policy_victim(p, any, NULL), -1);
	/* Slots that are not ours change nothing. */
	policy_insert(p, 4, 0, 0);
	policy_touch(p, 99);
	policy_remove(p, UINT32_MAX);
	assert_int_equal(policy_victim(p, any, NULL), -1);
	assert_null(policy_free(p));
	assert_null(policy_free(NULL));
	assert_int_equal(policy_new(&p, UINT32_MAX, 1), -EINVAL);
}

/* Against times of use in an array. */
static void test_random(void **state)
{
	uint64_t used[SLOTS] = {0}, now = 0;
	bool marked[SLOTS] = {false};
	struct policy *p;

	assert_int_equal(policy_new(&p, SLOTS, 1), 0);
	srand(7);
	for (unsigned n = 0; n < 20000; n++) {
		uint32_t slot = (uint32_t)rand() % SLOTS;
		int64_t expected = -1;

		switch (rand() % 5) {
		case 0:
			policy_insert(p, slot, 0, slot);
			used[slot] = ++now;
			break;
		case 1:
		case 2:
			policy_touch(p, slot);
			if (used[slot])
				used[slot] = ++now;
			break;
		case 3:
			policy_remove(p, slot);
			used[slot] = 0;
			break;
		default:
			marked[slot] = !marked[slot];
		}
		for (uint32_t i = 0; i < SLOTS; i++)
			if (used[i] && !marked[i] && (expected < 0 || used[i] < used[expected]))
				expected = i;
		assert_int_equal(policy_victim(p, not_marked, marked), expected);
	}
	policy_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
