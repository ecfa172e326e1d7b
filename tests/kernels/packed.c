/* SPDX-License-Identifier: MIT */

/*
 * Packed weights: the layout as kernels.h describes it, back and forth, and every tier's products
 * with it against the scalar tier's with native rows, bit by bit.  TEST_SEED repeats a run,
 * TEST_SHARE shortens it.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "cases.h"
#include "kernels.h"
#include "num.h"

#define ROWS KERNELS_PACK_ROWS

/* Element i of a row as the format's words and halves: where byte `at` of a block lies in a tile.
 */
static size_t place(
	const struct kernels_format *f, size_t blocks, unsigned row, size_t b, size_t at)
{
	size_t d = f->type == KERNELS_Q6_K ? 208 : 0, column, words, word;

	if (f->bytes % 4 == 0)
		return b * ROWS * f->bytes + at / 4 * 64 + row * 4 + at % 4;
	column = b / 2 * 2 * ROWS * f->bytes;
	if (at >= d && at < d + 2)
		return b % 2 == 0 && b + 1 == blocks ? column + row * 2 + at - d
						     : column + row * 4 + b % 2 * 2 + at - d;
	word = (d ? at : at - 2) / 4;
	words = b % 2 == 0 && b + 1 == blocks ? column + 32
					      : column + 64 + b % 2 * ((f->bytes - 2u) / 4 * 64);
	return words + word * 64 + row * 4 + (d ? at : at - 2) % 4;
}

static void layout_case(const struct kernels_format *f, size_t blocks)
{
	size_t row_bytes = blocks * f->bytes, size = ROWS * row_bytes;
	uint8_t *native = malloc(size), *tile = malloc(size), *scratch = malloc(size), *row;

	row = malloc(row_bytes);
	assert_true(native && tile && scratch && row);
	for (size_t i = 0; i < size; i++)
		native[i] = (uint8_t)draw();
	memcpy(tile, native, size);
	tier->pack(f->type, tile, blocks * f->block, scratch);
	for (unsigned r = 0; r < ROWS; r++) {
		for (size_t b = 0; b < blocks; b++)
			for (size_t i = 0; i < f->bytes; i++)
				assert_int_equal(tile[place(f, blocks, r, b, i)],
					native[r * row_bytes + b * f->bytes + i]);
		kernels_packed_row(f->type, tile, r, blocks * f->block, row);
		assert_memory_equal(row, native + r * row_bytes, row_bytes);
	}
	free(native);
	free(tile);
	free(scratch);
	free(row);
}

static void test_layout(void **unused)
{
	unsigned types = 0;

	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);

		if (!f || !f->product || f->block == 1) {
			assert_false(kernels_can_pack(type));
			assert_null(tier->product_packed[type]);
			continue;
		}
		assert_true(kernels_can_pack(type));
		assert_non_null(tier->product_packed[type]);
		for (size_t blocks = 1; blocks < 20; blocks++)
			layout_case(f, blocks);
		types++;
	}
	assert_int_equal(types, 8);
}

struct shape {
	size_t tiles, cols, blocks;
};

/*
 * Activations as they mostly are, few far from 0, where kernels may take a shorter way; or those
 * with the largest sums of magnitudes for which they may, or the next larger ones.
 */
static void calm_floats(float *x, size_t n)
{
	unsigned kind = draw() % 3;
	float sign = draw() % 2 ? 1.0f : -1.0f;

	for (size_t i = 0; i < n; i++)
		if (kind == 0)
			x[i] = draw_float() * draw_float() * draw_float();
		else
			x[i] = sign * (i % 16 < 8 ? 127.0f : i % 16 == 8 ? 6.0f + (float)kind : 0);
}

static void product_case(const struct kernels_format *f, uint8_t *space, const struct shape *s,
	enum fill fill, size_t gap)
{
	size_t n = s->blocks * f->block, row = s->blocks * f->bytes, rows = s->tiles * ROWS;
	size_t bytes = kernels_input_bytes(f->input, n), x_stride = bytes + draw() % 5 * 4;
	size_t outs = (rows + 3) * s->cols + 1, at = draw() % 16 * 4;
	/* The last byte of the last tile is the last of its page, or lies a little before. */
	uint8_t *w = space + SPAN - rows * row - gap, *scratch = malloc(ROWS * row), *in;
	float *x = malloc(n * sizeof(float)), *out[2];
	struct kernels_product p = {.type = f->type,
		.w = w,
		.w_stride = row,
		.rows = rows,
		.x_stride = x_stride,
		.cols = s->cols,
		.n = n,
		.out_stride = rows + 3};
	bool calm = fill != FILL_WILD && draw() % 2;
	char what[128];

