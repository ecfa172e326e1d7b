/* SPDX-License-Identifier: MIT */
#include "sched-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "num.h"

/* More than decode at once, so that users can take turns in the steps. */
#define SCHED_ACTIVE_PER_ROW 2u
/* Positions that another place has to have more than the session itself, to be worth a look. */
#define SCHED_GAIN 8u

int sched_new(struct sched **ret, const struct sched_config *config)
{
	const size_t rows[ENGINE_CONTEXTS] = {config->live_rows, config->bulk_rows};
	struct sched *s = calloc(1, sizeof *s);

	if (!s)
		return -ENOMEM;
	s->config = *config;
	s->route_bytes = config->desc ? routes_token_bytes(config->desc) : 0;
	list_init(&s->users);
	list_init(&s->idle);
	list_init(&s->over);
	sched_spill_init(s);
	s->scratch = malloc(num_max(sampler_scratch(config->vocabulary), (size_t)1));
	for (size_t c = 0; c < ENGINE_CONTEXTS; ++c) {
		s->steps[c].rows = calloc(rows[c], sizeof *s->steps[c].rows);
		s->steps[c].engine_rows = calloc(rows[c], sizeof *s->steps[c].engine_rows);
		if (!s->scratch || !s->steps[c].rows || !s->steps[c].engine_rows) {
			sched_free(s);
			return -ENOMEM;
		}
	}
	*ret = s;
	return 0;
}

void sched_figures_get(struct sched *s, struct sched_figures *ret)
{
	*ret = (struct sched_figures){
		.queued = atomic_load(&s->queued),
		.active = atomic_load(&s->active),
		.prompt_tokens = atomic_load(&s->prompt_tokens),
		.reused_tokens = atomic_load(&s->reused_tokens),
		.shared_tokens = atomic_load(&s->shared_tokens),
		.generated_tokens = atomic_load(&s->generated_tokens),
		.preemptions = atomic_load(&s->preemptions),
		.evictions = atomic_load(&s->evictions),
	};
	sched_spill_figures(s, &ret->disk);
}

void sched_output(struct sched *s, struct request *r)
{
	if (!atomic_exchange(&r->to_loop, true))
		s->config.post(s->config.arg, SCHED_OUTPUT, r);
}

static struct sched_user *sched_user_get(struct sched *s, uid_t uid)
{
	struct sched_user *u;

	list_for_each(it, &s->users)
	{
		u = list_entry(it, struct sched_user, link);
		if (u->uid == uid)
			return u;
	}
	u = calloc(1, sizeof *u);
	if (!u)
		return NULL;
	u->uid = uid;
	list_init(&u->queued);
	list_init(&u->active);
	list_append(&s->users, &u->link);
	return u;
}

static void sched_users_trim(struct sched *s)
{
	list_for_each_safe(it, &s->users)
	{
		struct sched_user *u = list_entry(it, struct sched_user, link);

		if (list_is_empty(&u->queued) && list_is_empty(&u->active)) {
			list_remove(&u->link);
			free(u);
		}
	}
}

void sched_over(struct sched *s, struct request *r, enum request_finish finish)
{
	if (r->state == REQUEST_OVER)
		return;
	if (r->state == REQUEST_QUEUED)
		atomic_fetch_sub(&s->queued, 1);
	else
		--s->n_active;
	atomic_store(&s->active, s->n_active);
	r->state = REQUEST_OVER;
	r->finish = finish;
	list_remove(&r->user_link);
	list_append(&s->over, &r->over_link);
}

void sched_fail(struct sched *s, struct request *r, int code, const char *text)
{
	if (r->state == REQUEST_OVER)
		return;
	(void)error_set(&r->error, code, "%s", text);
	sched_over(s, r, REQUEST_FAILED);
}

void sched_submit(struct sched *s, struct request *r)
{
	struct sched_user *u = sched_user_get(s, r->uid);

	r->state = REQUEST_QUEUED;
	r->serial = s->serial++;
	r->n_tokens = r->n_prompt;
	r->room_tokens = r->n_prompt;
	answer_init(&r->answer, r->stops, r->n_stops);
	atomic_fetch_add(&s->queued, 1);
	if (!u) {
		sched_fail(s, r, -ENOMEM, "no memory to queue the request");
		return;
	}
	list_append(&u->queued, &r->user_link);
}

void sched_poke(struct sched *s, struct request *r)
{
	if (atomic_load(&r->cancel)) {
		sched_over(s, r, REQUEST_CANCELLED);
		/* It may wait for what it held before. */
		if (r->holds && r->session->file.job)
			atomic_store(&r->session->file.job->stop, true);
	}
	s->config.post(s->config.arg, SCHED_POKED, r);
}

