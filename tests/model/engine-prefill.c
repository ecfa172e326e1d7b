/* SPDX-License-Identifier: MIT */

/*
 * What a chunk of a prompt reads: each expert that its rows go to at most once in a layer, whoever
 * the rows belong to and however few slots there are; so hardly more bytes than the distinct
 * experts have.  Counted, not timed.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "engine-drive.h"
#include "fd.h"
#include "maker.h"

#define LAYERS 4u
#define EXPERTS 16u
#define SEQUENCES 5u
#define DECODED 3u /* of the sequences: they decode while the others prefill */

static char path[] = "./engine-prefill-XXXXXX";

/* Experts of a step, by layer. */
struct touched {
	bool is[LAYERS][EXPERTS];
	unsigned rows;
};

static int make(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct maker m;
	uint32_t seed = 1;
	int fd = mkstemp(path);

	(void)state;
	if (fd < 0)
		return -1;
	model.layers = LAYERS;
	model.hidden = 64;
	model.ff = 512;
	model.experts = EXPERTS;
	model.context = 1024;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	for (size_t i = m.n - m.data; i + 4 <= m.n; i += 4) {
		float x;

		seed = seed * 1664525u + 1013904223u;
		x = (float)(int32_t)seed / 2147483648.0f * 0.2f;
		memcpy(m.bytes + i, &x, sizeof x);
	}
	if (fd_write_all(fd, m.bytes, m.n) < 0 || fsync(fd) < 0)
		return -1;
	maker_deinit(&m);
	return close(fd);
}

static int clean(void **state)
{
	(void)state;
	return unlink(path);
}

static void on_route(
	void *arg, uint32_t layer, const uint32_t *experts, const float *weights, uint32_t k)
{
	struct touched *t = arg;

	(void)weights;
	for (uint32_t i = 0; i < k; i++)
		t->is[layer][experts[i]] = true;
	t->rows += layer == 0;
}

static void on_error(void *arg, int code, const char *text)
{
	(void)arg;
	fail_msg("%d: %s", code, text);
}

static const struct engine_callbacks callbacks = {.on_route = on_route, .on_error = on_error};

static uint64_t distinct(const struct touched *t)
{
	uint64_t n = 0;

	for (uint32_t l = 0; l < LAYERS; l++)
		for (uint32_t x = 0; x < EXPERTS; x++)
			n += t->is[l][x];
	return n;
}

static struct engine_stats stats(const struct drive *d)
{
	struct engine_stats s;

	engine_stats(d->engine, &s);
	return s;
}

/* n rows, in turn of the sequences from first to last. */
static void begin(struct drive *d, enum engine_context context, struct engine_seq **seq,
	unsigned first, unsigned last, size_t n, struct touched *t)
{
	static struct engine_row rows[LIMIT_BULK_ROWS];
	size_t at = 0;

	*t = (struct touched){0};
	assert_true(n <= LIMIT_BULK_ROWS);
	for (unsigned s = first; s < last; s++) {
		size_t part = n / (last - first);

		assert_int_equal(engine_seq_reserve(d->engine, seq[s], (uint32_t)part), 0);
		for (size_t i = 0; i < part; i++, at++)
			rows[at] = (struct engine_row){.seq = seq[s],
				.token = (uint32_t)((at * 7 + s) % d->desc->vocabulary),
				.want = ENGINE_WANT_ROUTES,
				.arg = t};
	}
	assert_int_equal(engine_begin(d->engine, context, rows, at, &callbacks), 0);
}

static void check_bytes(const struct drive *d, const struct engine_stats *before, uint64_t most)
{
	struct engine_stats after = stats(d);
	uint64_t one = desc_expert_bytes(d->desc, 0);
	double useful = (double)(after.bytes_useful - before->bytes_useful),
	       all = (double)(after.bytes_read - before->bytes_read);

	if (useful > (double)(most * one) || all > 1.05 * (double)(most * one))
		fail_msg("%.0f bytes of %.0f read are useful, %llu experts of %llu were wanted",
			useful, all, (unsigned long long)most, (unsigned long long)one);
}

