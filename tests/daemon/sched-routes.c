/* SPDX-License-Identifier: MIT */

/*
 * What routers choose, on the scheduler with an engine without a model: all of it for a request
 * that asks, however slowly it is read; whole tokens for a trace, and the rest counted.
 */

#include "sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake-engine.h"
#include "num.h"

#define TOKEN (FAKE_LAYERS * (sizeof(struct wire_route) + 2 * sizeof(struct wire_choice)))

struct entry {
	struct wire_route head;
	struct wire_choice choices[2];
};

static struct engine engine;
static struct sched *sched;
static struct desc_layer layers[FAKE_LAYERS] = {{.moe = true}, {.moe = true}};
static const struct desc desc = {
	.n_layers = FAKE_LAYERS, .experts = FAKE_EXPERTS, .top_k = 2, .layers = layers};
static struct session session[4];
static unsigned told, untraced;

static void on_post(void *arg, uint32_t message, void *object)
{
	if (message == SCHED_OUTPUT)
		atomic_store(&((struct request *)object)->to_loop, false);
	if (message == SCHED_ROUTES) {
		atomic_store(&((struct trace *)object)->to_loop, false);
		++told;
	}
	untraced += message == SCHED_UNTRACED;
}

static void begin(void)
{
	struct sched_config config = {.engine = &engine,
		.vocabulary = FAKE_VOCABULARY,
		.context = FAKE_CONTEXT,
		.live_rows = 4,
		.bulk_rows = 64,
		.desc = &desc,
		.post = on_post};

	layers[0].expert[DESC_DOWN].size = 1000;
	layers[1].expert[DESC_UP].size = 3000;
	engine = (struct engine){
		.free = 2000, .all = 2000, .seqs_max = 16, .tiles = {1, 3}, .rows_most = {4, 64}};
	memset(session, 0, sizeof session);
	told = untraced = 0;
	assert_int_equal(sched_new(&sched, &config), 0);
}

static struct request *submit(unsigned i, uint32_t prompt, uint32_t n, uint32_t flags)
{
	struct request *r = request_new(flags, FAKE_VOCABULARY);

	assert_non_null(r);
	list_init(&session[i].idle);
	r->session = &session[i];
	r->uid = i;
	r->n_prompt = prompt;
	r->max_tokens = n;
	r->sampling = SAMPLER_DEFAULT;
	r->tokens = calloc(prompt, sizeof *r->tokens);
	for (uint32_t j = 0; j < prompt; ++j)
		r->tokens[j] = j % 50;
	if (flags & REQUEST_ROUTES)
		assert_int_equal(request_want_routes(r, routes_token_bytes(&desc), 0), 0);
	sched_submit(sched, r);
	return r;
}

static void drain(struct request *r)
{
	struct request_event e;
	char text[REQUEST_TEXT_MAX];

	while (request_out_peek(r, &e, text))
		request_out_take(r, &e);
}

static void end(struct request *const *requests, size_t n)
{
	for (size_t i = 0; i < n; ++i)
		sched_forget(sched, requests[i]->session);
	sched = sched_free(sched);
	for (size_t i = 0; i < n; ++i)
		request_free(requests[i]);
	assert_int_equal(engine.free, engine.all);
}

static void check_entry(const struct entry *e, uint32_t token)
{
	assert_in_range(e->head.layer, 0, FAKE_LAYERS - 1);
	assert_int_equal(e->head.count, 2);
	assert_int_equal(e->head.bytes, e->head.layer ? 3000 : 1000);
	for (uint32_t i = 0; i < 2; ++i) {
		assert_int_equal(e->choices[i].expert, (token + i) % FAKE_EXPERTS);
		assert_int_equal(e->choices[i].flags, e->head.layer ? WIRE_CHOICE_RESIDENT : 0);
		assert_true(e->choices[i].weight == (i ? 0.25f : 0.75f));
	}
}

