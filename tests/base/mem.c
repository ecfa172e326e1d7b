/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "mem.h"

#define MIB ((size_t)1 << 20)

static size_t progress_last, progress_calls;

static void progress(void *arg, size_t done, size_t all)
{
	assert_true(done > progress_last && done <= all);
	progress_last = done;
	progress_calls++;
}

static void test_alloc(void **state)
{
	struct mem_arena *a;
	struct error err = ERROR_NONE;
	char *p, *q;

	assert_int_equal(mem_arena_new(&a, 3 * MIB, 0, NULL, NULL, &err), 0);
	assert_int_equal(mem_arena_size(a), 4 * MIB);
	assert_int_equal((uintptr_t)mem_arena_base(a) % MEM_HUGE_PAGE, 0);
	p = mem_arena_alloc(a, 100, 64);
	q = mem_arena_alloc(a, 1, 4096);
	assert_ptr_equal(p, mem_arena_base(a));
	assert_ptr_equal(q, p + 4096);
	assert_int_equal(mem_arena_used(a), 4097);
	assert_null(mem_arena_alloc(a, 4 * MIB, 1));
	assert_null(mem_arena_alloc(a, SIZE_MAX, 4096));
	assert_null(mem_arena_alloc(a, SIZE_MAX - 4097, 1));
	assert_int_equal(mem_arena_used(a), 4097);
	p = mem_arena_alloc(a, 4 * MIB - 4097, 1);
	assert_non_null(p);
	for (size_t i = 0; i < 4 * MIB - 4097; i++)
		assert_int_equal(p[i], 0);
	assert_null(mem_arena_alloc(a, 1, 1));
	assert_null(mem_arena_free(a));
	assert_null(mem_arena_free(NULL));
}

static void test_too_large(void **state)
{
	struct mem_arena *a = NULL;
	struct error err = ERROR_NONE;

	assert_int_equal(mem_arena_new(&a, SIZE_MAX, 0, NULL, NULL, &err), -ERANGE);
	err = ERROR_NONE;
	assert_int_equal(mem_arena_new(&a, SIZE_MAX / 4, 0, NULL, NULL, &err), -ENOMEM);
	assert_true(strlen(err.text) > 0);
	assert_null(a);
}

static void test_give_back(void **state)
{
	struct mem_arena *a;
	char *base;

	assert_int_equal(mem_arena_new(&a, 66 * MIB, MEM_TRY_LOCK, progress, NULL, NULL), 0);
	assert_int_equal(progress_last, 66 * MIB);
	assert_int_equal(progress_calls, 2);
	base = mem_arena_base(a);
	memset(base, 'x', 8 * MIB);

	size_t locked = mem_arena_locked(a);

	assert_int_equal(mem_arena_give_back(a, base + 2 * MIB, 4 * MIB), 0);
	assert_true(locked == 0 || mem_arena_locked(a) == locked - 4 * MIB);
	assert_int_equal(base[2 * MIB - 1], 'x');
	assert_int_equal(base[6 * MIB], 'x');
	assert_int_equal(mem_arena_take_again(a, base + 2 * MIB, 4 * MIB), 0);
	assert_int_equal(mem_arena_locked(a), locked);
	for (size_t i = 2 * MIB; i < 6 * MIB; i++)
		assert_int_equal(base[i], 0); /* the content is lost */
	assert_int_equal(base[6 * MIB], 'x');

	/* Only whole huge pages of this arena. */
	assert_int_equal(mem_arena_give_back(a, base + 1, 2 * MIB), -EINVAL);
	assert_int_equal(mem_arena_give_back(a, base, 2 * MIB - 1), -EINVAL);
	assert_int_equal(mem_arena_give_back(a, base + 64 * MIB, 4 * MIB), -EINVAL);
	assert_int_equal(mem_arena_give_back(a, base - 2 * MIB, 2 * MIB), -EINVAL);
	assert_int_equal(mem_arena_take_again(a, base, SIZE_MAX - 2 * MIB + 1), -EINVAL);
	mem_arena_free(a);
}

/* root ignores the limit, so this proves something only for others; CI runs both. */
static void test_lock_limit(void **state)
{
	struct rlimit old, low = {.rlim_cur = 65536};
	struct error err = ERROR_NONE;
	struct mem_arena *a = NULL;
	int r;

	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
	low.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	r = mem_arena_new(&a, 4 * MIB, MEM_LOCK, NULL, NULL, &err);
	if (r < 0) {
		assert_non_null(strstr(err.text, "LimitMEMLOCK"));
		assert_int_equal(mem_arena_new(&a, 4 * MIB, MEM_TRY_LOCK, NULL, NULL, NULL), 0);
		assert_int_equal(mem_arena_locked(a), 0);
	} else {
		assert_int_equal(mem_arena_locked(a), 4 * MIB);
	}
	mem_arena_free(a);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &old), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alloc),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_give_back),
		cmocka_unit_test(test_lock_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
