/* SPDX-License-Identifier: MIT */

/*
 * How much of the disk a streamed decode uses, as JSON: random tokens through the engine under a
 * memory limit below the model's size, and in the same run, in turn with it, what the disk gives
 * when nothing is computed: the same kind of extents (whole experts, at random) with several
 * amounts in flight, and long reads in sequence.  In turn, since the rate of a virtual disk changes
 * by half within seconds.  Not a test: nothing here passes or fails.
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
#include "file.h"
#include "gguf.h"
#include "io.h"
#include "limit.h"
#include "mem.h"
#include "memory-limit.h"
#include "num.h"
#include "plan.h"

#define MEASURE_NS (CLOCK_NS_PER_S / 10)
#define ROOM ((size_t)768 << 20) /* for reads in flight */
#define SEQUENTIAL ((uint32_t)4 << 20)
/* As the store asks for long extents. */
#define SINGLE_MAX ((uint64_t)4 << 20)
#define PIECE ((uint64_t)2 << 20)

DEFINE_CLEANUP(struct mem_arena *, mem_arena_free, NULL)
DEFINE_CLEANUP(struct gguf *, gguf_free, NULL)
DEFINE_CLEANUP(struct desc *, desc_free, NULL)
DEFINE_CLEANUP(struct engine *, engine_free, NULL)

struct options {
	const char *path, *memory;
	enum engine_prefetch prefetch;
	uint64_t tokens, threads, rounds;
};

static uint64_t random_below(uint64_t *seed, uint64_t n)
{
	*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (*seed >> 16) % n;
}

/* Where the next read begins, and how long it is. */
struct source {
	const struct desc *desc;
	const struct file *file;
	uint64_t seed;
	bool sequential;
	uint64_t at;
	uint64_t end;		      /* of the part under way */
	uint32_t layer, expert, part; /* of an expert under way; DESC_PARTS: choose the next */
};

static void next_read(struct source *s, struct io_read *read)
{
	const struct desc *d = s->desc;
	uint64_t align = s->file->align, n;
	struct desc_weight w;

	if (s->sequential) {
		if (s->at + SEQUENTIAL > s->file->size)
			s->at = 0;
		read->offset = s->at;
		read->length = SEQUENTIAL;
		s->at += SEQUENTIAL;
		return;
	}
	if (s->part == DESC_PARTS) {
		do
			s->layer = (uint32_t)random_below(&s->seed, d->n_layers);
		while (!d->layers[s->layer].moe);
		s->expert = (uint32_t)random_below(&s->seed, d->experts);
		s->part = 0;
	}
	if (s->at == s->end) {
		w = desc_expert(d, s->layer, s->expert, s->part);
		s->at = num_align_down(w.offset, align);
		s->end = num_align_up(w.offset + w.size, align);
	}
	n = s->end - s->at;
	n = n > SINGLE_MAX ? PIECE : n;
	read->offset = s->at;
	read->length = (uint32_t)n;
	s->at += n;
	s->part += s->at == s->end;
}

struct flight {
	struct io *io;
	struct source source;
	char *buffers;
	uint64_t stride; /* of the buffers */
	uint64_t most;	 /* bytes in flight */
	uint64_t bytes;
	unsigned in_flight;
	size_t next; /* buffer: all in turn, since slots are not in any cache either */
	bool busy[LIMIT_READS_IN_FLIGHT];
	uint32_t length[LIMIT_READS_IN_FLIGHT];
};

/* Reads until `most` bytes are in flight. */
static int fill(struct flight *f, uint64_t *bytes_in_flight)
{
	size_t buffers = num_min(ROOM / f->stride, (size_t)LIMIT_READS_IN_FLIGHT);

	while (*bytes_in_flight < f->most && f->in_flight < buffers) {
		size_t i = f->next++ % buffers;
		struct io_read read = {.tag = i, .buffer = f->buffers + i * f->stride};
		int r;

		if (f->busy[i])
			continue;
		next_read(&f->source, &read);
		r = f->io->ops->submit(f->io, &read, 1);
		if (r < 0)
			return r;
		if (r == 0)
			return -EBUSY;
		f->busy[i] = true;
		f->length[i] = read.length;
		f->in_flight++;
		*bytes_in_flight += read.length;
	}
	return 0;
}

