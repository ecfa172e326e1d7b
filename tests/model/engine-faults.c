/* SPDX-License-Identifier: MIT */

/*
 * What may go wrong under the engine, and what others see of it: nothing.  Reads that fail, come
 * short or late; weights that are no numbers; sequences that are dropped, cut back and filled up.
 */

#include <errno.h>
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
#include "engine-spoil.h"
#include "num.h"

#define NO_ID UINT32_MAX
#define IDS 40

static struct engine_case the_case;
static struct spoil spoil;
static uint64_t used[IDS][64]; /* experts of each layer that the text {id} goes to, as bits */

static struct drive_how how(enum drive_cache cache)
{
	return (struct drive_how){.path = the_case.path,
		.cache = cache,
		.threads = 2,
		.io_new = spoil_io_new,
		.io_new_arg = &spoil};
}

static void on_route(
	void *arg, uint32_t layer, const uint32_t *ids, const float *weights, uint32_t k)
{
	for (uint32_t i = 0; i < k; i++)
		((uint64_t *)arg)[layer] |= UINT64_C(1) << ids[i];
}

/* Rows to the end of their step. */
static void finish(struct engine *e, enum engine_context c)
{
	int r;

	while ((r = engine_advance(e, c)) != ENGINE_IDLE) {
		assert_true(r >= 0);
		if (r == ENGINE_WAITING)
			assert_int_equal(engine_wait(e, 1000000000), 0);
	}
}

static void find_routes(void)
{
	const struct engine_callbacks callbacks = {.on_route = on_route};
	struct drive_how h = how(DRIVE_SMALLEST);
	struct drive d;

	spoil = (struct spoil){0};
	drive_start(&d, &h);
	for (uint32_t id = 0; id < IDS; id++) {
		struct engine_row row = {.token = id, .want = ENGINE_WANT_ROUTES, .arg = used[id]};

		assert_int_equal(engine_seq_new(d.engine, &row.seq), 0);
		assert_int_equal(engine_seq_reserve(d.engine, row.seq, 1), 0);
		assert_int_equal(engine_begin(d.engine, ENGINE_LIVE, &row, 1, &callbacks), 0);
		finish(d.engine, ENGINE_LIVE);
		engine_seq_free(d.engine, row.seq);
	}
	drive_stop(&d);
}

/* An expert, and two texts of which only the first goes to it. */
struct victim {
	uint32_t layer, expert, with, without;
	struct desc_weight extent;
	uint64_t middle; /* of its bytes: not in the window around another expert */
};

static struct victim find_victim(const struct drive *d)
{
	struct victim v = {.with = NO_ID};

	for (uint32_t a = 0; a < IDS && v.with == NO_ID; a++) {
		for (uint32_t b = 0; b < IDS && v.with == NO_ID; b++) {
			for (uint32_t l = 0; l < d->desc->n_layers && v.with == NO_ID; l++) {
				uint64_t only = used[a][l] & ~used[b][l];

				if (only)
					v = (struct victim){
						l, (uint32_t)__builtin_ctzll(only), a, b};
			}
		}
	}
	assert_true(v.with != NO_ID);
	v.extent = desc_expert(d->desc, v.layer, v.expert, DESC_DOWN);
	v.middle = v.extent.offset + v.extent.size / 2;
	return v;
}

static void run(struct drive *d, const uint32_t ids[2], struct drive_answer answers[2])
{
	struct drive_text texts[2];

	for (size_t i = 0; i < 2; i++)
		texts[i] = (struct drive_text){&ids[i], 1, SAMPLER_DEFAULT};
	drive_run(d, texts, 2, 1, true, 0, answers);
}

static void same(struct drive *d, const uint32_t *id, const struct drive_answer *a,
	const struct drive_answer *b)
{
	assert_true(drive_equal(d, &(struct drive_text){.ids = id, .n = 1}, a, b));
}