static void open_sequences(struct drive *d, struct engine_seq **seq)
{
	for (unsigned i = 0; i < SEQUENCES; i++)
		assert_int_equal(engine_seq_new(d->engine, &seq[i]), 0);
}

static void close_sequences(struct drive *d, struct engine_seq **seq)
{
	for (unsigned i = 0; i < SEQUENCES; i++)
		engine_seq_free(d->engine, seq[i]);
}

static void test_chunks(void **state)
{
	static const enum drive_cache caches[] = {DRIVE_SMALLEST, DRIVE_AMPLE, DRIVE_ONE};

	(void)state;
	for (size_t i = 0; i < sizeof caches / sizeof caches[0]; i++) {
		struct drive_how how = {.path = path, .cache = caches[i], .threads = 2};
		struct engine_seq *seq[SEQUENCES];
		struct touched t;
		struct drive d;
		int r;

		drive_start(&d, &how);
		open_sequences(&d, seq);
		for (unsigned chunk = 0; chunk < 4; chunk++) {
			struct engine_stats before = stats(&d), after;

			begin(&d, ENGINE_BULK, seq, 0, SEQUENCES, chunk % 2 ? 40 : 200, &t);
			while ((r = engine_advance(d.engine, ENGINE_BULK)) != ENGINE_IDLE) {
				assert_true(r > 0);
				if (r == ENGINE_WAITING)
					assert_int_equal(engine_wait(d.engine, CLOCK_NS_PER_S), 0);
			}
			after = stats(&d);
			assert_int_equal(t.rows, chunk % 2 ? 40 : 200);
			/* Each is asked for once, and those that are not there are read. */
			assert_int_equal(after.hits + after.misses - before.hits - before.misses,
				distinct(&t));
			assert_true(after.misses > before.misses || caches[i] == DRIVE_AMPLE);
			check_bytes(&d, &before, after.misses - before.misses);
		}
		close_sequences(&d, seq);
		drive_stop(&d);
	}
}

/* Each step of decode that comes between may read its own experts once more. */
static void test_beside_decode(void **state)
{
	struct drive_how how = {.path = path, .cache = DRIVE_SMALLEST, .threads = 2};
	struct engine_seq *seq[SEQUENCES];
	struct touched bulk, live = {0};
	struct engine_stats before;
	bool decodes = false;
	uint64_t most = 0;
	unsigned steps = 0;
	struct drive d;
	int r, l;

	(void)state;
	drive_start(&d, &how);
	open_sequences(&d, seq);
	before = stats(&d);
	begin(&d, ENGINE_BULK, seq, DECODED, SEQUENCES, 200, &bulk);
	do {
		if (!decodes) {
			most += distinct(&live);
			begin(&d, ENGINE_LIVE, seq, 0, DECODED, DECODED, &live);
			steps++;
		}
		l = engine_advance(d.engine, ENGINE_LIVE);
		r = engine_advance(d.engine, ENGINE_BULK);
		assert_true(l >= 0 && r >= 0);
		decodes = l != ENGINE_IDLE;
		if (l == ENGINE_WAITING && r == ENGINE_WAITING)
			assert_int_equal(engine_wait(d.engine, CLOCK_NS_PER_S), 0);
	} while (r != ENGINE_IDLE);
	while (decodes) {
		l = engine_advance(d.engine, ENGINE_LIVE);
		assert_true(l >= 0);
		decodes = l != ENGINE_IDLE;
		if (l == ENGINE_WAITING)
			assert_int_equal(engine_wait(d.engine, CLOCK_NS_PER_S), 0);
	}
	assert_int_equal(bulk.rows, 200);
	assert_true(steps > 1);
	check_bytes(&d, &before, most + distinct(&live) + distinct(&bulk));
	close_sequences(&d, seq);
	drive_stop(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_beside_decode),
	};

	return cmocka_run_group_tests(tests, make, clean);
}