/* The ring alone: whole entries, past its end too. */
static void test_ring(void **state)
{
	struct routes r = {0};
	struct entry out[4], in = {.head = {.count = 2}};
	uint32_t n = 0, count, pushed = 0, taken = 0;

	assert_int_equal(routes_init(&r, routes_size(1, 1, 0)), 0);
	assert_int_equal(routes_room(&r), r.size);
	assert_int_equal(routes_peek(&r, out, sizeof out, &count), 0);
	for (unsigned round = 0; round < 100000; ++round) {
		while (n < r.size / sizeof in && round % 3) {
			in.head.position = pushed++;
			in.choices[1].expert = (uint16_t)in.head.position;
			assert_true(routes_room(&r) >= sizeof in);
			routes_push(&r, &in, sizeof in);
			++n;
			if (n % 7 == 0)
				break;
		}
		/* Room for three and a half. */
		routes_take(&r, routes_peek(&r, out, sizeof in * 7 / 2, &count));
		assert_int_equal(count, num_min(n, 3u));
		for (uint32_t i = 0; i < count; ++i, ++taken, --n) {
			assert_int_equal(out[i].head.position, taken);
			assert_int_equal(out[i].choices[1].expert, (uint16_t)taken);
		}
	}
	assert_true(taken > 100000);
	routes_deinit(&r);
}

/* A long prompt and an answer, read rarely: not one entry is lost, and others do not wait. */
static void test_own(void **state)
{
	const uint32_t prompt = 400, n = 20;
	struct request *r[2];
	uint32_t entries = 0, seen[FAKE_CONTEXT] = {0};
	unsigned starved = 0;

	begin();
	r[0] = submit(0, prompt, n, REQUEST_ROUTES);
	/* As if it were small. */
	r[0]->routes.size = 1024;
	r[1] = submit(1, 3, 30, 0);
	for (unsigned i = 0; r[0]->state != REQUEST_OVER || !routes_is_empty(&r[0]->routes); ++i) {
		struct entry e;
		uint32_t count;

		assert_in_range(i, 0, 1000000);
		(void)sched_run(sched);
		drain(r[0]);
		drain(r[1]);
		starved += atomic_load(&r[0]->starved);
		if (i % 5 || !routes_peek(&r[0]->routes, &e, sizeof e, &count))
			continue;
		routes_take(&r[0]->routes, sizeof e);
		if (atomic_exchange(&r[0]->starved, false))
			sched_poke(sched, r[0]);
		assert_int_equal(count, 1);
		assert_int_equal(e.head.turn, 0);
		assert_int_equal(e.head.flags, e.head.position >= prompt ? WIRE_ROUTE_DECODE : 0);
		if (e.head.position < prompt)
			check_entry(&e, e.head.position % 50);
		++seen[e.head.position];
		++entries;
	}
	while (sched_run(sched) != SCHED_RUN_IDLE)
		drain(r[1]);
	assert_true(starved > 0);
	/* The last token of the answer is not computed with. */
	assert_int_equal(entries, (prompt + n - 1) * FAKE_LAYERS);
	for (uint32_t i = 0; i < prompt + n - 1; ++i)
		assert_int_equal(seen[i], FAKE_LAYERS);
	end(r, 2);
}

/* The ring is as large as the prompt needs, where so much may be had. */
static void test_size(void **state)
{
	static const struct {
		uint32_t prompt, token;
		uint64_t most;
		uint32_t size;
	} cases[] = {{100, 64, 0, 256 << 10}, {10000, 64, 1 << 20, 1 << 20},
		{10000, 64, (1 << 20) - 1, 512 << 10}, {100000, 4096, 1 << 30, 4 << 20},
		{5, 400000, 0, 1 << 20}, {5, 400000, 1 << 30, 2 << 20}, {5, 0, 1 << 30, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); ++i) {
		struct request *r = request_new(REQUEST_ROUTES, FAKE_VOCABULARY);

		r->n_prompt = cases[i].prompt;
		assert_int_equal(request_want_routes(r, cases[i].token, cases[i].most), 0);
		assert_int_equal(r->routes.size, cases[i].size);
		request_free(r);
	}
}

