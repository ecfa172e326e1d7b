/* SPDX-License-Identifier: MIT */

/*
 * What the engine makes of the machine, without a daemon, as JSON: random tokens through it, and
 * sweeps over memory in the same run, by turns, so that both see the same neighbours.
 *   prefill    tokens a second of prompts of the lengths asked for;
 *   decode     at the contexts asked for, as a share of the memory's rate over the bytes that a
 *              token must read: its weights, and keys and values of all positions;
 *   sequences  so many decoding at once, and the bound: they must read the dense weights once, and
 *              the union of the experts that their routers chose, which is counted;
 *   attention  of a prompt, per token at the contexts asked for.
 * Not a test: nothing here passes or fails.
 */

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

#define ROUNDS_MAX 64u
#define LIST_MAX 16u
#define PROMPT 16u	    /* of each of several sequences */
#define ATTENTION_ROWS 128u /* of a prompt, measured at a context */

DEFINE_CLEANUP(struct mem_arena *, mem_arena_free, NULL)
DEFINE_CLEANUP(struct gguf *, gguf_free, NULL)
DEFINE_CLEANUP(struct desc *, desc_free, NULL)
DEFINE_CLEANUP(struct engine *, engine_free, NULL)

struct list {
	uint32_t n, at[LIST_MAX];
};

struct options {
	const char *path;
	uint64_t tokens, rounds, threads, sweep;
	struct list prefill, decode, sequences, attention;
};

struct bench {
	const struct options *o;
	const struct desc *desc;
	struct plan plan;
	struct engine *engine;
	const char *memory; /* to sweep */
	uint64_t seed;
	double dram; /* the best of all sweeps */
	/* Of the experts that the rows of a step chose: */
	uint32_t *stamp; /* [n_layers * experts]: last step that chose it */
	uint32_t step;
	uint64_t union_bytes;
};

/* What one figure's rounds gave: rates, and the memory's rate beside each. */
struct rounds {
	unsigned n;
	double rates[ROUNDS_MAX], dram[ROUNDS_MAX];
	double best;
	uint64_t before[ENGINE_TIMES], times[ENGINE_TIMES]; /* ns; those of the best round */
};

static uint32_t random_token(struct bench *b)
{
	b->seed = b->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)((b->seed >> 16) % b->desc->vocabulary);
}

static void on_error(void *arg, int code, const char *text)
{
	(void)fprintf(stderr, "bench-engine: %s\n", text);
}

static void on_route(
	void *arg, uint32_t layer, const uint32_t *experts, const float *weights, uint32_t k)
{
	struct bench *b = arg;
	uint32_t *stamp = b->stamp + (size_t)layer * b->desc->experts;

	for (uint32_t i = 0; i < k; i++)
		if (stamp[experts[i]] != b->step) {
			stamp[experts[i]] = b->step;
			b->union_bytes += desc_expert_bytes(b->desc, layer);
		}
}

static int finish(struct bench *b, enum engine_context c)
{
	for (;;) {
		int r = engine_advance(b->engine, c);

		if (r == ENGINE_IDLE)
			return 0;
		if (r == ENGINE_WAITING)
			r = engine_wait(b->engine, CLOCK_NS_PER_S);
		if (r < 0)
			return r;
	}
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
	return r == 0 ? finish(b, c) : r;
}

/* A token of each sequence, all with logits; what their routers chose is counted. */
static int step_all(struct bench *b, struct engine_seq **s, uint32_t n)
{
	static const struct engine_callbacks callbacks = {
		.on_error = on_error, .on_route = on_route};
	struct engine_row rows[LIMIT_LIVE_ROWS];
	int r = 0;

	b->step++;
	for (uint32_t i = 0; i < n && r == 0; i++) {
		rows[i] = (struct engine_row){.seq = s[i],
			.token = random_token(b),
			.want = ENGINE_WANT_LOGITS | (b->stamp ? ENGINE_WANT_ROUTES : 0u),
			.arg = b};
		r = engine_seq_reserve(b->engine, s[i], 1);
	}
	if (r == 0)
		r = engine_begin(b->engine, ENGINE_LIVE, rows, n, &callbacks);
	return r == 0 ? finish(b, ENGINE_LIVE) : r;
}

static int prompt(struct bench *b, struct engine_seq *s, uint32_t n)
{
	int r = 0;

	for (uint32_t done = 0, chunk; done < n && r == 0; done += chunk) {
		chunk = num_min(n - done, b->plan.bulk_rows);
		r = step(b, s, ENGINE_BULK, chunk);
	}
	return r;
}

