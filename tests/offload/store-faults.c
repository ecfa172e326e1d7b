/* SPDX-License-Identifier: MIT */

/*
 * The store against reads that go wrong in every way we know, one at a time, and the rules on
 * holding, sharing and size classes.
 */

#include <errno.h>
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

#include "fake-io.h"
#include "limit.h"
#include "num.h"
#include "store.h"

#define ALIGN 512u
#define EXPERTS 12u
#define EXPERT_SIZE 10000u
#define FILE_SIZE (1u << 20)
#define SLOT (((EXPERT_SIZE + ALIGN - 1) / ALIGN + 1) * ALIGN)

struct world {
	struct fake_io fake;
	struct store_config config;
	struct store *store;
	struct error err;
	uint32_t experts[2];
	struct store_expert (*shape)(uint32_t group, uint32_t expert);
	unsigned fills;
};

static struct store_expert simple(uint32_t group, uint32_t expert)
{
	uint64_t at = 777 + (group * EXPERTS + expert) * UINT64_C(20001);

	return (struct store_expert){.part = {{0, at, EXPERT_SIZE}}};
}

static void locate(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret)
{
	struct world *w = arg;

	*ret = w->shape(group, expert);
}

static void fill(void *arg, uint32_t group, uint32_t expert, struct store_view *view)
{
	((struct world *)arg)->fills++;
}

/* A store of `slots` slots of the simple shape. */
static struct world *make(size_t size, struct store_expert (*shape)(uint32_t, uint32_t))
{
	struct world *w = calloc(1, sizeof *w);
	void *memory = NULL;

	fake_init(&w->fake, FILE_SIZE, ALIGN);
	assert_int_equal(posix_memalign(&memory, 2 << 20, num_max(size, (size_t)1)), 0);
	w->shape = shape;
	w->experts[0] = w->experts[1] = EXPERTS;
	w->config = (struct store_config){.io = &w->fake.io,
		.files = &w->fake.file,
		.n_files = 1,
		.groups = 2,
		.experts = w->experts,
		.locate = locate,
		.locate_arg = w,
		.memory = memory,
		.size = size,
		.fill = fill,
		.fill_arg = w};
	return w;
}

static struct world *start(size_t size, struct store_expert (*shape)(uint32_t, uint32_t))
{
	struct world *w = make(size, shape);

	if (store_new(&w->store, &w->config, &w->err) < 0)
		fail_msg("%s", w->err.text);
	return w;
}

/* One read in flight, no more. */
static struct world *start_shallow(size_t size)
{
	struct world *w = make(size, simple);

	w->fake.depth = 1;
	assert_int_equal(store_new(&w->store, &w->config, &w->err), 0);
	return w;
}

static void end(struct world *w)
{
	store_free(w->store);
	fake_deinit(&w->fake);
	free(w->config.memory);
	free(w);
}

static int finish(struct world *w, uint32_t group, uint32_t expert, struct store_view *view)
{
	int r;

	for (unsigned i = 0; i < 10000; i++) {
		r = store_poll(w->store, group, expert, view);
		if (r != STORE_READING)
			return r;
		assert_true(store_reap(w->store, 1) >= 0);
	}
	fail_msg("expert %u never arrives", expert);
	return -1;
}

static void check_ready(struct world *w, uint32_t group, uint32_t expert)
{
	struct store_expert x = w->shape(group, expert);
	struct store_view view;

	assert_int_equal(finish(w, group, expert, &view), STORE_READY);
	for (size_t i = 0; i < STORE_PARTS; i++)
		if (x.part[i].size)
			assert_true(
				fake_is_content(view.part[i], x.part[i].offset, x.part[i].size));
		else
			assert_null(view.part[i]);
}

/* Asks for one expert under this script and returns what became of it; holds nothing after. */
static int one_read(struct world *w, const struct fake_outcome *script, size_t n)
{
	struct store_view view;
	int r;

	w->fake.script = script;
	w->fake.n_script = n;
	r = store_acquire(w->store, 0, 0, STORE_DEMAND);
	if (r < 0)
		return r;
	assert_int_equal(r, STORE_READING);
	r = finish(w, 0, 0, &view);
	if (r == STORE_READY)
		check_ready(w, 0, 0);
	store_release(w->store, 0, 0);
	return r;
}

