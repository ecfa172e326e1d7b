/* SPDX-License-Identifier: MIT */

/*
 * Which sessions go to state files, when they come back, and what is kept there.
 *
 * A session is written when its positions are wanted by others, ahead of that when it has been idle
 * for a while, and when the daemon ends.  It is read again when a prompt begins as its text does,
 * whoever of the same user asks.  Whatever fails there costs time and nothing else: the positions
 * are computed again.
 */

#include "sched-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "log.h"
#include "num.h"

/* Fewer positions are computed sooner than they are fetched. */
#define SPILL_LEAST 8u
/* Idle for so long, a session is written ahead; where the pool is short, sooner. */
#define SPILL_IDLE (30 * CLOCK_NS_PER_S)
#define SPILL_IDLE_SHORT (2 * CLOCK_NS_PER_S)
/* Of the pool: with less than that free, it is short. */
#define SPILL_SHORT 4u
/* A disk that is full or fails is left alone for so long. */
#define SPILL_REST (60 * CLOCK_NS_PER_S)
/* At the end sessions are written for so long. */
#define SPILL_STOP (10 * CLOCK_NS_PER_S)

struct sched_job {
	struct spill_job job;
	struct list link; /* of sched->spill.jobs */
	struct engine *engine;
	struct engine_seq *seq;
	uint64_t bytes; /* of the file */
};

/* A file that is of no use now: another model's. */
struct sched_stray {
	struct list link;
	uint8_t id[SPILL_ID_SIZE];
	uint64_t bytes;
};

void sched_spill_init(struct sched *s)
{
	list_init(&s->spill.files);
	list_init(&s->spill.strays);
	list_init(&s->spill.jobs);
	if (s->config.spill)
		s->spill.identity = engine_identity(s->config.engine);
}

void sched_spill_figures(struct sched *s, struct sched_disk *ret)
{
	struct sched_counters *n = &s->spill.n;

	*ret = (struct sched_disk){
		.quota = s->config.spill ? s->config.spill_quota : 0,
		.bytes = atomic_load(&n->bytes),
		.files = atomic_load(&n->files),
		.saved = atomic_load(&n->saved),
		.restored = atomic_load(&n->restored),
		.restored_tokens = atomic_load(&n->restored_tokens),
		.preempted = atomic_load(&n->preempted),
		.resumed = atomic_load(&n->resumed),
		.removed = atomic_load(&n->removed),
		.save_ns = atomic_load(&n->save_ns),
		.restore_ns = atomic_load(&n->restore_ns),
		.resting = atomic_load(&n->resting),
	};
	for (int i = 0; i < SCHED_REFUSALS; ++i)
		ret->refused[i] = atomic_load(&n->refused[i]);
}

/* ---- files --------------------------------------------------------------------------------- */

static struct sched_job *spill_job_new(struct sched *s, enum spill_kind kind)
{
	struct sched_job *j = calloc(1, sizeof *j);

	if (!j)
		return NULL;
	j->job.kind = kind;
	j->engine = s->config.engine;
	return j;
}

static void spill_job_submit(struct sched *s, struct sched_job *j)
{
	list_append(&s->spill.jobs, &j->link);
	spill_submit(s->config.spill, &j->job);
}

static void spill_job_free(struct sched_job *j)
{
	list_remove(&j->link);
	free(j->job.tokens);
	free(j);
}

static void spill_remove_id(struct sched *s, const uint8_t *id, uint64_t bytes)
{
	struct sched_job *j = spill_job_new(s, SPILL_REMOVE);

	atomic_fetch_sub(&s->spill.n.bytes, bytes);
	atomic_fetch_add(&s->spill.n.removed, 1);
	/* Without memory it stays, and is found at the next start. */
	if (!j)
		return;
	memcpy(j->job.head.id, id, sizeof j->job.head.id);
	spill_job_submit(s, j);
}