static double rate(uint64_t n, uint64_t start)
{
	return (double)n * (double)CLOCK_NS_PER_S / (double)(clock_now() - start);
}

static int sweep(struct bench *b, double *ret)
{
	int r = sweep_measure(b->memory, b->o->sweep, (unsigned)b->o->threads, ret);

	if (r == 0)
		b->dram = num_max(b->dram, *ret);
	return r;
}

/* Where the engine's time went so far, contexts and layers together. */
static void read_times(const struct bench *b, uint64_t ret[ENGINE_TIMES])
{
	struct engine_stats stats;

	engine_stats(b->engine, &stats);
	for (unsigned t = 0; t < ENGINE_TIMES; t++) {
		ret[t] = 0;
		for (unsigned c = 0; c < ENGINE_CONTEXTS; c++)
			for (unsigned y = 0; y < ENGINE_LAYERS; y++)
				ret[t] += stats.times.ns[c][y][t];
	}
}

/* A round's rate, with the better of two sweeps around it. */
static int note(struct bench *b, struct rounds *x, double before, double value)
{
	uint64_t now[ENGINE_TIMES];
	double after;
	int r;

	read_times(b, now);
	if (value > x->best) {
		x->best = value;
		for (unsigned t = 0; t < ENGINE_TIMES; t++)
			x->times[t] = now[t] - x->before[t];
	}
	r = sweep(b, &after);
	if (r == 0) {
		x->rates[x->n] = value;
		x->dram[x->n++] = num_max(before, after);
	}
	return r;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Sorts x. */
static double median(double *x, size_t n)
{
	qsort(x, n, sizeof *x, by_value);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* Of the best round, for each of n tokens. */
static void print_times(const struct rounds *x, uint64_t n)
{
	(void)printf(", \"us_per_token\": {");
	for (unsigned t = 0; t < ENGINE_TIMES; t++)
		(void)printf("%s\"%s\": %.1f", t ? ", " : "", engine_time_name(t),
			(double)x->times[t] / 1e3 / (double)n);
	(void)printf("}");
}

/* Median, least and most, and the median of rate * bytes / memory's rate where bytes count. */
static void print_rounds(struct rounds *x, double bytes)
{
	double shares[ROUNDS_MAX], middle;

	for (unsigned i = 0; i < x->n; i++)
		shares[i] = x->rates[i] * bytes / 1e9 / x->dram[i];
	middle = median(x->rates, x->n);
	(void)printf("\"tokens_per_s\": %.2f, \"min\": %.2f, \"max\": %.2f", middle, x->rates[0],
		x->rates[x->n - 1]);
	if (bytes > 0)
		(void)printf(", \"gb_per_s\": %.2f, \"share_of_dram\": %.3f", middle * bytes / 1e9,
			median(shares, x->n));
}

/* What every token reads of the weights: all dense ones but the embedding. */
static uint64_t dense_bytes(const struct desc *d)
{
	bool tied = desc_is_tied(d);

	return desc_dense_bytes(d) - (tied ? 0 : d->embedding.size);
}

/* Of all layers, for each position: whole blocks are what desc_kv_bytes() tells. */
static double position_bytes(const struct desc *d)
{
	return (double)desc_kv_bytes(d, 64) / 64;
}

static int bench_prefill(struct bench *b, uint32_t n)
{
	struct rounds x = {0};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < b->o->rounds; i++) {
		struct engine_seq *s;
		double before = 0;
		uint64_t start;

		r = engine_seq_new(b->engine, &s);
		if (r < 0)
			break;
		r = sweep(b, &before);
		engine_rested(b->engine);
		read_times(b, x.before);
		start = clock_now();
		if (r == 0)
			r = prompt(b, s, n);
		if (r == 0)
			r = note(b, &x, before, rate(n, start));
		engine_seq_free(b->engine, s);
	}
	if (r == 0) {
		(void)printf("{\"tokens\": %u, ", n);
		print_rounds(&x, 0);
		print_times(&x, n);
		(void)printf("}");
	}
	return r;
}

static int bench_decode(struct bench *b, uint32_t context)
{
	struct engine_seq *s = NULL;
	struct rounds x = {0};
	double positions = context + (double)b->o->tokens / 2, bytes, before = 0;
	int r = engine_seq_new(b->engine, &s);

	if (r == 0)
		r = prompt(b, s, context);
	for (unsigned i = 0; r == 0 && i < b->o->rounds; i++) {
		uint64_t start;

		r = sweep(b, &before);
		engine_rested(b->engine);
		read_times(b, x.before);
		start = clock_now();
		for (uint64_t k = 0; r == 0 && k < b->o->tokens; k++)
			r = step(b, s, ENGINE_LIVE, 1);
		if (r == 0)
			r = note(b, &x, before, rate(b->o->tokens, start));
		engine_seq_truncate(b->engine, s, context);
	}
	engine_seq_free(b->engine, s);
	if (r < 0)
		return r;
	bytes = (double)(dense_bytes(b->desc) + desc_cycle_bytes(b->desc)) +
		positions * position_bytes(b->desc);
	(void)printf("{\"context\": %u, \"bytes_per_token\": %.0f, ", context, bytes);
	print_rounds(&x, bytes);
	(void)printf(", \"us_per_layer\": %.1f", 1e6 / x.rates[x.n / 2] / b->desc->n_layers);
	print_times(&x, b->o->tokens);
	(void)printf("}");
	return 0;
}

static int sequences_open(struct bench *b, struct engine_seq **s, uint32_t n)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r == 0; i++) {
		r = engine_seq_new(b->engine, &s[i]);
		if (r == 0)
			r = prompt(b, s[i], PROMPT);
	}
	return r;
}