static void test_short(void **state)
{
	static const struct fake_outcome units[] = {
		{FAKE_SHORT, 512}, {FAKE_SHORT, 1024}, {FAKE_SHORT, 4096}};
	static const struct fake_outcome odd[] = {
		{FAKE_SHORT, 513}, {FAKE_SHORT, 1}, {FAKE_SHORT, 511}, {FAKE_SHORT, 9000}};
	struct world *w = start(SLOT, simple);
	struct store_stats stats;

	assert_int_equal(one_read(w, units, 3), STORE_READY);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.retries, 3);
	assert_int_equal(stats.reads, 4);
	end(w);
	w = start(SLOT, simple);
	assert_int_equal(one_read(w, odd, 4), STORE_READY);
	assert_int_equal(w->fills, 1);
	end(w);
}

static void test_passing_errors(void **state)
{
	struct fake_outcome script[LIMIT_READ_RETRIES + 1];
	struct world *w = start(SLOT, simple);
	struct store_stats stats;

	for (size_t i = 0; i <= LIMIT_READ_RETRIES; i++)
		script[i] = (struct fake_outcome){FAKE_ERROR, i % 2 ? -EINTR : -EAGAIN};
	assert_int_equal(one_read(w, script, LIMIT_READ_RETRIES), STORE_READY);
	end(w);
	w = start(SLOT, simple);
	assert_int_equal(one_read(w, script, LIMIT_READ_RETRIES + 1), -EAGAIN);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.errors, 1);
	assert_int_equal(stats.slots_used, 0);
	assert_int_equal(w->fills, 0);
	/* The same expert, tried anew. */
	assert_int_equal(one_read(w, NULL, 0), STORE_READY);
	end(w);
}

/* An expert that fails leaves its neighbours and whoever held the slot before alone. */
static void test_eio(void **state)
{
	static const struct fake_outcome script[] = {{FAKE_FINE, 0}, {FAKE_ERROR, -EIO}};
	struct world *w = start(3 * SLOT, simple);
	struct store_view view;
	struct store_stats stats;

	w->fake.script = script;
	w->fake.n_script = 2;
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 2, STORE_DEMAND), STORE_READING);
	assert_int_equal(finish(w, 0, 1, &view), -EIO);
	assert_non_null(strstr(store_error(w->store), "fake.gguf"));
	assert_non_null(strstr(store_error(w->store), "expert 1 of layer 0"));
	assert_non_null(strstr(store_error(w->store), "offset 20480"));
	check_ready(w, 0, 0);
	check_ready(w, 0, 2);
	/* Two held the failed one: while one of them does, others hear of the failure too. */
	store_release(w->store, 0, 1);
	assert_int_equal(store_poll(w->store, 0, 1, &view), -EIO);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), -EIO);
	store_release(w->store, 0, 1);
	assert_int_equal(store_poll(w->store, 0, 1, &view), -EINVAL);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots_used, 2);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	check_ready(w, 0, 1);
	assert_int_equal(w->fills, 3);
	end(w);
}

/* Released while on its way, then failing: empty at once. */
static void test_nobody_waits(void **state)
{
	static const struct fake_outcome script[] = {{FAKE_ERROR, -EIO}};
	struct world *w = start(SLOT, simple);
	struct store_stats stats;

	w->fake.hold_back = true;
	w->fake.script = script;
	w->fake.n_script = 1;
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
	store_release(w->store, 0, 0);
	/* In flight: not to be had, though nobody holds it. */
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_BUSY);
	w->fake.hold_back = false;
	assert_int_equal(store_reap(w->store, 1), 1);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots_used, 0);
	assert_int_equal(stats.bytes_useful, 0);
	assert_int_equal(store_acquire(w->store, 0, 1, 0), STORE_READING);
	check_ready(w, 0, 1);
	end(w);
}

static struct store_expert middling(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{0, expert * (UINT64_C(3) << 20), 3 << 20}}};
}

static struct store_expert large(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{0, expert % 2 * (UINT64_C(20) << 20), 20 << 20}}};
}

static struct store_expert vast(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{0, 0, UINT64_C(100) << 20}}};
}