/* There is no file any more, or none that can be used. */
static void spill_drop(struct sched *s, struct session *session)
{
	struct session_file *f = &session->file;

	if (!f->n)
		return;
	list_remove(&f->link);
	free(f->chain);
	f->chain = NULL;
	f->n = 0;
	f->clean = false;
	atomic_fetch_sub(&s->spill.n.files, 1);
	if (!session->busy)
		atomic_store(&session->held, session->seq ? engine_seq_length(session->seq) : 0);
}

void sched_spill_remove(struct sched *s, struct session *session)
{
	uint64_t bytes = session->file.bytes;

	if (!session->file.n)
		return;
	spill_drop(s, session);
	spill_remove_id(s, session->id, bytes);
}

static void spill_refuse(struct sched *s, enum sched_refusal why)
{
	atomic_fetch_add(&s->spill.n.refused[why], 1);
}

static bool spill_rests(struct sched *s)
{
	if (s->spill.rest_end_ns && clock_now() >= s->spill.rest_end_ns) {
		s->spill.rest_end_ns = 0;
		atomic_store(&s->spill.n.resting, false);
	}
	return s->spill.rest_end_ns;
}

/* Counted and said; after a write that failed the disk is left alone for a while. */
static void spill_failed(struct sched *s, const struct spill_job *job)
{
	int code = job->result;

	if (code == -ECANCELED)
		return;
	spill_refuse(s, code == -ENOSPC || code == -EDQUOT || code == -EFBIG ? SCHED_REFUSED_FULL
			: code == -EBADMSG				     ? SCHED_REFUSED_DAMAGED
			: code == -ESTALE				     ? SCHED_REFUSED_FOREIGN
									     : SCHED_REFUSED_ERROR);
	if (job->kind == SPILL_SAVE) {
		s->spill.rest_end_ns = clock_now() + SPILL_REST;
		atomic_store(&s->spill.n.resting, true);
		log_warning("%s; sessions are not written to disk for %llu s", job->error.text,
			(unsigned long long)(SPILL_REST / CLOCK_NS_PER_S));
	} else {
		log_warning("%s; the session is computed again", job->error.text);
	}
}

/* The file that was used last before `before`, or NULL. */
static struct session *spill_oldest(struct sched *s, const struct session *before)
{
	struct session *oldest = NULL;

	list_for_each(it, &s->spill.files)
	{
		struct session *session = list_entry(it, struct session, file.link);

		if (session->file.job || session == before || session->idle_ns > before->idle_ns)
			continue;
		if (!oldest || session->idle_ns < oldest->idle_ns)
			oldest = session;
	}
	return oldest;
}

/* Under the quota there is room for so many bytes more: the oldest files go for it. */
static bool spill_make_room(struct sched *s, struct session *session, uint64_t bytes)
{
	while (atomic_load(&s->spill.n.bytes) + bytes > s->config.spill_quota) {
		struct session *oldest;

		if (!list_is_empty(&s->spill.strays)) {
			struct sched_stray *stray =
				list_entry(s->spill.strays.next, struct sched_stray, link);

			list_remove(&stray->link);
			spill_remove_id(s, stray->id, stray->bytes);
			free(stray);
			continue;
		}
		oldest = spill_oldest(s, session);
		/* At last its own old one. */
		if (!oldest && session->file.n)
			oldest = session;
		if (!oldest)
			return false;
		sched_spill_remove(s, oldest);
	}
	return true;
}

/* ---- to disk ------------------------------------------------------------------------------- */

static void spill_read_seq(void *arg, uint64_t at, void *to, size_t n)
{
	const struct sched_job *j = arg;

	engine_seq_read(j->engine, j->seq, j->job.head.n, at, to, n);
}

static struct spill_head spill_head_of(
	const struct sched *s, const struct session *session, uint32_t n)
{
	struct spill_head head = {
		.identity = s->spill.identity,
		.uid = session->uid,
		.n = n,
		.block = ENGINE_BLOCK,
		.block_bytes = engine_seq_block_bytes(s->config.engine),
		.passing = !session->named,
	};

	memcpy(head.id, session->id, sizeof head.id);
	return head;
}

/* As time stamps of files count. */
static int64_t spill_file_time(uint64_t ns)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * (int64_t)CLOCK_NS_PER_S + t.tv_nsec -
	       (int64_t)(clock_now() - ns);
}

