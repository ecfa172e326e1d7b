/* SPDX-License-Identifier: MIT */
#include "sched-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "num.h"

/* Longest bytes of one token; no vocabulary in use comes near. */
#define SCHED_PIECE_MAX 1024u
static_assert(3 * SCHED_PIECE_MAX + 16 + LIMIT_STOP_LENGTH <= REQUEST_TEXT_MAX, "event too small");
/* Three events may follow one row: the deferred token, the logits and the token itself. */
#define SCHED_ROOM_TOKEN (3 * (sizeof(struct request_event) + REQUEST_TEXT_MAX + 8))

/* The token of r->token goes out with the text that is ready. */
static void sched_emit(struct sched *s, struct request *r)
{
	size_t n = num_min(r->answer.ready, (size_t)REQUEST_TEXT_MAX);

	r->token.time_ns = clock_now();
	request_out_push(r, &r->token, r->answer.text, n);
	answer_take(&r->answer, n);
	r->deferred = false;
	sched_output(s, r);
}

void sched_flush(struct sched *s, struct request *r)
{
	if (!r->deferred)
		return;
	if (answer_flush(&r->answer) < 0) {
		sched_fail(s, r, -ENOMEM, "no memory for the text of the answer");
		return;
	}
	sched_emit(s, r);
}

/* -1: failed; 0; 1: a stop string is complete. */
static int sched_text(struct sched *s, struct request *r, uint32_t id, bool first)
{
	const char *piece = "";
	size_t n = 0;
	int k = tokenizer_piece(s->config.tokenizer, id, first, false, &piece, &n);

	if (k < 0 || n > SCHED_PIECE_MAX) {
		sched_fail(s, r, k < 0 ? k : -EMSGSIZE,
			"a token of the vocabulary has no usable text");
		return -1;
	}
	k = answer_push(&r->answer, piece, n);
	if (k < 0)
		sched_fail(s, r, k, "no memory for the text of the answer");
	return k < 0 ? -1 : k;
}

static bool sched_append(struct sched *s, struct request *r, uint32_t id)
{
	if (r->n_tokens == r->room_tokens) {
		uint32_t room = r->room_tokens + r->room_tokens / 2 + 64;
		uint32_t *tokens = realloc(r->tokens, (size_t)room * sizeof *tokens);

		if (!tokens) {
			sched_fail(s, r, -ENOMEM, "no memory for the tokens of the answer");
			return false;
		}
		r->tokens = tokens;
		r->room_tokens = room;
	}
	r->tokens[r->n_tokens++] = id;
	return true;
}

/* They go at once: the token may wait for its text, and with it for the next row. */
static void sched_emit_logits(
	struct sched *s, struct request *r, uint32_t id, uint32_t position, const float *logits)
{
	struct request_event e = {.id = id,
		.position = position,
		.flags = REQUEST_EVENT_LOGITS,
		.time_ns = clock_now()};

	if (!(r->flags & REQUEST_LOGITS))
		return;
	memcpy(r->logits, logits, s->config.vocabulary * sizeof *logits);
	atomic_store(&r->logits_full, true);
	request_out_push(r, &e, "", 0);
	sched_output(s, r);
}

static void sched_scored(struct sched *s, struct request *r, uint32_t position, const float *logits)
{
	uint32_t id = r->tokens[position + 1];
	float logprob;
	int k;

	/* Computed again after it had to give its place up. */
	if (position + 1 < r->scored)
		return;
	k = sampler_logprob(
		engine_kernels(s->config.engine), logits, s->config.vocabulary, id, &logprob);

	if (k < 0) {
		sched_fail(s, r, k, "a logit is not finite: the model file may be damaged");
		return;
	}
	r->scored = position + 2;
	if (sched_text(s, r, id, false) < 0)
		return;
	if (r->deferred)
		sched_emit(s, r);
	sched_emit_logits(s, r, id, position + 1, logits);
	r->token = (struct request_event){.id = id,
		.position = position + 1,
		.logprob = logprob,
		.flags = REQUEST_EVENT_TOKEN | REQUEST_EVENT_PROMPT | REQUEST_EVENT_LOGPROB};
	r->deferred = true;
	if (position + 2 == r->n_prompt) {
		sched_flush(s, r);
		sched_over(s, r, REQUEST_LENGTH);
	} else if (!r->answer.utf8.n) {
		sched_emit(s, r);
	}
}