/* Half of what is wanted is in flight, 2 to 8 MiB, and the read that crosses them. */
static void test_in_flight(void **state)
{
	static const struct {
		struct store_expert (*shape)(uint32_t, uint32_t);
		uint64_t size;
		uint32_t experts;
		size_t reads;
	} cases[] = {
		{middling, 3, 5, 3}, {middling, 3, 2, 1}, {large, 20, 2, 4}, {vast, 100, 2, 4}};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t slot = (cases[i].size << 20) + ALIGN;
		struct world *w = make(cases[i].experts * slot, cases[i].shape);
		struct store_view view;

		w->fake.depth = FAKE_DEPTH_MAX;
		w->fake.hold_back = true;
		assert_int_equal(store_new(&w->store, &w->config, &w->err), 0);
		for (uint32_t e = 0; e < cases[i].experts; e++)
			assert_int_equal(
				store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
		store_submit(w->store);
		assert_int_equal(store_in_flight(w->store), cases[i].reads);
		/* The file is shorter than that. */
		w->fake.hold_back = false;
		assert_int_equal(finish(w, 0, 1, &view), -ENODATA);
		end(w);
	}
}

/* Between pieces of work: what has arrived is taken, what waits for it starts. */
static void test_service(void **state)
{
	struct world *w = start_shallow(3 * SLOT);
	struct store_view view;

	w->fake.hold_back = true;
	for (uint32_t e = 0; e < 3; e++)
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
	store_service(w->store);
	assert_int_equal(store_in_flight(w->store), 0); /* nothing was asked for yet */
	store_submit(w->store);
	assert_int_equal(store_in_flight(w->store), 1);
	store_service(w->store);
	assert_int_equal(store_poll(w->store, 0, 0, &view), STORE_READING);
	w->fake.hold_back = false;
	for (uint32_t e = 0; e < 3; e++) {
		store_service(w->store);
		assert_int_equal(store_poll(w->store, 0, e, &view), STORE_READY);
		assert_int_equal(store_in_flight(w->store), e < 2);
	}
	assert_int_equal(store_reap(w->store, 0), 3);
	end(w);
}

/* Nobody wants it any more before its reads have started: they never do. */
static void test_called_off(void **state)
{
	struct world *w = start_shallow(2 * SLOT);
	struct store_stats stats;

	w->fake.hold_back = true;
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
	assert_int_equal(store_in_flight(w->store), 1);
	store_release(w->store, 0, 1);
	assert_int_equal(store_acquire(w->store, 0, 2, 0), STORE_BUSY); /* held once more */
	store_release(w->store, 0, 1);
	assert_int_equal(store_acquire(w->store, 0, 2, 0), STORE_READING);
	store_release(w->store, 0, 2);
	w->fake.hold_back = false;
	check_ready(w, 0, 0);
	assert_int_equal(store_in_flight(w->store), 0);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.reads, 1);
	assert_int_equal(stats.slots_used, 1);
	assert_int_equal(store_acquire(w->store, 0, 1, 0), STORE_READING);
	check_ready(w, 0, 1);
	end(w);
}

/* Decode does not queue behind prefill, not even for an expert that both want. */
static void test_urgent(void **state)
{
	struct world *w = start_shallow(8 * SLOT);
	struct store_view view;

	for (uint32_t e = 0; e < 6; e++)
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
	assert_int_equal(store_acquire(w->store, 0, 7, STORE_DEMAND | STORE_URGENT), STORE_READING);
	assert_int_equal(store_acquire(w->store, 0, 4, STORE_DEMAND | STORE_URGENT), STORE_READING);
	assert_int_equal(store_reap(w->store, 1), 1); /* the one in flight */
	check_ready(w, 0, 0);
	assert_int_equal(store_reap(w->store, 1), 1);
	check_ready(w, 0, 7);
	assert_int_equal(store_reap(w->store, 1), 1);
	check_ready(w, 0, 4);
	assert_int_equal(store_poll(w->store, 0, 1, &view), STORE_READING);
	for (uint32_t e = 1; e < 6; e++)
		check_ready(w, 0, e);
	end(w);
}

static void test_truncated(void **state)
{
	struct world *w = start(2 * SLOT, simple);
	struct store_view view;

	/* In the middle of expert 0, which begins at 777 in the window from 512. */
	assert_int_equal(ftruncate(w->fake.file.fd, 5000), 0);
	assert_int_equal(one_read(w, NULL, 0), -ENODATA);
	/* Wholly before expert 1. */
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	assert_int_equal(finish(w, 0, 1, &view), -ENODATA);
	store_release(w->store, 0, 1);
	end(w);
}

static void test_replaced(void **state)
{
	struct timespec times[2] = {{1, 0}, {1, 0}};
	struct world *w = start(2 * SLOT, simple);

	assert_int_equal(futimens(w->fake.file.fd, times), 0);
	assert_int_equal(one_read(w, NULL, 0), -ESTALE);
	assert_non_null(strstr(store_error(w->store), "changed"));
	end(w);
}

