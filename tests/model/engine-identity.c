/* SPDX-License-Identifier: MIT */

/*
 * The gate of exactness: whatever may not change a bit does not.  One way through the engine is the
 * measure; all others, over cache, policy, prefetch, company, chunks, tier and threads, must give
 * its tokens, logits and log-probabilities bit for bit; counters prove that each way was taken.
 * Usage: CASE [uring]; with `uring` only the io_uring rung, and 77 where there is none.
 */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine-case.h"
#include "engine-drive.h"
#include "io.h"
#include "kernels.h"
#include "num.h"

#define TEXTS 5
#define STEPS 6
#define CHUNK 7u /* rows; no divisor of a block */

static struct engine_case the_case;
static struct drive_text texts[TEXTS];
static uint32_t own_ids[2][80];
static struct drive_answer measure[TEXTS];
static struct engine_stats measure_stats;
static uint64_t read_ahead;

/* The prompts of the case, and two more: one that ends with a block, one that is a sibling. */
static void make_texts(void)
{
	const struct case_prompt *last = &the_case.prompts[the_case.n_prompts - 1];

	for (size_t i = 0; i < TEXTS; i++) {
		texts[i].sampling = SAMPLER_DEFAULT;
		if (i < the_case.n_prompts && i < 3) {
			texts[i].ids = the_case.prompts[i].ids;
			texts[i].n = the_case.prompts[i].n;
			continue;
		}
		texts[i].ids = own_ids[i - 3];
		texts[i].n = i == 3 ? 64 : 9;
		for (size_t j = 0; j < texts[i].n; j++)
			own_ids[i - 3][j] = i == 3 ? (uint32_t)((j * 37 + 5) % the_case.vocabulary)
						   : last->ids[j % last->n];
	}
	texts[1].sampling.temperature = 0.8f;
	texts[1].sampling.seed = 7;
	texts[4].sampling = (struct sampler_params){
		.temperature = 1.2f, .top_k = 40, .top_p = 0.9f, .min_p = 0.01f, .seed = 11};
}

static void run(const struct drive_how *how, bool together, uint32_t chunk,
	struct drive_answer *answers, struct engine_stats *stats)
{
	struct drive d;

	drive_start(&d, how);
	drive_run(&d, texts, TEXTS, STEPS, together, chunk, answers);
	engine_stats(d.engine, stats);
	drive_stop(&d);
}

static void compare(const struct drive_how *how, bool together, uint32_t chunk, const char *what)
{
	struct drive d = {.desc = &(struct desc){.vocabulary = (uint32_t)the_case.vocabulary}};
	struct drive_answer answers[TEXTS];
	struct engine_stats s;

	run(how, together, chunk, answers, &s);
	for (size_t i = 0; i < TEXTS; i++) {
		if (answers[i].code)
			fail_msg("%s: %s", what, answers[i].error);
		if (!drive_equal(&d, &texts[i], &answers[i], &measure[i]))
			fail_msg("%s: other bits in text %zu", what, i);
	}
	drive_answers_free(answers, TEXTS);

	/* The way was taken. */
	assert_string_equal(s.tier, how->tier);
	assert_int_equal(s.rows_bulk, measure_stats.rows_bulk);
	assert_int_equal(s.rows_live, measure_stats.rows_live);
	/* Chunks let the short texts end before the long ones begin to decode. */
	if (!together || !chunk)
		assert_true(together == (s.steps_live < s.rows_live));
	assert_true(chunk ? s.steps_bulk >= s.rows_bulk / CHUNK : s.steps_bulk <= TEXTS);
	if (s.hits + s.misses == 0)
		return; /* a dense model */
	if (how->cache == DRIVE_RESIDENT) {
		assert_int_equal(s.misses, 0);
		assert_int_equal(s.evictions, 0);
	} else {
		assert_true(s.misses > 0 && s.bytes_read > 0 && s.bytes_useful > 0);
		assert_true(s.bytes_read >= s.bytes_useful);
	}
	if (how->cache >= DRIVE_SMALLEST && !how->experts)
		assert_true(s.evictions > 0);
	assert_true(s.ahead.issued >= s.ahead.useful && s.ahead.useful >= s.ahead.late);
	if (how->cache == DRIVE_AMPLE && how->prefetch == ENGINE_PREFETCH_ON)
		read_ahead += s.ahead.issued;
	if (how->prefetch == ENGINE_PREFETCH_OFF)
		assert_int_equal(s.ahead.issued, 0);
}

