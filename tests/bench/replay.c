/* SPDX-License-Identifier: MIT */

/*
 * Replays a routing trace through the expert cache: hit rates and bytes at several sizes, of the
 * policy that the daemon runs (offload/policy.c, the same object code), of plain ones, and of
 * Belady's, which knows what comes and so bounds them all; and the time of a token for a given disk
 * and compute.  Not a test: nothing here passes or fails.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "limit.h"
#include "num.h"
#include "replay-cache.h"
#include "replay-time.h"
#include "replay-trace.h"

#define SIZES_MOST 64u

struct size {
	double share; /* 0: by bytes */
	struct cache_config config;
};

struct options {
	const char *path;
	bool json, filled;
	struct size sizes[SIZES_MOST];
	uint32_t n_sizes;
	double disk, compute;
	double recall_first, recall_last;
	uint64_t seed;
	uint64_t restart; /* after so many steps of decode; 0: none */
};

#define RESTART_STEPS 64u /* that are looked at on each side */

struct row {
	const struct size *size;
	struct cache_count counts[CACHE_KINDS][2];
	struct time_result times[CACHE_KINDS], ahead; /* ahead: ours, with prefetch */
	double before, after, unbroken; /* hit rates around a restart, and after none */
};

static double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0.0;
}

static double hit_rate(const struct row *row, enum cache_kind kind)
{
	return ratio(row->counts[kind][1].hits, row->counts[kind][1].wanted);
}

/* Of the way from LRU to Belady; 0 where there is none. */
static double distance(const struct row *row, double rate)
{
	double from = hit_rate(row, CACHE_LRU), to = hit_rate(row, CACHE_BELADY);

	return to - from > 1e-9 ? (rate - from) / (to - from) : 0.0;
}

static bool is_timed(const struct options *o)
{
	return o->disk > 0;
}

static int measure_part(
	double *ret, const struct trace *t, struct cache_config config, uint64_t from, uint64_t to)
{
	struct cache_count n[2];
	int r;

	config.from = from;
	config.to = to;
	r = cache_replay(n, t, &config);
	*ret = ratio(n[1].hits, n[1].wanted);
	return r;
}

static int measure_restart(
	struct row *row, const struct trace *t, struct cache_config config, uint64_t at)
{
	int r = measure_part(&row->before, t, config, at - num_min(at, RESTART_STEPS), at);

	if (r == 0)
		r = measure_part(&row->unbroken, t, config, at, at + RESTART_STEPS);
	config.restart = at;
	return r < 0 ? r : measure_part(&row->after, t, config, at, at + RESTART_STEPS);
}

static int measure(struct row *row, const struct trace *t, const struct options *o)
{
	struct time_config time = {.disk = o->disk * 1e9,
		.compute = o->compute / 1e3,
		.recall_first = o->recall_first,
		.recall_last = o->recall_last,
		.seed = o->seed};
	struct cache_config config = row->size->config;
	int r = 0;

	config.filled = o->filled;
	for (enum cache_kind kind = 0; kind < CACHE_KINDS && r == 0; kind++) {
		config.kind = kind;
		r = cache_replay(row->counts[kind], t, &config);
		if (r == 0 && is_timed(o))
			r = time_replay(&row->times[kind], t, &config, &time);
	}
	config.kind = CACHE_OURS;
	time.prefetch = true;
	if (r == 0 && o->restart)
		r = measure_restart(row, t, config, o->restart);
	if (r == 0 && is_timed(o))
		r = time_replay(&row->ahead, t, &config, &time);
	return r;
}

/* Seconds: what a token cannot be faster than, with these misses. */
static double bound(
	const struct row *row, enum cache_kind kind, const struct trace *t, const struct options *o)
{
	double reads = ratio(row->counts[kind][1].bytes, t->steps) / (o->disk * 1e9);

	return num_max(reads, o->compute / 1e3);
}

static uint64_t memory_of(const struct size *size, const struct trace *t)
{
	uint64_t sum = 0;

	for (uint32_t g = 0; g < t->groups; g++)
		sum += t->bytes[g];
	return size->config.slots ? (uint64_t)((double)size->config.slots * (double)sum / t->groups)
				  : size->config.bytes;
}

static void print_header(const struct options *o)
{
	(void)printf("hit rates of decode in percent; distance: of ours, from lru to belady\n");
	(void)printf("   share  slots     MB  belady     lru     lfu layer-lfu    ours  distance  "
		     "MB/token");
	if (is_timed(o))
		(void)printf("   ms/token: lru    ours  bound  prefetch  hits  useful/issued");
	if (o->restart)
		(void)printf("   restart: before -> after (had there been none)");
	(void)printf("\n");
}

