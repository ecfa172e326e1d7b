/* SPDX-License-Identifier: MIT */

/*
 * The ring has locked itself: nothing but READ of a registered file passes, not even on the ring's
 * own descriptor with the library's own calls.  Includes the source, to reach the ring inside.
 */

#include "../../offload/io-ring.c"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int fd = -1;

static int result_of(struct ring *r, struct io_uring_sqe *sqe)
{
	struct io_uring_cqe *cqe;
	int res;

	(void)sqe;
	assert_int_equal(io_uring_submit(&r->uring), 1);
	assert_int_equal(io_uring_wait_cqe(&r->uring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(&r->uring, cqe);
	return res;
}

static void check_locked(bool deferred)
{
	static char buffer[4096] __attribute__((aligned(4096)));
	struct __kernel_timespec t = {.tv_nsec = 1000};
	struct io_uring_sqe *sqe;
	struct ring *r;
	int k = set_up(&r, &fd, 1, deferred), other = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (k < 0) {
		print_message(
			"SKIP: this rung (deferred %d) is not there: %s\n", deferred, strerror(-k));
		skip();
	}
	/* What is allowed, so that the refusals below mean something. */
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_read(sqe, 0, buffer, sizeof buffer, 0);
	sqe->flags = IOSQE_FIXED_FILE;
	assert_int_equal(result_of(r, sqe), sizeof buffer);

	/* A plain descriptor. */
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_read(sqe, fd, buffer, sizeof buffer, 0);
	assert_int_equal(result_of(r, sqe), -EACCES);
	/* Other flags. */
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_read(sqe, 0, buffer, sizeof buffer, 0);
	sqe->flags = IOSQE_FIXED_FILE | IOSQE_ASYNC;
	assert_int_equal(result_of(r, sqe), -EACCES);
	/* Other operations. */
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_write(sqe, 0, buffer, sizeof buffer, 0);
	sqe->flags = IOSQE_FIXED_FILE;
	assert_int_equal(result_of(r, sqe), -EACCES);
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_nop(sqe);
	assert_int_equal(result_of(r, sqe), -EACCES);
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/hostname", O_RDONLY, 0);
	assert_int_equal(result_of(r, sqe), -EACCES);
	sqe = io_uring_get_sqe(&r->uring);
	io_uring_prep_timeout(sqe, &t, 0, 0);
	assert_int_equal(result_of(r, sqe), -EACCES);
	/* Registrations: other files in the place of ours, or the lock loosened. */
	assert_int_equal(io_uring_register_files_update(&r->uring, 0, &other, 1), -EACCES);
	assert_int_equal(ring_register(r, IORING_UNREGISTER_FILES, NULL, 0), -EACCES);
	assert_true(ring_register(r, IORING_REGISTER_RESTRICTIONS, NULL, 0) < 0);
	close(other);
	ring_free(&r->io);
}

static void test_deferred(void **state)
{
	check_locked(true);
}

static void test_plain(void **state)
{
	check_locked(false);
}

static void test_refused(void **state)
{
	struct error err = ERROR_NONE;
	struct io *io = NULL;
	int bad = -7;

	assert_int_equal(io_ring_new(&io, &fd, 0, &err), -EINVAL);
	err = ERROR_NONE;
	assert_int_equal(io_ring_new(&io, &fd, LIMIT_MODEL_FILES + 1, &err), -EINVAL);
	err = ERROR_NONE;
	assert_int_equal(io_ring_new(&io, &bad, 1, &err), -EBADF);
	assert_true(err.text[0] != '\0');
	for (int code = -130; code < 0; code++) {
		err = ERROR_NONE;
		assert_int_equal(explain(&err, code), code);
		assert_true(strlen(err.text) > 20);
	}
	assert_null(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deferred),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_refused),
	};
	char path[] = "./ring-test-XXXXXX", zeros[4096] = {0};
	struct ring *r;
	int k;

	fd = mkstemp(path);
	if (fd < 0 || write(fd, zeros, sizeof zeros) != sizeof zeros)
		return 1;
	(void)unlink(path);
	k = set_up(&r, &fd, 1, false);
	if (k < 0) {
		printf("SKIP: no io_uring here: %s\n", strerror(-k));
		return 77;
	}
	ring_free(&r->io);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