static void sched_generated(
	struct sched *s, struct request *r, uint32_t position, const float *logits)
{
	uint32_t id;
	float logprob = 0.0f;
	bool ends;
	int k = sampler_pick(&r->sampling, engine_kernels(s->config.engine), logits,
		s->config.vocabulary, position + 1, s->scratch, &id,
		r->flags & REQUEST_LOGPROBS ? &logprob : NULL);

	if (k < 0) {
		sched_fail(s, r, k,
			k == -EDOM ? "a logit is not finite: the model file may be damaged"
				   : "the sampling parameters are out of range");
		return;
	}
	if (!r->figures.first_ns)
		r->figures.first_ns = clock_now();
	if (!(r->flags & REQUEST_IGNORE_END) && tokenizer_is_end(s->config.tokenizer, id)) {
		sched_flush(s, r);
		sched_over(s, r, REQUEST_STOP);
		return;
	}
	if (!sched_append(s, r, id))
		return;
	++r->figures.generated;
	atomic_fetch_add(&s->generated_tokens, 1);
	/* What the token before can still have goes with it; the rest comes with this one. */
	if (r->deferred)
		sched_emit(s, r);
	k = sched_text(s, r, id, false);
	if (k < 0)
		return;
	sched_emit_logits(s, r, id, position + 1, logits);
	r->token = (struct request_event){.id = id,
		.position = position + 1,
		.logprob = logprob,
		.flags = REQUEST_EVENT_TOKEN |
			 (r->flags & REQUEST_LOGPROBS ? REQUEST_EVENT_LOGPROB : 0u)};
	r->deferred = true;
	ends = (r->max_tokens && r->figures.generated >= r->max_tokens) ||
	       r->n_tokens > s->config.context;
	if (k == 1) {
		sched_emit(s, r);
		sched_over(s, r, REQUEST_STOP);
	} else if (ends) {
		sched_flush(s, r);
		sched_over(s, r, REQUEST_LENGTH);
	} else if (r->answer.n == r->answer.ready && !r->answer.utf8.n) {
		sched_emit(s, r);
	}
}

__thread struct sched *sched_current;

static void sched_on_logits(void *arg, const float *logits)
{
	struct sched_row *row = arg;
	struct request *r = row->request;

	if (r->state != REQUEST_ACTIVE)
		return;
	if (r->flags & REQUEST_SCORE)
		sched_scored(sched_current, r, row->position, logits);
	else
		sched_generated(sched_current, r, row->position, logits);
}

static void sched_on_error(void *arg, int code, const char *text)
{
	struct sched_row *row = arg;

	sched_fail(sched_current, row->request, code, text);
}

static const struct engine_callbacks sched_callbacks = {
	.on_logits = sched_on_logits,
	.on_route = sched_on_route,
	.on_error = sched_on_error,
};

static bool sched_has_all_room(struct sched *s, struct request *r, size_t n)
{
	return request_out_room(r) >= n && !atomic_load(&r->logits_full) &&
	       sched_routes_rows(s, r, 1);
}

/* Room for n bytes of output; else the loop pokes us when it has read. */
static bool sched_has_room(struct sched *s, struct request *r, size_t n)
{
	if (sched_has_all_room(s, r, n))
		return true;
	atomic_store(&r->starved, true);
	/* It may have read meanwhile: then it has not seen the flag. */
	if (!sched_has_all_room(s, r, n))
		return false;
	atomic_store(&r->starved, false);
	return true;
}

