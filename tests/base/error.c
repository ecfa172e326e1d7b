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

#include "error.h"

static void test_set(void **state)
{
	struct error err = ERROR_NONE;

	assert_int_equal(error_set(NULL, -EIO, "x"), -EIO);
	error_prefix(NULL, "x");
	error_prefix(&err, "nothing yet");
	assert_string_equal(err.text, "");
	assert_int_equal(error_errno(&err, -ENOENT, "cannot open '%s'", "a"), -ENOENT);
	assert_string_equal(err.text, "cannot open 'a': No such file or directory");
	assert_int_equal(err.code, -ENOENT);
	/* The first one wins; the code that travels is the caller's. */
	assert_int_equal(error_set(&err, -EIO, "later"), -EIO);
	assert_int_equal(err.code, -ENOENT);
	error_prefix(&err, "model %d", 3);
	assert_string_equal(err.text, "model 3: cannot open 'a': No such file or directory");
	assert_string_equal(error_text(&err, -EIO), err.text);
}

static void test_long(void **state)
{
	char big[2 * ERROR_TEXT_MAX];
	struct error err = ERROR_NONE;

	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	(void)error_errno(&err, -EIO, "%s", big);
	assert_true(strlen(err.text) < ERROR_TEXT_MAX);
	error_prefix(&err, "%s", big);
	assert_true(strlen(err.text) < ERROR_TEXT_MAX);
	err = ERROR_NONE;
	assert_true(strlen(error_text(&err, -EIO)) > 0);
	assert_string_equal(error_name(-EIO), "EIO");
	assert_string_equal(error_name(EIO), "EIO");
	assert_string_equal(error_name(-99999), "E?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
