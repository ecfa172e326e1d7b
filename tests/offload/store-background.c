/* SPDX-License-Identifier: MIT */

/*
 * Experts that are read before anybody wants them, and slots whose memory comes later: such reads
 * go behind all others, take no slot from anybody, and use none that is not there yet.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake-io.h"
#include "store.h"

#define ALIGN 512u
#define EXPERTS 24u
#define SIZE 10000u
#define SLOT (((SIZE + ALIGN - 1) / ALIGN + 1) * ALIGN)
#define LARGE (1u << 20) /* of group 1 */
#define LARGE_SLOT (LARGE + ALIGN)
#define FILE_SIZE (32u << 20)

struct world {
	struct fake_io fake;
	struct store_config config;
	struct store *store;
	uint32_t experts[2];
};

static struct store_extent extent(uint32_t group, uint32_t expert)
{
	return group == 0 ? (struct store_extent){0, 777 + expert * UINT64_C(20001), SIZE}
			  : (struct store_extent){0, (1 + (uint64_t)expert) << 20, LARGE};
}

static void locate(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret)
{
	*ret = (struct store_expert){.part = {extent(group, expert)}};
}

static struct world *start(size_t size, size_t chunk, uint32_t small, uint32_t large)
{
	struct world *w = calloc(1, sizeof *w);
	struct error err = ERROR_NONE;
	void *memory = NULL;

	assert_non_null(w);
	fake_init(&w->fake, FILE_SIZE, ALIGN);
	w->fake.in_order = true;
	assert_int_equal(posix_memalign(&memory, 2 << 20, size), 0);
	memset(memory, 'x', size);
	w->experts[0] = small;
	w->experts[1] = large;
	w->config = (struct store_config){.io = &w->fake.io,
		.files = &w->fake.file,
		.n_files = 1,
		.groups = 2,
		.experts = w->experts,
		.locate = locate,
		.memory = memory,
		.size = size,
		.chunk = chunk};
	if (store_new(&w->store, &w->config, &err) < 0)
		fail_msg("%s", err.text);
	return w;
}

static void end(struct world *w)
{
	store_free(w->store);
	fake_deinit(&w->fake);
	free(w->config.memory);
	free(w);
}

static bool is_ready(struct world *w, uint32_t group, uint32_t expert)
{
	struct store_view view;
	int r = store_poll(w->store, group, expert, &view);

	assert_in_range(r, STORE_READY, STORE_READING);
	if (r == STORE_READY)
		assert_true(fake_is_content(
			view.part[0], extent(group, expert).offset, extent(group, expert).size));
	return r == STORE_READY;
}

static void settle(struct world *w)
{
	do
		assert_true(store_reap(w->store, 1) >= 0);
	while (store_in_flight(w->store));
}

static struct store_stats stats(struct world *w)
{
	struct store_stats s;

	store_get_stats(w->store, &s);
	return s;
}

/* Only free slots are taken, and what is there is not asked for again. */
static void test_takes_no_slot(void **state)
{
	struct world *w = start(20 * SLOT, 0, EXPERTS, 0);

	assert_int_equal(stats(w).experts, EXPERTS);
	for (uint32_t e = 0; e < 20; e++) {
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READING);
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READY); /* on its way */
	}
	assert_int_equal(store_fetch(w->store, 0, 20), STORE_BUSY);
	assert_true(store_fetch(w->store, 0, EXPERTS) < 0);
	settle(w);
	for (uint32_t e = 0; e < 20; e++) {
		assert_true(is_ready(w, 0, e));
		store_release(w->store, 0, e);
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READY);
	}
	assert_int_equal(stats(w).ready, 20);
	assert_int_equal(stats(w).ready_bytes, 20 * SIZE);
	/* All are idle, but nobody wants this one. */
	assert_int_equal(store_fetch(w->store, 0, 20), STORE_BUSY);
	assert_int_equal(stats(w).evictions, 0);
	assert_int_equal(stats(w).hits + stats(w).misses, 0);
	/* Now somebody does: the oldest gives way. */
	assert_int_equal(store_acquire(w->store, 0, 20, STORE_DEMAND), STORE_READING);
	assert_int_equal(stats(w).ready, 19);
	settle(w);
	assert_true(is_ready(w, 0, 20));
	assert_int_equal(stats(w).ready, 20);
	assert_int_equal(stats(w).evictions, 1);
	assert_int_equal(store_fetch(w->store, 0, 0), STORE_BUSY);
	end(w);
}

/* What is wanted goes before what is not, though it came last. */
static void test_goes_behind(void **state)
{
	struct world *w = start(EXPERTS * SLOT, 0, EXPERTS, 0);

	w->fake.depth = 1;
	store_free(w->store);
	assert_int_equal(store_new(&w->store, &w->config, NULL), 0);
	for (uint32_t e = 0; e < 4; e++)
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READING);
	store_submit(w->store); /* 0 */
	assert_int_equal(store_acquire(w->store, 0, 8, 0), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 2, 0), STORE_READING); /* moves up */
	assert_int_equal(store_acquire(w->store, 0, 9, STORE_URGENT), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 3, STORE_URGENT), STORE_READING);
	static const uint32_t order[] = {0, 9, 3, 8, 2, 1};
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(store_reap(w->store, 1), 1);
		for (size_t k = 0; k < 6; k++)
			assert_int_equal(is_ready(w, 0, order[k]), k <= i);
	}
	end(w);
}

