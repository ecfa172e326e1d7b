/* SPDX-License-Identifier: MIT */

/*
 * Thousands of random calls against a model of what the store promises: bytes are the file's with
 * fill run exactly once, what is held stays as it is, holds are counted, a failure reaches those
 * who hold and nobody later, a hit is a hit.  The seed is printed; the first argument replays one.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake-io.h"
#include "num.h"
#include "store.h"

#define ALIGN 512u
#define GROUPS 4u
#define EXPERTS 7u
#define ALL (GROUPS * EXPERTS)
#define FILE_SIZE (1u << 20)
#define STEPS 20000u

struct model {
	struct fake_io fake;
	struct store *store;
	uint32_t seed;
	unsigned holds[ALL]; /* of each expert, by us */
	unsigned fills[ALL]; /* of each item since it was last seen empty */
	uint64_t hits, misses, finished;
	unsigned taken[5]; /* how often each outcome was seen, so that the test is known to test */
};

/* Experts of group 3 are those of group 2: shared slots. */
static uint32_t item_of(uint32_t group, uint32_t expert)
{
	return (group == 3 ? 2 : group) * EXPERTS + expert;
}

static void locate(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret)
{
	uint32_t item = item_of(group, expert);
	uint64_t at = 100 + item * UINT64_C(30011);

	/* Three sizes; parts apart, touching, or absent. */
	ret->part[0] = (struct store_extent){0, at, 1000 + item % 3 * 4000};
	ret->part[1] = (struct store_extent){0, at + 15000, item % 2 ? 900 : 0};
	ret->part[2] = (struct store_extent){0, at + 15900, 77};
}

/* Changes the first byte of part 0, so that a second run, or none, shows. */
static void fill(void *arg, uint32_t group, uint32_t expert, struct store_view *view)
{
	struct model *m = arg;

	*(unsigned char *)(uintptr_t)view->part[0] ^= 0xff;
	m->fills[item_of(group, expert)]++;
}

static void check_bytes(uint32_t group, uint32_t expert, const struct store_view *view)
{
	struct store_expert x;
	const unsigned char *first = view->part[0];

	locate(NULL, group, expert, &x);
	assert_int_equal(first[0], fake_byte(x.part[0].offset) ^ 0xff);
	assert_true(fake_is_content(first + 1, x.part[0].offset + 1, x.part[0].size - 1));
	for (size_t i = 1; i < STORE_PARTS; i++)
		if (x.part[i].size)
			assert_true(
				fake_is_content(view->part[i], x.part[i].offset, x.part[i].size));
		else
			assert_null(view->part[i]);
}

static unsigned holds_of_item(const struct model *m, uint32_t item)
{
	unsigned n = m->holds[item];

	return item / EXPERTS == 2 ? n + m->holds[item + EXPERTS] : n;
}

static void acquire(struct model *m, uint32_t g, uint32_t e)
{
	bool demand = fake_random(&m->seed) % 3 > 0;
	unsigned urgent = fake_random(&m->seed) % 4 ? 0 : STORE_URGENT;
	int r = store_acquire(m->store, g, e, (demand ? STORE_DEMAND : 0) | urgent);
	struct store_view view;

	if (demand)
		*(r == STORE_READY ? &m->hits : &m->misses) += 1;
	if (r == STORE_READY || r == STORE_READING) {
		m->holds[g * EXPERTS + e]++;
		if (r == STORE_READY) {
			assert_int_equal(store_poll(m->store, g, e, &view), STORE_READY);
			check_bytes(g, e, &view);
		}
		m->taken[r]++;
	} else if (r == STORE_BUSY) {
		/* Not for one that is held already. */
		assert_int_equal(holds_of_item(m, item_of(g, e)), 0);
		m->taken[r]++;
	} else {
		assert_true(r == -EIO || r == -EAGAIN || r == -EINTR || r == -ENOMEM);
		m->taken[3]++;
	}
}

static void poll(struct model *m, uint32_t g, uint32_t e)
{
	struct store_view view;
	int r = store_poll(m->store, g, e, &view);

	if (!holds_of_item(m, item_of(g, e))) {
		assert_int_equal(r, -EINVAL);
		return;
	}
	assert_true(r == STORE_READY || r == STORE_READING || r == -EIO || r == -EAGAIN ||
		    r == -EINTR || r == -ENOMEM);
	if (r == STORE_READY)
		check_bytes(g, e, &view);
	else if (r < 0)
		m->taken[4]++;
}

