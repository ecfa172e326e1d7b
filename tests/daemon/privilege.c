/* SPDX-License-Identifier: MIT */

/* Who may do what: a line for every verb, so that a new one is not forgotten here. */

#include "privilege.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "num.h"

static const struct {
	enum privilege_verb verb;
	const char *name;
	bool user, admin;
} expected[] = {
	{PRIVILEGE_PROMPT, "prompt", true, true},
	{PRIVILEGE_STATUS, "status", true, true},
	{PRIVILEGE_OTHERS, "others", false, true},
	{PRIVILEGE_RELOAD, "reload", false, true},
	{PRIVILEGE_DRAIN, "drain", false, true},
	{PRIVILEGE_FORGET, "forget", true, true},
	{PRIVILEGE_TRACE, "trace", false, true},
};

static void test_table(void **state)
{
	assert_int_equal(ARRAY_SIZE(expected), PRIVILEGE_VERBS);
	for (size_t i = 0; i < ARRAY_SIZE(expected); ++i) {
		assert_int_equal(expected[i].verb, i);
		assert_string_equal(privilege_name(expected[i].verb), expected[i].name);
		assert_int_equal(privilege_may(expected[i].verb, false), expected[i].user);
		assert_int_equal(privilege_may(expected[i].verb, true), expected[i].admin);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_table)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