/* Bytes a second over about MEASURE_NS. */
static int measure(struct flight *f, uint64_t most, double *ret)
{
	struct io_result results[16];
	uint64_t start = clock_now(), bytes_in_flight = 0;
	int r = 0;

	f->bytes = 0;
	f->most = most;
	do {
		int n;

		if (r == 0 && clock_now() - start < MEASURE_NS)
			r = fill(f, &bytes_in_flight);
		n = f->io->ops->reap(f->io, results, ARRAY_SIZE(results), CLOCK_NS_PER_S);
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++) {
			size_t at = results[i].tag;

			f->busy[at] = false;
			f->in_flight--;
			bytes_in_flight -= f->length[at];
			if (results[i].res < 0)
				r = results[i].res;
			else
				f->bytes += (uint32_t)results[i].res;
		}
	} while (f->in_flight > 0);
	*ret = (double)f->bytes / ((double)(clock_now() - start) / (double)CLOCK_NS_PER_S);
	return r;
}

/* Means over the rounds. */
struct disk {
	double sequential, random[5];
	unsigned runs;
	const char *io;
	bool direct;
};

static const uint64_t amounts[5] = {1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20};

static int measure_disk(const struct desc *d, const char *path, struct disk *disk)
{
	cleanup_(mem_arena_freep) struct mem_arena *arena = NULL;
	struct error err = ERROR_NONE;
	struct flight f = {
		.stride = SINGLE_MAX + MEM_HUGE_PAGE, .source = {.desc = d, .part = DESC_PARTS}};
	struct file file;
	double rate = 0, runs = ++disk->runs;
	int r = file_open(&file, path, &err);

	if (r == 0)
		r = mem_arena_new(&arena, ROOM, 0, NULL, NULL, &err);
	if (r == 0 && io_ring_new(&f.io, &file.fd, 1, NULL) < 0)
		r = io_pool_new(&f.io, &file.fd, 1, 4, &err);
	if (r < 0) {
		(void)fprintf(stderr, "stream: %s\n", error_text(&err, r));
		return r;
	}
	f.buffers = mem_arena_base(arena);
	f.source.file = &file;
	f.source.seed = clock_now();
	for (size_t i = 0; i < ARRAY_SIZE(amounts) && r == 0; i++) {
		r = measure(&f, amounts[i], &rate);
		disk->random[i] += (rate - disk->random[i]) / runs;
	}
	f.source.sequential = true;
	f.source.at = 0;
	if (r == 0)
		r = measure(&f, 2 * SEQUENTIAL, &rate);
	disk->sequential += (rate - disk->sequential) / runs;
	disk->io = f.io->ops->name;
	disk->direct = file.direct;
	f.io->ops->free(f.io);
	file_close(&file);
	if (r < 0)
		(void)fprintf(stderr, "stream: cannot read '%s': %s\n", path, strerror(-r));
	return r;
}

static void on_error(void *arg, int code, const char *text)
{
	int *failed = arg;

	*failed = code;
	(void)fprintf(stderr, "stream: %s\n", text);
}

static int decode(struct engine *e, struct engine_seq *s, const struct desc *d, uint64_t *seed)
{
	static const struct engine_callbacks callbacks = {.on_error = on_error};
	int failed = 0;
	struct engine_row row = {.seq = s,
		.token = (uint32_t)random_below(seed, d->vocabulary),
		.want = ENGINE_WANT_LOGITS,
		.arg = &failed};
	int r = engine_seq_reserve(e, s, 1);

	if (r == 0)
		r = engine_begin(e, ENGINE_LIVE, &row, 1, &callbacks);
	while (r == 0) {
		r = engine_advance(e, ENGINE_LIVE);
		if (r == ENGINE_IDLE)
			return failed;
		r = r == ENGINE_WAITING ? engine_wait(e, CLOCK_NS_PER_S) : num_min(r, 0);
	}
	return r;
}

struct decoded {
	double seconds;
	struct engine_stats before, after;
	struct plan plan;
};

