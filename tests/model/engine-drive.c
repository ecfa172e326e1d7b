/* SPDX-License-Identifier: MIT */
#include "engine-drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "file.h"
#include "num.h"
#include "store.h"

#define MEMORY ((uint64_t)1 << 30)
#define CONTEXT 1024u

/* One text under way. */
struct run {
	struct drive *drive;
	const struct drive_text *text;
	struct drive_answer *answer;
	struct engine_seq *seq;
	size_t fed; /* rows given to the engine */
	bool busy;
	size_t steps;
};

struct cell {
	struct run *run;
	size_t position;
};

struct side {
	struct cell cells[LIMIT_BULK_ROWS];
	struct engine_row rows[LIMIT_BULK_ROWS];
	struct run *under_way[DRIVE_TEXTS_MAX];
	size_t n_under_way;
};

static size_t slot_size(const struct drive *d, uint32_t layer, uint32_t align)
{
	struct store_expert x = {0};

	for (unsigned p = 0; p < DESC_PARTS; p++) {
		struct desc_weight w = desc_expert(d->desc, layer, 0, p);

		x.part[p] = (struct store_extent){w.file, w.offset, w.size};
	}
	return store_slot_size(&x, align);
}

static void set_slots(struct drive *d, const struct drive_how *how)
{
	uint64_t experts = 0, *slots = &d->plan.use[PLAN_SLOTS], one = 0;
	struct error err = ERROR_NONE;
	struct file file;

	assert_int_equal(file_open(&file, how->path, &err), 0);
	for (uint32_t l = 0; l < d->desc->n_layers; l++) {
		if (!d->desc->layers[l].moe)
			continue;
		experts += d->desc->layers[l].shared ? 1 : d->desc->experts;
		/* The cases have experts of one size. */
		assert_true(one == 0 || one == slot_size(d, l, file.align));
		one = slot_size(d, l, file.align);
	}
	file_close(&file);
	if (how->cache == DRIVE_AMPLE && experts)
		*slots = (experts - 1) * one;
	else if (how->cache == DRIVE_SMALLEST)
		*slots = num_min(experts, (uint64_t)2 * d->desc->top_k) * one;
	else if (how->cache == DRIVE_ONE)
		*slots = one;
}

void drive_start(struct drive *d, const struct drive_how *how)
{
	struct plan_input in = {.limit = MEMORY, .context = CONTEXT, .threads = how->threads};
	struct engine_config config = {.path = how->path,
		.plan = &d->plan,
		.threads = num_max(how->threads, 1u),
		.io = how->io,
		.policy = how->policy,
		.prefetch = how->prefetch,
		.io_new = how->io_new,
		.io_new_arg = how->io_new_arg};
	struct error err = ERROR_NONE;

	if (how->tier)
		(void)setenv("MOED_CPU", how->tier, 1);
	else
		(void)unsetenv("MOED_CPU");
	if (gguf_open(&d->gguf, how->path, &err) < 0 || desc_new(&d->desc, d->gguf, &err) < 0)
		fail_msg("%s", err.text);
	if (how->experts && desc_upcycle(d->desc, how->experts, how->top_k, 0, true, &err) < 0)
		fail_msg("%s", err.text);
	in.desc = config.desc = d->desc;
	if (plan_make(&d->plan, &in, &err) < 0)
		fail_msg("%s", err.text);
	set_slots(d, how);
	if (engine_start(&d->engine, &config, &err) < 0)
		fail_msg("%s", err.text);
	if (!how->bare)
		assert_int_equal(engine_fill(d->engine, how->cache == DRIVE_RESIDENT), 0);
	d->background = how->background;
}

void drive_stop(struct drive *d)
{
	uint32_t free_positions, all;

	engine_kv(d->engine, &free_positions, &all);
	assert_int_equal(free_positions, all);
	engine_free(d->engine);
	desc_free(d->desc);
	gguf_free(d->gguf);
}

static void on_logits(void *arg, const float *logits)
{
	struct cell *c = arg;
	struct run *r = c->run;
	size_t n = r->drive->desc->vocabulary;
	struct drive_answer *a = r->answer;

	if (c->position < r->text->n)
		memcpy(a->logits + c->position * n, logits, n * sizeof *logits);
	if (c->position + 1 >= r->text->n && a->n_tokens < r->steps) {
		void *scratch = malloc(sampler_scratch(n));

		assert_non_null(scratch);
		assert_int_equal(c->position + 1, r->text->n + a->n_tokens);
		assert_int_equal(sampler_pick(&r->text->sampling, engine_kernels(r->drive->engine),
					 logits, n, c->position + 1, scratch,
					 &a->tokens[a->n_tokens], &a->logprobs[a->n_tokens]),
			0);
		a->n_tokens++;
		free(scratch);
	}
}

static void on_error(void *arg, int code, const char *text)
{
	struct cell *c = arg;
	struct drive_answer *a = c->run->answer;

	if (a->errors++)
		return;
	a->code = code;
	(void)snprintf(a->error, sizeof a->error, "%s", text);
}