/* False: it does not go to disk. */
static bool spill_save(struct sched *s, struct session *session, const uint32_t *tokens, bool evict)
{
	uint32_t n = session->seq ? engine_seq_length(session->seq) : 0;
	struct sched_job *j;
	uint64_t bytes;

	if (!s->config.spill || !tokens || n < SPILL_LEAST || spill_rests(s))
		return false;
	j = spill_job_new(s, SPILL_SAVE);
	if (!j)
		return false;
	list_init(&j->link);
	j->job.head = spill_head_of(s, session, n);
	j->job.head.used_ns = spill_file_time(session->idle_ns);
	j->job.tokens = malloc(n * sizeof *j->job.tokens);
	bytes = spill_file_size(&j->job.head);
	if (!j->job.tokens || !bytes || bytes > s->config.spill_quota ||
		!spill_make_room(s, session, bytes)) {
		spill_refuse(s, j->job.tokens ? SCHED_REFUSED_QUOTA : SCHED_REFUSED_ERROR);
		spill_job_free(j);
		return false;
	}
	memcpy(j->job.tokens, tokens, n * sizeof *tokens);
	j->job.read = spill_read_seq;
	j->job.arg = j;
	j->job.owner = session;
	j->seq = session->seq;
	j->bytes = bytes;
	atomic_fetch_add(&s->spill.n.bytes, bytes);
	session->file.job = &j->job;
	session->file.evict = evict;
	s->spill.evicts += evict;
	spill_job_submit(s, j);
	return true;
}

static void spill_empty(struct sched *s, struct session *session)
{
	engine_seq_truncate(s->config.engine, session->seq, 0);
	atomic_store(&session->held, session->file.n);
}

bool sched_spill_evict(struct sched *s, struct session *session, const uint32_t *tokens)
{
	/* While the daemon ends nobody comes back for it. */
	if (!session->file.clean && !s->spill.stopping && spill_save(s, session, tokens, true))
		return false;
	spill_empty(s, session);
	return true;
}

void sched_spill_hurry(struct session *session)
{
	if (session->file.job->kind == SPILL_SAVE && !session->file.evict)
		atomic_store(&session->file.job->stop, true);
}

static uint64_t *spill_chain_new(const uint32_t *tokens, uint32_t n)
{
	uint32_t length = spill_chain_length(n, ENGINE_BLOCK);
	uint64_t *chain = calloc(num_max(length, 1u), sizeof *chain), last = 0;

	for (uint32_t i = 0; chain && i < length; ++i) {
		uint32_t at = i * ENGINE_BLOCK;

		last = spill_chain(last, tokens + at, num_min(n - at, ENGINE_BLOCK));
		chain[i] = last;
	}
	return chain;
}

static void spill_saved(struct sched *s, struct sched_job *j)
{
	struct session *session = j->job.owner;
	struct session_file *f = &session->file;
	uint64_t old = f->n ? f->bytes : 0, *chain = NULL;

	if (j->job.result == 0)
		chain = spill_chain_new(j->job.tokens, j->job.head.n);
	if (!chain) {
		atomic_fetch_sub(&s->spill.n.bytes, j->bytes);
		if (j->job.result < 0)
			spill_failed(s, &j->job);
		return;
	}
	atomic_fetch_sub(&s->spill.n.bytes, old);
	atomic_fetch_add(&s->spill.n.saved, 1);
	atomic_fetch_add(&s->spill.n.save_ns, j->job.ns);
	if (!f->n) {
		list_append(&s->spill.files, &f->link);
		atomic_fetch_add(&s->spill.n.files, 1);
	}
	free(f->chain);
	f->chain = chain;
	f->n = j->job.head.n;
	f->bytes = j->bytes;
	f->clean = true;
}