static void test_held_stays(void **state)
{
	struct world *w = start(3 * SLOT, simple);
	struct store_stats stats;

	for (uint32_t e = 0; e < 3; e++)
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
	for (uint32_t e = 0; e < 3; e++)
		check_ready(w, 0, e);
	assert_int_equal(store_acquire(w->store, 0, 5, STORE_DEMAND), STORE_BUSY);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READY);
	store_release(w->store, 0, 1);
	assert_int_equal(store_acquire(w->store, 0, 5, 0), STORE_BUSY); /* still held once */
	store_release(w->store, 0, 1);
	assert_int_equal(store_acquire(w->store, 0, 5, 0), STORE_READING);
	check_ready(w, 0, 5);
	check_ready(w, 0, 0);
	check_ready(w, 0, 2);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.evictions, 1);
	assert_int_equal(stats.hits, 1);
	assert_int_equal(stats.misses, 4);
	/* Gives back more than was taken, and what does not exist: nothing happens. */
	store_release(w->store, 0, 1);
	store_release(w->store, 9, 0);
	store_release(w->store, 0, EXPERTS);
	assert_int_equal(store_acquire(w->store, 0, EXPERTS, STORE_DEMAND), -EINVAL);
	assert_int_equal(store_acquire(w->store, 2, 0, STORE_DEMAND), -EINVAL);
	end(w);
}

/* The queue in front of a ring of depth 1, and one that refuses. */
static void test_full_ring(void **state)
{
	struct world *w = start(8 * SLOT, simple);
	struct store_view view;

	w->fake.depth = 1;
	w->fake.n_submit_fails = 3;
	w->fake.submit_fails = -EAGAIN;
	for (uint32_t e = 0; e < 8; e++)
		assert_int_equal(store_acquire(w->store, 1, e, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_in_flight(w->store), 0);
	for (unsigned i = 0; i < 4; i++)
		store_submit(w->store);
	assert_int_equal(store_in_flight(w->store), 1);
	for (uint32_t e = 8; e-- > 0;)
		check_ready(w, 1, e);
	end(w);

	w = start(8 * SLOT, simple);
	w->fake.n_submit_fails = 1;
	w->fake.submit_fails = -ENOMEM;
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	store_submit(w->store);
	assert_int_equal(store_poll(w->store, 0, 0, &view), -ENOMEM);
	store_release(w->store, 0, 0);
	assert_int_equal(store_poll(w->store, 0, 0, &view), -EINVAL); /* nothing is held */
	assert_int_equal(store_acquire(w->store, 0, 0, 0), STORE_READING);
	check_ready(w, 0, 0);
	/* Never taken: an error in the end, no endless wait. */
	w->fake.n_submit_fails = UINT32_MAX;
	w->fake.submit_fails = -EBUSY;
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	assert_int_equal(finish(w, 0, 1, &view), -EBUSY);
	w->fake.n_submit_fails = 0;
	w->fake.reap_fails = -EBADF;
	store_release(w->store, 0, 1);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	assert_int_equal(store_reap(w->store, 1), -EBADF);
	assert_true(strlen(store_error(w->store)) > 0);
	w->fake.reap_fails = 0;
	check_ready(w, 0, 1);
	end(w);
}

/* Results that were never asked for, or come twice. */
static void test_stale_results(void **state)
{
	struct world *w = start(2 * SLOT, simple);
	struct io_read copy;

	w->fake.hold_back = true;
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	copy = w->fake.pending[0];
	w->fake.hold_back = false;
	check_ready(w, 0, 0);
	store_release(w->store, 0, 0);
	assert_int_equal(store_acquire(w->store, 0, 1, STORE_DEMAND), STORE_READING);
	/* The old tag once more, and one far out, before the awaited result. */
	char scratch[4096] __attribute__((aligned(4096)));

	copy.buffer = scratch;
	copy.length = 512;
	memmove(&w->fake.pending[2], &w->fake.pending[0], sizeof copy);
	w->fake.pending[0] = copy;
	w->fake.pending[1] = copy;
	w->fake.pending[1].tag = UINT64_MAX;
	w->fake.n_pending = 3;
	check_ready(w, 0, 1);
	assert_int_equal(store_in_flight(w->store), 0);
	end(w);
}

static struct store_expert shared(uint32_t group, uint32_t expert)
{
	return simple(0, expert % 3);
}

static void test_sharing(void **state)
{
	struct world *w = start(3 * SLOT, shared);
	struct store_stats stats;

	for (uint32_t g = 0; g < 2; g++)
		for (uint32_t e = 0; e < EXPERTS; e++)
			assert_true(store_acquire(w->store, g, e, STORE_DEMAND) >= 0);
	for (uint32_t g = 0; g < 2; g++)
		for (uint32_t e = 0; e < EXPERTS; e++)
			check_ready(w, g, e);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 3);
	assert_int_equal(stats.reads, 3);
	assert_int_equal(w->fills, 3);
	end(w);
	/* Memory beyond what all of them need makes no more slots. */
	w = start(30 * SLOT, shared);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 3);
	end(w);
}

