/* SPDX-License-Identifier: MIT */

/* The plan adds up, keeps its floor, and grows with its limit. */

#include "plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "maker.h"
#include "mem.h"

#define MIB ((uint64_t)1 << 20)

/* 8 layers of 16 experts of 1.5 MiB: 192 MiB, a token cycle of 24 MiB. */
static struct desc *model_new(void)
{
	struct maker_model model = MAKER_MODEL;
	struct gguf *g = NULL;
	struct desc *d = NULL;
	struct maker m;

	model.layers = 8;
	model.hidden = 256;
	model.ff = 512;
	model.experts = 16;
	model.context = 4096;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	assert_int_equal(gguf_parse(&g, m.bytes, m.n, m.n, NULL), 0);
	assert_int_equal(desc_new(&d, g, NULL), 0);
	gguf_free(g);
	maker_deinit(&m);
	return d;
}

static void check(const struct plan *p, const struct desc *d)
{
	uint64_t sum = 0;

	for (int i = 0; i < PLAN_USES; i++)
		sum += p->use[i];
	assert_int_equal(sum, p->limit);
	assert_int_equal(p->arena % MEM_HUGE_PAGE, 0);
	assert_int_equal(p->arena,
		p->use[PLAN_DENSE] + p->use[PLAN_KV] + p->use[PLAN_SLOTS] + p->use[PLAN_SCRATCH]);
	assert_true(p->use[PLAN_DENSE] >= desc_dense_bytes(d));
	assert_int_equal(p->use[PLAN_KV], desc_kv_bytes(d, p->context));
	assert_true(p->context >= 2048);
	assert_true(p->slots <= (uint64_t)d->n_layers * d->experts);
	assert_true(p->slots >= (uint64_t)2 * d->top_k);
	assert_true(p->expected_hit >= 0 && p->expected_hit <= 1);
	assert_true(p->limit >= p->floor);
}

static void adds_up(void **state)
{
	struct desc *d = model_new();
	struct plan_input in = {
		.desc = d, .threads = 4, .clients = 16, .daemon = true, .vocabulary = 12345};
	struct plan p, last = {0};

	(void)state;
	in.limit = 1;
	assert_int_equal(plan_make(&p, &in, NULL), -ENOMEM);
	for (in.limit = p.floor; in.limit < 600 * MIB; in.limit += 1234567) {
		assert_int_equal(plan_make(&p, &in, NULL), 0);
		check(&p, d);
		assert_int_equal(p.floor, last.floor ? last.floor : p.floor);
		last = p;
	}
	/* All fits: resident, and what is over is said. */
	assert_int_equal(p.slots, 8 * 16);
	assert_true(p.expected_hit == 1 && p.bytes_per_token == 0);
	assert_true(p.use[PLAN_UNUSED] > 0);
	desc_free(d);
}

static void floor_is_exact(void **state)
{
	struct desc *d = model_new();
	struct error err = ERROR_NONE;
	struct plan p;

	(void)state;
	for (uint32_t context = 0; context <= 8192; context += 4096) {
		struct plan_input in = {.desc = d, .threads = 2, .context = context, .limit = 1};
		uint64_t floor;

		assert_int_equal(plan_make(&p, &in, NULL), -ENOMEM);
		floor = p.floor;
		in.limit = floor - 1;
		err = ERROR_NONE;
		assert_int_equal(plan_make(&p, &in, &err), -ENOMEM);
		assert_non_null(strstr(err.text, "at least"));
		for (in.limit = floor; in.limit < floor + 70000; in.limit += 997)
			assert_int_equal(plan_make(&p, &in, NULL), 0);
		assert_int_equal(p.use[PLAN_SEGMENTS], 0);
	}
	desc_free(d);
}

static void asked_for(void **state)
{
	struct desc *d = model_new();
	struct plan_input in = {.desc = d,
		.limit = 256 * MIB,
		.threads = 1,
		.context = 3000,
		.live_rows = 3,
		.bulk_rows = 77};
	struct plan p;

	(void)state;
	assert_int_equal(plan_make(&p, &in, NULL), 0);
	assert_int_equal(p.context, 3008);
	assert_int_equal(p.live_rows, 3);
	assert_int_equal(p.bulk_rows, 77);
	in.bulk_rows = LIMIT_BULK_ROWS + 1;
	assert_int_equal(plan_make(&p, &in, NULL), -ERANGE);
	desc_free(d);
}

/* Below one token cycle little is found again, and the plan says what would help. */
static void below_a_cycle(void **state)
{
	struct desc *d = model_new();
	struct plan_input in = {.desc = d, .limit = 1, .threads = 1};
	struct plan p, q;
	uint64_t half;

	(void)state;
	assert_int_equal(plan_make(&p, &in, NULL), -ENOMEM);
	in.limit = p.floor;
	assert_int_equal(plan_make(&p, &in, NULL), 0);
	assert_true(p.slots < (uint64_t)d->n_layers * d->top_k);
	assert_true(p.expected_hit > 0 && p.expected_hit < 0.5);
	assert_true(p.bytes_per_token < (double)p.cycle);
	half = plan_half_reads(&in, &p);
	in.limit = half;
	assert_int_equal(plan_make(&q, &in, NULL), 0);
	assert_true(q.bytes_per_token <= p.bytes_per_token / 2);
	in.limit = half - 2 * MIB;
	assert_int_equal(plan_make(&q, &in, NULL), 0);
	assert_true(q.bytes_per_token > p.bytes_per_token / 2);
	in.limit = (uint64_t)1 << 40;
	assert_int_equal(plan_make(&q, &in, NULL), 0);
	assert_int_equal(plan_half_reads(&in, &q), 0);
	in.limit = UINT64_MAX;
	assert_int_equal(plan_make(&q, &in, NULL), -ERANGE);
	desc_free(d);
}

/* Experts that share an extent take one slot a layer. */
static void shared(void **state)
{
	struct desc *d = model_new();
	struct plan_input in = {.desc = d, .limit = 512 * MIB, .threads = 1};
	struct plan p;

	(void)state;
	for (uint32_t l = 0; l < d->n_layers; l++)
		d->layers[l].shared = true;
	assert_int_equal(plan_make(&p, &in, NULL), 0);
	assert_int_equal(p.slots, d->n_layers);
	desc_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adds_up),
		cmocka_unit_test(floor_is_exact),
		cmocka_unit_test(asked_for),
		cmocka_unit_test(below_a_cycle),
		cmocka_unit_test(shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