static void spill_save_done(struct sched *s, struct sched_job *j)
{
	struct session *session = j->job.owner;
	struct session_file *f = &session->file;
	bool evict = f->evict;

	spill_saved(s, j);
	f->job = NULL;
	f->evict = false;
	s->spill.evicts -= evict;
	if (f->forget)
		sched_forgotten(s, session);
	else if (evict)
		spill_empty(s, session);
	else if (!f->clean)
		/* Not again at once. */
		session->idle_ns = clock_now();
}

/* ---- back ---------------------------------------------------------------------------------- */

static void spill_write_seq(void *arg, uint64_t at, const void *from, size_t n)
{
	const struct sched_job *j = arg;

	engine_seq_write(j->engine, j->seq, at, from, n);
}

/* Tokens with which both begin, by their chains: whole blocks, or all that the file has. */
static uint32_t spill_common(
	const struct session_file *f, const uint64_t *chain, const uint32_t *tokens, uint32_t n)
{
	uint32_t whole = num_min(n, f->n) / ENGINE_BLOCK, i = 0, at;

	while (i < whole && f->chain[i] == chain[i])
		++i;
	at = i * ENGINE_BLOCK;
	if (i == f->n / ENGINE_BLOCK && f->n > at && f->n <= n &&
		spill_chain(i ? chain[i - 1] : 0, tokens + at, f->n - at) == f->chain[i])
		return f->n;
	return at;
}

uint32_t sched_spill_find(const struct sched *s, const struct request *r, struct session **ret)
{
	uint64_t *chain = NULL;
	uint32_t best = 0;

	*ret = NULL;
	if (r->flags & (REQUEST_SCORE | REQUEST_ROUTES))
		return 0;
	list_for_each(it, &s->spill.files)
	{
		struct session *session = list_entry(it, struct session, file.link);
		uint32_t n;

		if (session->uid != r->uid)
			continue;
		if (!chain)
			chain = spill_chain_new(r->tokens, r->n_tokens);
		if (!chain)
			return 0;
		n = spill_common(&session->file, chain, r->tokens, r->n_tokens);
		if (n > best) {
			best = n;
			*ret = session;
		}
	}
	free(chain);
	/* The last token is always computed. */
	return num_min(best, r->n_tokens - 1);
}

int sched_spill_load(struct sched *s, struct request *r, struct session *from, uint32_t n)
{
	struct sched_job *j = spill_job_new(s, SPILL_LOAD);

	if (!j)
		return -ENOMEM;
	list_init(&j->link);
	j->job.tokens = malloc(n * sizeof *j->job.tokens);
	if (!j->job.tokens) {
		spill_job_free(j);
		return -ENOMEM;
	}
	memcpy(j->job.tokens, r->tokens, n * sizeof *r->tokens);
	j->job.head = spill_head_of(s, from, from->file.n);
	j->job.n = n;
	j->job.write = spill_write_seq;
	j->job.arg = j;
	j->job.owner = r;
	j->seq = r->session->seq;
	from->idle_ns = clock_now();
	r->session->file.job = &j->job;
	spill_job_submit(s, j);
	return 0;
}

static struct session *spill_session(struct sched *s, const uint8_t *id)
{
	list_for_each(it, &s->spill.files)
	{
		struct session *session = list_entry(it, struct session, file.link);

		if (memcmp(session->id, id, sizeof session->id) == 0)
			return session;
	}
	return NULL;
}

static void spill_load_done(struct sched *s, struct sched_job *j)
{
	struct request *r = j->job.owner;
	struct session *from = spill_session(s, j->job.head.id);

	r->session->file.job = NULL;
	if (j->job.result < 0) {
		spill_failed(s, &j->job);
		/* Whatever is the matter with it, it is of no use. */
		if (from && !from->file.job && j->job.result != -ECANCELED)
			sched_spill_remove(s, from);
		return;
	}
	engine_seq_written(s->config.engine, r->session->seq, j->job.n);
	r->base = j->job.n;
	atomic_fetch_add(&s->spill.n.restored, 1);
	atomic_fetch_add(&s->spill.n.restored_tokens, j->job.n);
	atomic_fetch_add(&s->spill.n.restore_ns, j->job.ns);
	if (r->resumed) {
		atomic_fetch_add(&s->spill.n.resumed, 1);
	} else {
		r->figures.reused = j->job.n;
		atomic_fetch_add(&s->reused_tokens, j->job.n);
	}
}