/* The first token of a scored text has no probability. */
static bool sched_score_first(struct sched *s, struct request *r)
{
	if (sched_text(s, r, r->tokens[0], true) < 0)
		return false;
	r->scored = 1;
	r->token = (struct request_event){
		.id = r->tokens[0], .flags = REQUEST_EVENT_TOKEN | REQUEST_EVENT_PROMPT};
	r->deferred = true;
	if (r->n_prompt == 1) {
		sched_flush(s, r);
		sched_over(s, r, REQUEST_LENGTH);
		return false;
	}
	sched_emit(s, r);
	return true;
}

static uint32_t sched_score_rows(struct sched *s, struct request *r, uint32_t at, uint32_t most)
{
	size_t room = request_out_room(r), used = 0;
	uint32_t n = 0;

	most = num_min(most, r->n_prompt - 1 - at);
	if (r->flags & REQUEST_LOGITS)
		most = num_min(most, 1u);
	while (n < most) {
		const char *piece;
		size_t size;

		if (tokenizer_piece(s->config.tokenizer, r->tokens[at + n + 1], false, false,
			    &piece, &size) < 0)
			size = SCHED_PIECE_MAX;
		used += 3 * request_event_size(3 * size + 16);
		if (used > room)
			break;
		++n;
	}
	return n;
}

/* How many rows of r go into a step of context c that has room for `most`. */
static uint32_t sched_rows_of(
	struct sched *s, struct request *r, enum engine_context c, uint32_t most)
{
	uint32_t at = engine_seq_length(r->session->seq), left = r->n_tokens - at;
	bool score = r->flags & REQUEST_SCORE;

	if ((score || left > 1 ? ENGINE_BULK : ENGINE_LIVE) != c || r->session->file.job)
		return 0;
	if (!sched_has_room(s, r, SCHED_ROOM_TOKEN))
		return 0;
	most = sched_routes_rows(s, r, most);
	if (score) {
		if (!r->scored && !sched_score_first(s, r))
			return 0;
		return sched_score_rows(s, r, at, most);
	}
	return num_min(left, most);
}

static void sched_rows_add(struct sched *s, struct sched_step *step, enum engine_context c,
	struct request *r, uint32_t n)
{
	uint32_t at = engine_seq_length(r->session->seq);

	for (uint32_t i = 0; i < n; ++i) {
		bool want = r->flags & REQUEST_SCORE || at + i + 1 == r->n_tokens;
		struct sched_row *row = &step->rows[step->n];

		*row = (struct sched_row){.request = r, .position = at + i};
		step->engine_rows[step->n] = (struct engine_row){
			.seq = r->session->seq,
			.token = r->tokens[at + i],
			.want = (want ? ENGINE_WANT_LOGITS : 0u) |
				(sched_routes_add(s, c, row) ? ENGINE_WANT_ROUTES : 0u),
			.arg = row,
		};
		++step->n;
	}
	r->base = at;
	r->in_step = (int)c;
}

/* The next request of a user that has not been looked at in this round. */
static struct request *sched_user_turn(struct sched *s, struct sched_user *u)
{
	list_for_each(it, &u->active)
	{
		struct request *r = list_entry(it, struct request, user_link);

		if (r->round != s->round && r->in_step < 0) {
			r->round = s->round;
			list_remove(&r->user_link);
			list_append(&u->active, &r->user_link);
			return r;
		}
	}
	return NULL;
}

static uint32_t sched_candidates(struct sched *s)
{
	uint32_t n = 0;

	list_for_each(it, &s->users)
	{
		struct sched_user *u = list_entry(it, struct sched_user, link);

		list_for_each(jt, &u->active)
		{
			struct request *r = list_entry(jt, struct request, user_link);

			n += r->in_step < 0 && !r->session->file.job &&
			     (r->flags & REQUEST_SCORE ||
				     r->n_tokens - engine_seq_length(r->session->seq) > 1);
		}
	}
	return n;
}

