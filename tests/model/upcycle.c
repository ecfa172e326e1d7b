/* SPDX-License-Identifier: MIT */

/* Upcycling a small file: what the result holds, and that failing leaves nothing behind. */

#include "upcycle.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "desc.h"
#include "finite.h"
#include "kernels.h"
#include "maker.h"

static char folder[64], dense[128], out[128];

static int setup(void **state)
{
	struct maker_model model = MAKER_MODEL;
	struct maker m;
	FILE *f;

	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/moed-upcycle-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(dense, sizeof dense, "%s/dense.gguf", folder);
	(void)snprintf(out, sizeof out, "%s/out.gguf", folder);
	model.dense = true;
	maker_init(&m);
	maker_model_keys(&m, &model);
	maker_model_tensors(&m, &model);
	maker_finish(&m);
	/* Every part of the data differs. */
	for (size_t i = m.n - m.data; i + 4 <= m.n; i += 4)
		memcpy(m.bytes + i, &(float){(float)i}, 4);
	f = fopen(dense, "w");
	if (!f || fwrite(m.bytes, 1, m.n, f) != m.n || fclose(f))
		return -1;
	maker_deinit(&m);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)unlink(out);
	(void)unlink(dense);
	return rmdir(folder); /* fails where something was left behind */
}

static void read_at(const char *path, uint64_t at, void *to, size_t n)
{
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, to, n, (off_t)at), n);
	(void)close(fd);
}

static struct desc *describe(const char *path, struct gguf **g)
{
	struct error err = ERROR_NONE;
	struct desc *d = NULL;

	if (gguf_open(g, path, &err) < 0 || desc_new(&d, *g, &err) < 0)
		fail_msg("%s", err.text);
	return d;
}

static void same_weight(const struct desc_weight *a, const struct desc_weight *b)
{
	char *x = malloc(a->size), *y = malloc(a->size);

	assert_int_equal(a->size, b->size);
	assert_int_equal(a->type, b->type);
	read_at(dense, a->offset, x, a->size);
	read_at(out, b->offset, y, b->size);
	assert_memory_equal(x, y, a->size);
	free(x);
	free(y);
}

