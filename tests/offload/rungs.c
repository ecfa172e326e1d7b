/* SPDX-License-Identifier: MIT */

/*
 * Both rungs over a real file: unaligned extents come back byte for byte, through the store and
 * through the bare interface; the locked ring refuses all but reads of its files.  Compiled twice:
 * for the pool, and with RUNG_URING for the ring, which exits 77 where there is none.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "file.h"
#include "io.h"
#include "num.h"
#include "store.h"

#define FILE_SIZE (6 * 1024 * 1024 + 777)
#define GROUPS 3
#define EXPERTS 5

static char path[] = "./moed-test-XXXXXX";
static unsigned char *content;
static struct file file;

static int make_io(struct io **ret, const int *fds, size_t n, struct error *err)
{
#ifdef RUNG_URING
	return io_ring_new(ret, fds, n, err);
#else
	return io_pool_new(ret, fds, n, 3, err);
#endif
}

static int set_up(void **state)
{
	int fd = mkstemp(path);
	struct error err = ERROR_NONE;
	uint32_t x = 1;

	assert_true(fd >= 0);
	content = malloc(FILE_SIZE);
	for (size_t i = 0; i < FILE_SIZE; i++) {
		x = x * 1664525 + 1013904223;
		content[i] = (unsigned char)(x >> 24);
	}
	assert_int_equal(write(fd, content, FILE_SIZE), FILE_SIZE);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	if (file_open(&file, path, &err) < 0)
		fail_msg("%s", err.text);
	print_message(
		"direct %d, align %u, memory %u\n", file.direct, file.align, file.memory_align);
	return 0;
}

static int tear_down(void **state)
{
	file_close(&file);
	unlink(path);
	free(content);
	return 0;
}

static void test_bare(void **state)
{
	struct error err = ERROR_NONE;
	struct io_result results[64];
	struct io *io;
	unsigned char *buffer = NULL;
	size_t back = 0, n = 0;
	struct io_read reads[40];

	assert_int_equal(make_io(&io, &file.fd, 1, &err), 0);
	print_message("rung: %s, depth %zu\n", io->ops->name, io->ops->depth(io));
	assert_int_equal(io->ops->reap(io, results, 64, 0), 0);
	assert_int_equal(posix_memalign((void **)&buffer, 65536, 40 * 65536), 0);
	for (size_t i = 0; i < 40; i++)
		reads[i] = (struct io_read){.tag = i * 1000003,
			.length = 65536,
			.offset = i * 131072,
			.buffer = buffer + i * 65536};
	while (n < 40) {
		int k = io->ops->submit(io, reads + n, 40 - n);

		assert_true(k > 0);
		n += (size_t)k;
	}
	while (back < 40) {
		int k = io->ops->reap(io, results, 7, CLOCK_NS_PER_S);

		assert_in_range(k, 0, 7);
		for (int i = 0; i < k; i++) {
			assert_int_equal(results[i].res, 65536);
			size_t at = results[i].tag / 1000003;

			assert_memory_equal(buffer + at * 65536, content + at * 131072, 65536);
		}
		back += (size_t)k;
	}
	/* Past the end: nothing; across it: short. */
	reads[0].offset = 8 << 20;
	reads[1].offset = FILE_SIZE / 65536 * 65536;
	assert_int_equal(io->ops->submit(io, reads, 2), 2);
	for (back = 0; back < 2;) {
		int k = io->ops->reap(io, results, 64, CLOCK_NS_PER_S);

		for (int i = 0; i < k; i++)
			assert_int_equal(results[i].res, results[i].tag ? FILE_SIZE % 65536 : 0);
		back += (size_t)k;
	}
	/* A file that was not registered. */
	reads[0].file = 1;
	assert_int_equal(io->ops->submit(io, reads, 1), 1);
	assert_int_equal(io->ops->reap(io, results, 1, CLOCK_NS_PER_S), 1);
	assert_int_equal(results[0].res, -EBADF);
	/* Freed with reads in flight. */
	assert_true(io->ops->submit(io, reads + 2, 30) > 0);
	io->ops->free(io);
	free(buffer);
}

