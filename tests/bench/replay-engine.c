/* SPDX-License-Identifier: MIT */

/*
 * The replay is no model of the engine's cache but the cache itself: the routes of a run, replayed,
 * give the hits and misses that the engine counted, exactly, with each policy at each size.
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
#include "engine.h"
#include "fd.h"
#include "file.h"
#include "gguf.h"
#include "maker.h"
#include "num.h"
#include "replay-cache.h"
#include "store.h"

#define PROMPT 24u
#define STEPS 40u

static char path[] = "./replay-engine-XXXXXX";
static char csv[] = "./replay-trace-XXXXXX";

static int make(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct maker m;
	uint32_t seed = 3;
	int fd = mkstemp(path), trace = mkstemp(csv);

	if (fd < 0 || trace < 0)
		return -1;
	model.layers = 5;
	model.experts = 16;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	for (size_t i = m.n - m.data; i + 4 <= m.n; i += 4) {
		float x;

		seed = seed * 1664525u + 1013904223u;
		x = (float)(int32_t)seed / 2147483648.0f * 0.3f;
		memcpy(m.bytes + i, &x, sizeof x);
	}
	if (fd_write_all(fd, m.bytes, m.n) < 0)
		return -1;
	maker_deinit(&m);
	(void)close(trace);
	return close(fd);
}

static int clean(void **state)
{
	return unlink(path) | unlink(csv);
}

struct token {
	FILE *file;
	unsigned step, phase;
};

static void on_route(
	void *arg, uint32_t layer, const uint32_t *experts, const float *weights, uint32_t k)
{
	const struct token *t = arg;

	for (uint32_t i = 0; i < k; i++)
		assert_true(fprintf(t->file, "0,%u,%u,%u,%u,%u,%g,0,0\n", t->phase, t->step, layer,
				    i, experts[i], (double)weights[i]) > 0);
}

static void on_error(void *arg, int code, const char *text)
{
	fail_msg("%s", text);
}

static void step(struct engine *e, enum engine_context c, const struct engine_row *rows, size_t n)
{
	static const struct engine_callbacks callbacks = {
		.on_route = on_route, .on_error = on_error};
	int r;

	assert_int_equal(engine_seq_reserve(e, rows[0].seq, (uint32_t)n), 0);
	assert_int_equal(engine_begin(e, c, rows, n, &callbacks), 0);
	while ((r = engine_advance(e, c)) != ENGINE_IDLE) {
		assert_true(r > 0);
		if (r == ENGINE_WAITING)
			assert_true(engine_wait(e, CLOCK_NS_PER_S) >= 0);
	}
}

/* A prompt, an answer, and again: the cache goes on where it was. */
static void run(struct engine *e, const struct desc *d)
{
	static struct token tokens[2 * (PROMPT + STEPS)];
	struct engine_row rows[PROMPT];
	FILE *file = fopen(csv, "we");
	unsigned n = 0;

	assert_non_null(file);
	assert_true(fprintf(file,
			    "# n_expert=%u\nturn,phase,step,layer,slot,expert,weight,"
			    "residency,expert_bytes\n",
			    d->experts) > 0);
	for (unsigned turn = 0; turn < 2; turn++) {
		struct engine_seq *s;

		assert_int_equal(engine_seq_new(e, &s), 0);
		for (unsigned i = 0; i < PROMPT + STEPS; i++, n++) {
			unsigned at = i < PROMPT ? i : 0;

			tokens[n] = (struct token){file, n, i >= PROMPT};
			rows[at] = (struct engine_row){.seq = s,
				.token = (n * n + 7 * turn) % d->vocabulary,
				.want = ENGINE_WANT_ROUTES,
				.arg = &tokens[n]};
			if (i + 1 == PROMPT)
				step(e, ENGINE_BULK, rows, PROMPT);
			else if (i >= PROMPT)
				step(e, ENGINE_LIVE, rows, 1);
		}
		engine_seq_free(e, s);
	}
	assert_int_equal(fclose(file), 0);
}

static uint64_t slot_bytes(const struct desc *d)
{
	struct store_expert x = {0};
	struct error err = ERROR_NONE;
	struct file file;

	assert_int_equal(file_open(&file, path, &err), 0);
	file_close(&file);
	for (unsigned p = 0; p < DESC_PARTS; p++) {
		struct desc_weight w = desc_expert(d, 0, 0, p);

		x.part[p] = (struct store_extent){w.file, w.offset, w.size};
	}
	return store_slot_size(&x, num_max(file.align, 512u));
}

static struct engine_stats measure(enum policy_kind policy, uint64_t slots, bool filled)
{
	struct plan_input in = {.limit = (uint64_t)1 << 28, .context = 256, .threads = 1};
	struct engine_config config = {.path = path, .threads = 1, .policy = policy};
	struct error err = ERROR_NONE;
	struct engine_stats stats;
	struct engine *e;
	struct gguf *g;
	struct desc *d = NULL;
	struct plan plan;

	if (gguf_open(&g, path, &err) < 0 || desc_new(&d, g, &err) < 0)
		fail_msg("%s", err.text);
	in.desc = config.desc = d;
	config.plan = &plan;
	if (plan_make(&plan, &in, &err) < 0)
		fail_msg("%s", err.text);
	plan.use[PLAN_SLOTS] = slots * slot_bytes(d);
	if (engine_start(&e, &config, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(engine_fill(e, filled), 0);
	run(e, d);
	engine_stats(e, &stats);
	assert_int_equal(stats.slots, slots);
	engine_free(e);
	desc_free(d);
	gguf_free(g);
	return stats;
}

static void test_same_counts(void **state)
{
	static const enum cache_kind kinds[POLICY_KINDS] = {
		[POLICY_FORECAST] = CACHE_OURS, [POLICY_LRU] = CACHE_LRU, [POLICY_LFU] = CACHE_LFU};
	static const uint64_t sizes[] = {17, 24, 32, 47, 60, 79};
	static struct trace t;
	uint64_t hits[POLICY_KINDS] = {0};

	for (unsigned way = 0; way < ARRAY_SIZE(sizes) * POLICY_KINDS * 2; way++) {
		enum policy_kind policy = way % POLICY_KINDS;
		uint64_t slots = sizes[way / POLICY_KINDS % ARRAY_SIZE(sizes)];
		bool filled = way >= ARRAY_SIZE(sizes) * POLICY_KINDS;
		struct engine_stats s = measure(policy, slots, filled);
		struct cache_count n[2];
		struct error err = ERROR_NONE;

		if (trace_load(&t, csv, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(t.steps, 2 * STEPS);
		assert_int_equal(
			cache_replay(n, &t,
				&(struct cache_config){
					.kind = kinds[policy], .slots = slots, .filled = filled}),
			0);
		assert_int_equal(s.hits, n[0].hits + n[1].hits);
		assert_int_equal(s.misses, n[0].wanted + n[1].wanted - s.hits);
		assert_true(s.misses > 0 || slots == 79);
		hits[policy] += s.hits;
		trace_deinit(&t);
	}
	print_message("hits: forecast %llu, lru %llu, lfu %llu\n",
		(unsigned long long)hits[POLICY_FORECAST], (unsigned long long)hits[POLICY_LRU],
		(unsigned long long)hits[POLICY_LFU]);
	/* Three policies, not one under three names. */
	assert_true(hits[POLICY_LRU] != hits[POLICY_LFU]);
	assert_true(hits[POLICY_FORECAST] != hits[POLICY_LRU]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_counts),
	};

	return cmocka_run_group_tests(tests, make, clean);
}
