/* SPDX-License-Identifier: MIT */

/*
 * Every tier against the scalar one, bit by bit: all shapes, unaligned weights that end at a page
 * that must not be touched, extreme codes and scales.  TEST_SEED repeats a run, TEST_SHARE shortens
 * it.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <math.h>
#include <cmocka.h>
#include "cases.h"
#include "kernels.h"
#include "num.h"

struct shape {
	size_t rows, cols, blocks;
	size_t n;
};

/* A product with rows and columns apart, and none of them aligned to more than it must be. */
struct operands {
	struct kernels_product p;
	uint8_t *x; /* what p.x lies in */
	float *out[2];
	size_t outs;
};

static void operands_init(struct operands *o, const struct kernels_format *f, uint8_t *space,
	const struct shape *s, enum fill fill)
{
	size_t unit = f->block > 1 ? 1 : f->bytes, bytes = kernels_input_bytes(f->input, s->n);
	size_t x_stride = bytes + draw() % 5 * 4, at = draw() % 16 * 4;
	float *x = malloc(s->n * sizeof(float));
	uint64_t row, stride;
	uint8_t *w;

	assert_true(kernels_row_bytes(f, s->n, &row));
	stride = row + draw() % 4 * unit;
	/* The last byte of the last row is the last of its page, or lies a little before. */
	w = space + SPAN - stride * (s->rows - 1) - row - draw() % 2 * (draw() % 64) * unit;
	for (size_t r = 0; r < s->rows; r++)
		fill_weights(f, w + r * stride, row, fill);
	o->outs = (s->rows + 3) * s->cols + 1;
	o->x = malloc(x_stride * s->cols + at);
	o->out[0] = calloc(o->outs, sizeof(float));
	o->out[1] = calloc(o->outs, sizeof(float));
	assert_true(x && o->x && o->out[0] && o->out[1]);
	for (size_t c = 0; c < s->cols; c++) {
		fill_floats(x, s->n, fill);
		ref->quantize(f->input, x, o->x + at + c * x_stride, s->n);
	}
	free(x);
	o->p = (struct kernels_product){
		.type = f->type,
		.w = w,
		.w_stride = stride,
		.rows = s->rows,
		.x = o->x + at,
		.x_stride = x_stride,
		.cols = s->cols,
		.n = s->n,
		.out_stride = s->rows + 3,
	};
}

static void product_case(
	const struct kernels_format *f, uint8_t *space, struct shape s, enum fill fill)
{
	struct operands o;
	char what[128];

	s.n = s.blocks * (f->block == 1 ? 16 : f->block) - (f->block == 1 ? draw() % 16 : 0);
	operands_init(&o, f, space, &s, fill);
	for (size_t i = 0; i < 2; i++) {
		o.p.out = o.out[i] + 1;
		(i ? ref : tier)->product[f->type](&o.p);
	}
	snprintf(what, sizeof(what), "%s, %zu rows, %zu columns, n %zu, fill %d", f->name, s.rows,
		s.cols, s.n, (int)fill);
	same(o.out[0], o.out[1], o.outs, what);
	free(o.x);
	free(o.out[0]);
	free(o.out[1]);
}

/* Native products that are those of the tier below: where its own are of packed weights only. */
static bool is_lent(const struct kernels_format *f)
{
	if (tier->tier == KERNELS_AVXVNNI || tier->tier == KERNELS_AMX)
		return true;
	return f->block > 1 ? tier->tier == KERNELS_VNNI : tier->tier == KERNELS_I8MM;
}

/* A tier that lends a kernel of the one below would be compared with itself, not run. */
static void test_own(void **unused)
{
	const struct kernels *below = NULL;

	for (int i = (int)tier->tier - 1; i >= KERNELS_SCALAR && !below; i--)
		below = kernels_get((enum kernels_tier)i);
	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);

		assert_int_equal(f && f->product, tier->product[type] != NULL);
		if (below && f && f->product && !is_lent(f))
			assert_true(tier->product[type] != below->product[type]);
	}
	assert_true(tier == ref || tier->attention != ref->attention);
}