/* Let go before it has started, it is called off; the slot is free again. */
static void test_called_off(void **state)
{
	struct world *w = start(EXPERTS * SLOT, 0, EXPERTS, 0);

	for (uint32_t e = 0; e < EXPERTS; e++)
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READING);
	for (uint32_t e = 0; e < EXPERTS; e++)
		store_release(w->store, 0, e);
	settle(w);
	assert_int_equal(stats(w).reads, 0);
	assert_int_equal(stats(w).slots_used, 0);
	end(w);
}

/* Few in flight where the engine computes: the first one that is wanted waits for one at most. */
static void test_one_at_a_time(void **state)
{
	struct world *w = start(20 * LARGE_SLOT, 0, 0, 20);

	store_set_background(w->store, 1);
	for (uint32_t e = 0; e < 10; e++)
		assert_int_equal(store_fetch(w->store, 1, e), STORE_READING);
	store_submit(w->store);
	assert_int_equal(store_in_flight(w->store), 1);
	assert_int_equal(store_acquire(w->store, 1, 15, 0), STORE_READING);
	store_submit(w->store);
	assert_int_equal(store_in_flight(w->store), 2);
	settle(w);
	assert_true(is_ready(w, 1, 15));
	/* And many where it does not. */
	for (uint32_t e = 0; e < 10; e++)
		store_release(w->store, 1, e);
	store_release(w->store, 1, 15);
	store_set_background(w->store, UINT64_MAX);
	for (uint32_t e = 10; e < 20; e++)
		(void)store_fetch(w->store, 1, e);
	store_submit(w->store);
	assert_in_range(store_in_flight(w->store), 8, 9);
	settle(w);
	assert_int_equal(stats(w).ready, 20);
	end(w);
}

/* Memory that comes range by range: slots that lie in two of them come with the second. */
static void test_memory_comes(void **state)
{
	const size_t chunk = 3 * SLOT + 100;
	struct world *w = start(10 * SLOT, chunk, 10, 0);
	char *base = w->config.memory;

	assert_int_equal(stats(w).slots, 0);
	assert_int_equal(store_acquire(w->store, 0, 0, 0), STORE_BUSY);
	assert_int_equal(store_fetch(w->store, 0, 0), STORE_BUSY);
	store_restore(w->store, base + chunk, chunk); /* slots 3 to 6, without 3 and 6 */
	assert_int_equal(stats(w).slots, 2);
	for (uint32_t e = 0; e < 2; e++)
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READING);
	assert_int_equal(store_fetch(w->store, 0, 2), STORE_BUSY);
	settle(w);
	assert_true(is_ready(w, 0, 0) && is_ready(w, 0, 1));
	for (size_t i = 0; i < 10 * SLOT; i++)
		if (i < 4 * SLOT || i >= 6 * SLOT)
			assert_int_equal(base[i], 'x');
	store_restore(w->store, base, chunk);
	assert_int_equal(stats(w).slots, 6);
	store_restore(w->store, base + 2 * chunk, chunk);
	assert_int_equal(stats(w).slots, 9);
	store_restore(w->store, base + 3 * chunk, chunk);
	assert_int_equal(stats(w).slots, 10);
	for (uint32_t e = 2; e < 10; e++)
		assert_int_equal(store_fetch(w->store, 0, e), STORE_READING);
	settle(w);
	for (uint32_t e = 0; e < 10; e++) {
		assert_true(is_ready(w, 0, e));
		store_release(w->store, 0, e);
	}
	assert_int_equal(stats(w).ready, stats(w).experts);
	end(w);
}

/* Each size has its least slots at its own place. */
static void test_least(void **state)
{
	struct world *w = start(EXPERTS * SLOT + 20 * LARGE_SLOT, 0, EXPERTS, 20);
	char *base = w->config.memory, *large = base + EXPERTS * SLOT;

	assert_true(store_holds_least(w->store, base, 1, 1));
	assert_false(store_holds_least(w->store, base + SLOT, SLOT, 1));
	assert_true(store_holds_least(w->store, base + SLOT, 1, 2));
	assert_true(store_holds_least(w->store, large, 1, 1));
	assert_true(store_holds_least(w->store, base + SLOT, EXPERTS * SLOT, 1));
	assert_false(store_holds_least(w->store, large + LARGE_SLOT, 19 * LARGE_SLOT, 1));
	assert_true(store_holds_least(w->store, large + 19 * LARGE_SLOT, 1, UINT32_MAX));
	assert_false(store_holds_least(w->store, large + 20 * LARGE_SLOT, 1, UINT32_MAX));
	end(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes_no_slot),
		cmocka_unit_test(test_goes_behind),
		cmocka_unit_test(test_called_off),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_memory_comes),
		cmocka_unit_test(test_least),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
