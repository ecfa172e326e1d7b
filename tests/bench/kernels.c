/* SPDX-License-Identifier: MIT */

/*
 * How fast the products are: for each type and tier, one column out of a large matrix (decode: GB/s
 * of weights) and several columns out of the cache (prefill: GMAC/s).  One thread; start it twice
 * for two.  Prints a JSON array.  Arguments: MiB of weights (default 64), n (default 2048).
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "kernels.h"
#include "num.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one product, the best of several. */
static double measure(const struct kernels *k, const struct kernels_product *p)
{
	double best = 1e9, begin = now();

	for (int i = 0; i < 40 && (i < 2 || now() - begin < 0.3); i++) {
		double t = now();

		k->product[p->type](p);
		t = now() - t;
		best = t < best ? t : best;
	}
	return best;
}

static void bench(
	const struct kernels *k, const struct kernels_format *f, uint8_t *w, size_t size, size_t n)
{
	static const size_t cols[] = {1, 4, 8, 16, 32, 64, 128};
	static float x[16384], out[1 << 20];
	static uint8_t q[128 * 16384 * 4];
	uint64_t row;

	if (!kernels_row_bytes(f, n, &row))
		return;
	for (size_t i = 0; i < n; i++)
		x[i] = (float)((i * 2654435761u) % 1000) * 1e-3f - 0.5f;
	for (size_t c = 0; c < 128; c++)
		k->quantize(f->input, x, q + c * kernels_input_bytes(f->input, n), n);
	for (size_t i = 0; i < ARRAY_SIZE(cols); i++) {
		/* Decode reads everything once; prefill works on an expert of 1 MiB or so. */
		size_t rows = num_min(
			i ? ((size_t)1 << 20) / row : size / row, ARRAY_SIZE(out) / cols[i]);
		double t = measure(k, &(struct kernels_product){
					      .type = f->type,
					      .w = w,
					      .w_stride = row,
					      .rows = rows,
					      .x = q,
					      .x_stride = kernels_input_bytes(f->input, n),
					      .cols = cols[i],
					      .n = n,
					      .out = out,
					      .out_stride = rows,
				      });

		printf("  {\"tier\": \"%s\", \"type\": \"%s\", \"rows\": %zu, \"n\": %zu, "
		       "\"cols\": "
		       "%zu, \"gb_s\": %.2f, \"gmac_s\": %.1f},\n",
			k->name, f->name, rows, n, cols[i], (double)(rows * row) / t * 1e-9,
			(double)(rows * n * cols[i]) / t * 1e-9);
	}
}

int main(int argc, char **argv)
{
	size_t size = (size_t)(argc > 1 ? atoi(argv[1]) : 64) << 20;
	size_t n = argc > 2 ? (size_t)atoi(argv[2]) : 2048;
	const char *only = argc > 3 ? argv[3] : NULL;
	uint8_t *w;

	if (!size || !n || n > 16384 || n % 256) {
		fprintf(stderr, "usage: bench-kernels [MIB [N [TYPE]]], N a multiple of 256\n");
		return 2;
	}
	w = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	madvise(w, size, MADV_HUGEPAGE);
	memset(w, 0x31, size);
	printf("[\n");
	for (int t = 0; t < KERNELS_TIER_MAX; t++)
		for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
			const struct kernels *k = kernels_get((enum kernels_tier)t);
			const struct kernels_format *f = kernels_format(type);

			if (k && f && f->product && (!only || !strcmp(only, f->name)))
				bench(k, f, w, size, n);
		}
	printf("  {}\n]\n");
	munmap(w, size);
	return 0;
}
