/* SPDX-License-Identifier: MIT */

/*
 * What is remembered of disks is what was written, or nothing; and a probe reads what it may, where
 * it may, and comes to amounts that hold together.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "clock.h"
#include "limit.h"
#include "probe.h"

#define MIB ((uint64_t)1 << 20)
#define ROOM (16 * MIB)

static const struct probe_entry entries[] = {
	{"8:1/1000/io_uring", {MIB, 4 * MIB, 2 * MIB, 1234567890}},
	{"0:42//pread", {16 * MIB, 16 * MIB, MIB / 2, 1}},
};

static void test_text(void **state)
{
	struct probe_entry back[4];
	char text[1024], damaged[1024];
	size_t n = probe_format(text, sizeof text, entries, 2);

	(void)state;
	assert_true(n < sizeof text);
	assert_int_equal(strlen(text), n);
	assert_int_equal(probe_parse(back, 4, text), 2);
	for (size_t i = 0; i < 2; i++) {
		assert_string_equal(back[i].name, entries[i].name);
		assert_memory_equal(&back[i].tuning, &entries[i].tuning, sizeof back[i].tuning);
	}
	assert_int_equal(probe_parse(back, 1, text), -EBADMSG);
	/* Every byte counts, and every length. */
	for (size_t i = 0; i < n; i++) {
		memcpy(damaged, text, n + 1);
		damaged[i] ^= 1;
		assert_int_equal(probe_parse(back, 4, damaged), -EBADMSG);
		memcpy(damaged, text, n + 1);
		damaged[i] = '\0';
		assert_int_equal(probe_parse(back, 4, damaged), -EBADMSG);
	}
	assert_int_equal(probe_format(text, 40, entries, 2) >= 40, true);
	n = probe_format(text, sizeof text, entries, 0);
	assert_int_equal(n, strlen(text));
	assert_int_equal(probe_parse(back, 4, text), 0);
}

/* Numbers that were never measured, though the checksum holds. */
static void test_unsound(void **state)
{
	static const struct disk_tuning unsound[] = {
		{0, 4 * MIB, 2 * MIB, 1},
		{4 * MIB, 2 * MIB, 2 * MIB, 1},
		{MIB, LIMIT_IN_FLIGHT_BYTES + 1, 2 * MIB, 1},
		{MIB, 4 * MIB, 0, 1},
		{MIB, 4 * MIB, MIB + 1, 1},
		{MIB, 4 * MIB, 8 * MIB, 1},
		{MIB, 4 * MIB, 2 * MIB, 0},
	};
	struct probe_entry e = entries[0], back[1];
	char text[1024];

	(void)state;
	for (size_t i = 0; i < sizeof unsound / sizeof unsound[0]; i++) {
		e.tuning = unsound[i];
		(void)probe_format(text, sizeof text, &e, 1);
		assert_int_equal(probe_parse(back, 1, text), -EBADMSG);
	}
}

static void test_name(void **state)
{
	char name[PROBE_NAME_MAX], other[PROBE_NAME_MAX];

	(void)state;
	probe_name(name, 0xfe00, "io_uring (plain)");
	assert_null(strchr(name, ' '));
	probe_name(other, 0xfe00, "pread");
	assert_string_not_equal(name, other);
}

/* A disk in memory: a clock of its own would be another one than the probe's. */
struct disk {
	struct io io;
	struct io_read reads[64];
	size_t n, served;
	int fails;
	uint64_t most; /* bytes in flight that were seen */
	char *memory;
};

static int disk_submit(struct io *io, const struct io_read *reads, size_t n)
{
	struct disk *d = (struct disk *)io;
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		const struct io_read *r = &reads[i];

		assert_true((char *)r->buffer >= d->memory);
		assert_true((char *)r->buffer + r->length <= d->memory + ROOM);
		assert_int_equal(r->offset % 4096, 0);
		assert_true(r->offset + r->length <= PROBE_FILE_MIN);
		for (size_t k = 0; k < d->n; k++)
			assert_true((char *)r->buffer + r->length <= (char *)d->reads[k].buffer ||
				    (char *)d->reads[k].buffer + d->reads[k].length <=
					    (char *)r->buffer);
		d->reads[d->n++] = *r;
	}
	for (size_t k = 0; k < d->n; k++)
		sum += d->reads[k].length;
	d->most = sum > d->most ? sum : d->most;
	return (int)n;
}

static int disk_reap(struct io *io, struct io_result *results, size_t max, uint64_t timeout_ns)
{
	struct disk *d = (struct disk *)io;

	(void)max;
	(void)timeout_ns;
	if (d->n == 0)
		return 0;
	d->served++;
	results[0] = (struct io_result){
		d->reads[0].tag, d->fails ? d->fails : (int32_t)d->reads[0].length};
	memmove(&d->reads[0], &d->reads[1], --d->n * sizeof d->reads[0]);
	return 1;
}

static bool disk_ready(const struct io *io)
{
	return ((const struct disk *)io)->n > 0;
}

static size_t disk_depth(const struct io *io)
{
	(void)io;
	return 64;
}

static const struct io_ops disk_ops = {
	.name = "disk",
	.submit = disk_submit,
	.reap = disk_reap,
	.ready = disk_ready,
	.depth = disk_depth,
};

static void test_run(void **state)
{
	struct disk d = {.io = {&disk_ops}};
	struct file file = {.fd = -1, .direct = true, .align = 4096, .size = PROBE_FILE_MIN};
	struct probe p = {.io = &d.io, .file = &file, .size = ROOM, .ns = 30 * CLOCK_NS_PER_MS};
	struct disk_tuning t = {0};

	(void)state;
	d.memory = mmap(NULL, ROOM, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(d.memory != MAP_FAILED);
	p.memory = d.memory;
	assert_int_equal(probe_run(&t, &p), 0);
	assert_int_equal(d.n, 0);
	assert_true(d.served > 0);
	assert_int_equal(d.most, ROOM);
	assert_in_range(t.least, MIB, t.most);
	assert_in_range(t.most, t.least, 16 * MIB);
	assert_in_range(t.piece, MIB / 2, 4 * MIB);
	assert_true(t.rate > 0);
	/* An error is told, and nothing is left in flight. */
	t = (struct disk_tuning){.rate = 77};
	d.fails = -EIO;
	assert_int_equal(probe_run(&t, &p), -EIO);
	assert_int_equal(d.n, 0);
	assert_int_equal(t.rate, 77);
	d.fails = 0;
	p.size = ROOM - 1;
	assert_int_equal(probe_run(&t, &p), -ENODATA);
	p.size = ROOM;
	file.size = PROBE_FILE_MIN - 1;
	assert_int_equal(probe_run(&t, &p), -ENODATA);
	(void)munmap(d.memory, ROOM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_unsound),
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