static int bench_sequences(struct bench *b, uint32_t n)
{
	struct engine_seq *s[LIMIT_LIVE_ROWS] = {0};
	struct rounds x = {0};
	double experts, bytes, before = 0;
	int r = sequences_open(b, s, n);

	b->union_bytes = 0;
	for (unsigned i = 0; r == 0 && i < b->o->rounds; i++) {
		uint64_t start;

		r = sweep(b, &before);
		engine_rested(b->engine);
		read_times(b, x.before);
		start = clock_now();
		for (uint64_t k = 0; r == 0 && k < b->o->tokens; k++)
			r = step_all(b, s, n);
		if (r == 0)
			r = note(b, &x, before, rate(n * b->o->tokens, start));
		for (uint32_t k = 0; k < n; k++)
			engine_seq_truncate(b->engine, s[k], PROMPT);
	}
	for (uint32_t i = 0; i < n; i++)
		engine_seq_free(b->engine, s[i]);
	if (r < 0)
		return r;
	experts = (double)b->union_bytes / (double)(b->o->rounds * b->o->tokens);
	bytes = (double)dense_bytes(b->desc) + experts +
		n * (PROMPT + (double)b->o->tokens / 2) * position_bytes(b->desc);
	(void)printf("{\"sequences\": %u, \"union_of_experts_bytes\": %.0f, "
		     "\"bytes_per_step\": %.0f, \"bound_tokens_per_s\": %.2f, ",
		n, experts, bytes, b->dram * 1e9 / bytes * n);
	print_rounds(&x, bytes / n);
	print_times(&x, n * b->o->tokens);
	(void)printf("}");
	return 0;
}

/* Nanoseconds of attention of prompts so far; of all that prompts took in `ret_all`. */
static uint64_t attention_ns(struct bench *b, uint64_t *ret_all)
{
	struct engine_stats s;
	uint64_t ns = 0;

	engine_stats(b->engine, &s);
	*ret_all = 0;
	for (unsigned y = 0; y < ENGINE_LAYERS; y++) {
		ns += s.times.ns[ENGINE_BULK][y][ENGINE_TIME_ATTENTION];
		for (unsigned t = ENGINE_TIME_EMBED; t < ENGINE_TIMES; t++)
			*ret_all += s.times.ns[ENGINE_BULK][y][t];
	}
	return ns;
}