static void test_products(void **unused)
{
	static const size_t rows[] = {1, 2, 3, 4, 5, 15, 16, 17, 33};
	static const size_t cols[] = {
		1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 50, 64, 127, 131};
	static const size_t blocks[] = {1, 2, 3, 5, 9};
	uint8_t *space = guarded();

	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);

		if (!f || !f->product)
			continue;
		for (size_t r = 0; r < ARRAY_SIZE(rows); r++)
			for (size_t c = 0; c < ARRAY_SIZE(cols); c++)
				for (size_t b = 0; b < ARRAY_SIZE(blocks); b++) {
					struct shape s = {rows[r], cols[c], blocks[b], 0};

					/* Many columns matter to whole tiles of rows. */
					if (s.cols > 17 && (s.rows < 16 || (b != 1 && b != 4)))
						continue;
					if (!chosen())
						continue;
					product_case(f, space, s, FILL_TAME);
					if (b == 1)
						for (int k = FILL_WILD; k < FILL_MAX; k++)
							product_case(f, space, s, (enum fill)k);
				}
	}
	munmap(space, SPAN + 4096);
}

static void test_quantize(void **unused)
{
	static float x[1024], scaled[1024];
	static uint8_t a[4096], b[4096];

	for (int fill = 0; fill < FILL_MAX; fill++)
		for (int round = 0; round < 40; round++) {
			float scale = ldexpf(1.0f, (int)(draw() % 260) - 140);

			fill_floats(x, 1024, (enum fill)fill);
			for (size_t i = 0; i < 1024; i++)
				scaled[i] = x[i] * scale;
			for (int input = KERNELS_INPUT_F32; input <= KERNELS_INPUT_Q256; input++) {
				memset(a, 1, sizeof(a));
				memset(b, 1, sizeof(b));
				ref->quantize((enum kernels_input)input, scaled, a, 1024);
				tier->quantize((enum kernels_input)input, scaled, b, 1024);
				assert_memory_equal(a, b, sizeof(a));
			}
		}
}

static void vectors_case(size_t n, enum fill fill)
{
	float *x = malloc(n * 4), *y = malloc(n * 4), *a = malloc(n * 4), *b = malloc(n * 4);
	uint16_t *h = malloc(n * 2), *k = malloc(n * 2);
	float m[2], s[2], big = fill == FILL_TAME ? 60.0f : 1.0f;

	assert_true(x && y && a && b && h && k);
	fill_floats(x, n, fill);
	fill_floats(y, n, fill);
	for (size_t i = 0; i < n; i++)
		x[i] *= big;
	for (int weight = 0; weight < 2; weight++) {
		ref->rms_norm(b, x, weight ? y : NULL, n, 1e-6f);
		tier->rms_norm(a, x, weight ? y : NULL, n, 1e-6f);
		same(a, b, n, "rms_norm");
	}
	ref->swiglu(b, x, y, n);
	tier->swiglu(a, x, y, n);
	same(a, b, n, "swiglu");
	for (int what = 0; what < 4; what++) {
		memcpy(a, x, n * 4);
		memcpy(b, x, n * 4);
		for (int pass = 0; pass < 2; pass++) {
			const struct kernels *t = pass ? ref : tier;
			float *v = pass ? b : a;

			if (what == 0)
				t->add(v, y, n);
			else if (what == 1)
				t->add_scaled(v, y, 0.3f, n);
			else if (what == 2)
				t->softmax(v, n);
			else
				t->rope(v, y, y + n / 2, n / 2 * 2, false);
		}
		same(a, b, n, what == 2 ? "softmax" : what == 3 ? "rope" : "add");
	}
	memcpy(a, x, n * 4);
	memcpy(b, x, n * 4);
	tier->rope(a, y, y + n / 2, n / 2 * 2, true);
	ref->rope(b, y, y + n / 2, n / 2 * 2, true);
	same(a, b, n, "rope of neighbours");
	tier->sum_exp(x, n, &m[0], &s[0]);
	ref->sum_exp(x, n, &m[1], &s[1]);
	same(&m[0], &m[1], 1, "maximum");
	same(&s[0], &s[1], 1, "sum of exp");
	assert_int_equal(tier->is_finite(x, n), ref->is_finite(x, n));
	tier->f32_to_f16(h, x, n);
	ref->f32_to_f16(k, x, n);
	assert_memory_equal(h, k, n * 2);
	tier->f16_to_f32(a, h, n);
	ref->f16_to_f32(b, h, n);
	same(a, b, n, "f16 to f32");
	free(x);
	free(y);
	free(a);
	free(b);
	free(h);
	free(k);
}

static void test_vectors(void **unused)
{
	for (size_t n = 1; n < 70; n++)
		for (int fill = 0; fill < FILL_MAX; fill++)
			vectors_case(n, (enum fill)fill);
	vectors_case(2048, FILL_TAME);
	vectors_case(2051, FILL_WILD);
}