void sched_forgotten(struct sched *s, struct session *session)
{
	if (session->seq)
		list_remove(&session->idle);
	session->seq = session->seq ? engine_seq_free(s->config.engine, session->seq) : NULL;
	free(session->tokens);
	session->tokens = NULL;
	sched_spill_remove(s, session);
	s->config.post(s->config.arg, SCHED_FORGOTTEN, session);
}

void sched_forget(struct sched *s, struct session *session)
{
	if (session->file.job) {
		session->file.forget = true;
		atomic_store(&session->file.job->stop, true);
		return;
	}
	sched_forgotten(s, session);
}

enum sched_evicted {
	SCHED_EVICTED,
	SCHED_EVICTING, /* positions come back once they are written to disk */
	SCHED_EVICTED_NONE,
};

/* Takes the positions of the session that has been idle longest. */
static enum sched_evicted sched_evict(struct sched *s)
{
	list_for_each(it, &s->idle)
	{
		struct session *session = list_entry(it, struct session, idle);

		if (session->file.job || !engine_seq_length(session->seq))
			continue;
		/* One at a time: what comes back may do. */
		if (s->spill.evicts)
			break;
		atomic_fetch_add(&s->evictions, 1);
		return sched_spill_evict(s, session, session->tokens) ? SCHED_EVICTED
								      : SCHED_EVICTING;
	}
	return s->spill.evicts ? SCHED_EVICTING : SCHED_EVICTED_NONE;
}

/* Back to the front of its user's queue; what it held is read or computed again later. */
static void sched_preempt(struct sched *s, struct request *r)
{
	struct sched_user *u = sched_user_get(s, r->uid); /* exists: r is in its list */
	struct session *session = r->session;

	list_remove(&r->user_link);
	list_prepend(&u->queued, &r->user_link);
	session->busy = false;
	session->idle_ns = clock_now();
	r->holds = false;
	list_append(&s->idle, &session->idle);
	r->state = REQUEST_QUEUED;
	--s->n_active;
	atomic_store(&s->active, s->n_active);
	atomic_fetch_add(&s->queued, 1);
	atomic_fetch_add(&s->preemptions, 1);
	/* Whose every position is wanted again has no use for a file. */
	if (!sched_spill_evict(
		    s, session, r->flags & (REQUEST_SCORE | REQUEST_ROUTES) ? NULL : r->tokens))
		atomic_fetch_add(&s->spill.n.preempted, 1);
}

static bool sched_is_starved(const struct request *r)
{
	return r->in_step < 0 && !r->session->file.job && atomic_load(&r->starved);
}

/* One that waits for its client, or NULL; and how many there are. */
static struct request *sched_starved(struct sched *s, uint32_t *ret_n)
{
	struct request *found = NULL;

	*ret_n = 0;
	list_for_each(it, &s->users)
	{
		struct sched_user *u = list_entry(it, struct sched_user, link);

		list_for_each(jt, &u->active)
		{
			struct request *r = list_entry(jt, struct request, user_link);

			if (!sched_is_starved(r))
				continue;
			found = r;
			++*ret_n;
		}
	}
	return found;
}

/* Takes the place of a request whose client does not read.  False: there is none. */
static bool sched_take_place(struct sched *s)
{
	uint32_t n;
	struct request *r = sched_starved(s, &n);

	if (r)
		sched_preempt(s, r);
	return r;
}

static struct request *sched_least_progress(struct sched *s)
{
	struct request *least = NULL;

	list_for_each(it, &s->users)
	{
		struct sched_user *u = list_entry(it, struct sched_user, link);

		list_for_each(jt, &u->active)
		{
			struct request *r = list_entry(jt, struct request, user_link);

			if (r->in_step >= 0 || r->session->file.job)
				continue;
			/* Whose client does not read can wait. */
			if (sched_is_starved(r))
				return r;
			if (!least || r->figures.generated < least->figures.generated ||
				(r->figures.generated == least->figures.generated &&
					r->figures.start_ns > least->figures.start_ns))
				least = r;
		}
	}
	return least;
}

