/* SPDX-License-Identifier: MIT */

/* The checksum: published values, and both ways over all lengths, offsets and cuts. */

#include "crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* RFC 3720, B.4. */
static void test_published(void **state)
{
	unsigned char bytes[32];

	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(crc32c_table(0, "123456789", 9), 0xe3069283u);
	memset(bytes, 0, sizeof bytes);
	assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x8a9136aau);
	memset(bytes, 0xff, sizeof bytes);
	assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x62a8ab43u);
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)i;
	assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x46dd794eu);
	assert_int_equal(crc32c_table(0, bytes, sizeof bytes), 0x46dd794eu);
	assert_int_equal(crc32c(0, bytes, 0), 0);
}

static void test_ways(void **state)
{
	unsigned char bytes[100];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)(i * 167 + 13);
	for (size_t from = 0; from < 9; from++)
		for (size_t n = 0; from + n <= sizeof bytes; n++) {
			uint32_t whole = crc32c(0, bytes + from, n), half;

			assert_int_equal(whole, crc32c_table(0, bytes + from, n));
			half = crc32c(0, bytes + from, n / 3);
			assert_int_equal(crc32c(half, bytes + from + n / 3, n - n / 3), whole);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_published),
		cmocka_unit_test(test_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
