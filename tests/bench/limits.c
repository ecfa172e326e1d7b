/* SPDX-License-Identifier: MIT */

/*
 * What this machine can do at most, as JSON: the yardstick for the engine's figures, to be run in
 * the same minute as they are.  Sequential reads of memory in huge pages; products of int8 and
 * floating-point operations in each instruction set (null where the machine has it not), all with
 * one thread and with several; and direct reads of a file at random places into huge pages, through
 * the rung that the daemon would use.  Not a test: nothing here passes or fails.
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
#include "file.h"
#include "io.h"
#include "limit.h"
#include "mem.h"
#include "num.h"
#include "peak.h"
#include "sweep.h"

#define DEPTH_MAX 8u

DEFINE_CLEANUP(struct mem_arena *, mem_arena_free, NULL)

static double seconds_since(uint64_t start)
{
	return (double)(clock_now() - start) / (double)CLOCK_NS_PER_S;
}

struct disk {
	struct io *io;
	const struct file *file;
	char *buffers;
	uint64_t seed, duration_ns; /* of one measurement */
};

static uint64_t pick(struct disk *d, uint64_t length)
{
	uint64_t places = (d->file->size - length) / d->file->align + 1;

	d->seed = d->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (d->seed >> 16) % places * d->file->align;
}

static int submit_one(struct disk *d, unsigned slot, uint64_t length)
{
	struct io_read read = {
		.tag = slot,
		.length = (uint32_t)length,
		.offset = pick(d, length),
		.buffer = d->buffers + slot * length,
	};
	int r = d->io->ops->submit(d->io, &read, 1);

	return r < 0 ? r : r == 1 ? 0 : -EBUSY;
}

/* Keeps `depth` reads in flight for a while. */
static int measure_disk(struct disk *d, uint64_t length, unsigned depth, double *ret)
{
	struct io_result results[DEPTH_MAX];
	uint64_t start = clock_now(), bytes = 0;
	unsigned in_flight = 0;
	int r = 0;

	for (; in_flight < depth && r == 0; in_flight++)
		r = submit_one(d, in_flight, length);
	while (in_flight > 0) {
		int n = d->io->ops->reap(d->io, results, DEPTH_MAX, CLOCK_NS_PER_S);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++) {
			in_flight--;
			if (results[i].res < 0)
				r = results[i].res;
			else
				bytes += (uint32_t)results[i].res;
			if (r == 0 && clock_now() - start < d->duration_ns) {
				r = submit_one(d, (unsigned)results[i].tag, length);
				in_flight += r == 0;
			}
		}
	}
	*ret = (double)bytes / seconds_since(start) / 1e9;
	return r;
}

static int report_disk(const char *path, char *buffers, uint64_t duration_ns)
{
	static const uint64_t lengths[] = {UINT64_C(1) << 20, UINT64_C(5) << 19};
	static const unsigned depths[] = {1, 4, DEPTH_MAX};
	struct error err = ERROR_NONE;
	struct disk d = {.buffers = buffers, .seed = clock_now(), .duration_ns = duration_ns};
	struct file file;
	const char *comma = "";
	int r = file_open(&file, path, &err);

	if (r == 0 && file.size < lengths[1])
		r = error_set(&err, -EINVAL, "'%s' is too small to read at random", path);
	if (r == 0)
		r = io_ring_new(&d.io, &file.fd, 1, NULL);
	if (r < 0 && !err.code)
		r = io_pool_new(&d.io, &file.fd, 1, DEPTH_MAX, &err);
	if (r < 0) {
		fprintf(stderr, "limits: %s\n", error_text(&err, r));
		return r;
	}
	d.file = &file;
	printf(",\n  \"io\": \"%s\", \"direct\": %s,\n  \"reads\": [", d.io->ops->name,
		file.direct ? "true" : "false");
	for (size_t l = 0; l < ARRAY_SIZE(lengths); l++)
		for (size_t k = 0; k < ARRAY_SIZE(depths) && r == 0; k++) {
			double rate;

			r = measure_disk(&d, lengths[l], depths[k], &rate);
			if (r < 0)
				break;
			printf("%s\n    {\"bytes\": %llu, \"depth\": %u, \"gb_per_s\": %.3f}",
				comma, (unsigned long long)lengths[l], depths[k], rate);
			comma = ",";
		}
	printf("\n  ]");
	if (r < 0)
		fprintf(stderr, "limits: cannot read '%s': %s\n", path, strerror(-r));
	d.io->ops->free(d.io);
	file_close(&file);
	return r;
}

