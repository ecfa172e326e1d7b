/* SPDX-License-Identifier: MIT */

/* What the seals of the two segments forbid, and what the client refuses to map. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "limit.h"
#include "segment.h"

#define RING LIMIT_RING_MIN

static void test_seals(void **state)
{
	struct segment s;
	void *map;

	for (int daemon_writes = 0; daemon_writes < 2; daemon_writes++) {
		assert_int_equal(segment_make(&s, RING, daemon_writes, NULL), 0);
		assert_int_equal(s.size, segment_size(RING));
		assert_int_equal(ftruncate(s.fd, 0), -1);
		assert_int_equal(errno, EPERM);
		assert_int_equal(ftruncate(s.fd, 1 << 20), -1);
		assert_int_equal(fcntl(s.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
		assert_int_equal(fcntl(s.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		map = mmap(NULL, s.size, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0);
		assert_int_equal(map == MAP_FAILED, daemon_writes);
		if (!daemon_writes)
			munmap(map, s.size);
		else
			assert_int_equal(pwrite(s.fd, "x", 1, 0), -1);
		s.map->head = 16; /* the daemon itself still writes */
		segment_deinit(&s);
		assert_null(s.map);
		assert_int_equal(s.fd, -1);
	}
}

static void test_map(void **state)
{
	struct segment s, c;

	for (int daemon_writes = 0; daemon_writes < 2; daemon_writes++) {
		assert_int_equal(segment_make(&s, RING, daemon_writes, NULL), 0);
		assert_int_equal(segment_map(&c, dup(s.fd), &s.geometry, daemon_writes, NULL), 0);
		s.map->tail = 4711;
		assert_int_equal(c.map->tail, 4711);
		if (daemon_writes)
			assert_int_equal(mprotect(c.map, c.size, PROT_READ | PROT_WRITE), -1);
		segment_deinit(&c);
		segment_deinit(&s);
	}
}

static void refused(int fd, const struct wire_geometry *g, bool daemon_writes)
{
	struct error err = ERROR_NONE;
	struct segment c;

	assert_true(fd >= 0);
	assert_int_equal(segment_map(&c, fd, g, daemon_writes, &err), -EPROTO);
	assert_string_not_equal(err.text, "");
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over, and closed */
}

static void test_refused(void **state)
{
	struct wire_geometry g;
	struct segment s;
	int fd;

	assert_int_equal(segment_make(&s, RING, false, NULL), 0);
	refused(dup(s.fd), &s.geometry, true); /* not sealed against the daemon's rule */
	g = s.geometry, g.segment_size += 4096;
	refused(dup(s.fd), &g, false);
	g = s.geometry, g.ring_size *= 2;
	refused(dup(s.fd), &g, false);
	g = s.geometry, g.ring_size -= 16;
	refused(dup(s.fd), &g, false);
	g = s.geometry, g.ring_offset = 0;
	refused(dup(s.fd), &g, false);
	g = s.geometry, g.ring_offset = UINT32_MAX - 63;
	refused(dup(s.fd), &g, false);
	s.map->magic ^= 1;
	refused(dup(s.fd), &s.geometry, false);
	s.map->magic ^= 1;
	s.map->geometry.ring_offset = 8192;
	refused(dup(s.fd), &s.geometry, false);

	fd = memfd_create("unsealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, s.size), 0);
	refused(fd, &s.geometry, false);
	segment_deinit(&s);
}

static void test_sizes(void **state)
{
	static const uint32_t bad[] = {0, 1, 4096, RING - 1, RING + 16, 3 * RING, 1u << 31};
	struct segment s;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(segment_make(&s, bad[i], false, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seals),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
