/* SPDX-License-Identifier: MIT */

/*
 * What a resident model's decode makes of the memory's rate, and how much faster prefill is, as
 * JSON: random tokens through the engine, and sweeps over memory in the same run, by turns, so that
 * both see the same neighbours.  Not a test: nothing here passes or fails.
 */

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "desc.h"
#include "engine.h"
#include "gguf.h"
#include "limit.h"
#include "mem.h"
#include "memory-limit.h"
#include "num.h"
#include "plan.h"
#include "sweep.h"

#define SWEEP_SIZE ((size_t)256 << 20)
#define PREFILL 512u
#define ROUNDS_MAX 64u

DEFINE_CLEANUP(struct mem_arena *, mem_arena_free, NULL)
DEFINE_CLEANUP(struct gguf *, gguf_free, NULL)
DEFINE_CLEANUP(struct desc *, desc_free, NULL)
DEFINE_CLEANUP(struct engine *, engine_free, NULL)

struct options {
	const char *path;
	uint64_t tokens, rounds, threads;
};

struct bench {
	const struct options *o;
	const struct desc *desc;
	struct plan plan;
	struct engine *engine;
	uint64_t seed;
	double dram, prefill, decode, share,
		ratio; /* best of a round; median of shares and ratios */
	double shares[ROUNDS_MAX], ratios[ROUNDS_MAX];
};

static uint32_t random_token(struct bench *b)
{
	b->seed = b->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)((b->seed >> 16) % b->desc->vocabulary);
}

static void on_error(void *arg, int code, const char *text)
{
	(void)fprintf(stderr, "engine: %s\n", text);
}

/* One step of n random tokens, the last with logits. */
static int step(struct bench *b, struct engine_seq *s, enum engine_context c, uint32_t n)
{
	static const struct engine_callbacks callbacks = {.on_error = on_error};
	static struct engine_row rows[LIMIT_BULK_ROWS];
	int r = engine_seq_reserve(b->engine, s, n);

	for (uint32_t i = 0; i < n; i++)
		rows[i] = (struct engine_row){.seq = s,
			.token = random_token(b),
			.want = i + 1 == n ? ENGINE_WANT_LOGITS : 0};
	if (r == 0)
		r = engine_begin(b->engine, c, rows, n, &callbacks);
	while (r == 0) {
		r = engine_advance(b->engine, c);
		if (r == ENGINE_IDLE)
			return 0;
		r = r == ENGINE_WAITING ? engine_wait(b->engine, CLOCK_NS_PER_S) : num_min(r, 0);
	}
	return r;
}

static double rate(uint64_t n, uint64_t start)
{
	return (double)n * (double)CLOCK_NS_PER_S / (double)(clock_now() - start);
}

/* What one token reads of the weights: all dense ones but the embedding, and its experts. */
static uint64_t token_bytes(const struct desc *d)
{
	bool tied = d->output.offset == d->embedding.offset;

	return desc_dense_bytes(d) - (tied ? 0 : d->embedding.size) + desc_cycle_bytes(d);
}

static int one_round(struct bench *b, const char *memory, unsigned round)
{
	uint32_t chunk = num_min(PREFILL, b->plan.bulk_rows);
	double before = 0, after = 0, prefill, decode, dram;
	struct engine_seq *s;
	uint64_t start;
	int r = engine_seq_new(b->engine, &s);

	if (r == 0)
		r = sweep_measure(memory, SWEEP_SIZE, (unsigned)b->o->threads, &before);
	start = clock_now();
	for (uint32_t n = 0; r == 0 && n < PREFILL; n += chunk)
		r = step(b, s, ENGINE_BULK, num_min(chunk, PREFILL - n));
	prefill = rate(PREFILL, start);
	start = clock_now();
	for (uint64_t i = 0; r == 0 && i < b->o->tokens; i++)
		r = step(b, s, ENGINE_LIVE, 1);
	decode = rate(b->o->tokens, start);
	if (r == 0)
		r = sweep_measure(memory, SWEEP_SIZE, (unsigned)b->o->threads, &after);
	engine_seq_free(b->engine, s);
	if (r < 0)
		return r;
	dram = num_max(before, after);
	b->dram = num_max(b->dram, dram);
	b->prefill = num_max(b->prefill, prefill);
	b->decode = num_max(b->decode, decode);
	b->shares[round] = decode * (double)token_bytes(b->desc) / 1e9 / dram;
	b->ratios[round] = prefill / decode;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *x, size_t n)
{
	qsort(x, n, sizeof *x, by_value);
	return x[n / 2];
}