static int bench_attention(struct bench *b, uint32_t context)
{
	const struct desc *d = b->desc;
	uint32_t n = num_min(ATTENTION_ROWS, b->plan.bulk_rows);
	double own[ROUNDS_MAX], whole[ROUNDS_MAX], flop;
	struct engine_seq *s = NULL;
	int r = engine_seq_new(b->engine, &s);

	if (r == 0)
		r = prompt(b, s, context);
	for (unsigned i = 0; r == 0 && i < b->o->rounds; i++) {
		uint64_t all_before, all_after, before, after;

		before = attention_ns(b, &all_before);
		r = step(b, s, ENGINE_BULK, n);
		after = attention_ns(b, &all_after);
		own[i] = (double)(after - before) / 1e3 / n;
		whole[i] = (double)(all_after - all_before) / 1e3 / n;
		engine_seq_truncate(b->engine, s, context);
	}
	engine_seq_free(b->engine, s);
	if (r < 0)
		return r;
	/* Two multiply-adds for each position and element of a head. */
	flop = 4.0 * d->n_layers * d->heads * d->head_size * (context + (n + 1) / 2.0);
	(void)printf("{\"context\": %u, \"us_per_token\": %.1f, \"gflop_per_s\": %.1f, "
		     "\"prefill_us_per_token\": %.1f}",
		context, median(own, b->o->rounds), flop / own[b->o->rounds / 2] / 1e3,
		median(whole, b->o->rounds));
	return 0;
}

static int print_list(struct bench *b, const char *key, const struct list *list,
	int (*one)(struct bench *b, uint32_t n))
{
	int r = 0;

	(void)printf(",\n  \"%s\": [", key);
	for (uint32_t i = 0; i < list->n && r == 0; i++) {
		(void)printf("%s\n    ", i ? "," : "");
		r = one(b, list->at[i]);
		(void)fflush(stdout);
	}
	(void)printf("%s]", list->n ? "\n  " : "");
	return r;
}

static int bench(struct bench *b)
{
	const struct desc *d = b->desc;
	struct engine_stats s;
	int r;

	engine_stats(b->engine, &s);
	(void)printf("{\n  \"model\": \"%s\", \"tier\": \"%s\", \"threads\": %u, ", d->name, s.tier,
		(unsigned)b->o->threads);
	(void)printf("\"layers\": %u, \"dense_bytes_per_token\": %llu, "
		     "\"expert_bytes_per_token\": %llu, \"kv_bytes_per_position\": %.0f",
		d->n_layers, (unsigned long long)dense_bytes(d),
		(unsigned long long)desc_cycle_bytes(d), position_bytes(d));
	r = print_list(b, "prefill", &b->o->prefill, bench_prefill);
	if (r == 0)
		r = print_list(b, "decode", &b->o->decode, bench_decode);
	if (r == 0)
		r = print_list(b, "sequences", &b->o->sequences, bench_sequences);
	if (r == 0)
		r = print_list(b, "attention", &b->o->attention, bench_attention);
	engine_stats(b->engine, &s);
	(void)printf(",\n  \"resident\": %s, \"dram_read_gb_per_s\": %.2f\n}\n",
		s.misses ? "false" : "true", b->dram);
	return r;
}

static uint32_t list_max(const struct list *l)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i < l->n; i++)
		most = num_max(most, l->at[i]);
	return most;
}

/* Positions that the longest of all runs holds; every sequence has whole blocks of 64. */
static uint64_t positions(const struct options *o)
{
	uint64_t one = num_max(list_max(&o->decode) + o->tokens,
		(uint64_t)list_max(&o->attention) + ATTENTION_ROWS);
	uint64_t many = list_max(&o->sequences) * num_align_up(PROMPT + o->tokens, 64);

	one = num_max(one, (uint64_t)list_max(&o->prefill));
	return num_align_up(num_max(one, many), 64) + 64;
}

/* Pages of zeros may share one frame until written. */
static const char *memory_touch(struct mem_arena *a, size_t n)
{
	memset(mem_arena_base(a), 1, n);
	return mem_arena_base(a);
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
	struct plan_input in = {.threads = (uint32_t)o->threads};
	struct memory_limit limit;
	int r = mem_arena_new(&memory, o->sweep, 0, NULL, NULL, err);

	if (r == 0)
		r = gguf_open(&g, o->path, err);
	if (r == 0)
		r = desc_new(&d, g, err);
	if (r == 0)
		r = memory_limit_find(&limit, 0, "", err);
	if (r < 0)
		return r;
	b.memory = memory_touch(memory, o->sweep);
	b.desc = in.desc = config.desc = d;
	in.limit = limit.bytes;
	in.context = (uint32_t)num_min(positions(o), LIMIT_CONTEXT);
	in.live_rows = num_max(list_max(&o->sequences), 1u);
	r = plan_make(&b.plan, &in, err);
	if (r == 0)
		r = engine_start(&e, &config, err);
	if (r == 0)
		r = engine_fill(e, true);
	if (r < 0)
		return r;
	b.engine = e;
	if (d->experts)
		b.stamp = calloc((size_t)d->n_layers * d->experts, sizeof *b.stamp);
	if (d->experts && !b.stamp)
		return -ENOMEM;
	r = bench(&b);
	free(b.stamp);
	return r;
}