static void test_ways(void **state)
{
	static const char *const tiers[] = {
		"scalar", "avx2", "avxvnni", "vnni", "amx", "dotprod", "i8mm"};
	static const char *const caches[] = {"resident", "ample", "smallest", "one slot"};
	unsigned ways = 0, missing = 0;

	(void)state;
	for (unsigned t = 0; t < KERNELS_TIER_MAX; t++) {
		if (!kernels_get(t)) {
			missing++;
			continue;
		}
		for (unsigned way = 0; way < 4 * 2 * 2 * 3; way++) {
			struct drive_how how = {.path = the_case.path,
				.tier = tiers[t],
				.cache = way % 4,
				.policy = (way + way / 12) % POLICY_KINDS,
				.prefetch = way / 4 % 2 ? ENGINE_PREFETCH_ON : ENGINE_PREFETCH_OFF,
				.threads = 1 + way / 4 % 3,
				.io = way & 1 ? ENGINE_IO_AUTO : ENGINE_IO_PREAD};
			bool together = way / 12 % 2;
			uint32_t chunk = way / 24 % 2 ? CHUNK : 0;
			char what[128];

			(void)snprintf(what, sizeof what, "%s, %s, %u threads, %s, %s", tiers[t],
				caches[how.cache], how.threads, together ? "together" : "alone",
				chunk ? "chunks" : "whole");
			compare(&how, together, chunk, what);
			ways++;
		}
	}
	/* Experts were read before they were wanted, where there are any. */
	assert_true(read_ahead > 0 || measure_stats.hits + measure_stats.misses == 0);
	print_message("%s: %u ways give the same bits; %u tiers are missing here\n", the_case.name,
		ways, missing);
}

/* Five sessions that say the same are one batch: they ask for each expert once. */
static void test_read_once(void **state)
{
	struct drive_how how = {.path = the_case.path, .cache = DRIVE_ONE, .io = ENGINE_IO_PREAD};
	struct engine_stats stats[2];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct drive_answer answers[TEXTS];
		struct drive_text copies[TEXTS];
		size_t n = i ? TEXTS : 1;
		struct drive d;

		for (size_t j = 0; j < n; j++)
			copies[j] = texts[1];
		drive_start(&d, &how);
		drive_run(&d, copies, n, STEPS, true, 0, answers);
		engine_stats(d.engine, &stats[i]);
		for (size_t j = 0; j < n; j++)
			assert_true(drive_equal(&d, &texts[1], &answers[j], &measure[1]));
		drive_stop(&d);
		drive_answers_free(answers, n);
	}
	assert_int_equal(stats[1].rows_bulk, TEXTS * stats[0].rows_bulk);
	assert_int_equal(stats[1].rows_live, TEXTS * stats[0].rows_live);
	assert_int_equal(stats[1].steps_live, stats[0].steps_live);
	assert_int_equal(stats[1].hits, stats[0].hits);
	assert_int_equal(stats[1].misses, stats[0].misses);
	assert_int_equal(stats[1].bytes_read, stats[0].bytes_read);
}

/* A dense file whose feed-forward block is read as experts that share one place. */
static void test_upcycled(void **state)
{
	(void)state;
	if (strncmp(the_case.name, "llama", 5) != 0)
		return;
	for (unsigned i = 0; i < 6; i++) {
		struct drive_how how = {.path = the_case.path,
			.tier = i < 3			    ? "scalar"
				: kernels_get(KERNELS_VNNI) ? "vnni"
							    : "scalar",
			.cache = i % 2 ? DRIVE_ONE : DRIVE_RESIDENT,
			.threads = 1 + i % 2,
			.experts = 8,
			.top_k = 1u << i % 3};

		compare(&how, i % 2, i % 3 ? CHUNK : 0, "upcycled");
	}
}

/* All of it through the ring, bytes counted. */
static void test_uring(void **state)
{
	struct drive_how how = {.path = the_case.path,
		.tier = "scalar",
		.threads = 2,
		.cache = DRIVE_SMALLEST,
		.io = ENGINE_IO_URING};
	struct drive_answer answers[TEXTS];
	struct engine_stats s;

	(void)state;
	compare(&how, true, CHUNK, "io_uring");
	run(&how, true, CHUNK, answers, &s);
	drive_answers_free(answers, TEXTS);
	assert_non_null(strstr(s.io, "io_uring"));
	assert_true(s.bytes_read > 0 && s.reads > 0 && s.evictions > 0);
	assert_int_equal(s.read_errors, 0);
}

static int set_up(void **state)
{
	struct drive_how how = {.path = the_case.path, .tier = "scalar", .io = ENGINE_IO_PREAD};

	(void)state;
	make_texts();
	run(&how, false, 0, measure, &measure_stats);
	for (size_t i = 0; i < TEXTS; i++)
		assert_int_equal(measure[i].n_tokens, STEPS);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	drive_answers_free(measure, TEXTS);
	return 0;
}

static bool has_uring(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), r;
	struct error err = ERROR_NONE;
	struct io *io;

	r = io_ring_new(&io, &fd, 1, &err);
	if (r < 0)
		(void)printf("no io_uring here: %s\n", err.text);
	else
		io->ops->free(io);
	(void)close(fd);
	return r == 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest ways[] = {
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_read_once),
		cmocka_unit_test(test_upcycled),
	};
	const struct CMUnitTest uring[] = {cmocka_unit_test(test_uring)};
	int failed;

	if (argc < 2)
		return 2;
	if (argc > 2 && !has_uring())
		return 77;
	engine_case_load(&the_case, argv[1]);
	failed = argc > 2 ? cmocka_run_group_tests_name("io_uring", uring, set_up, tear_down)
			  : cmocka_run_group_tests_name("ways", ways, set_up, tear_down);
	engine_case_free(&the_case);
	return failed;
}