/* exp() over its whole range and beyond: every 1021st of all floats, as the gate of silu. */
static void test_exp(void **unused)
{
	static float x[4096], one[4096], a[4096], b[4096];

	for (size_t i = 0; i < 4096; i++)
		one[i] = 1;
	for (uint64_t u = draw() % 1021; u < UINT64_C(1) << 32;) {
		for (size_t i = 0; i < 4096; i++, u += 1021)
			x[i] = as_float((uint32_t)u);
		tier->swiglu(a, x, one, 4096);
		ref->swiglu(b, x, one, 4096);
		same(a, b, 4096, "silu");
	}
}

/* All halves there are, and floats at and beside every place where rounding to half turns. */
static void test_halves(void **unused)
{
	static uint16_t h[65536], a[65536], b[65536];
	static float x[65536], y[65536];

	for (unsigned i = 0; i < 65536; i++)
		h[i] = (uint16_t)i;
	tier->f16_to_f32(x, h, 65536);
	ref->f16_to_f32(y, h, 65536);
	assert_memory_equal(x, y, sizeof(x));
	ref->f32_to_f16(a, x, 65536);
	for (unsigned i = 0; i < 65536; i++)
		assert_int_equal(a[i], isnan(x[i]) ? h[i] | 0x200 : h[i]);
	for (unsigned round = 0; round < 16; round++) {
		for (unsigned i = 0; i < 65536; i++) {
			uint32_t u = (uint32_t)(round * 65536 + i) << 12;

			x[i] = as_float(u + (uint32_t)(draw() % 3) - 1);
		}
		tier->f32_to_f16(a, x, 65536);
		ref->f32_to_f16(b, x, 65536);
		assert_memory_equal(a, b, sizeof(a));
	}
}

struct attention {
	struct kernels_attention a;
	float *x, *state[2]; /* of the tier and of the scalar one */
	uint32_t *keys;
	uint8_t *space; /* what keys and values end at the end of */
};

static void attention_init(struct attention *t, size_t head, size_t n_q, bool kv_f32)
{
	size_t size = kernels_attention_state(head), q_stride = head + 3;
	float *q = malloc(n_q * q_stride * 4);

	t->x = malloc(num_max(2 * 64 * head, n_q * q_stride) * 4);
	t->keys = malloc(n_q * sizeof *t->keys);
	t->space = guarded();
	for (int i = 0; i < 2; i++) {
		t->state[i] = malloc(n_q * size * 4);
		assert_true(q && t->x && t->keys && t->state[i]);
		for (size_t k = 0; k < n_q; k++)
			kernels_attention_reset(t->state[i] + k * size, head);
	}
	fill_floats(q, n_q * q_stride, FILL_TAME);
	t->a = (struct kernels_attention){
		.q = q,
		.q_stride = q_stride,
		.kv_f32 = kv_f32,
		.head = head,
		.n_q = n_q,
		.keys = t->keys,
		.work = aligned_alloc(
			64, num_align_up(kernels_attention_work(head) * 4, (size_t)64)),
	};
	t->a.v = t->space + SPAN - 64 * head * (kv_f32 ? 4 : 2);
	t->a.k = (const uint8_t *)t->a.v - 64 * head * (kv_f32 ? 4 : 2);
	t->a.next_k = t->a.k;
	t->a.next_v = t->a.v;
	assert_non_null(t->a.work);
}

static void attention_deinit(struct attention *t)
{
	free((void *)t->a.q);
	free(t->a.work);
	free(t->x);
	free(t->keys);
	free(t->state[0]);
	free(t->state[1]);
	munmap(t->space, SPAN + 4096);
}

/* Draws a block; keys and values that no query takes part with are NaN, as memory may be. */
static void attention_fill(struct attention *t, enum fill fill)
{
	size_t head = t->a.head, most = 0;
	bool tail = draw() % 2;

	for (size_t i = 0; i < t->a.n_q; i++) {
		t->keys[i] = !tail && draw() % 2 ? 64 : 1 + (uint32_t)(draw() % (tail ? 40 : 64));
		most = num_max(most, (size_t)t->keys[i]);
	}
	fill_floats(t->x, 2 * 64 * head, fill);
	for (size_t j = most; j < 64; j++)
		for (size_t i = 0; i < head; i++) {
			t->x[kernels_attention_key(head, j, i)] = NAN;
			t->x[64 * head + j * head + i] = NAN;
		}
	if (t->a.kv_f32)
		memcpy((void *)t->a.k, t->x, 2 * 64 * head * 4);
	else
		ref->f32_to_f16((uint16_t *)(void *)t->a.k, t->x, 2 * 64 * head);
}

