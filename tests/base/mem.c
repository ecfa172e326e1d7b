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

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "cleanup.h"
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
	assert_int_equal(mem_arena_take(a, base + 2 * MIB, 4 * MIB), 0);
	assert_int_equal(mem_arena_locked(a), locked);
	for (size_t i = 2 * MIB; i < 6 * MIB; i++)
		assert_int_equal(base[i], 0); /* the content is lost */
	assert_int_equal(base[6 * MIB], 'x');

	/* Only whole huge pages of this arena. */
	assert_int_equal(mem_arena_give_back(a, base + 1, 2 * MIB), -EINVAL);
	assert_int_equal(mem_arena_give_back(a, base, 2 * MIB - 1), -EINVAL);
	assert_int_equal(mem_arena_give_back(a, base + 64 * MIB, 4 * MIB), -EINVAL);
	assert_int_equal(mem_arena_give_back(a, base - 2 * MIB, 2 * MIB), -EINVAL);
	assert_int_equal(mem_arena_take(a, base, SIZE_MAX - 2 * MIB + 1), -EINVAL);
	mem_arena_free(a);
}

/* In a child without the right to lock more than the limit says, which root has. */
static void in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
		struct __user_cap_data_struct caps[2];

		if (syscall(SYS_capget, &header, caps) < 0)
			_exit(2);
		caps[0].effective &= ~(1u << CAP_IPC_LOCK);
		if (syscall(SYS_capset, &header, caps) < 0)
			_exit(2);
		fn();
		_exit(3); /* fn() ends the child itself */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* That n bytes are too many; under a sanitizer mlock(2) does nothing and always succeeds. */
static bool is_refused(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool refused = mlock(p, n) < 0;

	return munmap(p, n) == 0 && refused;
}

static void expect_refused(rlim_t limit, int code)
{
	struct rlimit low = {limit, limit};
	struct error err = ERROR_NONE;
	struct mem_arena *a = NULL;
	bool ok = setrlimit(RLIMIT_MEMLOCK, &low) == 0;

	if (ok && !is_refused(MIB))
		_exit(0);
	ok = ok && mem_arena_new(&a, 4 * MIB, MEM_LOCK, NULL, NULL, &err) == code && !a &&
	     strstr(err.text, "LimitMEMLOCK=") && strstr(err.text, "ulimit -l") &&
	     mem_arena_new(&a, 4 * MIB, MEM_TRY_LOCK, NULL, NULL, NULL) == 0 &&
	     mem_arena_locked(a) == 0;

	mem_arena_free(a);
	_exit(ok ? 0 : 1);
}

static void little_may_be_locked(void)
{
	expect_refused(65536, -ENOMEM);
}

static void nothing_may_be_locked(void)
{
	expect_refused(0, -EPERM);
}

/* The first chunk can be locked, the second cannot: all or nothing. */
static void part_may_be_locked(void)
{
	struct rlimit low = {65 * MIB, 65 * MIB};
	struct error err = ERROR_NONE;
	struct mem_arena *a = NULL;
	bool ok = setrlimit(RLIMIT_MEMLOCK, &low) < 0 || /* not allowed that much */
		  !is_refused(66 * MIB) ||
		  (mem_arena_new(&a, 66 * MIB, MEM_LOCK, NULL, NULL, &err) == -ENOMEM && !a &&
			  mem_arena_new(&a, 66 * MIB, MEM_TRY_LOCK, NULL, NULL, &err) == 0 &&
			  mem_arena_locked(a) == 0 && (mem_arena_free(a), true) &&
			  mem_arena_new(&a, 64 * MIB, MEM_LOCK, NULL, NULL, &err) == 0 &&
			  mem_arena_locked(a) == 64 * MIB);

	mem_arena_free(a);
	_exit(ok ? 0 : 1);
}

static void no_address_space(void)
{
	struct rlimit low = {1 << 20, 1 << 20};
	struct error err = ERROR_NONE;
	struct mem_arena *a = NULL;
	bool ok = setrlimit(RLIMIT_AS, &low) == 0 &&
		  mem_arena_new(&a, 4 * MIB, MEM_LOCK, NULL, NULL, &err) == -ENOMEM && !a &&
		  strstr(err.text, "address space");

	_exit(ok ? 0 : 1);
}

static void test_refused(void **state)
{
	in_child(little_may_be_locked);
	in_child(nothing_may_be_locked);
	in_child(part_may_be_locked);
	in_child(no_address_space);
}

/* What the kernel knows of the arena: not dumped ("dd"), not inherited ("dc"). */
static void test_flags(void **state)
{
	cleanup_free_ char *line = NULL;
	struct mem_arena *a;
	unsigned long base, begin, end;
	bool inside = false, seen = false;
	size_t room = 0;
	FILE *f;

	assert_int_equal(mem_arena_new(&a, 2 * MIB, 0, NULL, NULL, NULL), 0);
	base = (unsigned long)(uintptr_t)mem_arena_base(a);
	f = fopen("/proc/self/smaps", "re");
	assert_non_null(f);
	while (getline(&line, &room, f) > 0) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			inside = begin <= base && base < end;
		if (!inside || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		seen = true;
		assert_non_null(strstr(line, " dd"));
		assert_non_null(strstr(line, " dc"));
	}
	assert_true(seen);
	assert_int_equal(fclose(f), 0);
	mem_arena_free(a);
}

/* None before it is taken; all of it where the kernel gives huge pages to those who ask. */
static void test_huge(void **state)
{
	char text[128] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
	struct error err = ERROR_NONE;
	struct mem_arena *a;
	bool given = f && fgets(text, sizeof text, f) && !strstr(text, "[never]");

	(void)state;
	if (f)
		(void)fclose(f);
	assert_int_equal(mem_arena_reserve(&a, 8 * MIB, 0, &err), 0);
	assert_int_equal(mem_arena_huge(a), 0);
	assert_int_equal(mem_arena_take(a, mem_arena_base(a), 4 * MIB), 0);
	assert_true(mem_arena_huge(a) <= 4 * MIB);
	if (given)
		assert_true(mem_arena_huge(a) > 0);
	mem_arena_free(a);
}

/* root ignores the limit; test_refused() is for it. */
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
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_lock_limit),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
