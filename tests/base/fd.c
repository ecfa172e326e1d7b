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

#include <fcntl.h>
#include <pthread.h>

#include "fd.h"

static void test_close(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), moved;

	assert_true(fd >= 0);
	moved = steal_fd(fd);
	assert_int_equal(fd, -1);
	errno = ENOENT;
	assert_int_equal(fd_close(fd), -1);
	assert_int_equal(fd_close(moved), -1);
	assert_int_equal(fcntl(moved, F_GETFD), -1);
	{
		cleanup_fd_ int scoped = open("/dev/null", O_RDONLY | O_CLOEXEC);

		moved = scoped;
	}
	assert_int_equal(fcntl(moved, F_GETFD), -1);
	errno = ENOENT;
	(void)fd_close(12345); /* fails inside; errno stays */
	assert_int_equal(errno, ENOENT);
}

static void *drain(void *arg)
{
	size_t *sum = arg;
	char buf[3000];
	ssize_t k;

	while ((k = read((int)sum[1], buf, sizeof buf)) > 0)
		sum[0] += (size_t)k;
	return NULL;
}

static void test_write_all(void **state)
{
	size_t n = 1 << 20, sum[2] = {0};
	char *buf = calloc(1, n);
	pthread_t thread;
	int p[2];

	/* A pipe takes 64 KiB at a time. */
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	sum[1] = (size_t)p[0];
	assert_int_equal(pthread_create(&thread, NULL, drain, sum), 0);
	assert_int_equal(fd_write_all(p[1], buf, n), 0);
	close(p[1]);
	pthread_join(thread, NULL);
	assert_int_equal(sum[0], n);
	assert_int_equal(fd_write_all(p[0], buf, 1), -EBADF);
	close(p[0]);
	free(buf);
}

static void test_read_file(void **state)
{
	char path[] = "./fd-test-XXXXXX", *text = NULL;
	int fd = mkstemp(path);
	size_t size = 7;

	assert_true(fd >= 0);
	assert_int_equal(fd_read_file(path, 10, &text, &size), 0);
	assert_string_equal(text, "");
	assert_int_equal(size, 0);
	free(text);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(write(fd, "ab", 2), 2);
	assert_int_equal(fd_read_file(path, 20000, &text, &size), 0);
	assert_int_equal(size, 20000);
	assert_int_equal(strlen(text), 20000);
	free(text);
	text = NULL;
	assert_int_equal(fd_read_file(path, 19999, &text, NULL), -EFBIG);
	assert_int_equal(fd_read_file(path, 0, &text, NULL), -EFBIG);
	assert_int_equal(fd_read_file("/nonexistent/x", 10, &text, NULL), -ENOENT);
	assert_int_equal(fd_read_file("/proc", 10, &text, NULL), -EISDIR);
	assert_null(text);
	unlink(path);
	close(fd);
	/* Files without a size. */
	assert_int_equal(fd_read_file("/proc/self/status", 65536, &text, &size), 0);
	assert_true(size > 100);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_write_all),
		cmocka_unit_test(test_read_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
