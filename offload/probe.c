/* SPDX-License-Identifier: MIT */
#include "probe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "cleanup.h"
#include "clock.h"
#include "crc32c.h"
#include "fd.h"
#include "limit.h"
#include "num.h"

#define MIB ((uint64_t)1 << 20)
#define ROUNDS 3u
#define FLIGHTS 32u
#define READ_LEAST (MIB / 2)
#define HEAD "moed disks 1\n"

/* So much of the best rate is as good, and nearly as good. */
#define AS_GOOD 0.97
#define NEARLY 0.92

static const uint64_t amounts[] = {MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB};
static const uint64_t pieces[] = {MIB / 2, MIB, 2 * MIB, 4 * MIB};

/* As measured on a virtual disk of 2 GB/s. */
struct disk_tuning probe_default(void)
{
	return (struct disk_tuning){.least = 2 * MIB, .most = 8 * MIB, .piece = 2 * MIB};
}

struct flight {
	const struct probe *probe;
	uint64_t seed;
	bool busy[FLIGHTS];
	uint64_t bytes, ns; /* of one measurement */
};

static uint64_t draw(struct flight *f, uint64_t length)
{
	const struct file *file = f->probe->file;

	f->seed = f->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (f->seed >> 16) % ((file->size - length) / file->align) * file->align;
}

static int start(struct flight *f, uint32_t slot, uint64_t length)
{
	const struct probe *p = f->probe;
	struct io_read read = {
		.tag = slot,
		.file = p->index,
		.length = (uint32_t)length,
		.offset = draw(f, length),
		.buffer = (char *)p->memory + slot * length,
	};
	int r = p->io->ops->submit(p->io, &read, 1);

	if (r == 1)
		f->busy[slot] = true;
	return r < 0 ? r : r == 1 ? 0 : -EBUSY;
}

/* Keeps so many reads in flight for a while, and waits for all of them. */
static int fly(struct flight *f, uint64_t length, uint32_t depth, uint64_t ns)
{
	struct io *io = f->probe->io;
	uint64_t begin = clock_now();
	uint32_t in_flight = 0;
	int r = 0;

	while (r == 0 && in_flight < depth) {
		r = start(f, in_flight, length);
		in_flight += r == 0;
	}
	while (in_flight > 0) {
		struct io_result results[FLIGHTS];
		int n = io->ops->reap(io, results, FLIGHTS, CLOCK_NS_PER_S);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++) {
			uint32_t slot = (uint32_t)results[i].tag % FLIGHTS;

			f->busy[slot] = false;
			in_flight--;
			if (results[i].res < 0)
				r = results[i].res;
			else
				f->bytes += (uint32_t)results[i].res;
			if (r == 0 && clock_now() - begin < ns) {
				r = start(f, slot, length);
				in_flight += r == 0;
			}
		}
	}
	f->ns += clock_now() - begin;
	file_drop(f->probe->file, 0, f->probe->file->size);
	return r;
}

/* Bytes a second of one way, over several rounds: the rate of a disk changes meanwhile. */
struct way {
	uint64_t length, amount, bytes, ns;
};

static double rate_of(const struct way *w)
{
	return w->ns ? (double)w->bytes / ((double)w->ns / (double)CLOCK_NS_PER_S) : 0.0;
}

static int measure(struct flight *f, struct way *ways, size_t n)
{
	uint64_t end = clock_now() + f->probe->ns, each = f->probe->ns / (ROUNDS * n);

	for (unsigned round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < n; i++) {
			struct way *w = &ways[i];
			int r;

			/* A slow disk has fewer rounds, but all ways of each. */
			if (i == 0 && round > 0 && clock_now() >= end)
				return 0;
			f->bytes = f->ns = 0;
			r = fly(f, w->length, (uint32_t)num_max(w->amount / w->length, UINT64_C(1)),
				each);
			if (r < 0)
				return r;
			w->bytes += f->bytes;
			w->ns += f->ns;
		}
	}
	return 0;
}

static double best_of(const struct way *ways, size_t n)
{
	double best = 0;

	for (size_t i = 0; i < n; i++)
		best = num_max(best, rate_of(&ways[i]));
	return best;
}

static const struct way *first_with(const struct way *ways, size_t n, double rate)
{
	for (size_t i = 0; i + 1 < n; i++)
		if (rate_of(&ways[i]) >= rate)
			return &ways[i];
	return &ways[n - 1];
}