/* One expert cannot be read: who needs it fails, who does not goes on; later all is well. */
static void unreadable(enum drive_cache cache, int res, int code)
{
	struct drive_answer before[2], during[2], after[2];
	struct drive_how h = how(cache);
	struct engine_stats s;
	struct victim v;
	struct drive d;

	spoil = (struct spoil){0};
	drive_start(&d, &h);
	v = find_victim(&d);
	run(&d, (uint32_t[]){v.with, v.without}, before);
	assert_int_equal(before[0].code, 0);
	/* Its slot goes to others. */
	drive_answers_free(before, 2);
	run(&d, (uint32_t[]){v.without, v.without}, before);
	drive_answers_free(before, 2);

	spoil.from = v.middle;
	spoil.to = v.middle + 1;
	spoil.res = res;
	run(&d, (uint32_t[]){v.with, v.without}, during);
	assert_true(spoil.hits > 0);
	assert_int_equal(during[0].code, code);
	assert_int_equal(during[0].errors, 1);
	assert_int_equal(during[0].n_tokens, 0);
	assert_non_null(strstr(during[0].error, "expert"));
	assert_non_null(strstr(during[0].error, "model.gguf"));
	assert_int_equal(during[1].code, 0);
	engine_stats(d.engine, &s);
	assert_true(s.read_errors > 0);

	spoil.to = 0;
	run(&d, (uint32_t[]){v.with, v.without}, after);
	assert_int_equal(after[0].code, 0);
	same(&d, &v.without, &after[1], &during[1]);
	drive_stop(&d);

	/* What it says now is what an engine says that knows nothing of it. */
	h.io_new = NULL;
	drive_start(&d, &h);
	run(&d, (uint32_t[]){v.with, v.without}, before);
	same(&d, &v.with, &before[0], &after[0]);
	same(&d, &v.without, &before[1], &after[1]);
	drive_stop(&d);
	drive_answers_free(before, 2);
	drive_answers_free(during, 2);
	drive_answers_free(after, 2);
}

static void test_unreadable(void **state)
{
	(void)state;
	unreadable(DRIVE_ONE, -EIO, -EIO);
	unreadable(DRIVE_ONE, 0, -ENODATA); /* the file was truncated */
	unreadable(DRIVE_ONE, -EREMOTEIO, -EREMOTEIO);
}

/* Short reads, interruptions, a full queue: tried again, the same bits. */
static void test_tried_again(void **state)
{
	struct drive_text text = {the_case.prompts[1].ids, the_case.prompts[1].n, SAMPLER_DEFAULT};
	struct drive_how h = how(DRIVE_ONE);
	struct drive_answer plain, rough;
	struct engine_stats s;
	struct drive d;

	(void)state;
	spoil = (struct spoil){0};
	drive_start(&d, &h);
	drive_run(&d, &text, 1, 4, false, 16, &plain);
	spoil.rough = true;
	drive_run(&d, &text, 1, 4, false, 16, &rough);
	assert_true(spoil.shorts > 10 && spoil.agains > 10);
	assert_int_equal(rough.code, 0);
	assert_true(drive_equal(&d, &text, &plain, &rough));
	engine_stats(d.engine, &s);
	assert_int_equal(s.read_errors, 0);
	drive_stop(&d);
	drive_answers_free(&plain, 1);
	drive_answers_free(&rough, 1);
}

/* Where every expert was filled at the start, an unreadable one fails its rows, not the start. */
static void test_unreadable_at_start(void **state)
{
	struct drive_how h = how(DRIVE_RESIDENT);
	struct drive_answer answers[2];
	struct victim v;
	struct drive d;

	(void)state;
	spoil = (struct spoil){0};
	drive_start(&d, &h);
	v = find_victim(&d);
	drive_stop(&d);
	spoil = (struct spoil){.from = v.middle, .to = v.middle + 1, .res = -EIO};
	drive_start(&d, &h);
	run(&d, (uint32_t[]){v.with, v.without}, answers);
	assert_int_equal(answers[0].code, -EIO);
	assert_int_equal(answers[1].code, 0);
	drive_answers_free(answers, 2);
	spoil.to = 0;
	run(&d, (uint32_t[]){v.with, v.without}, answers);
	assert_int_equal(answers[0].code, 0);
	drive_answers_free(answers, 2);
	drive_stop(&d);
}

struct freed {
	struct engine *engine;
	struct engine_seq *seq;
	unsigned calls;
};

static void free_in_error(void *arg, int code, const char *text)
{
	struct freed *f = arg;

	f->calls++;
	f->seq = engine_seq_free(f->engine, f->seq);
}

static void free_in_logits(void *arg, const float *logits)
{
	free_in_error(arg, 0, NULL);
}

static void free_in_route(
	void *arg, uint32_t layer, const uint32_t *ids, const float *weights, uint32_t k)
{
	free_in_error(arg, 0, NULL);
}