static void print_row(const struct row *row, const struct trace *t, const struct options *o)
{
	double all = (double)t->groups * t->experts;
	double slots =
		row->size->config.slots
			? (double)row->size->config.slots
			: (double)row->size->config.bytes /
				  (double)memory_of(&(struct size){.config = {.slots = 1}}, t);

	(void)printf("%8.4f %6.0f %6.0f %7.1f %7.1f %7.1f %9.1f %7.1f %9.3f %9.1f", slots / all,
		slots, (double)memory_of(row->size, t) / 1e6, 100 * hit_rate(row, CACHE_BELADY),
		100 * hit_rate(row, CACHE_LRU), 100 * hit_rate(row, CACHE_LFU),
		100 * hit_rate(row, CACHE_LAYER_LFU), 100 * hit_rate(row, CACHE_OURS),
		distance(row, hit_rate(row, CACHE_OURS)),
		ratio(row->counts[CACHE_OURS][1].bytes, t->steps) / 1e6);
	if (is_timed(o))
		(void)printf(" %15.1f %7.1f %6.1f %9.1f %5.1f  %" PRIu64 "/%" PRIu64,
			1e3 * row->times[CACHE_LRU].per_token,
			1e3 * row->times[CACHE_OURS].per_token, 1e3 * bound(row, CACHE_OURS, t, o),
			1e3 * row->ahead.per_token, 100 * ratio(row->ahead.hits, row->ahead.wanted),
			row->ahead.useful, row->ahead.issued);
	if (o->restart)
		(void)printf("   %5.1f -> %5.1f (%5.1f)", 100 * row->before, 100 * row->after,
			100 * row->unbroken);
	(void)printf("\n");
}

static void print_json_policy(
	const struct row *row, enum cache_kind kind, const struct trace *t, const struct options *o)
{
	const struct cache_count *n = row->counts[kind];

	(void)printf("        \"%s\": {\"hit_rate\": %.6f, \"wanted\": %" PRIu64
		     ", \"hits\": %" PRIu64 ", \"bytes\": %" PRIu64
		     ", \"bytes_per_token\": %.0f, \"distance\": %.4f,\n"
		     "          \"prefill\": {\"wanted\": %" PRIu64 ", \"hits\": %" PRIu64
		     ", \"bytes\": %" PRIu64 "}",
		cache_name(kind), hit_rate(row, kind), n[1].wanted, n[1].hits, n[1].bytes,
		ratio(n[1].bytes, t->steps), distance(row, hit_rate(row, kind)), n[0].wanted,
		n[0].hits, n[0].bytes);
	if (is_timed(o))
		(void)printf(", \"ms_per_token\": %.4f, \"bound_ms_per_token\": %.4f",
			1e3 * row->times[kind].per_token, 1e3 * bound(row, kind, t, o));
	(void)printf("}%s\n", kind + 1 < CACHE_KINDS ? "," : "");
}

static void print_json_row(
	const struct row *row, const struct trace *t, const struct options *o, bool last)
{
	const struct time_result *a = &row->ahead;

	(void)printf("    {\"share\": %.6f, \"slots\": %" PRIu64 ", \"memory\": %" PRIu64
		     ", \"policies\": {\n",
		row->size->share, row->size->config.slots, memory_of(row->size, t));
	for (enum cache_kind kind = 0; kind < CACHE_KINDS; kind++)
		print_json_policy(row, kind, t, o);
	(void)printf("      }");
	if (is_timed(o)) {
		double rate = ratio(a->hits, a->wanted);

		(void)printf(",\n      \"prefetch\": {\"hit_rate\": %.6f, \"distance\": %.4f, "
			     "\"ms_per_token\": %.4f, \"issued\": %" PRIu64 ", \"useful\": %" PRIu64
			     ", \"late\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
			rate, distance(row, rate), 1e3 * a->per_token, a->issued, a->useful,
			a->late, a->bytes);
	}
	if (o->restart)
		(void)printf(",\n      \"restart\": {\"before\": %.6f, \"after\": %.6f, "
			     "\"uninterrupted\": %.6f}",
			row->before, row->after, row->unbroken);
	(void)printf("}%s\n", last ? "" : ",");
}

static void print_json_string(const char *text)
{
	(void)putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			(void)printf("\\%c", c);
		else if (c < 0x20)
			(void)printf("\\u%04x", c);
		else
			(void)putchar(c);
	}
	(void)putchar('"');
}

static void print_json_header(const struct trace *t, const struct options *o)
{
	(void)printf("{\n  \"trace\": ");
	print_json_string(o->path);
	(void)printf(",\n  \"layers\": %u, \"experts\": %u, \"k\": %u, \"steps\": %" PRIu64 ",\n",
		t->groups, t->experts, t->k, t->steps);
	if (is_timed(o))
		(void)printf("  \"disk_gb_per_s\": %g, \"compute_ms\": %g, \"recall\": [%g, %g], "
			     "\"seed\": %" PRIu64 ",\n",
			o->disk, o->compute, o->recall_first, o->recall_last, o->seed);
	(void)printf("  \"sizes\": [\n");
}