int probe_run(struct disk_tuning *ret, const struct probe *p)
{
	struct flight f = {.probe = p, .seed = clock_now()};
	struct way ways[ARRAY_SIZE(amounts) + ARRAY_SIZE(pieces)];
	struct disk_tuning t = probe_default();
	size_t n = 0, n_amounts;
	double best;
	int r;

	if (p->file->size < PROBE_FILE_MIN || p->size < amounts[ARRAY_SIZE(amounts) - 1] ||
		p->io->ops->depth(p->io) < FLIGHTS)
		return -ENODATA;
	for (size_t i = 0; i < ARRAY_SIZE(amounts); i++)
		ways[n++] = (struct way){.length = MIB, .amount = amounts[i]};
	n_amounts = n;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		ways[n++] = (struct way){.length = pieces[i], .amount = t.most};
	r = measure(&f, ways, n);
	if (r < 0)
		return r;
	best = best_of(ways, n_amounts);
	if (best < 1)
		return -ENODATA;
	t.most = first_with(ways, n_amounts, best * AS_GOOD)->amount;
	t.least = num_min(first_with(ways, n_amounts, best * NEARLY)->amount, t.most);
	/* Here nothing comes between a result and the next read; later compute does. */
	t.most = num_min(2 * t.most, amounts[ARRAY_SIZE(amounts) - 1]);
	t.rate = (uint64_t)best;
	best = best_of(ways + n_amounts, ARRAY_SIZE(pieces));
	t.piece = first_with(ways + n_amounts, ARRAY_SIZE(pieces), best * AS_GOOD)->length;
	*ret = t;
	return 0;
}

void probe_name(char name[PROBE_NAME_MAX], dev_t device, const char *method)
{
	cleanup_free_ char *text = NULL;
	char path[96];
	size_t n;

	/* Another disk in its place will hardly be of the same size. */
	(void)snprintf(
		path, sizeof path, "/sys/dev/block/%u:%u/size", major(device), minor(device));
	if (fd_read_file(path, sizeof path, &text, NULL) >= 0)
		text[strcspn(text, "\n")] = '\0';
	(void)snprintf(name, PROBE_NAME_MAX, "%u:%u/%.20s/%.40s", major(device), minor(device),
		text ? text : "", method);
	n = strlen(name);
	for (size_t i = 0; i < n; i++)
		if (name[i] <= ' ')
			name[i] = '-';
}

static size_t put(char *text, size_t size, size_t at, const char *line)
{
	size_t n = strlen(line);

	if (at + n < size)
		memcpy(text + at, line, n + 1);
	return at + n;
}

size_t probe_format(char *text, size_t size, const struct probe_entry *entries, size_t n)
{
	size_t at = put(text, size, 0, HEAD);
	char line[PROBE_NAME_MAX + 96];

	for (size_t i = 0; i < n; i++) {
		const struct disk_tuning *t = &entries[i].tuning;

		(void)snprintf(line, sizeof line,
			"%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", entries[i].name,
			t->least, t->most, t->piece, t->rate);
		at = put(text, size, at, line);
	}
	if (at >= size)
		return at;
	(void)snprintf(line, sizeof line, "crc32c %08" PRIx32 "\n", crc32c(0, text, at));
	return put(text, size, at, line);
}

static bool is_sound(const struct disk_tuning *t)
{
	return t->least >= READ_LEAST && t->least <= t->most && t->most <= LIMIT_IN_FLIGHT_BYTES &&
	       t->piece >= READ_LEAST && t->piece <= t->most * 4 && t->piece % READ_LEAST == 0 &&
	       t->piece <= pieces[ARRAY_SIZE(pieces) - 1] && t->rate > 0;
}

static int parse_line(struct probe_entry *e, const char *line)
{
	struct disk_tuning *t = &e->tuning;
	int end = 0;

	_Static_assert(PROBE_NAME_MAX == 96, "the width of the name below");
	if (sscanf(line, "%95[!-~] %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n", e->name,
		    &t->least, &t->most, &t->piece, &t->rate, &end) != 5 ||
		line[end] != '\n')
		return -EBADMSG;
	return is_sound(t) ? 0 : -EBADMSG;
}

int probe_parse(struct probe_entry *entries, size_t max, const char *text)
{
	const char *line = text + strlen(HEAD);
	uint32_t crc;
	int n = 0, end = 0;

	if (strncmp(text, HEAD, strlen(HEAD)) != 0)
		return -EBADMSG;
	while (strncmp(line, "crc32c ", 7) != 0) {
		const char *next = strchr(line, '\n');

		if (!next || (size_t)n == max || parse_line(&entries[n], line) < 0)
			return -EBADMSG;
		n++;
		line = next + 1;
	}
	if (sscanf(line, "crc32c %8" SCNx32 "%n", &crc, &end) != 1 ||
		strcmp(line + end, "\n") != 0 || crc != crc32c(0, text, (size_t)(line - text)))
		return -EBADMSG;
	return n;
}
