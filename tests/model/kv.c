/* SPDX-License-Identifier: MIT */

/* The pool of keys and values: blocks whose pages are taken when they are first handed out. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kv.h"

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

static struct desc_layer layers[2];
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_once),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