/* The rates of one tier's loops, each as a member. */
static int report_tier(
	const struct peak_loop *loops, size_t n, const void *weights, unsigned threads)
{
	printf("{");
	for (size_t i = 0; i < n; i++) {
		double rate;
		int r;

		printf("%s\"%s\": ", i ? ", " : "", loops[i].name);
		if (!loops[i].usable()) {
			printf("null");
			continue;
		}
		r = peak_measure(&loops[i], weights, threads, &rate);
		if (r < 0)
			return r;
		printf("%.1f", rate);
	}
	printf("}");
	return 0;
}

static int report_peak(const char *key, const struct peak_loop *loops, size_t n,
	const void *weights, unsigned threads)
{
	int r = 0;

	printf(",\n  \"%s\": {", key);
	for (size_t i = 0, next; i < n && r == 0; i = next) {
		for (next = i + 1; next < n && !strcmp(loops[next].tier, loops[i].tier);)
			next++;
		printf("%s\n    \"%s\": {\"one\": ", i ? "," : "", loops[i].tier);
		r = report_tier(loops + i, next - i, weights, 1);
		printf(", \"all\": ");
		if (r == 0)
			r = report_tier(loops + i, next - i, weights, threads);
		printf("}");
	}
	printf("\n  }");
	return r;
}

static int report(const char *path, size_t size, unsigned threads, double seconds)
{
	cleanup_(mem_arena_freep) struct mem_arena *arena = NULL;
	struct error err = ERROR_NONE;
	const struct peak_loop *int8, *f32;
	size_t n_int8, n_f32, room = num_align_up(threads * PEAK_WEIGHTS, MEM_HUGE_PAGE);
	double one, all;
	char *base;
	int r = mem_arena_new(&arena, num_max(size, room), 0, NULL, NULL, &err);

	if (r < 0) {
		fprintf(stderr, "limits: %s\n", error_text(&err, r));
		return r;
	}
	base = mem_arena_base(arena);
	/* Pages of zeros may share one frame until written. */
	memset(base, 1, num_max(size, room));
	r = sweep_measure(base, size, 1, &one);
	if (r == 0)
		r = sweep_measure(base, size, threads, &all);
	if (r == 0) {
		printf("{\n  \"threads\": %u,\n  \"sweep_bytes\": %zu,\n", threads, size);
		printf("  \"dram_read_gb_per_s\": {\"one\": %.2f, \"all\": %.2f}", one, all);
		int8 = peak_int8(&n_int8);
		f32 = peak_f32(&n_f32);
		r = report_peak("int8_gmac_per_s", int8, n_int8, base, threads);
		if (r == 0)
			r = report_peak("f32_fma_gflop_per_s", f32, n_f32, base, threads);
	}
	if (r < 0) {
		fprintf(stderr, "limits: cannot start threads: %s\n", strerror(-r));
		return r;
	}
	if (path)
		r = report_disk(path, base, (uint64_t)(seconds * (double)CLOCK_NS_PER_S));
	printf("\n}\n");
	return r;
}

static void usage(FILE *to)
{
	fputs("Usage: limits [--file FILE] [--memory SIZE] [--threads N] [--seconds S]\n"
	      "Prints what memory, processors and disk of this machine can do at most, as JSON.\n"
	      "  --file FILE    read this file at random, bypassing the page cache\n"
	      "  --memory SIZE  memory to sweep, well above the last cache (512M)\n"
	      "  --threads N    what 'all' means (all processors)\n"
	      "  --seconds S    of each measurement of the file (1)\n",
		to);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, 'f'},
		{"memory", required_argument, NULL, 'm'},
		{"threads", required_argument, NULL, 't'},
		{"seconds", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t size = (uint64_t)512 << 20, threads = processors > 0 ? (uint64_t)processors : 1;
	const char *path = NULL;
	double seconds = 1;
	int c;

	threads = num_min(threads, (uint64_t)LIMIT_THREADS);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		int r = 0;

		if (c == 'f')
			path = optarg;
		else if (c == 'm')
			r = num_parse_size(optarg, 0, &size);
		else if (c == 't')
			r = num_parse_u64(optarg, 1, LIMIT_THREADS, &threads);
		else if (c == 's')
			r = num_parse_double(optarg, 0.01, 60, &seconds);
		else if (c == 'h') {
			usage(stdout);
			return 0;
		}
		if (c == '?' || r < 0 || size < (uint64_t)32 << 20) {
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	return report(path, num_align_down(size, MEM_HUGE_PAGE), (unsigned)threads, seconds) < 0;
}
