/* SPDX-License-Identifier: MIT */

/*
 * Opening: what is refused, what is noticed.  Honesty about direct reads: a file system that only
 * pretends is found out, and what a buffered read leaves in the page cache is taken out again.
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fd.h"
#include "file.h"
#include "num.h"

#define SIZE ((size_t)3 << 20)

static int make(char *path, size_t size)
{
	int fd = mkstemp(path);
	char *zeros = calloc(1, size + 1);

	if (fd < 0) {
		free(zeros);
		return -1;
	}
	memset(zeros, 'z', size);
	assert_int_equal(fd_write_all(fd, zeros, size), 0);
	(void)fsync(fd);
	free(zeros);
	return fd;
}

static void refused(const char *path, int expected)
{
	struct error err = ERROR_NONE;
	struct file f = {.fd = -7};

	assert_int_equal(file_open(&f, path, &err), expected);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(f.fd, -7);
}

static void test_refused(void **state)
{
	char fifo[] = "./file-test-fifo";

	refused("./no-such-file", -ENOENT);
	refused("/proc", -EISDIR);
	refused("/dev/null", -EINVAL);
	(void)unlink(fifo);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	refused(fifo, -EINVAL); /* and does not wait for a writer */
	unlink(fifo);
}

static void test_small(void **state)
{
	for (size_t size = 0; size < 3; size++) {
		char path[] = "./file-test-XXXXXX", buffer[4] = "";
		int fd = make(path, size);
		struct file f;

		assert_int_equal(file_open(&f, path, NULL), 0);
		assert_int_equal(f.size, size);
		assert_true(num_is_pow2(f.align) && f.align >= 512 && f.align <= 65536);
		assert_int_equal(fcntl(f.fd, F_GETFL) & O_NONBLOCK, 0);
		assert_int_equal(file_read(&f, 0, buffer, size, NULL), 0);
		assert_int_equal(strspn(buffer, "z"), size);
		assert_int_equal(file_read(&f, 0, buffer, size + 1, NULL), -ENODATA);
		file_close(&f);
		assert_int_equal(f.fd, -1);
		unlink(path);
		close(fd);
	}
}

static void test_changed(void **state)
{
	char path[] = "./file-test-XXXXXX", buffer[100];
	struct timespec now[2] = {{5, 5}, {5, 5}};
	int fd = make(path, 10000);
	struct error err = ERROR_NONE;
	struct file f;

	assert_int_equal(file_open(&f, path, NULL), 0);
	assert_int_equal(file_check(&f), 0);
	/* Another file under the name is none of ours: the descriptor still has the old one. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(file_check(&f), 0);
	assert_int_equal(ftruncate(fd, 5000), 0);
	assert_int_equal(file_check(&f), -ESTALE);
	assert_int_equal(file_read(&f, 8000, buffer, 100, &err), -ENODATA);
	assert_non_null(strstr(err.text, "offset"));
	err = ERROR_NONE;
	assert_int_equal(file_read(&f, 4950, buffer, 100, &err), -ENODATA);
	assert_int_equal(file_read(&f, 4900, buffer, 100, NULL), 0);
	file_close(&f);
	assert_int_equal(ftruncate(fd, 10000), 0);
	close(fd);

	char again[] = "./file-test-XXXXXX";

	fd = make(again, 10000);
	assert_int_equal(file_open(&f, again, NULL), 0);
	assert_int_equal(futimens(fd, now), 0);
	assert_int_equal(file_check(&f), -ESTALE);
	file_close(&f);
	unlink(again);
	close(fd);
}

static size_t cached_pages(int fd)
{
	unsigned char pages[SIZE / 4096];
	void *map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
	size_t n = 0;

	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mincore(map, SIZE, pages), 0);
	munmap(map, SIZE);
	for (size_t i = 0; i < sizeof pages; i++)
		n += pages[i] & 1;
	return n;
}

/* Where reads are buffered they leave nothing behind; where they are direct, nothing either. */
static void test_page_cache(void **state)
{
	char path[] = "./file-test-XXXXXX", *buffer = malloc(SIZE);
	int fd = make(path, SIZE);
	struct file f;

	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	if (cached_pages(fd) > 0) {
		print_message("SKIP: this file system does not let go of its pages\n");
		unlink(path);
		close(fd);
		free(buffer);
		skip();
	}
	assert_int_equal(file_open(&f, path, NULL), 0);
	print_message("direct: %d\n", f.direct);
	assert_int_equal(file_read(&f, 12345, buffer, 2 << 20, NULL), 0);
	assert_int_equal(cached_pages(fd), 0);

	/* The same with O_DIRECT refused. */
	assert_int_equal(fcntl(f.fd, F_SETFL, fcntl(f.fd, F_GETFL) & ~O_DIRECT), 0);
	f.direct = true;
	assert_int_equal(file_read(&f, 12345, buffer, 2 << 20, NULL), 0);
	assert_true(cached_pages(fd) > 0); /* else the next line proves nothing */
	file_drop(&f, 0, SIZE);
	assert_true(cached_pages(fd) > 0); /* not ours to drop where reads are direct */
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	f.direct = false;
	(void)posix_fadvise(f.fd, 0, 0, POSIX_FADV_RANDOM);
	assert_int_equal(file_read(&f, 12345, buffer, 2 << 20, NULL), 0);
	assert_int_equal(cached_pages(fd), 0);
	file_close(&f);
	unlink(path);
	close(fd);
	free(buffer);
}

static void test_memory_file_system(void **state)
{
	char path[] = "/dev/shm/moed-file-test-XXXXXX", *buffer = malloc(SIZE);
	int fd = make(path, SIZE);
	struct file f;

	if (fd < 0) {
		print_message("SKIP: no /dev/shm to write to\n");
		free(buffer);
		skip();
	}
	assert_int_equal(file_open(&f, path, NULL), 0);
	assert_false(f.direct); /* whatever open(2) said */
	assert_int_equal(file_read(&f, 1, buffer, SIZE - 1, NULL), 0);
	for (size_t i = 0; i < SIZE - 1; i++)
		assert_int_equal(buffer[i], 'z');
	file_close(&f);
	unlink(path);
	close(fd);
	free(buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_page_cache),
		cmocka_unit_test(test_memory_file_system),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
