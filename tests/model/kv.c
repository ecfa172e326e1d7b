/* SPDX-License-Identifier: MIT */

/* The pool of keys and values: blocks whose pages are taken when they are first handed out. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels.h"
#include "kv.h"
#include "num.h"

#define BLOCKS (3 * KV_RUN + 2) /* the last run is a short one */

struct pages {
	char *memory;
	size_t block, taken; /* bytes: what was taken is always a prefix */
	unsigned calls;
	int fails;
};

static int take(void *arg, void *p, size_t n)
{
	struct pages *pages = arg;

	pages->calls++;
	if (pages->fails)
		return pages->fails;
	assert_ptr_equal(p, pages->memory + pages->taken);
	assert_int_equal(n % pages->block, 0);
	pages->taken += n;
	return 0;
}

static struct desc_layer layers[2] = {{.k = {.type = KERNELS_F16}}};
static struct desc shape = {.n_layers = 2, .layers = layers, .kv_heads = 2, .head_size = 8};

static void start(struct kv *kv, struct pages *p, uint32_t here)
{
	*p = (struct pages){.block = kv_block_bytes(&shape)};
	p->memory = calloc(BLOCKS, p->block);
	p->taken = here * p->block;
	assert_int_equal(kv_init(kv, &shape, p->memory, BLOCKS, here, take, p), 0);
}

static void end(struct kv *kv, struct pages *p)
{
	kv_deinit(kv);
	free(p->memory);
}

static void test_taken_once(void **state)
{
	struct engine_seq *a, *b;
	struct pages p;
	struct kv kv;

	start(&kv, &p, KV_RUN);
	assert_int_equal(kv_seq_new(&kv, &a), 0);
	assert_int_equal(kv_seq_new(&kv, &b), 0);
	assert_int_equal(kv_seq_reserve(&kv, a, KV_RUN * KV_BLOCK), 0);
	assert_int_equal(p.calls, 0);
	assert_int_equal(kv_seq_reserve(&kv, b, KV_RUN * KV_BLOCK + 1), 0);
	assert_int_equal(p.calls, 1);
	assert_int_equal(p.taken, 3 * KV_RUN * p.block);
	/* Those that come back are handed out again before any new one. */
	kv_seq_truncate(&kv, a, 0);
	assert_int_equal(kv_seq_reserve(&kv, b, 3 * KV_RUN * KV_BLOCK), 0);
	assert_int_equal(p.calls, 1);
	assert_int_equal(kv_seq_reserve(&kv, a, 2 * KV_BLOCK), 0);
	assert_int_equal(p.calls, 2);
	assert_int_equal(p.taken, BLOCKS * p.block);
	for (uint32_t i = 0; i < a->n_blocks; i++)
		for (uint32_t k = 0; k < b->n_blocks; k++)
			assert_int_not_equal(a->blocks[i], b->blocks[k]);
	assert_int_equal(kv_seq_reserve(&kv, a, 2 * KV_BLOCK + 1), -ENOSPC);
	kv_seq_free(&kv, a);
	kv_seq_free(&kv, b);
	assert_int_equal(kv.n_free, BLOCKS);
	end(&kv, &p);
}

/* Where the system has no memory, nothing is handed out, and what is there goes on. */
static void test_no_memory(void **state)
{
	struct engine_seq *a, *b;
	struct pages p;
	struct kv kv;

	start(&kv, &p, KV_RUN);
	assert_int_equal(kv_seq_new(&kv, &a), 0);
	assert_int_equal(kv_seq_new(&kv, &b), 0);
	p.fails = -ENOMEM;
	assert_int_equal(kv_seq_reserve(&kv, a, KV_RUN * KV_BLOCK + 1), -ENOSPC);
	assert_int_equal(a->n_blocks, 0);
	assert_int_equal(kv.n_free, BLOCKS);
	assert_int_equal(kv_seq_reserve(&kv, a, KV_RUN * KV_BLOCK), 0);
	assert_int_equal(kv_seq_reserve(&kv, b, 1), -ENOSPC);
	kv_seq_truncate(&kv, a, 0);
	assert_int_equal(kv_seq_reserve(&kv, b, 1), 0);
	p.fails = 0;
	assert_int_equal(kv_seq_reserve(&kv, a, (BLOCKS - 1) * KV_BLOCK), 0);
	assert_int_equal(p.taken, BLOCKS * p.block);
	kv_seq_free(&kv, a);
	kv_seq_free(&kv, b);
	end(&kv, &p);
}

/* A number for each element that says where it belongs. */
static uint16_t stamp(uint32_t layer, uint32_t head, uint32_t position, uint32_t i, bool value)
{
	return (uint16_t)(1 +
			  ((((layer * 2 + head) * 1009 + position) * 8 + i) * 2 + value) % 65535);
}

static uint16_t *element(
	const struct kv *kv, const struct engine_seq *s, uint32_t position, uint32_t n, bool value)
{
	uint16_t *block = kv_keys(kv, s, position / KV_BLOCK, n / 16, n / 8 % 2);

	assert_false(kv->f32);
	return value ? block + kv->head_bytes / 2 + position % KV_BLOCK * 8 + n % 8
		     : block + kernels_attention_key(8, position % KV_BLOCK, n % 8);
}

static void fill(struct kv *kv, struct engine_seq *s, uint32_t from, uint32_t to)
{
	for (uint32_t p = from; p < to; p++)
		for (uint32_t n = 0; n < 32; n++)
			for (int v = 0; v < 2; v++)
				*element(kv, s, p, n, v) = stamp(n / 16, n / 8 % 2, p, n % 8, v);
	s->length = to;
}