/* Parts in any order, touching, overlapping, absent; none reads a byte twice. */
static struct store_expert patchwork(uint32_t group, uint32_t expert)
{
	uint64_t at = 1000 + expert * UINT64_C(30000);

	if (group == 0)
		return (struct store_expert){
			.part = {{0, at + 700, 300}, {0, at, 700}, {0, at + 9000, 100}}};
	return (struct store_expert){.part = {{0, at, 5000}, {0, 0, 0}, {0, at + 100, 200}}};
}

static void test_parts(void **state)
{
	struct world *w = start(FILE_SIZE, patchwork);
	struct store_stats stats;

	for (uint32_t e = 0; e < EXPERTS; e++) {
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
		check_ready(w, 0, e);
	}
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.reads, 2 * EXPERTS);
	for (uint32_t e = 0; e < EXPERTS; e++) {
		assert_int_equal(store_acquire(w->store, 1, e, STORE_DEMAND), STORE_READING);
		check_ready(w, 1, e);
	}
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.reads, 3 * EXPERTS);
	assert_int_equal(stats.slots_used, 2 * EXPERTS);
	end(w);
}

/* The last expert of the file ends with it: its window does not. */
static struct store_expert last(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{0, 1000003 - 5000, 5000}}};
}

static void test_end_of_file(void **state)
{
	struct world *w = make(FILE_SIZE, last);

	fake_deinit(&w->fake);
	fake_init(&w->fake, 1000003, ALIGN);
	assert_int_equal(store_new(&w->store, &w->config, &w->err), 0);
	assert_int_equal(store_acquire(w->store, 0, 0, STORE_DEMAND), STORE_READING);
	check_ready(w, 0, 0);
	end(w);
}

/* Two layers' worth of large experts among small ones. */
static struct store_expert two_sizes(uint32_t group, uint32_t expert)
{
	uint64_t at = 100 + (group * EXPERTS + expert) * UINT64_C(30000);

	return (struct store_expert){.part = {{0, at, group ? 25000 : 3000}}};
}

static void test_classes(void **state)
{
	size_t small = 3072 + ALIGN, large = 25088 + ALIGN;
	struct world *w = make(small + large - 1, two_sizes);
	struct store_stats stats;

	assert_int_equal(store_new(&w->store, &w->config, &w->err), -ENOMEM);
	assert_non_null(strstr(w->err.text, "needed"));
	w->store = NULL;
	end(w);
	/* One of each: both layers make progress, one expert at a time. */
	w = start(small + large, two_sizes);
	for (uint32_t g = 0; g < 2; g++) {
		assert_int_equal(store_acquire(w->store, g, 0, STORE_DEMAND), STORE_READING);
		check_ready(w, g, 0);
		assert_int_equal(store_acquire(w->store, g, 1, STORE_DEMAND), STORE_BUSY);
		store_release(w->store, g, 0);
		assert_int_equal(store_acquire(w->store, g, 1, STORE_DEMAND), STORE_READING);
		check_ready(w, g, 1);
	}
	end(w);
	/* Enough for all, to the byte. */
	w = start(EXPERTS * (small + large), two_sizes);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 2 * EXPERTS);
	end(w);
	w = start(EXPERTS * (small + large) - 1, two_sizes);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 2 * EXPERTS - 1);
	end(w);
}

static struct store_expert overflowing(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{0, UINT64_MAX - 5, 10}}};
}

static struct store_expert huge(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{0, 0, INT64_MAX}}};
}

static struct store_expert other_file(uint32_t group, uint32_t expert)
{
	return (struct store_expert){.part = {{1, 0, 10}}};
}

static struct store_expert nothing(uint32_t group, uint32_t expert)
{
	return (struct store_expert){0};
}

