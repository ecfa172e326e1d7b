/* SPDX-License-Identifier: MIT */

/*
 * How fast the kernels are, as JSON, beside what the machine can do at most in the same run: for
 * each tier, weight type and layout (native rows, packed tiles) one to four columns (decode:
 * GB/s of weights, out of memory that no cache holds) and more (prefill: thousand million products
 * of codes and activations a second), packing, then attention and the kernels on floats
 * (attention.c).  One thread; start it twice for two. Not a test: nothing here passes or fails.
 */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "peak.h"

#define COLS_MAX 512u
#define N_MAX 16384u
#define CACHED_ROWS ((size_t)64) /* a piece of rows as one thread takes it */
#define COLD 4			 /* columns up to which weights come out of memory */

/* A plain read of every line, with as much prefetch as the products have. */
static void run_read(void *arg)
{
	typedef uint64_t v8 __attribute__((vector_size(64)));
	struct weights *w = arg;
	const uint8_t *p = portion(w);
	v8 a = {0}, b = {0};

	for (size_t i = 0; i + 128 <= PORTION; i += 128) {
		const v8 *v = (const v8 *)__builtin_assume_aligned(p + i, 64);

		__builtin_prefetch(p + i + 4608, 0, 3);
		__builtin_prefetch(p + i + 4672, 0, 3);
		a += v[0];
		b += v[1];
	}
	a += b;
	w->sum = a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

static void report_limits(struct weights *w)
{
	size_t n_int8, n_f32;
	const struct peak_loop *int8 = peak_int8(&n_int8), *f32 = peak_f32(&n_f32);

	printf("  \"limits\": {\"read_gb_per_s\": %.2f",
		(double)PORTION / fastest(run_read, w) * 1e-9);
	if (kernels_get(KERNELS_VNNI))
		printf(", \"vnni_gmac_per_s\": %.0f, \"avx512_gflop_per_s\": %.0f",
			peak_registers(int8, n_int8, "avx512vnni", w->base),
			peak_registers(f32, n_f32, "avx512", w->base));
	printf("},\n");
}

typedef void (*product_fn)(const struct kernels_product *p);

struct product {
	product_fn fn;
	struct kernels_product p;
	struct weights *weights; /* or NULL where they are always the same */
};

static void run_product(void *arg)
{
	struct product *a = arg;

	if (a->weights)
		a->p.w = portion(a->weights);
	a->fn(&a->p);
}

/* x holds COLS_MAX columns of any form, out as many results as any product here has. */
struct buffers {
	float *values;
	uint8_t *x;
	float *out;
};

static void bench_product(product_fn fn, const struct kernels_format *f, size_t row,
	struct weights *w, const struct buffers *b, size_t n)
{
	static const size_t cols[] = {1, 2, 3, 4, 8, 16, 32, 64, COLS_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(cols); i++) {
		bool cold = cols[i] <= COLD;
		size_t rows = cold ? num_align_down(PORTION / row, (size_t)16) : CACHED_ROWS;
		struct product a = {.fn = fn, .weights = cold ? w : NULL};
		double t;

		a.p = (struct kernels_product){
			.type = f->type,
			.w = w->base,
			.w_stride = row,
			.rows = rows,
			.x = b->x,
			.x_stride = kernels_input_bytes(f->input, n),
			.cols = cols[i],
			.n = n,
			.out = b->out,
			.out_stride = rows,
		};
		t = fastest(run_product, &a);
		if (cold)
			printf(", \"gb_per_s_%zu\": %.2f", cols[i],
				(double)(rows * row) / t * 1e-9);
		else
			printf(", \"gmac_per_s_%zu\": %.0f", cols[i],
				(double)(rows * n * cols[i]) / t * 1e-9);
	}
}

struct packing {
	const struct kernels *kernels;
	struct weights *weights;
	uint32_t type;
	size_t n, row;
	void *scratch;
};

static void run_pack(void *arg)
{
	struct packing *a = arg;
	uint8_t *w = a->weights->base + (portion(a->weights) - a->weights->base);

	for (size_t at = 0; at + KERNELS_PACK_ROWS * a->row <= PORTION;
		at += KERNELS_PACK_ROWS * a->row)
		a->kernels->pack(a->type, w + at, a->n, a->scratch);
}

static void bench_pack(const struct kernels *k, const struct kernels_format *f, size_t row,
	struct weights *w, size_t n)
{
	struct packing a = {.kernels = k, .weights = w, .type = f->type, .n = n, .row = row};

	a.scratch = malloc(KERNELS_PACK_ROWS * row);
	if (a.scratch)
		printf(", \"pack_gb_per_s\": %.2f", (double)PORTION / fastest(run_pack, &a) * 1e-9);
	free(a.scratch);
}

/* A type's native rows, or its packed ones; false where the tier has none. */
static bool bench_type(const struct kernels *k, const struct kernels_format *f, bool packed,
	struct weights *w, const struct buffers *b, size_t n, const char *comma)
{
	product_fn fn = packed ? k->product_packed[f->type] : k->product[f->type];
	uint64_t row;

	if (!fn || !kernels_row_bytes(f, n, &row))
		return false;
	for (size_t c = 0; c < COLS_MAX; c++)
		k->quantize(f->input, b->values, b->x + c * kernels_input_bytes(f->input, n), n);
	printf("%s\n    {\"tier\": \"%s\", \"type\": \"%s\", \"layout\": \"%s\", \"n\": %zu", comma,
		k->name, f->name, packed ? "packed" : "native", n);
	bench_product(fn, f, row, w, b, n);
	if (packed)
		bench_pack(k, f, row, w, n);
	printf("}");
	fflush(stdout);
	return true;
}

/* What of all there is is wanted; NULL: everything. */
struct wish {
	const char *type;
	const char *tier;
};

static void report(struct weights *w, const struct buffers *b, size_t n, const struct wish *only)
{
	const char *comma = "";

	printf("{\n  \"weights_bytes\": %zu,\n", w->size);
	report_limits(w);
	printf("  \"products\": [");
	for (int t = KERNELS_TIER_MAX - 1; t >= 0; t--)
		for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
			const struct kernels *k = kernels_get((enum kernels_tier)t);
			const struct kernels_format *f = kernels_format(type);

			if (!k || !f || !f->product ||
				(only->type && strcmp(only->type, f->name)) ||
				(only->tier && strcmp(only->tier, k->name)))
				continue;
			for (int packed = 0; packed < 2; packed++)
				if (bench_type(k, f, packed, w, b, n, comma))
					comma = ",";
		}
	printf("\n  ],\n");
}