static void usage(FILE *to)
{
	(void)fputs(
		"Usage: bench-engine --file MODEL [OPTION]...\n"
		"Prints what the engine makes of this machine, beside the memory's rate, as JSON.\n"
		"LIST is one number or several, parted by commas; 'none' leaves a part out.\n"
		"  --prefill LIST    lengths of prompts (512)\n"
		"  --context LIST    positions held when decode begins (0)\n"
		"  --sequences LIST  decoding at once, with their union of experts (none)\n"
		"  --attention LIST  positions held, for the cost per token of a prompt (none)\n"
		"  --tokens N        of a round's decode (64)\n"
		"  --rounds N        medians count (3)\n"
		"  --threads N       (all processors)\n"
		"  --sweep SIZE      memory to sweep, well above the last cache (512M)\n",
		to);
}

static int parse_list(const char *text, uint64_t max, struct list *ret)
{
	struct list l = {0};

	if (!strcmp(text, "none")) {
		*ret = l;
		return 0;
	}
	for (const char *end;; text = end + 1) {
		char one[16];
		uint64_t n;
		size_t length;

		end = strchrnul(text, ',');
		length = (size_t)(end - text);
		if (l.n == LIST_MAX || length >= sizeof one)
			return -EINVAL;
		memcpy(one, text, length);
		one[length] = 0;
		if (num_parse_u64(one, 0, max, &n) < 0)
			return -EINVAL;
		l.at[l.n++] = (uint32_t)n;
		if (!*end)
			break;
	}
	*ret = l;
	return 0;
}

static int parse_one(int option, struct options *o)
{
	switch (option) {
	case 'f':
		o->path = optarg;
		return 0;
	case 'p':
		return parse_list(optarg, LIMIT_CONTEXT / 2, &o->prefill);
	case 'c':
		return parse_list(optarg, LIMIT_CONTEXT / 2, &o->decode);
	case 's':
		return parse_list(optarg, LIMIT_LIVE_ROWS, &o->sequences);
	case 'a':
		return parse_list(optarg, LIMIT_CONTEXT / 2, &o->attention);
	case 'n':
		return num_parse_u64(optarg, 1, 65536, &o->tokens);
	case 'r':
		return num_parse_u64(optarg, 1, ROUNDS_MAX, &o->rounds);
	case 't':
		return num_parse_u64(optarg, 1, LIMIT_THREADS, &o->threads);
	case 'w':
		return num_parse_size(optarg, 0, &o->sweep);
	default:
		return -EINVAL;
	}
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, 'f'},
		{"prefill", required_argument, NULL, 'p'},
		{"context", required_argument, NULL, 'c'},
		{"sequences", required_argument, NULL, 's'},
		{"attention", required_argument, NULL, 'a'},
		{"tokens", required_argument, NULL, 'n'},
		{"rounds", required_argument, NULL, 'r'},
		{"threads", required_argument, NULL, 't'},
		{"sweep", required_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option, bad = 0;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h') {
			usage(stdout);
			return 1;
		}
		bad |= parse_one(option, o) < 0;
	}
	for (uint32_t i = 0; i < o->prefill.n; i++)
		bad |= o->prefill.at[i] == 0;
	for (uint32_t i = 0; i < o->sequences.n; i++)
		bad |= o->sequences.at[i] == 0;
	o->sweep = num_align_down(o->sweep, MEM_HUGE_PAGE);
	if (bad || !o->path || optind != argc || o->sweep < MEM_CHUNK / 2) {
		usage(stderr);
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct options o = {.tokens = 64,
		.rounds = 3,
		.threads = num_min(cpus < 1 ? 1 : (uint64_t)cpus, (uint64_t)LIMIT_THREADS),
		.sweep = (uint64_t)512 << 20,
		.prefill = {.n = 1, .at = {512}},
		.decode = {.n = 1, .at = {0}}};
	struct error err = ERROR_NONE;
	int r = parse(argc, argv, &o);

	if (r)
		return r < 0 ? 2 : 0;
	r = run(&o, &err);
	if (r < 0)
		(void)fprintf(stderr, "bench-engine: %s\n", error_text(&err, r));
	return r < 0;
}