/* A session's state is not reused where routes are asked for: all of them come. */
static void test_reuse(void **state)
{
	struct request *r[2];

	begin();
	r[0] = submit(0, 30, 2, 0);
	while (sched_run(sched) != SCHED_RUN_IDLE)
		drain(r[0]);
	r[1] = request_new(REQUEST_ROUTES, FAKE_VOCABULARY);
	r[1]->session = r[0]->session;
	r[1]->n_prompt = 30;
	r[1]->max_tokens = 1;
	r[1]->sampling = SAMPLER_DEFAULT;
	r[1]->tokens = calloc(30, sizeof *r[1]->tokens);
	for (uint32_t j = 0; j < 30; ++j)
		r[1]->tokens[j] = j % 50;
	assert_int_equal(request_want_routes(r[1], routes_token_bytes(&desc), 0), 0);
	sched_submit(sched, r[1]);
	while (sched_run(sched) != SCHED_RUN_IDLE)
		drain(r[1]);
	assert_int_equal(r[1]->figures.reused, 0);
	assert_int_equal(atomic_load(&r[1]->routes.head), 30 * TOKEN);
	sched_forget(sched, &session[0]);
	sched = sched_free(sched);
	request_free(r[0]);
	request_free(r[1]);
}

/* Nobody reads: whole tokens until it is full, the rest is counted, and nobody waits. */
static void test_trace(void **state)
{
	struct trace *t = calloc(1, sizeof *t);
	struct request *r[2];
	uint32_t tokens = 100 + 9 + 3 + 29, count, layer[2] = {0};
	struct entry e;

	assert_non_null(t);
	assert_int_equal(routes_init(&t->routes, routes_size(1, 1, 0)), 0);
	t->routes.size = 4096;
	begin();
	sched_trace(sched, t);
	r[0] = submit(0, 100, 10, 0);
	r[1] = submit(1, 3, 30, 0);
	while (sched_run(sched) != SCHED_RUN_IDLE) {
		drain(r[0]);
		drain(r[1]);
	}
	assert_int_equal(r[0]->finish, REQUEST_LENGTH);
	assert_int_equal(r[1]->finish, REQUEST_LENGTH);
	assert_true(told > 0);
	assert_int_equal(atomic_load(&t->tokens) + atomic_load(&t->lost), tokens);
	assert_in_range(atomic_load(&t->tokens), 2048 / TOKEN, 4096 / TOKEN);
	assert_int_equal(atomic_load(&t->routes.head), atomic_load(&t->tokens) * TOKEN);
	while (routes_peek(&t->routes, &e, sizeof e, &count)) {
		routes_take(&t->routes, sizeof e);
		assert_in_range(e.head.turn, 0, 1);
		++layer[e.head.layer];
	}
	assert_int_equal(layer[0], layer[1]);
	/* No part of a token comes after the end. */
	sched_untrace(sched, t);
	assert_int_equal(untraced, 1);
	count = atomic_load(&t->routes.head);
	end(r, 2);
	assert_int_equal(atomic_load(&t->routes.head), count);
	routes_deinit(&t->routes);
	free(t);
}

/* Ended in the middle of a step, and the place taken by another. */
static void test_untrace(void **state)
{
	struct trace *t[2] = {calloc(1, sizeof *t[0]), calloc(1, sizeof *t[1])};
	struct request *r[1];

	for (int i = 0; i < 2; ++i) {
		assert_non_null(t[i]);
		assert_int_equal(routes_init(&t[i]->routes, routes_size(1, 1, 0)), 0);
	}
	begin();
	sched_trace(sched, t[0]);
	r[0] = submit(0, 50, 5, 0);
	(void)sched_run(sched);
	sched_untrace(sched, t[0]);
	sched_trace(sched, t[1]);
	while (sched_run(sched) != SCHED_RUN_IDLE)
		drain(r[0]);
	assert_int_equal(atomic_load(&t[0]->routes.head), 0);
	assert_int_equal(atomic_load(&t[1]->tokens), 4);
	assert_int_equal(atomic_load(&t[1]->routes.head), 4 * TOKEN);
	end(r, 1);
	for (int i = 0; i < 2; ++i) {
		routes_deinit(&t[i]->routes);
		free(t[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_reuse),
		cmocka_unit_test(test_trace),
		cmocka_unit_test(test_untrace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
