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

#include "num.h"

static void test_checked(void **state)
{
	uint64_t r = 7;

	assert_true(num_add(UINT64_MAX - 1, 1, &r));
	assert_true(r == UINT64_MAX);
	r = 7;
	assert_false(num_add(UINT64_MAX, 1, &r));
	assert_false(num_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
	assert_false(num_align(UINT64_MAX, 2, &r));
	assert_false(num_align(UINT64_MAX - 4094, 4096, &r));
	assert_int_equal(r, 7); /* untouched by every failure */
	assert_true(num_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &r));
	assert_true(r == UINT64_MAX - UINT32_MAX);
	assert_true(num_align(UINT64_MAX - 4095, 4096, &r));
	assert_true(r == UINT64_MAX - 4095);
	assert_true(num_align(0, 4096, &r));
	assert_int_equal(r, 0);
	assert_int_equal(num_align_up(1, 512), 512);
	assert_int_equal(num_align_down(1023, 512), 512);
	assert_true(num_is_pow2(1) && num_is_pow2(UINT64_C(1) << 63));
	assert_false(num_is_pow2(0) || num_is_pow2(3));
	assert_int_equal(num_min(3, 4), 3);
	assert_int_equal(num_max(3, 4), 4);
}

static void test_u64(void **state)
{
	static const char *const wrong[] = {
		"", " 1", "1 ", "-1", "+1", "0x10", "1e3", "1.0", "1\n", "a", "\xd9\xa1"};
	uint64_t r = 7;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(num_parse_u64(wrong[i], 0, UINT64_MAX, &r), -EINVAL);
	assert_int_equal(num_parse_u64("18446744073709551616", 0, UINT64_MAX, &r), -ERANGE);
	assert_int_equal(num_parse_u64("99999999999999999999999", 0, UINT64_MAX, &r), -ERANGE);
	assert_int_equal(num_parse_u64("5", 6, 10, &r), -ERANGE);
	assert_int_equal(num_parse_u64("11", 6, 10, &r), -ERANGE);
	assert_int_equal(r, 7);
	assert_int_equal(num_parse_u64("18446744073709551615", 0, UINT64_MAX, &r), 0);
	assert_true(r == UINT64_MAX);
	assert_int_equal(num_parse_u64("00010", 6, 10, &r), 0);
	assert_int_equal(r, 10);
}

static void test_double(void **state)
{
	static const char *const wrong[] = {
		"", " 1", "1 ", "nan", "inf", "0x1p3", "1,5", "1e", ".", "--1", "1.2.3"};
	double r = 7;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(num_parse_double(wrong[i], -1e300, 1e300, &r), -EINVAL);
	assert_int_equal(num_parse_double("1e999", -1e300, 1e300, &r), -ERANGE);
	assert_int_equal(num_parse_double("2.1", 0, 2, &r), -ERANGE);
	assert_true(r == 7);
	assert_int_equal(num_parse_double("-0.25e1", -3, 2, &r), 0);
	assert_true(r == -2.5);
	assert_int_equal(num_parse_double(".5", 0, 2, &r), 0);
	assert_true(r == 0.5);
}

static void test_size(void **state)
{
	static const struct {
		const char *text;
		uint64_t whole, expected;
		int r;
	} cases[] = {
		{"0", 0, 0, 0},
		{"512", 0, 512, 0},
		{"512B", 0, 512, 0},
		{"512M", 0, UINT64_C(512) << 20, 0},
		{"512MB", 0, UINT64_C(512) << 20, 0},
		{"6G", 0, UINT64_C(6) << 30, 0},
		{"6GiB", 0, UINT64_C(6) << 30, 0},
		{"1K", 0, 1024, 0},
		{"3T", 0, UINT64_C(3) << 40, 0},
		{"60%", 1000, 600, 0},
		{"100%", UINT64_MAX, UINT64_MAX / 100 * 100, 0},
		{"60%", 0, 0, -EINVAL},
		{"0%", 1000, 0, -ERANGE},
		{"101%", 1000, 0, -ERANGE},
		{"60%%", 1000, 0, -EINVAL},
		{"16777216T", 0, 0, -ERANGE},
		{"18446744073709551616", 0, 0, -ERANGE},
		{"", 0, 0, -EINVAL},
		{"M", 0, 0, -EINVAL},
		{"-1M", 0, 0, -EINVAL},
		{"1.5G", 0, 0, -EINVAL},
		{"1 G", 0, 0, -EINVAL},
		{"1GG", 0, 0, -EINVAL},
		{"1iB", 0, 0, -EINVAL},
		{"1Gi", 0, 0, -EINVAL},
		{"1g", 0, 0, -EINVAL},
		{"1E", 0, 0, -EINVAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t r = 7;

		assert_int_equal(num_parse_size(cases[i].text, cases[i].whole, &r), cases[i].r);
		assert_true(r == (cases[i].r ? 7 : cases[i].expected));
	}
}

static void test_format(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{512, "512 B"},
		{1023, "1023 B"},
		{1024, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{(UINT64_C(1) << 20) - 1, "1.00 MiB"},
		{UINT64_C(10) << 20, "10.0 MiB"},
		{UINT64_C(100) << 20, "100 MiB"},
		{UINT64_C(3) << 29, "1.50 GiB"},
		{UINT64_MAX, "16.0 EiB"},
	};
	char buf[NUM_SIZE_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(num_format_size(cases[i].bytes, buf), cases[i].text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checked),
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_double),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
