/* SPDX-License-Identifier: MIT */

/* When memory is given back, and when it is taken again. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "fd.h"
#include "pressure.h"

#define GIB ((uint64_t)1 << 30)
#define SCARCE (GIB / 2)
#define PLENTY (8 * GIB)

static struct pressure p;
static uint64_t now, stalled;

/* `seconds` later, of which `share` per cent were stalls. */
static enum pressure_advice later(unsigned seconds, unsigned share, uint64_t available, bool given)
{
	struct pressure_sample s = {.available = available, .total = 16 * GIB};

	now += seconds * CLOCK_NS_PER_S;
	stalled += (uint64_t)seconds * 10000 * share;
	s.stalled_us = stalled;
	return pressure_decide(&p, &s, given, now);
}

static void begin(void)
{
	p = (struct pressure){.fd = -1};
	now = 1000 * CLOCK_NS_PER_S;
	stalled = 123456789;
	assert_int_equal(later(0, 0, PLENTY, false), PRESSURE_NONE);
}

static void test_give(void **state)
{
	begin();
	assert_int_equal(later(2, 50, SCARCE, false), PRESSURE_GIVE_BACK);
	assert_int_equal(later(2, 50, SCARCE, true), PRESSURE_GIVE_BACK);
	assert_int_equal(later(2, 9, SCARCE, true), PRESSURE_NONE);
	/* Somebody's own limit: nothing of ours helps. */
	assert_int_equal(later(2, 90, PLENTY, false), PRESSURE_NONE);
	/* Full, but nobody waits. */
	assert_int_equal(later(2, 0, SCARCE, false), PRESSURE_NONE);
	/* The first look tells nothing about the time before it. */
	p = (struct pressure){.fd = -1};
	assert_int_equal(later(2, 90, SCARCE, false), PRESSURE_NONE);
	assert_int_equal(later(2, 90, SCARCE, false), PRESSURE_GIVE_BACK);
}

static void test_take(void **state)
{
	begin();
	assert_int_equal(later(2, 50, SCARCE, false), PRESSURE_GIVE_BACK);
	for (unsigned s = 0; s < 28; s += 2)
		assert_int_equal(later(2, 0, PLENTY, true), PRESSURE_NONE);
	assert_int_equal(later(2, 0, PLENTY, true), PRESSURE_TAKE_AGAIN);
	/* Slowly. */
	for (unsigned s = 0; s < 8; s += 2)
		assert_int_equal(later(2, 0, PLENTY, true), PRESSURE_NONE);
	assert_int_equal(later(2, 0, PLENTY, true), PRESSURE_TAKE_AGAIN);
	/* Any stall, or want, and the time begins anew. */
	assert_int_equal(later(2, 2, PLENTY, true), PRESSURE_NONE);
	assert_int_equal(later(28, 0, PLENTY, true), PRESSURE_NONE);
	assert_int_equal(later(2, 0, SCARCE, true), PRESSURE_NONE);
	assert_int_equal(later(28, 0, PLENTY, true), PRESSURE_NONE);
	assert_int_equal(later(2, 0, PLENTY, true), PRESSURE_TAKE_AGAIN);
	/* There is nothing to take. */
	assert_int_equal(later(60, 0, PLENTY, false), PRESSURE_NONE);
}