static void test_hostile(void **state)
{
	struct {
		struct store_expert (*shape)(uint32_t, uint32_t);
		int expected;
	} cases[] = {
		{overflowing, -ERANGE}, {huge, -ENOMEM}, {other_file, -EINVAL}, {nothing, -EINVAL}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world *w = make(FILE_SIZE, cases[i].shape);

		assert_int_equal(store_new(&w->store, &w->config, &w->err), cases[i].expected);
		assert_true(strlen(w->err.text) > 0);
		w->store = NULL;
		end(w);
	}
	/* Too many experts or layers. */
	struct world *w = make(FILE_SIZE, simple);

	w->experts[1] = LIMIT_EXPERTS + 1;
	assert_int_equal(store_new(&w->store, &w->config, &w->err), -ERANGE);
	w->config.groups = LIMIT_LAYERS + 1;
	assert_int_equal(store_new(&w->store, &w->config, &w->err), -ERANGE);
	w->config.groups = 1;
	w->config.memory = (char *)w->config.memory + 16;
	assert_int_equal(store_new(&w->store, &w->config, &w->err), -EINVAL);
	w->config.memory = (char *)w->config.memory - 16;
	w->store = NULL;
	end(w);
}

/* Memory given back and taken again: what lay there is read anew, what did not stays. */
static void test_withdraw(void **state)
{
	struct world *w = start(20 * SLOT, simple);
	char *base = w->config.memory;
	struct store_stats stats;

	for (uint32_t e = 0; e < EXPERTS; e++) {
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
		check_ready(w, 0, e);
		if (e > 0)
			store_release(w->store, 0, e);
	}
	assert_int_equal(store_withdraw(w->store, base, 1), -EBUSY); /* expert 0 is held */
	assert_int_equal(store_withdraw(w->store, base + SLOT, 4 * SLOT + 1), -ENOSPC);
	assert_int_equal(store_withdraw(w->store, base + SLOT + 1, 3 * SLOT - 1), 0);
	assert_int_equal(store_withdraw(w->store, base + 4 * SLOT - 1, 2), 0); /* slots 3 and 4 */
	assert_int_equal(store_withdraw(w->store, base + 10 * SLOT, 1), -ENOSPC);
	assert_int_equal(store_withdraw(w->store, base + 20 * SLOT, SLOT), 0); /* not ours */
	memset(base + SLOT, 'x', 4 * SLOT);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 16);
	assert_int_equal(stats.slots_used, EXPERTS - 4);
	for (uint32_t e = 0; e < EXPERTS; e++) {
		int r = store_acquire(w->store, 0, e, STORE_DEMAND);

		assert_int_equal(r, e >= 1 && e <= 4 ? STORE_READING : STORE_READY);
		check_ready(w, 0, e);
		store_release(w->store, 0, e);
	}
	/* Nothing was put into the part withdrawn. */
	for (size_t i = 0; i < 4 * SLOT; i++)
		assert_int_equal(base[SLOT + i], 'x');
	store_restore(w->store, base + SLOT + 1, 3 * SLOT - 1);
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 18);
	store_restore(w->store, base + 4 * SLOT - 1, 2);
	store_restore(w->store, base + 4 * SLOT - 1, 2); /* once too often */
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots, 20);
	for (uint32_t e = 0; e < EXPERTS; e++) {
		assert_true(store_acquire(w->store, 1, e, STORE_DEMAND) >= 0);
		check_ready(w, 1, e);
	}
	store_get_stats(w->store, &stats);
	assert_int_equal(stats.slots_used, 20);
	end(w);
}

/* Freed with reads in flight and queued: none may write afterwards (ASan, valgrind see it). */
static void test_free_in_flight(void **state)
{
	struct world *w = start(8 * SLOT, simple);

	w->fake.depth = 2;
	for (uint32_t e = 0; e < 8; e++)
		assert_int_equal(store_acquire(w->store, 0, e, STORE_DEMAND), STORE_READING);
	w->store = store_free(w->store);
	assert_int_equal(w->fake.n_pending, 0);
	assert_null(store_free(NULL));
	end(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_passing_errors),
		cmocka_unit_test(test_eio),
		cmocka_unit_test(test_nobody_waits),
		cmocka_unit_test(test_called_off),
		cmocka_unit_test(test_in_flight),
		cmocka_unit_test(test_service),
		cmocka_unit_test(test_urgent),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_held_stays),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_stale_results),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_end_of_file),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_withdraw),
		cmocka_unit_test(test_free_in_flight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