/* A sequence of several rows freed by the first callback that concerns it. */
static void test_freed_in_callback(void **state)
{
	const struct engine_callbacks all[] = {
		{.on_error = free_in_error},
		{.on_logits = free_in_logits},
		{.on_route = free_in_route},
	};
	struct drive_how h = how(DRIVE_ONE);
	struct engine_row rows[4];
	struct victim v;
	struct drive d;

	(void)state;
	spoil = (struct spoil){0};
	drive_start(&d, &h);
	v = find_victim(&d);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		struct freed f = {.engine = d.engine};

		spoil.from = v.middle;
		spoil.to = i == 0 ? v.middle + 1 : 0;
		spoil.res = -EIO;
		assert_int_equal(engine_seq_new(d.engine, &f.seq), 0);
		assert_int_equal(engine_seq_reserve(d.engine, f.seq, 4), 0);
		for (size_t j = 0; j < 4; j++)
			rows[j] = (struct engine_row){.seq = f.seq,
				.token = v.with,
				.want = ENGINE_WANT_LOGITS | ENGINE_WANT_ROUTES,
				.arg = &f};
		assert_int_equal(engine_begin(d.engine, ENGINE_BULK, rows, 4, &all[i]), 0);
		finish(d.engine, ENGINE_BULK);
		assert_int_equal(f.calls, 1);
		assert_null(f.seq);
	}
	drive_stop(&d);
}

/* Reading itself fails: the step is over, and the next one is served once it works again. */
static void test_broken(void **state)
{
	struct drive_answer before, after;
	struct drive_how h = how(DRIVE_ONE);
	struct drive_text text = {the_case.prompts[1].ids, the_case.prompts[1].n, SAMPLER_DEFAULT};
	struct engine_row rows[8];
	struct drive d;

	(void)state;
	spoil = (struct spoil){0};
	drive_start(&d, &h);
	drive_run(&d, &text, 1, 4, false, 0, &before);
	for (unsigned c = 0; c < ENGINE_CONTEXTS; c++) {
		struct engine_seq *s;
		int r;

		assert_int_equal(engine_seq_new(d.engine, &s), 0);
		assert_int_equal(engine_seq_reserve(d.engine, s, 8), 0);
		for (size_t i = 0; i < 8; i++)
			rows[i] = (struct engine_row){.seq = s, .token = text.ids[i]};
		assert_int_equal(engine_begin(d.engine, c, rows, 8, NULL), 0);
		spoil.broken = -EBADF;
		do
			r = engine_advance(d.engine, c);
		while (r >= 0);
		assert_int_equal(r, -EBADF);
		assert_int_equal(engine_seq_length(s), 0);
		assert_int_equal(engine_advance(d.engine, c), ENGINE_IDLE);
		spoil.broken = 0;
		assert_int_equal(engine_begin(d.engine, c, rows, 8, NULL), 0);
		finish(d.engine, c);
		assert_int_equal(engine_seq_length(s), 8);
		engine_seq_free(d.engine, s);
	}
	drive_run(&d, &text, 1, 4, false, 0, &after);
	assert_true(drive_equal(&d, &text, &before, &after));
	drive_stop(&d);
	drive_answers_free(&before, 1);
	drive_answers_free(&after, 1);
}

/* A copy of the file in which one weight is no number. */
static void damage(char *path, uint64_t offset)
{
	static char bytes[1 << 20];
	FILE *f = fopen(the_case.path, "re");
	size_t n;
	int fd;

	assert_non_null(f);
	n = fread(bytes, 1, sizeof bytes, f);
	(void)fclose(f);
	assert_true(n < sizeof bytes && offset + 4 <= n);
	memset(bytes + offset, 0xff, 4);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	(void)close(fd);
}

static void test_not_finite(void **state)
{
	char path[] = "/tmp/moed-nan-XXXXXX";
	struct drive_how h = {.path = the_case.path, .cache = DRIVE_SMALLEST, .threads = 2};
	struct drive_answer sound[2], damaged[2];
	struct victim v;
	struct drive d;

	(void)state;
	drive_start(&d, &h);
	v = find_victim(&d);
	run(&d, (uint32_t[]){v.with, v.without}, sound);
	drive_stop(&d);
	damage(path, v.extent.offset);
	h.path = path;
	drive_start(&d, &h);
	(void)unlink(path);
	run(&d, (uint32_t[]){v.with, v.without}, damaged);
	assert_int_equal(damaged[0].code, -EDOM);
	assert_non_null(strstr(damaged[0].error, "layer"));
	assert_int_equal(damaged[1].code, 0);
	same(&d, &v.without, &sound[1], &damaged[1]);
	drive_stop(&d);
	drive_answers_free(sound, 2);
	drive_answers_free(damaged, 2);
}

static int set_up(void **state)
{
	(void)state;
	engine_case_load(&the_case, "mixtral-f32");
	find_routes();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	engine_case_free(&the_case);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_tried_again),
		cmocka_unit_test(test_unreadable_at_start),
		cmocka_unit_test(test_freed_in_callback),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_not_finite),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