/* Users take turns request by request; a chunk is shared by those who prefill. */
static void sched_collect(struct sched *s, enum engine_context c, uint32_t most)
{
	struct sched_step *step = &s->steps[c];
	uint32_t share = most;
	bool any = true;

	if (c == ENGINE_BULK) {
		uint32_t sharers = num_max(sched_candidates(s), 1u);

		share = num_max(most / sharers, 1u);
	}
	++s->round;
	step->n = 0;
	while (any && step->n < most) {
		any = false;
		list_for_each(it, &s->users)
		{
			struct sched_user *u = list_entry(it, struct sched_user, link);
			struct request *r;
			uint32_t n;

			if (step->n >= most)
				break;
			r = sched_user_turn(s, u);
			if (!r)
				continue;
			any = true;
			n = sched_rows_of(s, r, c, num_min(share, most - (uint32_t)step->n));
			/* Only sequences outside of steps lose their place here. */
			if (n && sched_reserve(s, r, n))
				sched_rows_add(s, step, c, r, n);
		}
	}
	/* Another user is the first next time. */
	if (!list_is_empty(&s->users)) {
		struct list *first = s->users.next;

		list_remove(first);
		list_append(&s->users, first);
	}
}

static void sched_step_fail(struct sched *s, struct sched_step *step, int code, const char *text)
{
	for (size_t i = 0; i < step->n; ++i)
		if (step->rows[i].request)
			sched_fail(s, step->rows[i].request, code, text);
}

void sched_step_drop(struct sched *s, struct request *r)
{
	struct sched_step *step = &s->steps[r->in_step];

	engine_drop(s->config.engine, r->session->seq);
	for (size_t i = 0; i < step->n; ++i)
		if (step->rows[i].request == r)
			step->rows[i].request = NULL;
	r->in_step = -1;
}

void sched_step_begin(struct sched *s, enum engine_context c)
{
	struct sched_step *step = &s->steps[c];
	int k;

	sched_collect(s, c, c == ENGINE_LIVE ? s->config.live_rows : s->config.bulk_rows);
	if (!step->n)
		return;
	k = engine_begin(s->config.engine, c, step->engine_rows, step->n, &sched_callbacks);
	if (k < 0) {
		for (size_t i = 0; i < step->n; ++i)
			step->rows[i].request->in_step = -1;
		sched_step_fail(s, step, k, "the engine refused the step");
		sched_routes_end(s, c);
		return;
	}
	step->running = true;
}

/* A request may have gone while its rows were dropped: only those still in this step count. */
static void sched_step_end(struct sched *s, enum engine_context c)
{
	struct sched_step *step = &s->steps[c];

	step->running = false;
	sched_routes_end(s, c);
	for (size_t i = 0; i < step->n; ++i) {
		struct request *r = step->rows[i].request;
		uint32_t done;

		if (!r || r->in_step != (int)c)
			continue;
		r->in_step = -1;
		done = num_min(engine_seq_length(r->session->seq), r->n_prompt);
		if (done != atomic_exchange(&r->computed, done))
			sched_output(s, r);
	}
}

enum sched_result sched_step_advance(struct sched *s, enum engine_context c)
{
	struct sched_step *step = &s->steps[c];
	int k;

	sched_current = s;
	s->routes_context = c;
	k = engine_advance(s->config.engine, c);
	if (k < 0) {
		sched_step_fail(s, step, k, "the engine failed; the log of moed says more");
		step->running = false;
		sched_routes_end(s, c);
		return SCHED_RUN_MORE;
	}
	if (k == ENGINE_WAITING)
		return SCHED_RUN_WAITING;
	if (k == ENGINE_IDLE)
		sched_step_end(s, c);
	return SCHED_RUN_MORE;
}