bool sched_reserve(struct sched *s, struct request *r, uint32_t n)
{
	for (;;) {
		enum sched_evicted evicted;
		struct request *victim;
		int k = engine_seq_reserve(s->config.engine, r->session->seq, n);

		if (!k)
			return true;
		if (k != -ENOSPC) {
			sched_fail(s, r, k, "the engine refused positions for the request");
			return false;
		}
		evicted = sched_evict(s);
		if (evicted == SCHED_EVICTED)
			continue;
		if (evicted == SCHED_EVICTING)
			return false;
		if (s->n_active <= 1) {
			if (r->figures.generated) {
				sched_flush(s, r);
				sched_over(s, r, REQUEST_LENGTH);
			} else {
				sched_fail(s, r, -ENOSPC,
					"the prompt needs more positions than memory.limit has "
					"room "
					"for: shorten it, or raise memory.limit");
			}
			return false;
		}
		victim = sched_least_progress(s);
		if (!victim)
			return false;
		sched_preempt(s, victim);
		if (victim == r)
			return false;
	}
}

/* A sequence that holds nothing, of an idle session. */
static bool sched_take_seq(struct sched *s)
{
	list_for_each(it, &s->idle)
	{
		struct session *session = list_entry(it, struct session, idle);

		if (session->file.job || engine_seq_length(session->seq))
			continue;
		list_remove(&session->idle);
		session->seq = engine_seq_free(s->config.engine, session->seq);
		return true;
	}
	return false;
}

/* 0; -EAGAIN: not now; else -errno. */
static int sched_session_seq(struct sched *s, struct session *session)
{
	while (!session->seq) {
		int r = engine_seq_new(s->config.engine, &session->seq);

		if (r != -ENOBUFS)
			return r;
		if (sched_take_seq(s))
			continue;
		switch (sched_evict(s)) {
		case SCHED_EVICTED:
			break;
		case SCHED_EVICTING:
			return -EAGAIN;
		case SCHED_EVICTED_NONE:
			return r;
		}
	}
	return 0;
}

/* Tokens with which both begin; the last one of the prompt is always computed. */
static uint32_t sched_common(const struct request *r, const uint32_t *tokens, uint32_t length)
{
	uint32_t most = num_min(length, r->n_tokens - 1), n = 0;

	/* Whoever wants routes wants those of the whole prompt. */
	if (r->flags & (REQUEST_SCORE | REQUEST_ROUTES) || !tokens)
		return 0;
	while (n < most && tokens[n] == r->tokens[n])
		++n;
	return n;
}

/* The session of the same user, idle or not, that holds most of the prompt: n positions. */
static struct session *sched_relative(
	struct sched *s, struct sched_user *u, const struct request *r, uint32_t *ret_n)
{
	struct session *best = NULL;

	*ret_n = 0;
	list_for_each(it, &s->idle)
	{
		struct session *other = list_entry(it, struct session, idle);
		uint32_t n;

		if (other->uid != r->uid || other == r->session)
			continue;
		n = sched_common(r, other->tokens, engine_seq_length(other->seq));
		if (n > *ret_n) {
			*ret_n = n;
			best = other;
		}
	}
	list_for_each(it, &u->active)
	{
		struct request *other = list_entry(it, struct request, user_link);
		uint32_t length = engine_seq_length(other->session->seq), n;

		/* What is under way may still fail. */
		if (other->in_step >= 0)
			length = num_min(length, other->base);
		n = sched_common(r, other->tokens, length);
		if (n > *ret_n) {
			*ret_n = n;
			best = other->session;
		}
	}
	return best;
}

/* What the prompt begins with, and where that is. */
struct sched_beginning {
	uint32_t n;
	struct session *memory, *disk; /* another session's; at most one of them */
};

static struct sched_beginning sched_beginning(
	struct sched *s, struct sched_user *u, const struct request *r)
{
	const struct session *session = r->session;
	uint32_t n = 0;
	struct sched_beginning b = {0};
	struct session *other;

	if (session->seq)
		b.n = sched_common(r, session->tokens, engine_seq_length(session->seq));
	other = sched_relative(s, u, r, &n);
	if (n >= b.n + SCHED_GAIN)
		b = (struct sched_beginning){.n = n, .memory = other};
	n = sched_spill_find(s, r, &other);
	if (n >= b.n + SCHED_GAIN)
		b = (struct sched_beginning){.n = n, .disk = other};
	return b;
}

/* The sequence of r begins so; nothing more than that is in it. */
static int sched_begin_with(struct sched *s, struct request *r, const struct sched_beginning *b)
{
	struct session *session = r->session;
	uint32_t *tokens;

	if (!b->memory) {
		engine_seq_truncate(s->config.engine, session->seq, b->disk ? 0 : b->n);
		return 0;
	}
	/* It may have to wait in the queue with them. */
	tokens = malloc(b->n * sizeof *tokens);
	if (!tokens || engine_seq_share(s->config.engine, session->seq, b->memory->seq, b->n) < 0) {
		free(tokens);
		return -ENOMEM;
	}
	memcpy(tokens, r->tokens, b->n * sizeof *tokens);
	free(session->tokens);
	session->tokens = tokens;
	atomic_fetch_add(&s->shared_tokens, b->n);
	return 0;
}