void sched_spill_poll(struct sched *s)
{
	struct spill_job *job;

	while (s->config.spill && (job = spill_take(s->config.spill))) {
		struct sched_job *j = (struct sched_job *)job;

		if (job->kind == SPILL_SAVE)
			spill_save_done(s, j);
		else if (job->kind == SPILL_LOAD)
			spill_load_done(s, j);
		else if (job->result < 0)
			log_warning("%s", job->error.text);
		spill_job_free(j);
	}
}

/* ---- when ---------------------------------------------------------------------------------- */

static bool spill_is_short(const struct sched *s)
{
	uint32_t kv_free, kv_all;

	engine_kv(s->config.engine, &kv_free, &kv_all);
	return kv_free < kv_all / SPILL_SHORT;
}

/* One that is not on disk as it is, and that somebody may come back for. */
static bool spill_is_wanted(const struct session *session)
{
	return session->named && !session->file.job && !session->file.clean && session->tokens &&
	       engine_seq_length(session->seq) >= SPILL_LEAST;
}

uint64_t sched_timeout(const struct sched *s)
{
	uint64_t after = SPILL_IDLE, first = UINT64_MAX;

	if (!s->config.spill || !list_is_empty(&s->spill.jobs))
		return UINT64_MAX;
	if (spill_is_short(s))
		after = SPILL_IDLE_SHORT;
	list_for_each(it, &s->idle)
	{
		const struct session *session = list_entry(it, struct session, idle);

		if (spill_is_wanted(session))
			first = num_min(first, session->idle_ns + after);
	}
	return first == UINT64_MAX ? first : num_max(first, s->spill.rest_end_ns);
}

void sched_spill_ahead(struct sched *s)
{
	uint64_t now;

	if (!s->config.spill || list_is_empty(&s->idle) || !list_is_empty(&s->spill.jobs))
		return;
	now = clock_now();
	if (now < s->spill.next_ns)
		return;
	s->spill.next_ns = sched_timeout(s);
	if (now < s->spill.next_ns) {
		/* Others become idle, and the pool short. */
		s->spill.next_ns = num_min(s->spill.next_ns, now + CLOCK_NS_PER_S);
		return;
	}
	list_for_each(it, &s->idle)
	{
		struct session *session = list_entry(it, struct session, idle);

		if (!spill_is_wanted(session) || now - session->idle_ns < SPILL_IDLE_SHORT)
			continue;
		if (spill_save(s, session, session->tokens, false))
			return;
		/* Too large: not again at once. */
		session->idle_ns = now;
	}
}

void sched_spill_settle(struct sched *s)
{
	s->spill.stopping = true;
	list_for_each(it, &s->spill.jobs)
	{
		struct sched_job *j = list_entry(it, struct sched_job, link);

		if (j->job.kind != SPILL_REMOVE)
			atomic_store(&j->job.stop, true);
	}
	while (!list_is_empty(&s->spill.jobs)) {
		spill_wait(s->config.spill, CLOCK_NS_PER_S);
		sched_spill_poll(s);
	}
}

/* The one that was used last: where time or room is short, it is the one that counts. */
static struct session *spill_last(struct sched *s)
{
	struct session *last = NULL;

	list_for_each(it, &s->idle)
	{
		struct session *session = list_entry(it, struct session, idle);

		if (spill_is_wanted(session) && (!last || session->idle_ns > last->idle_ns))
			last = session;
	}
	return last;
}

void sched_spill_stop(struct sched *s)
{
	uint64_t end = clock_now() + SPILL_STOP;
	struct session *session;

	while (s->config.spill && clock_now() < end && (session = spill_last(s))) {
		uint64_t used_ns = session->idle_ns;

		/* Tried once, whatever comes of it. */
		if (spill_save(s, session, session->tokens, false))
			while (session->file.job && clock_now() < end) {
				spill_wait(s->config.spill, CLOCK_NS_PER_S / 10);
				sched_spill_poll(s);
			}
		session->idle_ns = used_ns;
		free(session->tokens);
		session->tokens = NULL;
	}
	if (s->config.spill)
		sched_spill_settle(s);
}