static void attention_case(size_t head, size_t n_q, bool kv_f32, enum fill fill)
{
	static const float scales[] = {0.3f, 3.0f, 100.0f};
	size_t size = kernels_attention_state(head), padded = kernels_attention_padded(head);
	struct attention t;

	attention_init(&t, head, n_q, kv_f32);
	t.a.scale = scales[draw() % 3] * kernels_attention_scale(head);
	for (int block = 0; block < 3; block++) {
		attention_fill(&t, fill);
		for (int i = 0; i < 2; i++) {
			t.a.state = t.state[i];
			(i ? ref : tier)->attention(&t.a);
		}
		for (size_t i = 0; i < n_q; i++) {
			same(t.state[0] + i * size, t.state[1] + i * size, head, "attention");
			same(t.state[0] + i * size + padded, t.state[1] + i * size + padded, 2,
				"attention's maximum and sum");
		}
	}
	for (size_t i = 0; i < n_q; i++) {
		tier->attention_finish(t.state[0] + i * size, head, t.x);
		ref->attention_finish(t.state[1] + i * size, head, t.x + head);
		same(t.x, t.x + head, head, "attention's output");
	}
	attention_deinit(&t);
}

static void test_attention(void **unused)
{
	static const size_t heads[] = {1, 2, 15, 16, 20, 63, 64, 80, 96, 112, 128, 192, 256, 1024};
	static const size_t many[] = {31, 64, 127, 128, 131, 261};

	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		for (size_t n_q = 1; n_q <= (heads[i] > 256 ? 3 : 18); n_q++)
			for (int f32 = 0; f32 < 2; f32++) {
				if (!chosen())
					continue;
				attention_case(heads[i], n_q, f32, FILL_TAME);
				attention_case(heads[i], n_q, f32, (enum fill)(n_q % FILL_MAX));
			}
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		for (size_t head = 40; head <= 128; head += 44)
			attention_case(head, many[i], i % 2, FILL_TAME);
}

static void test_dequantize(void **unused)
{
	static float a[2304], b[2304];
	uint8_t *space = guarded();

	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);
		uint64_t row;

		if (!f || !f->product)
			continue;
		assert_true(kernels_row_bytes(f, 2304, &row));
		for (int fill = 0; fill < FILL_MAX; fill++) {
			fill_weights(f, space + SPAN - row, row, (enum fill)fill);
			tier->dequantize(type, space + SPAN - row, a, 2304);
			ref->dequantize(type, space + SPAN - row, b, 2304);
			same(a, b, 2304, f->name);
		}
	}
	munmap(space, SPAN + 4096);
}

/* In place of the others where this machine lacks the tier: skipped, and counted as that. */
static void test_missing(void **unused)
{
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_products),
		cmocka_unit_test(test_quantize),
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_exp),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_attention),
		cmocka_unit_test(test_dequantize),
	};
	/* Nothing is left to compare the definition with but itself: values.c tests it. */
	const struct CMUnitTest scalar[] = {
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_halves),
	};
	const struct CMUnitTest missing[] = {cmocka_unit_test(test_missing)};
	static const char *const names[] = {
		"scalar", "avx2", "avxvnni", "vnni", "amx", "dotprod", "i8mm"};
	const char *seed = getenv("TEST_SEED");
	int failed = 0, ran = 0;

	_Static_assert(ARRAY_SIZE(names) == KERNELS_TIER_MAX, "a name for each tier");
	ref = kernels_get(KERNELS_SCALAR);
	for (int i = KERNELS_SCALAR; i < KERNELS_TIER_MAX; i++) {
		tier = kernels_get((enum kernels_tier)i);
		state = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15;
		if (!tier) {
			cmocka_run_group_tests_name(names[i], missing, NULL, NULL);
			continue;
		}
		printf("tier %s, seed 0x%llx\n", names[i], (unsigned long long)state);
		if (strcmp(tier->name, names[i]) != 0)
			return 1;
		failed += tier == ref ? cmocka_run_group_tests_name(names[i], scalar, NULL, NULL)
				      : cmocka_run_group_tests_name(names[i], tests, NULL, NULL);
		ran++;
	}
	printf("tiers run: %d, not on this machine: %d\n", ran, KERNELS_TIER_MAX - ran);
	return failed != 0;
}