/* A few tokens to fill the slots, then those that are measured, in turn with the disk. */
static int measure_decode(struct decoded *x, struct disk *disk, const struct options *o,
	const struct gguf *g, const struct desc *d, uint64_t limit, struct error *err)
{
	cleanup_(engine_freep) struct engine *e = NULL;
	struct plan_input in = {.desc = d,
		.limit = limit,
		.vocabulary = plan_vocabulary(g),
		.context = (uint32_t)o->tokens + 16,
		.live_rows = 1,
		.bulk_rows = 1,
		.threads = (uint32_t)o->threads};
	struct engine_config config = {.path = o->path,
		.desc = d,
		.plan = &x->plan,
		.threads = (uint32_t)o->threads,
		.prefetch = o->prefetch,
		.probe = true};
	struct engine_seq *s;
	uint64_t seed = 1, done = 0;
	int r = plan_make(&x->plan, &in, err);

	if (r == 0)
		r = engine_start(&e, &config, err);
	if (r == 0)
		r = engine_fill(e, false);
	if (r < 0)
		return r;
	r = engine_seq_new(e, &s);
	if (r < 0)
		return r;
	for (unsigned i = 0; r == 0 && i < 8; i++)
		r = decode(e, s, d, &seed);
	engine_stats(e, &x->before);
	for (uint64_t i = 1; r == 0 && i <= o->rounds; i++) {
		uint64_t start;

		r = measure_disk(d, o->path, disk);
		engine_rested(e);
		start = clock_now();
		for (; r == 0 && done < o->tokens * i / o->rounds; done++)
			r = decode(e, s, d, &seed);
		x->seconds += (double)(clock_now() - start) / (double)CLOCK_NS_PER_S;
	}
	engine_stats(e, &x->after);
	engine_seq_free(e, s);
	return r;
}

/* Where the time of a token goes. */
static void print_times(const struct decoded *x, double tokens)
{
	bool first = true;

	(void)printf("  \"ms_per_token\": {");
	for (unsigned t = 0; t < ENGINE_TIMES; t++) {
		uint64_t ns = 0;

		for (unsigned y = 0; y < ENGINE_LAYERS; y++)
			ns += x->after.times.ns[ENGINE_LIVE][y][t] -
			      x->before.times.ns[ENGINE_LIVE][y][t];
		if (!ns)
			continue;
		(void)printf("%s\"%s\": %.3f", first ? "" : ", ", engine_time_name(t),
			(double)ns / tokens / 1e6);
		first = false;
	}
	(void)printf("},\n");
}

static void print(const struct options *o, const struct decoded *x, const struct disk *disk)
{
	double bytes = (double)(x->after.bytes_read - x->before.bytes_read);
	double wait = (double)(x->after.wait_ns - x->before.wait_ns) / 1e9;
	double compute = (double)(x->after.compute_ns - x->before.compute_ns) / 1e9;
	uint64_t hits = x->after.hits - x->before.hits, misses = x->after.misses - x->before.misses;
	double best = 0, bound;

	for (size_t i = 0; i < ARRAY_SIZE(amounts); i++)
		best = num_max(best, disk->random[i]);
	bound = num_max(best > 0 ? bytes / best : 0.0, compute);
	(void)printf("{\n  \"io\": \"%s\", \"direct\": %s, \"threads\": %llu, \"memory\": %llu,\n",
		disk->io, disk->direct ? "true" : "false", (unsigned long long)o->threads,
		(unsigned long long)x->plan.limit);
	(void)printf("  \"disk_gb_per_s\": {\"sequential\": %.3f, \"experts_in_flight\": {",
		disk->sequential / 1e9);
	for (size_t i = 0; i < ARRAY_SIZE(amounts); i++)
		(void)printf("%s\"%lluM\": %.3f", i ? ", " : "",
			(unsigned long long)amounts[i] >> 20, disk->random[i] / 1e9);
	(void)printf("}},\n  \"tokens\": %llu, \"tokens_per_s\": %.3f, \"hit_rate\": %.4f,\n",
		(unsigned long long)o->tokens, (double)o->tokens / x->seconds,
		hits + misses ? (double)hits / (double)(hits + misses) : 0.0);
	(void)printf("  \"bytes_per_token\": %.0f, \"gb_per_s\": %.3f,\n",
		bytes / (double)o->tokens, bytes / x->seconds / 1e9);
	(void)printf(
		"  \"wait_s\": %.3f, \"compute_s\": %.3f, \"all_s\": %.3f, \"disk_s\": %.3f,\n",
		wait, compute, x->seconds, best > 0 ? bytes / best : 0.0);
	print_times(x, (double)o->tokens);
	(void)printf("  \"prefetch\": {\"state\": \"%s\", \"why\": \"%s\", \"issued\": %llu, "
		     "\"useful\": %llu, \"late\": %llu},\n",
		x->after.ahead.state, x->after.ahead.why,
		(unsigned long long)(x->after.ahead.issued - x->before.ahead.issued),
		(unsigned long long)(x->after.ahead.useful - x->before.ahead.useful),
		(unsigned long long)(x->after.ahead.late - x->before.ahead.late));
	(void)printf("  \"share_of_disk\": %.3f, ", best > 0 ? bytes / x->seconds / best : 0.0);
	/* What overlaps perfectly takes as long as the longer of the two. */
	(void)printf("\"bound_s\": %.3f, \"share_of_bound\": %.3f\n}\n", bound,
		x->seconds > 0 ? bound / x->seconds : 0.0);
}