/* One JSON object for each tier: attention, or the kernels on floats. */
static void report_tiers(
	struct weights *w, const struct buffers *b, const struct wish *only, bool attention)
{
	const char *comma = "";

	printf("  \"%s\": [", attention ? "attention" : "vectors");
	for (int t = KERNELS_TIER_MAX - 1; t >= 0; t--) {
		const struct kernels *k = kernels_get((enum kernels_tier)t);

		if (!k || (only->tier && strcmp(only->tier, k->name)))
			continue;
		printf("%s\n", comma);
		if (attention)
			bench_attention(k, w, b->values);
		else
			bench_vectors(k, b->values);
		printf("}");
		fflush(stdout);
		comma = ",";
	}
	printf("\n  ]%s\n", attention ? "," : "\n}");
}

/* Most near 0 and few far off, as activations are. */
static float bell(size_t i)
{
	float sum = -2.0f;

	for (unsigned k = 0; k < 4; k++)
		sum += (float)((i * 4 + k) * 2654435761u % 1000) * 1e-3f;
	return sum;
}

static void usage(FILE *to)
{
	fputs("Usage: bench-kernels [--memory SIZE] [--row N] [--type NAME]\n"
	      "Prints how fast the kernels are on one thread, as JSON.\n"
	      "  --memory SIZE  weights of the products with one column (512M)\n"
	      "  --row N        elements of a row, a multiple of 256, at most 16384 (2048)\n"
	      "  --type NAME    only this weight type, for example Q4_K\n"
	      "  --tier NAME    only this tier, for example vnni\n",
		to);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"memory", required_argument, NULL, 'm'},
		{"row", required_argument, NULL, 'r'},
		{"type", required_argument, NULL, 't'},
		{"tier", required_argument, NULL, 'i'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct weights w = {.size = (size_t)512 << 20};
	struct buffers b;
	struct wish only = {0};
	uint64_t n = 2048, size = w.size;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		int r = 0;

		if (c == 'm')
			r = num_parse_size(optarg, 0, &size);
		else if (c == 'r')
			r = num_parse_u64(optarg, 256, N_MAX, &n);
		else if (c == 't')
			only.type = optarg;
		else if (c == 'i')
			only.tier = optarg;
		if (c == 'h') {
			usage(stdout);
			return 0;
		}
		if (c == '?' || r < 0 || n % 256 || size < PORTION || size > (size_t)1 << 36) {
			usage(stderr);
			return 2;
		}
	}
	w.size = num_align_down((size_t)size, PORTION);
	w.base = mmap(NULL, w.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	b.values = malloc(N_MAX * sizeof(float));
	b.x = aligned_alloc(64, COLS_MAX * N_MAX * sizeof(float));
	/* The most rows come out of memory where they are shortest, in Q4_0; or columns are many.
	 */
	b.out = malloc(
		num_max(COLD * PORTION / (n / 32 * 18), COLS_MAX * CACHED_ROWS) * sizeof(float));
	if (w.base == MAP_FAILED || !b.values || !b.x || !b.out) {
		perror("bench-kernels: cannot get memory");
		return 1;
	}
	/* Pages of zeros may share one frame until written; small ones cost what is not measured.
	 */
	madvise(w.base, w.size, MADV_HUGEPAGE);
	memset(w.base, 0x31, w.size);
	for (size_t i = 0; i < N_MAX; i++)
		b.values[i] = bell(i);
	report(&w, &b, n, &only);
	report_tiers(&w, &b, &only, true);
	report_tiers(&w, &b, &only, false);
	munmap(w.base, w.size);
	free(b.values);
	free(b.x);
	free(b.out);
	return 0;
}