/* Room for all of its tokens; 0, -EAGAIN: not now, else -errno. */
static int sched_admit_reserve(struct sched *s, struct request *r)
{
	struct engine_seq *seq = r->session->seq;
	int k;

	while ((k = engine_seq_reserve(
			s->config.engine, seq, r->n_tokens - engine_seq_length(seq))) == -ENOSPC) {
		enum sched_evicted evicted = sched_evict(s);

		if (evicted == SCHED_EVICTING)
			return -EAGAIN;
		if (evicted == SCHED_EVICTED_NONE && !sched_take_place(s))
			break;
	}
	return k == -ENOSPC && s->n_active ? -EAGAIN : k;
}

static void sched_admitted(
	struct sched *s, struct sched_user *u, struct request *r, const struct sched_beginning *b)
{
	struct session *session = r->session;

	session->busy = true;
	session->file.clean = false;
	r->holds = true;
	r->resumed = r->figures.start_ns;
	r->base = engine_seq_length(session->seq);
	free(session->tokens);
	session->tokens = NULL;
	list_remove(&r->user_link);
	list_append(&u->active, &r->user_link);
	r->state = REQUEST_ACTIVE;
	atomic_fetch_sub(&s->queued, 1);
	atomic_store(&s->active, ++s->n_active);
	if (!r->resumed) {
		r->figures.start_ns = clock_now();
		r->figures.reused = b->disk ? 0 : b->n;
		engine_stats(s->config.engine, &r->before);
		atomic_fetch_add(&s->reused_tokens, r->figures.reused);
		atomic_fetch_add(&s->prompt_tokens, r->n_prompt);
	}
	/* Where that cannot even begin, it is computed. */
	if (b->disk)
		(void)sched_spill_load(s, r, b->disk, b->n);
}

/* False: it waits in the queue, and so does everybody behind it. */
static bool sched_admit_one(struct sched *s, struct sched_user *u, struct request *r)
{
	struct session *session = r->session;
	struct sched_beginning b;
	bool had = session->seq;
	int k;

	while ((k = sched_session_seq(s, session)) == -ENOBUFS && sched_take_place(s))
		;
	if (k < 0) {
		if (k == -EAGAIN || (k == -ENOBUFS && s->n_active))
			return false;
		sched_fail(s, r, k, "no room for another session in the engine");
		return true;
	}
	if (had)
		list_remove(&session->idle);
	b = sched_beginning(s, u, r);
	k = sched_begin_with(s, r, &b);
	if (k == 0)
		k = sched_admit_reserve(s, r);
	if (k == 0) {
		sched_admitted(s, u, r, &b);
		return true;
	}
	list_append(&s->idle, &session->idle);
	if (k == -EAGAIN)
		return false;
	sched_fail(s, r, k,
		"the prompt needs more positions than memory.limit has room for: shorten it, or "
		"raise memory.limit");
	return true;
}

static struct request *sched_user_next(const struct sched_user *u)
{
	list_for_each(it, &u->queued)
	{
		struct request *r = list_entry(it, struct request, user_link);

		if (r->session->busy)
			continue;
		if (r->session->file.job) {
			sched_spill_hurry(r->session);
			continue;
		}
		/* One that had to give its place up waits until its client reads. */
		if (!atomic_load(&r->starved))
			return r;
	}
	return NULL;
}

/* Those that wait for their clients take no place. */
static bool sched_has_place(struct sched *s)
{
	uint32_t most = s->config.live_rows * SCHED_ACTIVE_PER_ROW, starved;

	if (s->n_active < most)
		return true;
	(void)sched_starved(s, &starved);
	return s->n_active - starved < most;
}

/* Users take turns: each that was served goes to the end. */
static void sched_admit(struct sched *s)
{
	bool any = true;

	while (any) {
		any = false;
		list_for_each_safe(it, &s->users)
		{
			struct sched_user *u = list_entry(it, struct sched_user, link);
			struct request *r;

			if (!sched_has_place(s))
				return;
			r = sched_user_next(u);
			if (!r)
				continue;
			if (!sched_admit_one(s, u, r))
				return;
			list_remove(&u->link);
			list_append(&s->users, &u->link);
			any = true;
		}
	}
}