/* What the text can still give to a step of this kind. */
static size_t wanted(const struct run *r, enum engine_context c)
{
	if (r->busy || r->answer->code)
		return 0;
	if (r->fed < r->text->n)
		return c == ENGINE_BULK ? r->text->n - r->fed : 0;
	return c == ENGINE_LIVE && r->answer->n_tokens < r->steps;
}

static void add_rows(struct side *s, struct run *r, size_t at, size_t n)
{
	assert_int_equal(engine_seq_length(r->seq), r->fed);
	assert_int_equal(engine_seq_reserve(r->drive->engine, r->seq, (uint32_t)n), 0);
	for (size_t i = 0; i < n; i++, r->fed++) {
		s->cells[at + i] = (struct cell){r, r->fed};
		s->rows[at + i] = (struct engine_row){.seq = r->seq,
			.token = r->fed < r->text->n ? r->text->ids[r->fed]
						     : r->answer->tokens[r->fed - r->text->n],
			.want = ENGINE_WANT_LOGITS,
			.arg = &s->cells[at + i]};
	}
	r->busy = true;
	s->under_way[s->n_under_way++] = r;
}

/* A tile of this side; begins a step where there is none. */
static int turn(struct side *s, struct drive *d, enum engine_context c, struct run *runs, size_t n,
	size_t most)
{
	static const struct engine_callbacks callbacks = {
		.on_logits = on_logits, .on_error = on_error};
	int r;

	if (s->n_under_way == 0) {
		size_t rows = 0;

		for (size_t i = 0; i < n && rows < most; i++) {
			size_t take = num_min(wanted(&runs[i], c), most - rows);

			if (take)
				add_rows(s, &runs[i], rows, take);
			rows += take;
		}
		if (rows == 0)
			return ENGINE_IDLE;
		assert_int_equal(engine_begin(d->engine, c, s->rows, rows, &callbacks), 0);
	}
	r = engine_advance(d->engine, c);
	assert_in_range(r, ENGINE_IDLE, ENGINE_WAITING);
	if (r != ENGINE_IDLE)
		return r;
	while (s->n_under_way)
		s->under_way[--s->n_under_way]->busy = false;
	return ENGINE_MORE;
}

static void run_group(struct drive *d, struct run *runs, size_t n, uint32_t chunk)
{
	struct side *sides = calloc(ENGINE_CONTEXTS, sizeof *sides);
	size_t most[ENGINE_CONTEXTS] = {
		[ENGINE_LIVE] = d->plan.live_rows, [ENGINE_BULK] = d->plan.bulk_rows};

	assert_non_null(sides);
	if (chunk)
		most[ENGINE_BULK] = num_min(chunk, d->plan.bulk_rows);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(engine_seq_new(d->engine, &runs[i].seq), 0);
	for (;;) {
		int r[ENGINE_CONTEXTS];

		for (unsigned c = 0; c < ENGINE_CONTEXTS; c++)
			r[c] = turn(&sides[c], d, c, runs, n, most[c]);
		if (d->background)
			assert_in_range(
				engine_background(d->engine, true), ENGINE_IDLE, ENGINE_WAITING);
		if (r[ENGINE_LIVE] == ENGINE_IDLE && r[ENGINE_BULK] == ENGINE_IDLE)
			break;
		if (r[ENGINE_LIVE] != ENGINE_MORE && r[ENGINE_BULK] != ENGINE_MORE)
			assert_int_equal(engine_wait(d->engine, CLOCK_NS_PER_S), 0);
	}
	for (size_t i = 0; i < n; i++)
		engine_seq_free(d->engine, runs[i].seq);
	free(sides);
}

void drive_run(struct drive *d, const struct drive_text *texts, size_t n, size_t steps,
	bool together, uint32_t chunk, struct drive_answer *answers)
{
	struct run runs[DRIVE_TEXTS_MAX];

	assert_true(n <= DRIVE_TEXTS_MAX && steps <= DRIVE_STEPS_MAX);
	for (size_t i = 0; i < n; i++) {
		answers[i] = (struct drive_answer){
			.logits = calloc(texts[i].n * d->desc->vocabulary, sizeof(float))};
		assert_non_null(answers[i].logits);
		runs[i] = (struct run){
			.drive = d, .text = &texts[i], .answer = &answers[i], .steps = steps};
	}
	if (together)
		run_group(d, runs, n, chunk);
	for (size_t i = 0; !together && i < n; i++)
		run_group(d, &runs[i], 1, chunk);
}

void drive_answers_free(struct drive_answer *answers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(answers[i].logits);
}

bool drive_equal(const struct drive *d, const struct drive_text *text, const struct drive_answer *a,
	const struct drive_answer *b)
{
	return a->code == b->code && a->n_tokens == b->n_tokens &&
	       memcmp(a->logits, b->logits, text->n * d->desc->vocabulary * sizeof(float)) == 0 &&
	       memcmp(a->tokens, b->tokens, sizeof a->tokens) == 0 &&
	       memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) == 0;
}