static void locate(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret)
{
	uint64_t at = 13 + (group * EXPERTS + expert) * UINT64_C(400037);

	ret->part[0] = (struct store_extent){0, at, 100001};
	ret->part[1] = (struct store_extent){0, at + 100001, 99999}; /* contiguous */
	ret->part[2] = (struct store_extent){0, at + 300000, 1234 + expert};
	if (group == 2 && expert == 4) /* ends with the file */
		ret->part[2] = (struct store_extent){0, FILE_SIZE - 99, 99};
}

static void check_one(struct store *s, uint32_t g, uint32_t e, unsigned *misses)
{
	struct store_expert x;
	struct store_view view;
	int r = store_acquire(s, g, e, STORE_DEMAND);

	*misses += r == STORE_READING;
	assert_true(r == STORE_READY || r == STORE_READING);
	while ((r = store_poll(s, g, e, &view)) == STORE_READING)
		assert_true(store_reap(s, CLOCK_NS_PER_S) >= 0);
	assert_int_equal(r, STORE_READY);
	locate(NULL, g, e, &x);
	for (size_t i = 0; i < STORE_PARTS; i++)
		assert_memory_equal(view.part[i], content + x.part[i].offset, x.part[i].size);
	store_release(s, g, e);
}

static void test_store(void **state)
{
	static const uint32_t experts[GROUPS] = {EXPERTS, EXPERTS, EXPERTS};
	struct error err = ERROR_NONE;
	struct store_stats stats;
	struct store *s;
	struct io *io;
	unsigned misses = 0;
	size_t size = 1 << 20;
	void *memory = NULL;

	assert_int_equal(posix_memalign(&memory, 2 << 20, size), 0);
	assert_int_equal(make_io(&io, &file.fd, 1, &err), 0);
	struct store_config config = {.io = io,
		.files = &file,
		.n_files = 1,
		.groups = GROUPS,
		.experts = experts,
		.locate = locate,
		.memory = memory,
		.size = size};
	if (store_new(&s, &config, &err) < 0)
		fail_msg("%s", err.text);
	srand(3);
	for (unsigned i = 0; i < 300; i++)
		check_one(s, (uint32_t)rand() % GROUPS, (uint32_t)rand() % EXPERTS, &misses);
	store_get_stats(s, &stats);
	print_message("%u misses, %llu evictions, %llu reads, %llu bytes, %llu useful\n", misses,
		(unsigned long long)stats.evictions, (unsigned long long)stats.reads,
		(unsigned long long)stats.bytes_read, (unsigned long long)stats.bytes_useful);
	assert_int_equal(stats.misses, misses);
	assert_int_equal(stats.hits, 300 - misses);
	assert_true(stats.evictions > 0);
	assert_int_equal(stats.errors, 0);
	/* Two contiguous parts and a third: two reads each, no more. */
	assert_int_equal(stats.reads, 2 * misses);
	store_free(s);
	io->ops->free(io);
	free(memory);
}

static void test_file_read(void **state)
{
	struct error err = ERROR_NONE;
	unsigned char *buffer = malloc(FILE_SIZE);

	assert_int_equal(file_read(&file, 0, buffer, FILE_SIZE, &err), 0);
	assert_memory_equal(buffer, content, FILE_SIZE);
	for (size_t i = 0; i < 50; i++) {
		size_t offset = i * 119993 % FILE_SIZE;
		size_t n = num_min((size_t)(i * 7919), FILE_SIZE - offset);

		memset(buffer, 0, n + 1);
		assert_int_equal(file_read(&file, offset, buffer, n, &err), 0);
		assert_memory_equal(buffer, content + offset, n);
		assert_int_equal(buffer[n], 0);
	}
	assert_int_equal(file_read(&file, FILE_SIZE - 1, buffer, 2, &err), -ENODATA);
	assert_int_equal(file_read(&file, UINT64_MAX, buffer, 2, NULL), -ENODATA);
	assert_int_equal(file_check(&file), 0);
	free(buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bare),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_file_read),
	};
#ifdef RUNG_URING
	struct error err = ERROR_NONE;
	struct io *io;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (io_ring_new(&io, &fd, 1, &err) < 0) {
		printf("SKIP: %s\n", err.text);
		return 77;
	}
	io->ops->free(io);
	close(fd);
#endif
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