static void sched_finish(struct sched *s, struct request *r)
{
	struct session *session = r->session;
	struct engine_stats now;

	list_remove(&r->over_link);
	if (r->holds) {
		if (r->in_step >= 0)
			sched_step_drop(s, r);
		/* What was under way is not complete, or cannot be trusted. */
		if (r->finish == REQUEST_FAILED || r->finish == REQUEST_CANCELLED)
			engine_seq_truncate(s->config.engine, session->seq,
				num_min(r->base, engine_seq_length(session->seq)));
		r->holds = false;
		free(session->tokens);
		session->tokens = steal_ptr(r->tokens);
		atomic_store(&session->held, engine_seq_length(session->seq));
		session->busy = false;
		session->idle_ns = clock_now();
		list_append(&s->idle, &session->idle);
	}
	r->figures.end_ns = clock_now();
	if (r->figures.start_ns) {
		engine_stats(s->config.engine, &now);
		r->figures.io_wait_ns = now.wait_ns - r->before.wait_ns;
		r->figures.hits = now.hits - r->before.hits;
		r->figures.misses = now.misses - r->before.misses;
		r->figures.bytes_read = now.bytes_read - r->before.bytes_read;
		r->figures.bytes_useful = now.bytes_useful - r->before.bytes_useful;
	}
	s->config.post(s->config.arg, SCHED_DONE, r);
}

/* Those that ended well wait for the end of their step: their positions are kept. */
static void sched_finish_all(struct sched *s)
{
	list_for_each_safe(it, &s->over)
	{
		struct request *r = list_entry(it, struct request, over_link);

		if (r->in_step >= 0 && (r->finish == REQUEST_STOP || r->finish == REQUEST_LENGTH))
			continue;
		/* Nor is there an end while a disk writes into its positions. */
		if (r->holds && r->session->file.job)
			continue;
		sched_finish(s, r);
	}
	sched_users_trim(s);
}

/* Whether there is an outcome to hand out; those that wait for a disk get theirs after it. */
static bool sched_has_ended(const struct sched *s)
{
	list_for_each(it, &s->over)
	{
		const struct request *r = list_entry(it, struct request, over_link);

		if (!r->holds || !r->session->file.job)
			return true;
	}
	return false;
}

enum sched_result sched_run(struct sched *s)
{
	enum sched_result live = SCHED_RUN_IDLE, bulk = SCHED_RUN_IDLE;

	sched_spill_poll(s);
	sched_finish_all(s);
	sched_admit(s);
	for (enum engine_context c = 0; c < ENGINE_CONTEXTS; ++c)
		if (!s->steps[c].running)
			sched_step_begin(s, c);
	if (s->steps[ENGINE_LIVE].running)
		live = sched_step_advance(s, ENGINE_LIVE);
	if (s->steps[ENGINE_BULK].running)
		bulk = sched_step_advance(s, ENGINE_BULK);
	sched_spill_ahead(s);
	if (sched_has_ended(s))
		return SCHED_RUN_MORE;
	if (live == SCHED_RUN_MORE || bulk == SCHED_RUN_MORE)
		return SCHED_RUN_MORE;
	return live == SCHED_RUN_WAITING || bulk == SCHED_RUN_WAITING ? SCHED_RUN_WAITING
								      : SCHED_RUN_IDLE;
}

struct sched *sched_free(struct sched *s)
{
	if (!s)
		return NULL;
	list_for_each_safe(it, &s->users)
	{
		struct sched_user *u = list_entry(it, struct sched_user, link);

		list_for_each_safe(jt, &u->queued)
			sched_over(s, list_entry(jt, struct request, user_link), REQUEST_CANCELLED);
		list_for_each_safe(jt, &u->active)
			sched_over(s, list_entry(jt, struct request, user_link), REQUEST_CANCELLED);
	}
	sched_spill_settle(s);
	list_for_each_safe(it, &s->over) sched_finish(s, list_entry(it, struct request, over_link));
	sched_users_trim(s);
	sched_spill_stop(s);
	list_for_each_safe(it, &s->idle)
	{
		struct session *session = list_entry(it, struct session, idle);

		list_remove(&session->idle);
		session->seq = engine_seq_free(s->config.engine, session->seq);
		free(session->tokens);
		session->tokens = NULL;
	}
	sched_spill_deinit(s);
	for (size_t c = 0; c < ENGINE_CONTEXTS; ++c) {
		free(s->steps[c].rows);
		free(s->steps[c].engine_rows);
	}
	free(s->scratch);
	free(s);
	return NULL;
}