static void step(struct model *m)
{
	uint32_t g = fake_random(&m->seed) % GROUPS, e = fake_random(&m->seed) % EXPERTS;
	int r;

	switch (fake_random(&m->seed) % 13) {
	case 0:
	case 1:
	case 2:
		acquire(m, g, e);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
		/* Holds pile up otherwise and everything is busy. */
		for (uint32_t i = 0; i < ALL; i++) {
			uint32_t at = (g * EXPERTS + e + i) % ALL;

			if (m->holds[at]) {
				poll(m, at / EXPERTS, at % EXPERTS);
				m->holds[at]--;
				store_release(m->store, at / EXPERTS, at % EXPERTS);
				break;
			}
		}
		break;
	case 8:
		m->fake.hold_back = fake_random(&m->seed) % 3 == 0;
		m->fake.depth = 1 + fake_random(&m->seed) % 6;
		if (fake_random(&m->seed) % 8 == 0) {
			m->fake.n_submit_fails = 1 + fake_random(&m->seed) % 3;
			m->fake.submit_fails = fake_random(&m->seed) % 4 ? -EAGAIN : -ENOMEM;
		}
		break;
	case 9:
		store_submit(m->store);
		break;
	default:
		r = store_reap(m->store, fake_random(&m->seed) % 2);
		assert_true(r >= 0);
		poll(m, g, e);
	}
}

static void check_stats(const struct model *m)
{
	struct store_stats stats;

	store_get_stats(m->store, &stats);
	assert_int_equal(stats.hits, m->hits);
	assert_int_equal(stats.misses, m->misses);
	assert_int_equal(stats.bytes_read, m->fake.bytes);
	assert_in_range(stats.slots_used, 0, stats.slots);
	assert_true(stats.bytes_useful <= stats.bytes_read);
	/* One fill for each expert that arrived whole. */
	uint64_t fills = 0;

	for (uint32_t i = 0; i < ALL; i++)
		fills += m->fills[i];
	assert_true(fills <= stats.reads);
}

static void run(uint32_t seed, size_t memory_size, unsigned faults)
{
	static const uint32_t experts[GROUPS] = {EXPERTS, EXPERTS, EXPERTS, EXPERTS};
	struct model *m = calloc(1, sizeof *m);
	struct error err = ERROR_NONE;
	struct store_config config;
	void *memory = NULL;
	struct store_view view;

	print_message("seed %u, %zu bytes, faults %u: ", seed, memory_size, faults);
	assert_int_equal(posix_memalign(&memory, 2 << 20, memory_size), 0);
	fake_init(&m->fake, FILE_SIZE, ALIGN);
	m->seed = m->fake.seed = seed;
	m->fake.in_order = false;
	m->fake.chance_short = faults * 20;
	m->fake.chance_again = faults * 10;
	m->fake.chance_error = faults * 5;
	config = (struct store_config){.io = &m->fake.io,
		.files = &m->fake.file,
		.n_files = 1,
		.groups = GROUPS,
		.experts = experts,
		.locate = locate,
		.memory = memory,
		.size = memory_size,
		.fill = fill,
		.fill_arg = m};
	if (store_new(&m->store, &config, &err) < 0)
		fail_msg("%s", err.text);
	for (unsigned i = 0; i < STEPS; i++)
		step(m);
	check_stats(m);

	/* In the end everything can be had. */
	m->fake.hold_back = false;
	m->fake.n_submit_fails = 0;
	m->fake.chance_short = m->fake.chance_again = m->fake.chance_error = 0;
	for (uint32_t i = 0; i < ALL; i++)
		for (; m->holds[i]; m->holds[i]--)
			store_release(m->store, i / EXPERTS, i % EXPERTS);
	while (store_in_flight(m->store) > 0)
		assert_true(store_reap(m->store, 1) >= 0);
	for (uint32_t i = 0; i < ALL; i++) {
		uint32_t g = i / EXPERTS, e = i % EXPERTS;
		int r;

		while ((r = store_acquire(m->store, g, e, 0)) == STORE_BUSY)
			assert_true(store_reap(m->store, 1) >= 0);
		assert_true(r >= 0);
		while ((r = store_poll(m->store, g, e, &view)) == STORE_READING)
			assert_true(store_reap(m->store, 1) >= 0);
		assert_int_equal(r, STORE_READY);
		check_bytes(g, e, &view);
		store_release(m->store, g, e);
	}
	print_message("ready %u, reading %u, busy %u, failed %u, late failures %u\n", m->taken[0],
		m->taken[1], m->taken[2], m->taken[3], m->taken[4]);
	assert_true(m->taken[STORE_READY] > 0 && m->taken[STORE_READING] > 0);
	assert_true(!faults || memory_size == FILE_SIZE || m->taken[3] + m->taken[4] > 0);
	store_free(m->store);
	fake_deinit(&m->fake);
	free(memory);
	free(m);
}

static uint32_t first_seed = 20260701;

static void test_small(void **state)
{
	for (uint32_t i = 0; i < 4; i++)
		run(first_seed + i, 45000, i);
}

static void test_middling(void **state)
{
	for (uint32_t i = 0; i < 4; i++)
		run(first_seed + 10 + i, 100000, i);
}

static void test_resident(void **state)
{
	for (uint32_t i = 0; i < 4; i++)
		run(first_seed + 20 + i, FILE_SIZE, i);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_middling),
		cmocka_unit_test(test_resident),
	};

	if (argc > 1)
		first_seed = (uint32_t)strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