static void write_file(const char *root, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/%s", root, name);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void test_read(void **state)
{
	static const char stalls[] = "some avg10=1.00 avg60=0.00 avg300=0.00 total=4711\n"
				     "full avg10=0.00 avg60=0.00 avg300=0.00 total=12\n";
	char root[] = "./pressure-XXXXXX", path[256];
	struct pressure_sample s = {0};

	assert_non_null(mkdtemp(root));
	assert_true(pressure_read(&s, root) < 0);
	(void)snprintf(path, sizeof path, "%s/proc", root);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof path, "%s/proc/pressure", root);
	assert_int_equal(mkdir(path, 0700), 0);
	write_file(
		root, "proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n");
	assert_true(pressure_read(&s, root) < 0);
	write_file(root, "proc/pressure/memory", stalls);
	assert_int_equal(pressure_read(&s, root), 0);
	assert_int_equal(s.stalled_us, 4711);
	assert_int_equal(s.total, 1000);
	assert_int_equal(s.available, 500);
	p = (struct pressure){.root = root, .fd = -1};
	assert_true(pressure_is_due(&p, 1));
	assert_int_equal(pressure_look(&p, false, 1), PRESSURE_NONE);
	assert_false(pressure_is_due(&p, CLOCK_NS_PER_S));
	assert_true(pressure_is_due(&p, 3 * CLOCK_NS_PER_S));
	write_file(root, "proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\n");
	assert_true(pressure_read(&s, root) < 0);
	write_file(root, "proc/pressure/memory", "full total=4711\n");
	assert_true(pressure_read(&s, root) < 0);
	write_file(root, "proc/pressure/memory", "");
	assert_true(pressure_read(&s, root) < 0);

	for (unsigned i = 0; i < 2; i++) {
		(void)snprintf(
			path, sizeof path, "%s/proc/%s", root, i ? "meminfo" : "pressure/memory");
		assert_int_equal(unlink(path), 0);
	}
	(void)snprintf(path, sizeof path, "%s/proc/pressure", root);
	assert_int_equal(rmdir(path), 0);
	(void)snprintf(path, sizeof path, "%s/proc", root);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(root), 0);
}

/* Where the kernel tells nothing the loop is not woken for it. */
static void test_absent(void **state)
{
	pressure_init(&p, "/no/such/folder");
	assert_int_equal(p.fd, -1);
	assert_int_equal(pressure_timeout_ms(&p, false), -1);
	assert_int_equal(pressure_look(&p, true, CLOCK_NS_PER_S), PRESSURE_NONE);
	pressure_deinit(&p);
	/* This machine's, whatever it allows. */
	pressure_init(&p, "");
	assert_true(pressure_timeout_ms(&p, false) == -1 || p.fd == -1);
	assert_true(!p.root || pressure_timeout_ms(&p, true) > 0);
	pressure_deinit(&p);
}

/* A pipe that the service manager hands over: each event is an order, calm or not. */
static void test_handed(void **state)
{
	char folder[] = "/tmp/moed-pressure-XXXXXX", path[128];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof path, "%s/pipe", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(setenv("MEMORY_PRESSURE_WATCH", path, 1), 0);
	pressure_init(&p, folder);
	assert_true(p.fd >= 0);
	assert_int_equal(p.events, EPOLLIN);
	now = 1000 * CLOCK_NS_PER_S;
	assert_int_equal(pressure_look(&p, false, now), PRESSURE_NONE);
	assert_false(pressure_is_due(&p, now + 1));
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	assert_int_equal(write(fd, "12", 2), 2);
	pressure_event(&p);
	assert_true(pressure_is_due(&p, now + 1));
	assert_int_equal(pressure_look(&p, true, now + 1), PRESSURE_GIVE_BACK);
	assert_false(pressure_is_due(&p, now + 2));
	assert_int_equal(pressure_look(&p, true, now + 3 * CLOCK_NS_PER_S), PRESSURE_NONE);
	close(fd);
	pressure_deinit(&p);
	/* What is to be written to it first, as base64. */
	assert_int_equal(unlink(path), 0);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(setenv("MEMORY_PRESSURE_WRITE", "c29tZSAyMDAwMDAgMjAwMDAwMAA=", 1), 0);
	pressure_init(&p, folder);
	assert_true(p.handed);
	{
		char text[64] = "";

		assert_int_equal(read(fd, text, sizeof text), 20);
		assert_string_equal(text, "some 200000 2000000");
	}
	pressure_deinit(&p);
	close(fd);
	assert_int_equal(unlink(path), 0);
	/* Nobody is to look; and what is not there cannot be looked at. */
	assert_int_equal(setenv("MEMORY_PRESSURE_WATCH", "/dev/null", 1), 0);
	pressure_init(&p, "");
	assert_true(p.fd < 0 && !p.root);
	assert_int_equal(setenv("MEMORY_PRESSURE_WATCH", path, 1), 0);
	pressure_init(&p, folder);
	assert_true(p.fd < 0 && !p.handed);
	assert_int_equal(unsetenv("MEMORY_PRESSURE_WATCH"), 0);
	assert_int_equal(unsetenv("MEMORY_PRESSURE_WRITE"), 0);
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_give),
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_handed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