static void whole(void **state)
{
	struct upcycle how = {.experts = 4, .top_k = 2, .seed = 5, .exact = true};
	struct upcycle_result result = {0};
	struct error err = ERROR_NONE;
	struct gguf *g = NULL, *h = NULL;
	struct desc *d, *e;
	float rows[4 * 32], stored[4 * 32];
	struct stat st;

	(void)state;
	if (upcycle_write(&result, dense, out, &how, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(stat(out, &st), 0);
	assert_int_equal(result.size, st.st_size);
	assert_int_equal(result.moe_layers, 2);
	d = describe(dense, &g);
	e = describe(out, &h);
	assert_int_equal(e->experts, 4);
	assert_int_equal(e->top_k, 2);
	assert_int_equal(e->router, DESC_TOPK_SOFTMAX);
	same_weight(&d->embedding, &e->embedding);
	same_weight(&d->output, &e->output);
	for (uint32_t l = 0; l < 2; l++) {
		same_weight(&d->layers[l].q, &e->layers[l].q);
		same_weight(&d->layers[l].attn_norm, &e->layers[l].attn_norm);
		for (uint32_t x = 0; x < 4; x++)
			for (int p = 0; p < DESC_PARTS; p++) {
				struct desc_weight w = desc_expert(e, l, x, p);

				same_weight(&d->layers[l].expert[p], &w);
			}
	}
	/* Both forms of upcycling route alike. */
	assert_int_equal(desc_upcycle(d, 4, 2, 5, true, NULL), 0);
	for (uint32_t l = 0; l < 2; l++) {
		desc_router_rows(d, l, rows);
		read_at(out, e->layers[l].router.offset, stored, sizeof stored);
		assert_memory_equal(rows, stored, sizeof rows);
	}
	desc_free(d);
	desc_free(e);
	gguf_free(g);
	gguf_free(h);
}

static void some_layers(void **state)
{
	bool layers[3] = {false, true, false};
	struct upcycle how = {
		.experts = 3, .top_k = 2, .softmax_first = true, .layers = layers, .n_layers = 3};
	struct upcycle_result result = {0};
	struct gguf *g = NULL;
	struct desc *d;

	(void)state;
	assert_int_equal(upcycle_write(&result, dense, out, &how, NULL), 0);
	assert_int_equal(result.moe_layers, 1);
	d = describe(out, &g);
	assert_false(d->layers[0].moe);
	assert_true(d->layers[1].moe);
	assert_int_equal(d->router, DESC_SOFTMAX_TOPK);
	assert_true(d->router_normalize);
	desc_free(d);
	gguf_free(g);
}

static void refused(void **state)
{
	bool layers[3] = {false, false, true};
	struct upcycle how = {.experts = 4, .top_k = 3, .exact = true};
	struct upcycle_result result;
	struct error err = ERROR_NONE;
	volatile sig_atomic_t stop = 1;
	struct stat st;

	(void)state;
	assert_int_equal(upcycle_write(&result, dense, out, &how, &err), -EINVAL);
	assert_non_null(strstr(err.text, "power of two"));
	how.top_k = 2;
	how.layers = layers;
	how.n_layers = 3;
	assert_int_equal(upcycle_write(&result, dense, out, &how, NULL), -EINVAL);
	how.n_layers = 2; /* no layer at all */
	assert_int_equal(upcycle_write(&result, dense, out, &how, NULL), -EINVAL);
	how.layers = NULL;
	assert_int_equal(upcycle_write(&result, dense, dense, &how, NULL), -EINVAL);
	assert_int_equal(upcycle_write(&result, dense, folder, &how, NULL), -EINVAL);
	assert_int_equal(upcycle_write(&result, dense, "/nowhere/out", &how, NULL), -ENOENT);
	how.stop = &stop;
	assert_int_equal(upcycle_write(&result, dense, out, &how, NULL), -ECANCELED);
	assert_int_equal(stat(out, &st), -1);
	how.stop = NULL;
	assert_int_equal(upcycle_write(&result, dense, out, &how, NULL), 0);
	/* What has experts is not upcycled again. */
	assert_int_equal(upcycle_write(&result, out, out, &how, NULL), -EINVAL);
}

static void numbers(void **state)
{
	uint8_t block[256] = {0};
	float floats[4] = {1, 2, 3, 4};
	size_t at = 0;

	(void)state;
	assert_true(finite_check(KERNELS_Q6_K, block, 210, &at));
	block[209] = 0x7c;
	assert_false(finite_check(KERNELS_Q6_K, block, 210, &at));
	assert_int_equal(at, 208);
	at++;
	assert_true(finite_check(KERNELS_Q6_K, block, 210, &at));
	memset(block, 0, sizeof block);
	/* The scale and the minimum of the second block of Q4_1, one after the other. */
	block[21] = 0x7e;
	block[23] = 0xfe;
	at = 0;
	assert_false(finite_check(KERNELS_Q4_1, block, 40, &at));
	assert_int_equal(at++, 20);
	assert_false(finite_check(KERNELS_Q4_1, block, 40, &at));
	assert_int_equal(at++, 22);
	assert_true(finite_check(KERNELS_Q4_1, block, 40, &at));
	at = 0;
	assert_true(finite_check(KERNELS_F32, floats, sizeof floats, &at));
	floats[2] = floats[3] = __builtin_inff();
	assert_false(finite_check(KERNELS_F32, floats, sizeof floats, &at));
	assert_int_equal(at++, 8);
	assert_false(finite_check(KERNELS_F32, floats, sizeof floats, &at));
	assert_int_equal(at++, 12);
	assert_true(finite_check(KERNELS_F32, floats, sizeof floats, &at));
	assert_false(finite_is_known(4711));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whole, setup, teardown),
		cmocka_unit_test_setup_teardown(some_layers, setup, teardown),
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
		cmocka_unit_test(numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