	in = malloc(x_stride * s->cols + at);
	out[0] = calloc(outs, sizeof(float));
	out[1] = calloc(outs, sizeof(float));
	assert_true(scratch && x && in && out[0] && out[1]);
	fill_weights(f, w, rows * row, fill);
	for (size_t c = 0; c < s->cols; c++) {
		fill_floats(x, n, fill);
		if (calm)
			calm_floats(x, n);
		ref->quantize(f->input, x, in + at + c * x_stride, n);
	}
	p.x = in + at;
	p.out = out[0] + 1;
	ref->product[f->type](&p);
	for (size_t i = 0; i < s->tiles; i++)
		tier->pack(f->type, w + i * ROWS * row, n, scratch);
	p.out = out[1] + 1;
	tier->product_packed[f->type](&p);
	snprintf(what, sizeof(what),
		"packed %s, %zu rows, %zu columns, n %zu, fill %d, gap %zu, calm %d", f->name, rows,
		s->cols, n, (int)fill, gap, calm);
	same(out[1], out[0], outs, what);
	free(scratch);
	free(x);
	free(in);
	free(out[0]);
	free(out[1]);
}

static void test_products(void **unused)
{
	static const size_t tiles[] = {1, 2, 3, 5};
	static const size_t cols[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 20, 31, 32, 33,
		36, 50, 64, 97, 127, 131};
	static const size_t blocks[] = {1, 2, 3, 4, 8, 9, 17};
	static const size_t gaps[] = {0, 2, 32, 64};
	uint8_t *space = guarded();

	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);

		if (!f || !tier->product_packed[type])
			continue;
		for (size_t t = 0; t < ARRAY_SIZE(tiles); t++)
			for (size_t c = 0; c < ARRAY_SIZE(cols); c++)
				for (size_t b = 0; b < ARRAY_SIZE(blocks); b++) {
					struct shape s = {tiles[t], cols[c], blocks[b]};
					size_t gap = gaps[draw() % ARRAY_SIZE(gaps)];

					/* The scalar tier is slow. */
					if (s.tiles * s.cols * s.blocks > 300 && draw() % 4)
						continue;
					if (!chosen())
						continue;
					product_case(f, space, &s, FILL_TAME, gap);
					for (int k = FILL_WILD; b == 2 && k < FILL_MAX; k++)
						product_case(f, space, &s, (enum fill)k, gap);
				}
	}
	munmap(space, SPAN + 4096);
}

/* Long rows, as real models have them. */
static void test_long(void **unused)
{
	uint8_t *space = guarded();

	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);
		struct shape s = {1, 3, 0};

		if (!f || !tier->product_packed[type])
			continue;
		s.blocks = 4096 / f->block;
		product_case(f, space, &s, FILL_TAME, 0);
		s.cols = 33;
		s.blocks = 768 / f->block;
		product_case(f, space, &s, FILL_HIGH, 32);
	}
	munmap(space, SPAN + 4096);
}

/* A tier that lends a kernel of the one below would be compared with itself, not run. */
static void test_own(void **unused)
{
	for (int below = KERNELS_SCALAR; below < (int)tier->tier; below++)
		for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
			const struct kernels *k = kernels_get((enum kernels_tier)below);

			if (tier->product_packed[type])
				assert_true(!k ||
					    tier->product_packed[type] != k->product_packed[type]);
		}
}

static void test_missing(void **unused)
{
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_products),
		cmocka_unit_test(test_long),
	};
	const struct CMUnitTest missing[] = {cmocka_unit_test(test_missing)};
	const char *seed = getenv("TEST_SEED");
	int failed = 0;

	ref = kernels_get(KERNELS_SCALAR);
	for (int i = KERNELS_SCALAR; i < KERNELS_TIER_MAX; i++) {
		tier = kernels_get((enum kernels_tier)i);
		state = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15;
		if (!tier || !tier->pack) {
			cmocka_run_group_tests_name("missing", missing, NULL, NULL);
			continue;
		}
		printf("tier %s, seed 0x%llx\n", tier->name, (unsigned long long)state);
		failed += cmocka_run_group_tests_name(tier->name, tests, NULL, NULL);
	}
	return failed != 0;
}