static int run(const struct options *o)
{
	cleanup_(gguf_freep) struct gguf *g = NULL;
	cleanup_(desc_freep) struct desc *d = NULL;
	struct error err = ERROR_NONE;
	struct disk disk = {0};
	struct decoded x = {0};
	struct memory_limit limit;
	uint64_t whole = 0, wanted = 0;
	int r = gguf_open(&g, o->path, &err);

	if (r == 0)
		r = desc_new(&d, g, &err);
	if (r == 0)
		r = memory_limit_whole(&whole, "", &err);
	if (r == 0 && num_parse_size(o->memory, whole, &wanted) < 0)
		r = error_set(&err, -EINVAL, "--memory is '%s', no size", o->memory);
	if (r == 0)
		r = memory_limit_find(&limit, wanted, "", &err);
	if (r == 0 && d->experts == 0)
		r = error_set(&err, -EINVAL, "'%s' has no experts to stream", o->path);
	if (r == 0)
		r = measure_decode(&x, &disk, o, g, d, limit.bytes, &err);
	if (r < 0)
		(void)fprintf(stderr, "stream: %s\n", error_text(&err, r));
	else
		print(o, &x, &disk);
	return r;
}

static void usage(FILE *to)
{
	(void)fputs("Usage: stream --file FILE --memory SIZE [--tokens N] [--threads N]\n"
		    "              [--prefetch off|auto|on]\n"
		    "Decodes random tokens with experts streamed, and prints as JSON what that\n"
		    "reads from the disk and what the disk gives in the same run.\n"
		    "  --file FILE    a model with experts\n"
		    "  --memory SIZE  the limit, below the model's size\n"
		    "  --tokens N     to be measured (64)\n"
		    "  --rounds N     of disk and decode in turn (8)\n"
		    "  --threads N    (all processors)\n",
		to);
}

static int parse_prefetch(const char *text, enum engine_prefetch *ret)
{
	static const char *const names[] = {
		[ENGINE_PREFETCH_OFF] = "off",
		[ENGINE_PREFETCH_AUTO] = "auto",
		[ENGINE_PREFETCH_ON] = "on",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum engine_prefetch)i;
			return 0;
		}
	return -EINVAL;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, 'f'},
		{"memory", required_argument, NULL, 'm'},
		{"tokens", required_argument, NULL, 'n'},
		{"threads", required_argument, NULL, 't'},
		{"rounds", required_argument, NULL, 'r'},
		{"prefetch", required_argument, NULL, 'p'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	struct options o = {.tokens = 64, .rounds = 8};
	int c;

	o.threads = num_min(processors > 0 ? (uint64_t)processors : 1, (uint64_t)LIMIT_THREADS);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		int r = 0;

		if (c == 'f')
			o.path = optarg;
		else if (c == 'm')
			o.memory = optarg;
		else if (c == 'n')
			r = num_parse_u64(optarg, 1, 100000, &o.tokens);
		else if (c == 'p')
			r = parse_prefetch(optarg, &o.prefetch);
		else if (c == 't')
			r = num_parse_u64(optarg, 1, LIMIT_THREADS, &o.threads);
		else if (c == 'r')
			r = num_parse_u64(optarg, 1, 1000, &o.rounds);
		else if (c == 'h') {
			usage(stdout);
			return 0;
		}
		if (c == '?' || r < 0) {
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc || !o.path || !o.memory) {
		usage(stderr);
		return 2;
	}
	return run(&o) < 0;
}