static void check(const struct kv *kv, const struct engine_seq *s, uint32_t from, uint32_t to)
{
	for (uint32_t p = from; p < to; p++)
		for (uint32_t n = 0; n < 32; n++)
			for (int v = 0; v < 2; v++)
				assert_int_equal(*element(kv, s, p, n, v),
					stamp(n / 16, n / 8 % 2, p, n % 8, v));
}

/* Blocks with a common prefix are held by several; each may go its own way from any position. */
static void test_shared(void **state)
{
	struct engine_seq *a, *b, *c;
	struct pages p;
	struct kv kv;

	start(&kv, &p, BLOCKS);
	assert_int_equal(kv_seq_new(&kv, &a), 0);
	assert_int_equal(kv_seq_new(&kv, &b), 0);
	assert_int_equal(kv_seq_new(&kv, &c), 0);
	assert_int_equal(kv_seq_reserve(&kv, a, 4 * KV_BLOCK - 20), 0);
	fill(&kv, a, 0, 4 * KV_BLOCK - 20);
	assert_int_equal(kv_seq_share(&kv, b, a, 3 * KV_BLOCK + 10), 0);
	assert_int_equal(kv_seq_share(&kv, c, b, 2 * KV_BLOCK), 0);
	assert_int_equal(kv.n_free, BLOCKS - 4);
	check(&kv, b, 0, b->length);
	/* b goes on in its own copy of the last block; a's stays as it is. */
	assert_int_equal(kv_seq_reserve(&kv, b, 100), 0);
	assert_int_not_equal(a->blocks[3], b->blocks[3]);
	check(&kv, b, 0, b->length);
	memset(element(&kv, b, b->length, 0, true), 0xff, 8);
	check(&kv, a, 0, a->length);
	/* c at a whole block needs no copy; cut back into one that is shared, it does. */
	assert_int_equal(kv_seq_reserve(&kv, c, 1), 0);
	assert_int_equal(c->blocks[1], a->blocks[1]);
	kv_seq_truncate(&kv, c, KV_BLOCK + 1);
	assert_int_equal(kv_seq_reserve(&kv, c, 1), 0);
	assert_int_not_equal(c->blocks[1], a->blocks[1]);
	check(&kv, c, 0, KV_BLOCK + 1);
	/* What is held by others stays when one goes. */
	kv_seq_truncate(&kv, a, 0);
	check(&kv, b, 0, 3 * KV_BLOCK + 10);
	kv_seq_free(&kv, b);
	check(&kv, c, 0, KV_BLOCK + 1);
	kv_seq_free(&kv, c);
	assert_int_equal(kv.n_free, BLOCKS);
	/* A copy needs a block: where none is free, nothing is taken. */
	assert_int_equal(kv_seq_reserve(&kv, a, (BLOCKS - 1) * KV_BLOCK + 30), 0);
	fill(&kv, a, 0, (BLOCKS - 1) * KV_BLOCK + 30);
	assert_int_equal(kv_seq_new(&kv, &b), 0);
	assert_int_equal(kv_seq_share(&kv, b, a, 30), 0);
	assert_int_equal(kv_seq_reserve(&kv, b, 1), -ENOSPC);
	assert_int_equal(b->length, 30);
	kv_seq_free(&kv, b);
	kv_seq_free(&kv, a);
	assert_int_equal(kv.n_free, BLOCKS);
	end(&kv, &p);
}

/* The bytes of a sequence come back in other blocks, read and written in pieces of any size. */
static void test_bytes(void **state)
{
	static const uint32_t lengths[] = {1, 15, 16, 17, 63, 64, 65, 200, 256};
	static const size_t pieces[] = {1, 7, 100, 4096, 1 << 20};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct engine_seq *a, *b, *other;
		uint32_t n = lengths[i];
		char *first, *again;
		struct pages p;
		size_t all;
		struct kv kv;

		start(&kv, &p, BLOCKS);
		memset(p.memory, 0xee, BLOCKS * p.block);
		all = (n + KV_BLOCK - 1) / KV_BLOCK * kv.block_bytes;
		first = malloc(all);
		again = malloc(all);
		assert_int_equal(kv_seq_new(&kv, &a), 0);
		assert_int_equal(kv_seq_new(&kv, &b), 0);
		assert_int_equal(kv_seq_new(&kv, &other), 0);
		assert_int_equal(kv_seq_reserve(&kv, a, n), 0);
		assert_int_equal(kv_seq_reserve(&kv, other, 3 * KV_BLOCK), 0);
		assert_int_equal(kv_seq_reserve(&kv, b, n), 0);
		fill(&kv, a, 0, n);
		for (size_t k = 0; k < ARRAY_SIZE(pieces); k++) {
			memset(again, 0x11, all);
			for (size_t at = 0; at < all; at += pieces[k])
				kv_seq_read(
					&kv, a, n, at, again + at, num_min(pieces[k], all - at));
			if (k == 0)
				memcpy(first, again, all);
			assert_memory_equal(first, again, all);
			for (size_t at = 0; at < all; at += pieces[k])
				kv_seq_write(&kv, b, at, again + at, num_min(pieces[k], all - at));
			check(&kv, b, 0, n);
			/* Nothing of whoever had the block before is told. */
			for (uint32_t q = n; q < all / kv.block_bytes * KV_BLOCK; q++)
				for (uint32_t m = 0; m < 32; m++) {
					assert_int_equal(*element(&kv, b, q, m, false), 0);
					assert_int_equal(*element(&kv, b, q, m, true), 0);
				}
			for (uint32_t m = 0; m < 32; m++)
				*element(&kv, b, 0, m, true) = 0;
		}
		free(first);
		free(again);
		kv_seq_free(&kv, a);
		kv_seq_free(&kv, b);
		kv_seq_free(&kv, other);
		end(&kv, &p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_once),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
