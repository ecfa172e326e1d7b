/* SPDX-License-Identifier: MIT */

/*
 * Files on several devices: each has reads of its own in flight, whatever the others do; an expert
 * may lie on two of them; and one that fails or stands still keeps nothing of the others back.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake-io.h"
#include "store.h"

#define ALIGN 512u
#define EXPERTS 16u
#define SIZE ((uint64_t)1 << 20)
#define SLOT (2 * (SIZE / 2 + ALIGN))
#define FILE_SIZE (34u << 20)

struct world {
	struct fake_io fake;
	struct file files[2];
	struct store_config config;
	struct store *store;
	uint32_t experts[1];
	bool halves; /* each expert lies half in one file, half in the other */
};

/* Even experts lie in file 0, odd ones in file 1. */
static void locate(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret)
{
	const struct world *w = arg;
	uint64_t at = expert * 2 * SIZE + 100;

	(void)group;
	*ret = (struct store_expert){.part = {{expert % 2, at, SIZE / 2},
					     {(expert + w->halves) % 2, at + SIZE, SIZE / 2}}};
}

/* A file on another device than the fake one's; only looked at, never read. */
static struct file elsewhere(void)
{
	char path[] = "/var/tmp/moed-disks-XXXXXX";
	int fd = mkstemp(path);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(fd, FILE_SIZE), 0);
	assert_int_equal(fstat(fd, &st), 0);
	return (struct file){.fd = fd,
		.direct = true,
		.align = ALIGN,
		.memory_align = ALIGN,
		.size = FILE_SIZE,
		.device = st.st_dev,
		.inode = st.st_ino,
		.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
		.path = strdup("elsewhere.gguf")};
}

static struct world *start(bool halves, bool apart)
{
	struct world *w = calloc(1, sizeof *w);
	struct error err = ERROR_NONE;
	void *memory = NULL;

	assert_non_null(w);
	fake_init(&w->fake, FILE_SIZE, ALIGN);
	w->fake.depth = FAKE_DEPTH_MAX;
	w->files[0] = w->files[1] = w->fake.file;
	if (apart)
		w->files[1] = elsewhere();
	w->halves = halves;
	w->experts[0] = EXPERTS;
	assert_int_equal(posix_memalign(&memory, 2 << 20, EXPERTS * SLOT), 0);
	w->config = (struct store_config){.io = &w->fake.io,
		.files = w->files,
		.n_files = 2,
		.groups = 1,
		.experts = w->experts,
		.locate = locate,
		.locate_arg = w,
		.memory = memory,
		.size = EXPERTS * SLOT};
	if (store_new(&w->store, &w->config, &err) < 0)
		fail_msg("%s", err.text);
	return w;
}

static void end(struct world *w)
{
	store_free(w->store);
	if (w->files[1].fd != w->fake.file.fd)
		file_close(&w->files[1]);
	fake_deinit(&w->fake);
	free(w->config.memory);
	free(w);
}

static size_t in_flight(const struct world *w, uint32_t file)
{
	size_t n = 0;

	for (size_t i = 0; i < w->fake.n_pending; i++)
		n += w->fake.pending[i].file == file;
	return n;
}

static void want(struct world *w, uint32_t first, uint32_t step)
{
	for (uint32_t e = first; e < EXPERTS; e += step)
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
}

static void check_content(struct world *w, uint32_t expert)
{
	struct store_expert x;
	struct store_view view;

	locate(w, 0, expert, &x);
	assert_int_equal(store_poll(w->store, 0, expert, &view), STORE_READY);
	for (unsigned p = 0; p < 2; p++)
		assert_true(fake_is_content(view.part[p], x.part[p].offset, x.part[p].size));
}

static void finish(struct world *w)
{
	w->fake.hold_back = false;
	while (store_in_flight(w->store) > 0)
		assert_true(store_reap(w->store, 1) >= 0);
	for (uint32_t e = 0; e < EXPERTS; e++)
		check_content(w, e);
}

/* 8 MiB of each wanted: half of that is in flight on each of two disks, or on one in all. */
static void test_parallel(void **state)
{
	(void)state;
	for (unsigned apart = 0; apart < 2; apart++) {
		struct world *w = start(false, apart);
		struct store_stats stats;

		w->fake.hold_back = true;
		want(w, 0, 1);
		store_get_stats(w->store, &stats);
		assert_int_equal(stats.disks, apart ? 2 : 1);
		if (apart) {
			assert_in_range(in_flight(w, 0), 8, 9);
			assert_in_range(in_flight(w, 1), 8, 9);
		} else {
			assert_in_range(w->fake.n_pending, 16, 17);
		}
		finish(w);
		end(w);
	}
}

/* What only one disk has is wanted: the other stands still, and nothing is held back for it. */
static void test_one_only(void **state)
{
	struct world *w = start(false, true);

	(void)state;
	w->fake.hold_back = true;
	want(w, 1, 2);
	assert_int_equal(in_flight(w, 0), 0);
	assert_in_range(in_flight(w, 1), 8, 9);
	want(w, 0, 2);
	assert_in_range(in_flight(w, 0), 8, 9);
	finish(w);
	end(w);
}

static void test_halves(void **state)
{
	struct world *w = start(true, true);

	(void)state;
	w->fake.hold_back = true;
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
	assert_int_equal(in_flight(w, 0), 1);
	assert_int_equal(in_flight(w, 1), 1);
	want(w, 1, 1);
	finish(w);
	end(w);
}

/* A half that cannot be read fails its expert, and none of the disk's others. */
static void test_half_fails(void **state)
{
	static const struct fake_outcome script[] = {{FAKE_ERROR, -EIO}};
	struct world *w = start(true, true);
	struct store_view view;

	(void)state;
	w->fake.in_order = true;
	w->fake.script = script;
	w->fake.n_script = 1;
	want(w, 0, 1);
	while (store_in_flight(w->store) > 0)
		assert_true(store_reap(w->store, 1) >= 0);
	assert_int_equal(store_poll(w->store, 0, 0, &view), -EIO);
	for (uint32_t e = 1; e < EXPERTS; e++)
		check_content(w, e);
	store_release(w->store, 0, 0);
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
	finish(w);
	end(w);
}

/* Called off where the first half is not asked for, while others wait on both disks. */
static void test_called_off(void **state)
{
	struct world *w = start(true, true);

	(void)state;
	w->fake.hold_back = true;
	want(w, 0, 1);
	for (uint32_t e = 0; e < EXPERTS; e++)
		store_release(w->store, 0, e);
	w->fake.hold_back = false;
	while (store_in_flight(w->store) > 0)
		assert_true(store_reap(w->store, 1) >= 0);
	assert_true(w->fake.reads < 2 * EXPERTS);
	for (uint32_t e = 0; e < EXPERTS; e++)
		assert_true(store_acquire(w->store, 0, e, STORE_DEMAND) >= 0);
	store_submit(w->store);
	finish(w);
	end(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_one_only),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_half_fails),
		cmocka_unit_test(test_called_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