static int run(struct options *o)
{
	cleanup_free_ struct trace *t = calloc(1, sizeof *t);
	struct error err = ERROR_NONE;
	int r = t ? trace_load(t, o->path, &err) : -ENOMEM;

	for (uint32_t i = 0; i < o->n_sizes && r == 0; i++) {
		struct size *s = &o->sizes[i];

		if (s->share > 0)
			s->config.slots = num_max(
				(uint64_t)(s->share * t->groups * t->experts + 0.5), (uint64_t)1);
		else if (memory_of(&(struct size){.config = {.slots = 1}}, t) == 0)
			r = error_set(&err, -EINVAL,
				"'%s' says no sizes of experts: use --share instead of --memory",
				o->path);
	}
	if (r == 0)
		o->json ? print_json_header(t, o) : print_header(o);
	for (uint32_t i = 0; i < o->n_sizes && r == 0; i++) {
		struct row row = {.size = &o->sizes[i]};

		r = measure(&row, t, o);
		if (r == 0 && o->json)
			print_json_row(&row, t, o, i + 1 == o->n_sizes);
		else if (r == 0)
			print_row(&row, t, o);
	}
	if (r == 0 && o->json)
		(void)printf("  ]\n}\n");
	if (r < 0)
		(void)fprintf(stderr, "replay: %s\n", error_text(&err, r));
	if (t)
		trace_deinit(t);
	return r;
}

/* Adds the sizes of a comma-separated list; 0 or -EINVAL. */
static int add_sizes(struct options *o, char *list, bool share)
{
	char *word;

	while ((word = strsep(&list, ","))) {
		struct size *s = &o->sizes[o->n_sizes];
		int r;

		if (o->n_sizes == SIZES_MOST)
			return -EINVAL;
		*s = (struct size){0};
		r = share ? num_parse_double(word, 0.0, 1.0, &s->share)
			  : num_parse_size(word, 0, &s->config.bytes);
		if (r < 0 || (share && s->share <= 0.0) || (!share && s->config.bytes == 0))
			return -EINVAL;
		o->n_sizes++;
	}
	return 0;
}

static int parse_recall(struct options *o, char *text)
{
	char *first = strsep(&text, ",");

	if (num_parse_double(first, 0.0, 1.0, &o->recall_first) < 0)
		return -EINVAL;
	o->recall_last = o->recall_first;
	return text ? num_parse_double(text, 0.0, 1.0, &o->recall_last) : 0;
}

static void usage(FILE *to)
{
	(void)fputs(
		"Usage: replay TRACE.csv [--share LIST] [--memory LIST] [--restart N] [--json]\n"
		"              [--disk GB/S --compute MS [--recall FIRST[,LAST]] [--seed N]]\n"
		"Replays which experts a model chose through the expert cache, and prints hit\n"
		"rates of decode and bytes for each size of it, of the daemon's policy and "
		"others.\n"
		"  --share LIST    sizes, as shares of all experts (0.05,0.1,0.2,0.3,0.4)\n"
		"  --memory LIST   sizes, in bytes: 2000M,4G; the experts' own sizes count\n"
		"  --filled        start with the first experts of the file, as the daemon does\n"
		"  --json          for programs\n"
		"  --restart N     after N tokens of decode: hit rates of the 64 tokens before\n"
		"                  and after\n"
		"  --disk GB/S     with --compute: the time of a token, too, with and without\n"
		"  --compute MS    prefetch of the next layer; compute: of a token, without reads\n"
		"  --recall A,B    chance that a prediction names the best and the last choice\n"
		"                  of a layer (0.95,0.8)\n"
		"  --seed N        of the predictions (1)\n",
		to);
}

static int parse(struct options *o, int c)
{
	switch (c) {
	case 's':
		return add_sizes(o, optarg, true);
	case 'm':
		return add_sizes(o, optarg, false);
	case 'j':
		o->json = true;
		return 0;
	case 'f':
		o->filled = true;
		return 0;
	case 'd':
		return num_parse_double(optarg, 1e-3, 1e6, &o->disk);
	case 'c':
		return num_parse_double(optarg, 1e-6, 1e9, &o->compute);
	case 'r':
		return parse_recall(o, optarg);
	case 'R':
		return num_parse_u64(optarg, 1, UINT32_MAX, &o->restart);
	case 'n':
		return num_parse_u64(optarg, 0, UINT64_MAX, &o->seed);
	default:
		return -EINVAL;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"share", required_argument, NULL, 's'},
		{"memory", required_argument, NULL, 'm'},
		{"json", no_argument, NULL, 'j'},
		{"filled", no_argument, NULL, 'f'},
		{"disk", required_argument, NULL, 'd'},
		{"compute", required_argument, NULL, 'c'},
		{"recall", required_argument, NULL, 'r'},
		{"seed", required_argument, NULL, 'n'},
		{"restart", required_argument, NULL, 'R'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct options o = {.recall_first = 0.95, .recall_last = 0.8, .seed = 1};
	char sizes[] = "0.05,0.1,0.2,0.3,0.4";
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'h') {
			usage(stdout);
			return 0;
		}
		if (parse(&o, c) < 0) {
			usage(stderr);
			return 2;
		}
	}
	if (optind + 1 != argc || (o.disk > 0) != (o.compute > 0)) {
		usage(stderr);
		return 2;
	}
	o.path = argv[optind];
	if (o.n_sizes == 0)
		(void)add_sizes(&o, sizes, true);
	return run(&o) < 0;
}