static void print(struct bench *b)
{
	struct engine_stats s;
	uint64_t bytes = token_bytes(b->desc);

	engine_stats(b->engine, &s);
	(void)printf(
		"{\n  \"model\": \"%s\", \"tier\": \"%s\", \"threads\": %u, \"resident\": %s,\n",
		b->desc->name, s.tier, (unsigned)b->o->threads, s.misses ? "false" : "true");
	(void)printf("  \"dram_read_gb_per_s\": %.2f,\n", b->dram);
	(void)printf("  \"decode\": {\"tokens_per_s\": %.2f, \"bytes_per_token\": %llu, "
		     "\"gb_per_s\": %.2f, \"share_of_dram\": %.3f},\n",
		b->decode, (unsigned long long)bytes, b->decode * (double)bytes / 1e9,
		median(b->shares, b->o->rounds));
	(void)printf(
		"  \"prefill\": {\"tokens\": %u, \"tokens_per_s\": %.2f, \"of_decode\": %.2f}\n}\n",
		PREFILL, b->prefill, median(b->ratios, b->o->rounds));
}

static int run(const struct options *o, struct error *err)
{
	cleanup_(gguf_freep) struct gguf *g = NULL;
	cleanup_(desc_freep) struct desc *d = NULL;
	cleanup_(engine_freep) struct engine *e = NULL;
	cleanup_(mem_arena_freep) struct mem_arena *memory = NULL;
	struct bench b = {.o = o, .seed = 1};
	struct engine_config config = {
		.path = o->path, .plan = &b.plan, .threads = (uint32_t)o->threads};
	struct plan_input in = {.context = 1024, .threads = (uint32_t)o->threads};
	struct memory_limit limit;
	int r = mem_arena_new(&memory, SWEEP_SIZE, 0, NULL, NULL, err);

	if (r == 0)
		r = gguf_open(&g, o->path, err);
	if (r == 0)
		r = desc_new(&d, g, err);
	if (r == 0)
		r = memory_limit_find(&limit, 0, "", err);
	if (r < 0)
		return r;
	b.desc = in.desc = config.desc = d;
	in.limit = limit.bytes;
	in.context = (uint32_t)num_align_up(PREFILL + o->tokens, 64);
	r = plan_make(&b.plan, &in, err);
	if (r == 0)
		r = engine_start(&e, &config, err);
	b.engine = e;
	for (unsigned i = 0; r == 0 && i < o->rounds; i++)
		r = one_round(&b, mem_arena_base(memory), i);
	if (r == 0)
		print(&b);
	return r;
}

static void usage(FILE *to)
{
	(void)fputs(
		"Usage: bench-engine --file MODEL [--tokens N] [--rounds N] [--threads N]\n"
		"Prints decode and prefill of a resident model beside the memory's rate, as JSON.\n"
		"  --tokens N   of a round's decode (64)\n"
		"  --rounds N   the best counts, of ratios the median (3)\n"
		"  --threads N  (all processors)\n",
		to);
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, 'f'},
		{"tokens", required_argument, NULL, 'n'},
		{"rounds", required_argument, NULL, 'r'},
		{"threads", required_argument, NULL, 't'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option, bad = 0;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h') {
			usage(stdout);
			return 1;
		}
		if (option == 'f')
			o->path = optarg;
		else if (option == 'n')
			bad |= num_parse_u64(optarg, 1, 65536, &o->tokens);
		else if (option == 'r')
			bad |= num_parse_u64(optarg, 1, ROUNDS_MAX, &o->rounds);
		else if (option == 't')
			bad |= num_parse_u64(optarg, 1, LIMIT_THREADS, &o->threads);
		else
			bad = 1;
	}
	if (bad || !o->path || optind != argc) {
		usage(stderr);
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct options o = {.tokens = 64, .rounds = 3, .threads = cpus < 1 ? 1 : (uint64_t)cpus};
	struct error err = ERROR_NONE;
	int r = parse(argc, argv, &o);

	if (r)
		return r < 0 ? 2 : 0;
	r = run(&o, &err);
	if (r < 0)
		(void)fprintf(stderr, "bench-engine: %s\n", error_text(&err, r));
	return r < 0;
}