/* ---- earlier runs -------------------------------------------------------------------------- */

static void spill_stray(struct sched *s, const struct spill_found *found)
{
	struct sched_stray *stray = calloc(1, sizeof *stray);

	spill_refuse(s, SCHED_REFUSED_FOREIGN);
	if (!stray)
		return;
	memcpy(stray->id, found->head.id, sizeof stray->id);
	stray->bytes = found->size;
	atomic_fetch_add(&s->spill.n.bytes, found->size);
	list_append(&s->spill.strays, &stray->link);
}

/* A session of an earlier run, used before all of this one, in their order. */
static void spill_adopt(struct sched *s, struct spill_found *found, uint64_t order)
{
	struct session *session = calloc(1, sizeof *session);

	if (!session)
		return;
	memcpy(session->id, found->head.id, sizeof session->id);
	session->uid = found->head.uid;
	session->named = true;
	session->idle_ns = order;
	atomic_store(&session->held, found->head.n);
	list_init(&session->link);
	list_init(&session->idle);
	session->file.n = found->head.n;
	session->file.bytes = found->size;
	session->file.chain = found->chain;
	found->chain = NULL;
	list_append(&s->spill.files, &session->file.link);
	atomic_fetch_add(&s->spill.n.files, 1);
	atomic_fetch_add(&s->spill.n.bytes, found->size);
	s->config.post(s->config.arg, SCHED_FOUND, session);
}

static bool spill_is_ours(const struct sched *s, const struct spill_head *head)
{
	return head->identity == s->spill.identity && head->block == ENGINE_BLOCK &&
	       head->block_bytes == engine_seq_block_bytes(s->config.engine);
}

void sched_adopt(struct sched *s, struct spill_job *job)
{
	struct spill_scan *scan = &job->scan;
	char text[NUM_SIZE_TEXT_MAX];
	uint64_t bytes = 0;
	size_t first;

	while (!spill_take(s->config.spill))
		spill_wait(s->config.spill, CLOCK_NS_PER_S);
	if (job->result < 0)
		log_warning("%s; sessions of earlier runs are not found", job->error.text);
	if (scan->error.code)
		log_warning("%s", scan->error.text);
	atomic_fetch_add(&s->spill.n.refused[SCHED_REFUSED_DAMAGED], scan->damaged);
	/* The newest, as many as there is room for. */
	for (first = scan->n; first > 0; --first) {
		bytes += scan->found[first - 1].size;
		if (bytes > s->config.spill_quota || scan->n - first == LIMIT_SESSIONS)
			break;
	}
	for (size_t i = 0; i < scan->n; ++i) {
		struct spill_found *found = &scan->found[i];

		if (i < first) {
			atomic_fetch_add(&s->spill.n.bytes, found->size);
			spill_remove_id(s, found->head.id, found->size);
		} else if (spill_is_ours(s, &found->head)) {
			spill_adopt(s, found, i + 1);
		} else {
			spill_stray(s, found);
		}
	}
	spill_scan_deinit(scan);
	bytes = atomic_load(&s->spill.n.bytes);
	if (bytes)
		log_info("%llu sessions of earlier runs on disk, %s; %llu files are of another "
			 "model or build",
			(unsigned long long)atomic_load(&s->spill.n.files),
			num_format_size(bytes, text),
			(unsigned long long)atomic_load(
				&s->spill.n.refused[SCHED_REFUSED_FOREIGN]));
}

void sched_spill_deinit(struct sched *s)
{
	list_for_each_safe(it, &s->spill.files)
	{
		struct session *session = list_entry(it, struct session, file.link);

		list_remove(it);
		free(session->file.chain);
		session->file.chain = NULL;
	}
	list_for_each_safe(it, &s->spill.strays)
	{
		list_remove(it);
		free(list_entry(it, struct sched_stray, link));
	}
}
