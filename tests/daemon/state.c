/* SPDX-License-Identifier: MIT */

/* The state directory: one daemon at a time, totals that survive, and whatever else lies there. */

#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fd.h"
#include "log.h"
#include "num.h"

static char folder[] = "/tmp/moed-state-XXXXXX", path[64], file[96];

static void quiet(enum log_level level, const char *text, const struct log_field *fields, size_t n)
{
}

static void test_totals(void **state)
{
	const struct state_totals want = {1, 2, 3, 4, 5, UINT64_MAX / 4};
	struct error err = ERROR_NONE;
	struct state a, b;
	struct stat st;

	assert_int_equal(state_init(&a, path, &err), 0);
	assert_int_equal(a.before.starts, 0);
	/* Another daemon is told whose it is. */
	assert_int_equal(state_init(&b, path, &err), -EBUSY);
	assert_non_null(strstr(err.text, "--state"));
	assert_int_equal(state_save(&a, &want, &err), 0);
	state_deinit(&a);
	assert_int_equal(state_init(&b, path, NULL), 0);
	assert_memory_equal(&b.before, &want, sizeof want);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	state_deinit(&b);
}

static void test_damaged(void **state)
{
	static const char *const bad[] = {"", "x", "starts 1\n", "starts -1\nrequests 2\n",
		"starts 1\nrequests 2\nfailed 3\nprompt_tokens 4\ngenerated_tokens 5\nbytes_read 6",
		"starts 1\nrequests 2\nfailed 3\nprompt_tokens 4\ngenerated_tokens 5\nbytes_read "
		"6\nx",
		"starts 99999999999999999999\nrequests 2\nfailed 3\nprompt_tokens "
		"4\ngenerated_tokens "
		"5\nbytes_read 6\n"};
	struct state s;

	for (size_t i = 0; i < ARRAY_SIZE(bad); ++i) {
		int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		assert_true(fd >= 0);
		assert_int_equal(fd_write_all(fd, bad[i], strlen(bad[i])), 0);
		fd_close(fd);
		assert_int_equal(state_init(&s, path, NULL), 0);
		assert_int_equal(s.before.starts + s.before.requests + s.before.bytes_read, 0);
		state_deinit(&s);
	}
	/* Neither a link nor a pipe is followed or waited for. */
	assert_int_equal(unlink(file), 0);
	assert_int_equal(symlink("/etc/passwd", file), 0);
	assert_int_equal(state_init(&s, path, NULL), 0);
	state_deinit(&s);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_int_equal(state_init(&s, path, NULL), 0);
	state_deinit(&s);
	assert_int_equal(unlink(file), 0);
}

static void test_folders(void **state)
{
	struct error err = ERROR_NONE;
	struct state s;

	assert_int_equal(state_init(&s, "/proc/nothing", &err), -ENOENT);
	assert_non_null(strstr(err.text, "/proc/nothing"));
	err = ERROR_NONE;
	assert_int_equal(state_init(&s, "/dev/null", &err), -ENOTDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_totals),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_folders),
	};
	int r;

	log_set_sink(quiet);
	if (!mkdtemp(folder))
		return 1;
	(void)snprintf(path, sizeof path, "%s/state", folder);
	(void)snprintf(file, sizeof file, "%s/totals", path);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	(void)unlink(file);
	(void)rmdir(path);
	(void)rmdir(folder);
	return r;
}
