/* SPDX-License-Identifier: MIT */

/* The memory limit from made-up proc and sys folders. */

#include "memory-limit.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static char root[64];

/* Writes a file below the root, its folders too. */
static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	(void)snprintf(full, sizeof full, "%s/%s", root, path);
	for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		(void)mkdir(full, 0700);
		*s = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "/tmp/moed-memory-limit-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	put("proc/meminfo",
		"MemTotal:       4194304 kB\nMemFree: 1 kB\nMemAvailable:   2097152 kB\n");
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct memory_limit find(uint64_t wanted)
{
	struct memory_limit m;

	assert_int_equal(memory_limit_find(&m, wanted, root, NULL), 0);
	return m;
}

static void no_groups(void **state)
{
	struct memory_limit m;
	uint64_t whole;

	(void)state;
	m = find(0);
	assert_int_equal(m.bytes, 2048 * MIB - MEMORY_LIMIT_RESERVE);
	assert_int_equal(m.source, MEMORY_LIMIT_AVAILABLE);
	m = find(512 * MIB);
	assert_int_equal(m.bytes, 512 * MIB);
	assert_int_equal(m.source, MEMORY_LIMIT_WANTED);
	assert_int_equal(memory_limit_whole(&whole, root, NULL), 0);
	assert_int_equal(whole, 4096 * MIB);
}

static void v2(void **state)
{
	struct memory_limit m;
	uint64_t whole;

	(void)state;
	put("proc/self/cgroup", "0::/system.slice/moed.service\n");
	put("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
	put("sys/fs/cgroup/system.slice/moed.service/memory.max", "max\n");
	put("sys/fs/cgroup/system.slice/memory.max", "805306368\n");
	m = find(0);
	assert_int_equal(m.bytes, 768 * MIB);
	assert_int_equal(m.source, MEMORY_LIMIT_CGROUP);
	assert_non_null(strstr(m.path, "system.slice/memory.max"));
	/* Above it whoever takes more is slowed down. */
	put("sys/fs/cgroup/system.slice/moed.service/memory.high", "536870912\n");
	assert_int_equal(find(0).bytes, 536870912);
	assert_non_null(strstr(find(0).path, "moed.service/memory.high"));
	put("sys/fs/cgroup/system.slice/moed.service/memory.high", "max\n");
	put("sys/fs/cgroup/system.slice/moed.service/memory.max", "268435456\n");
	assert_int_equal(find(0).bytes, 256 * MIB);
	assert_int_equal(find(512 * MIB).bytes, 256 * MIB);
	assert_int_equal(find(100 * MIB).bytes, 100 * MIB);
	assert_int_equal(memory_limit_whole(&whole, root, NULL), 0);
	assert_int_equal(whole, 256 * MIB);
	/* The root of the hierarchy counts as well: that of a container. */
	put("sys/fs/cgroup/memory.max", "104857600\n");
	assert_int_equal(find(0).bytes, 100 * MIB);
}

static void v1(void **state)
{
	(void)state;
	put("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n");
	put("proc/self/mountinfo",
		"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuset\n"
		"34 31 0:31 / /sys/fs/cgroup/mem rw - cgroup cgroup rw,memory\n");
	put("sys/fs/cgroup/mem/a/memory.limit_in_bytes", "314572800\n");
	put("sys/fs/cgroup/mem/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	assert_int_equal(find(0).bytes, 300 * MIB);
	assert_int_equal(find(0).source, MEMORY_LIMIT_CGROUP);
}

/* A mount that shows only the container's part of the hierarchy. */
static void container(void **state)
{
	(void)state;
	put("proc/self/cgroup", "4:memory:/docker/abc/in\n");
	put("proc/self/mountinfo",
		"32 31 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
	put("sys/fs/cgroup/memory/memory.limit_in_bytes", "209715200\n");
	put("sys/fs/cgroup/memory/in/memory.limit_in_bytes", "419430400\n");
	assert_int_equal(find(0).bytes, 200 * MIB);
}

/* The mount that shows this group counts, not the first of its kind; a blank in its name. */
static void several_mounts(void **state)
{
	(void)state;
	put("proc/self/cgroup", "0::/box/abc\n");
	put("proc/self/mountinfo", "29 23 0:26 /box/ab /other rw - cgroup2 cgroup2 rw\n"
				   "30 23 0:26 /box/abc /my\\040groups rw - cgroup2 cgroup2 rw\n");
	put("other/memory.max", "1048576\n");
	put("otherc/memory.max", "1048576\n");
	put("my groups/memory.max", "314572800\n");
	assert_int_equal(find(0).bytes, 300 * MIB);
	assert_non_null(strstr(find(0).path, "/my groups/memory.max"));
	/* None shows it: the mount point's own limit is all that is known. */
	put("proc/self/cgroup", "0::/../elsewhere\n");
	assert_int_equal(find(0).bytes, MIB);
}

/* v1 beside an empty v2; the least of all levels; a limit larger than the machine. */
static void hybrid(void **state)
{
	(void)state;
	put("proc/self/cgroup", "12:memory:/u/s/x\n1:name=systemd:/u\n0::/u\n");
	put("proc/self/mountinfo",
		"33 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		"34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
	put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("sys/fs/cgroup/memory/u/s/x/memory.limit_in_bytes", "9223372036854771712\n");
	assert_int_equal(find(0).bytes, 2048 * MIB - MEMORY_LIMIT_RESERVE);
	assert_int_equal(find(0).source, MEMORY_LIMIT_AVAILABLE);
	assert_int_equal(find(3000 * MIB).bytes, 3000 * MIB);
	put("sys/fs/cgroup/memory/u/s/memory.limit_in_bytes", "524288000\n");
	put("sys/fs/cgroup/memory/u/memory.limit_in_bytes", "629145600\n");
	assert_int_equal(find(0).bytes, 500 * MIB);
	assert_int_equal(find(3000 * MIB).bytes, 500 * MIB);
	/* Allowed by the group, but not there. */
	put("sys/fs/cgroup/memory/u/s/memory.limit_in_bytes", "3145728000\n");
	put("sys/fs/cgroup/memory/u/memory.limit_in_bytes", "3145728000\n");
	assert_int_equal(find(0).bytes, 2048 * MIB - MEMORY_LIMIT_RESERVE);
}

static void broken(void **state)
{
	struct memory_limit m;

	(void)state;
	put("proc/self/cgroup", "no colon\n::\n0::\n0::/x\n4:memory\n");
	put("proc/self/mountinfo", "\n - \n29 23 0:26 / - cgroup2\n1 2 3 / /c rw - cgroup2 x y\n");
	put("c/x/memory.max", "-5\n");
	put("c/memory.max", "");
	assert_int_equal(find(64 * MIB).bytes, 64 * MIB);
	put("proc/meminfo", "MemTotal: x kB\n");
	assert_true(memory_limit_find(&m, 0, root, NULL) < 0);
	put("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 100 kB\n");
	assert_int_equal(memory_limit_find(&m, 0, root, NULL), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_groups, setup, teardown),
		cmocka_unit_test_setup_teardown(v2, setup, teardown),
		cmocka_unit_test_setup_teardown(v1, setup, teardown),
		cmocka_unit_test_setup_teardown(container, setup, teardown),
		cmocka_unit_test_setup_teardown(several_mounts, setup, teardown),
		cmocka_unit_test_setup_teardown(hybrid, setup, teardown),
		cmocka_unit_test_setup_teardown(broken, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
