/* SPDX-License-Identifier: MIT */
#include "engine-thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "log.h"
#include "num.h"
#include "warm.h"

/* A message that comes while only reads are awaited is seen after at most so long. */
#define ENGINE_THREAD_WAIT (2 * CLOCK_NS_PER_MS)
/* Without work, what the cache learned is kept when it is older than this. */
#define ENGINE_THREAD_KEEP (600 * CLOCK_NS_PER_S)

struct engine_thread {
	struct engine_thread_config config;
	pthread_t thread;
	bool joinable;
	int to_loop, to_engine; /* eventfds */
	struct queue in, out;
	_Atomic(bool) stop, settle, asleep, signalled;
	_Atomic(int) state, pressure;
	_Atomic(unsigned) percent, phase;
	_Atomic(uint64_t) beat, filled_ns, less;
	_Atomic(struct engine *) engine;
	_Atomic(struct sched *) sched;
	_Atomic(uint32_t) kv_free, kv_all;
	struct spill *spill; /* NULL: nothing goes to disk */
	struct spill_job scan;
	uint64_t kept, kept_ns; /* experts wanted when the cache's state was kept; when */
	struct error error;
};

static void engine_thread_signal(struct engine_thread *t)
{
	uint64_t one = 1;

	if (!atomic_exchange(&t->signalled, true))
		(void)!write(t->to_loop, &one, sizeof one);
}

static int engine_thread_progress(void *arg, enum engine_phase phase, uint64_t done, uint64_t all)
{
	/* Shares of the time that loading takes, roughly. */
	static const unsigned begin[] = {0, 80}, end[] = {80, 100};
	struct engine_thread *t = arg;
	unsigned percent = begin[phase];

	if (all)
		percent += (unsigned)((double)(end[phase] - begin[phase]) *
				      ((double)num_min(done, all) / (double)all));
	atomic_fetch_add(&t->beat, 1);
	atomic_store(&t->phase, (unsigned)phase);
	if (atomic_exchange(&t->percent, percent) != percent)
		engine_thread_signal(t);
	return atomic_load(&t->stop) ? 1 : 0;
}

static void engine_thread_post(void *arg, uint32_t type, void *object)
{
	struct engine_thread *t = arg;

	/* Cannot be full: see queue.h. */
	(void)queue_push(&t->out, type, object);
	engine_thread_signal(t);
}

static void engine_thread_experts(struct engine_thread *t, struct popularity *p)
{
	engine_popularity(atomic_load(&t->engine), p);
	engine_thread_post(t, SCHED_EXPERTS, p);
}

static bool engine_thread_messages(struct engine_thread *t, struct sched *s)
{
	struct queue_message m;
	bool any = false;

	while (queue_pop(&t->in, &m)) {
		any = true;
		if (m.type == SCHED_SUBMIT)
			sched_submit(s, m.object);
		else if (m.type == SCHED_POKE)
			sched_poke(s, m.object);
		else if (m.type == SCHED_FORGET)
			sched_forget(s, m.object);
		else if (m.type == SCHED_TRACE)
			sched_trace(s, m.object);
		else if (m.type == SCHED_UNTRACE)
			sched_untrace(s, m.object);
		else if (m.type == SCHED_EXPERTS)
			engine_thread_experts(t, m.object);
	}
	return any;
}

static int engine_thread_sleep_ms(const struct sched *s)
{
	uint64_t until = sched_timeout(s), now = clock_now();

	if (until == UINT64_MAX)
		return -1;
	return until <= now ? 0
			    : (int)num_min((until - now) / CLOCK_NS_PER_MS + 1, (uint64_t)60000);
}

static void engine_thread_sleep(struct engine_thread *t, struct sched *s)
{
	struct pollfd p = {.fd = t->to_engine, .events = POLLIN};
	uint64_t n;

	atomic_store(&t->asleep, true);
	if (!engine_thread_messages(t, s) && !atomic_load(&t->stop))
		(void)poll(&p, 1, engine_thread_sleep_ms(s));
	atomic_store(&t->asleep, false);
	(void)!read(t->to_engine, &n, sizeof n);
}

/* What cannot be given now, since it is read or computed with, is tried again after a tile. */
static void engine_thread_relieve(struct engine_thread *t, struct engine *engine)
{
	int advice = atomic_load(&t->pressure), done = advice;

	engine_set_less(engine, atomic_load(&t->less));
	while (engine_owes(engine) > 0 && engine_give_back(engine) > 0)
		;
	if (advice == PRESSURE_NONE)
		return;
	if (advice == PRESSURE_GIVE_BACK && engine_give_back(engine) == 0)
		return;
	/* Where the system has none, there will be another advice. */
	if (advice == PRESSURE_TAKE_AGAIN)
		(void)engine_take_again(engine);
	(void)atomic_compare_exchange_strong(&t->pressure, &done, PRESSURE_NONE);
}

static void engine_thread_kv(struct engine_thread *t, const struct engine *engine)
{
	uint32_t kv_free, kv_all;

	engine_kv(engine, &kv_free, &kv_all);
	atomic_store(&t->kv_free, kv_free);
	atomic_store(&t->kv_all, kv_all);
}

/*
 * Memory that is still to come, and experts that nobody wants yet.  Never where it would keep
 * somebody waiting, and not any more once the daemon is about to end.
 */
static enum engine_result engine_thread_background(
	struct engine_thread *t, struct engine *engine, bool busy)
{
	enum engine_result result;

	if (atomic_load(&t->settle)) {
		engine_background_stop(engine);
		return ENGINE_IDLE;
	}
	result = engine_background(engine, busy);
	if (!atomic_load(&t->filled_ns) && engine_is_filled(engine)) {
		atomic_store(&t->filled_ns, clock_now());
		engine_thread_signal(t);
	}
	return result;
}

/* What the cache of experts learned is kept: nothing depends on it but speed. */
static void engine_thread_keep(struct engine_thread *t, const struct engine *engine)
{
	struct error err = ERROR_NONE;
	struct engine_stats stats;

	engine_stats(engine, &stats);
	if (stats.hits + stats.misses == t->kept)
		return;
	if (warm_save(t->config.state_folder, engine, &err) < 0)
		log_warning("%s: after a restart other experts are read first", err.text);
	t->kept = stats.hits + stats.misses;
	t->kept_ns = clock_now();
}

static void engine_thread_warm(struct engine_thread *t, struct engine *engine)
{
	struct error err = ERROR_NONE;
	int r = warm_load(t->config.state_folder, engine, &err);

	if (r == -ESTALE)
		log_info("%s: experts are read in the order of the model file", err.text);
	else if (r < 0)
		log_warning("%s: experts are read in the order of the model file", err.text);
	else if (r == WARM_USED)
		log_info("experts of the last run are read first");
	t->kept_ns = clock_now();
}

static void engine_thread_serve(struct engine_thread *t, struct engine *engine, struct sched *s)
{
	while (!atomic_load(&t->stop)) {
		enum engine_result background;
		enum sched_result result;

		(void)engine_thread_messages(t, s);
		engine_thread_relieve(t, engine);
		result = sched_run(s);
		background = engine_thread_background(t, engine, result != SCHED_RUN_IDLE);
		/* Waiting for a disk is no progress, unless nobody else does. */
		if (result != SCHED_RUN_WAITING)
			atomic_fetch_add(&t->beat, 1);
		engine_thread_kv(t, engine);
		if (result == SCHED_RUN_WAITING ||
			(result == SCHED_RUN_IDLE && background == ENGINE_WAITING)) {
			(void)engine_wait(engine, ENGINE_THREAD_WAIT);
		} else if (result == SCHED_RUN_IDLE && background == ENGINE_IDLE) {
			if (clock_now() - t->kept_ns > ENGINE_THREAD_KEEP)
				engine_thread_keep(t, engine);
			engine_thread_sleep(t, s);
			engine_rested(engine);
		}
	}
	engine_background_stop(engine);
}

static void *engine_thread_main(void *arg)
{
	struct engine_thread *t = arg;
	struct engine_config config = t->config.engine;
	struct sched_config sched_config;
	struct engine *engine = NULL;
	struct sched *s = NULL;
	int r;

	/* Both read at once. */
	t->scan.kind = SPILL_SCAN;
	if (t->spill)
		spill_submit(t->spill, &t->scan);
	config.progress = engine_thread_progress;
	config.progress_arg = t;
	r = engine_start(&engine, &config, &t->error);
	if (r >= 0) {
		sched_config = (struct sched_config){
			.engine = engine,
			.tokenizer = t->config.tokenizer,
			.vocabulary = config.desc->vocabulary,
			.desc = config.desc,
			.context = t->config.context,
			.live_rows = t->config.live_rows,
			.bulk_rows = t->config.bulk_rows,
			.post = engine_thread_post,
			.arg = t,
			.spill = t->spill,
			.spill_quota = t->config.spill_quota,
		};
		r = sched_new(&s, &sched_config);
	}
	if (r >= 0 && t->spill)
		sched_adopt(s, &t->scan);
	if (r < 0) {
		(void)error_errno(&t->error, r, "cannot start the engine");
		engine_free(engine);
		atomic_store(&t->state, ENGINE_THREAD_FAILED);
		engine_thread_signal(t);
		return NULL;
	}
	engine_thread_warm(t, engine);
	engine_thread_kv(t, engine);
	atomic_store(&t->engine, engine);
	atomic_store(&t->sched, s);
	atomic_store(&t->state, ENGINE_THREAD_READY);
	engine_thread_signal(t);
	engine_thread_serve(t, engine, s);
	engine_thread_keep(t, engine);
	/* What came last is given back too. */
	(void)engine_thread_messages(t, s);
	sched_free(s);
	engine_free(engine);
	atomic_store(&t->state, ENGINE_THREAD_ENDED);
	engine_thread_signal(t);
	return NULL;
}

static void engine_thread_wake(struct engine_thread *t)
{
	uint64_t one = 1;

	(void)!write(t->to_engine, &one, sizeof one);
}

/* By the spill thread. */
static void engine_thread_spilled(void *arg)
{
	struct engine_thread *t = arg;

	engine_thread_wake(t);
}

int engine_thread_new(struct engine_thread **ret, const struct engine_thread_config *config)
{
	struct engine_thread *t = calloc(1, sizeof *t);
	sigset_t all, before;
	int r;

	if (!t)
		return -ENOMEM;
	t->config = *config;
	t->to_loop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->to_engine = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->to_loop < 0 || t->to_engine < 0) {
		r = -errno;
		engine_thread_free(t);
		return r;
	}
	if (t->config.spill_folder >= 0 && t->config.spill_quota) {
		struct spill_config spill = {.folder = t->config.spill_folder,
			.wake = engine_thread_spilled,
			.wake_arg = t};
		struct error err = ERROR_NONE;

		/* It works without. */
		if (spill_new(&t->spill, &spill, &err) < 0)
			log_warning("%s", error_text(&err, 0));
	}
	/* Signals are the loop's; the threads of the team inherit this. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&t->thread, NULL, engine_thread_main, t);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		engine_thread_free(t);
		return r;
	}
	t->joinable = true;
	*ret = t;
	return 0;
}

void engine_thread_join(struct engine_thread *t)
{
	if (!t->joinable)
		return;
	engine_thread_stop(t);
	(void)pthread_join(t->thread, NULL);
	t->joinable = false;
}

struct engine_thread *engine_thread_free(struct engine_thread *t)
{
	if (!t)
		return NULL;
	engine_thread_join(t);
	spill_free(t->spill);
	spill_scan_deinit(&t->scan.scan);
	fd_close(t->to_loop);
	fd_close(t->to_engine);
	free(t);
	return NULL;
}

int engine_thread_fd(const struct engine_thread *t)
{
	return t->to_loop;
}

enum engine_thread_state engine_thread_state(const struct engine_thread *t)
{
	return (enum engine_thread_state)atomic_load(&t->state);
}

const struct error *engine_thread_error(const struct engine_thread *t)
{
	return &t->error;
}

unsigned engine_thread_percent(const struct engine_thread *t, enum engine_phase *ret_phase)
{
	*ret_phase = (enum engine_phase)atomic_load(&t->phase);
	return atomic_load(&t->percent);
}

uint64_t engine_thread_beat(const struct engine_thread *t)
{
	return atomic_load(&t->beat);
}

bool engine_thread_idle(const struct engine_thread *t)
{
	return atomic_load(&t->asleep);
}

void engine_thread_ack(struct engine_thread *t)
{
	uint64_t n;

	(void)!read(t->to_loop, &n, sizeof n);
	atomic_store(&t->signalled, false);
}

bool engine_thread_take(struct engine_thread *t, struct queue_message *ret)
{
	return queue_pop(&t->out, ret);
}

void engine_thread_send(struct engine_thread *t, uint32_t type, void *object)
{
	(void)queue_push(&t->in, type, object);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&t->asleep))
		engine_thread_wake(t);
}

void engine_thread_pressure(struct engine_thread *t, enum pressure_advice advice)
{
	if (atomic_exchange(&t->pressure, (int)advice) != (int)advice && advice != PRESSURE_NONE)
		engine_thread_wake(t);
}

void engine_thread_less(struct engine_thread *t, uint64_t bytes)
{
	if (atomic_exchange(&t->less, bytes) != bytes)
		engine_thread_wake(t);
}

void engine_thread_stop(struct engine_thread *t)
{
	atomic_store(&t->stop, true);
	engine_thread_wake(t);
}

void engine_thread_settle(struct engine_thread *t)
{
	atomic_store(&t->settle, true);
	engine_thread_wake(t);
}

uint64_t engine_thread_filled(const struct engine_thread *t)
{
	return atomic_load(&t->filled_ns);
}

uint64_t engine_thread_huge(struct engine_thread *t)
{
	const struct engine *engine = atomic_load(&t->engine);

	return engine ? engine_huge_bytes(engine) : 0;
}

uint32_t engine_thread_disks(struct engine_thread *t, const struct engine_disk **ret)
{
	const struct engine *engine = atomic_load(&t->engine);

	*ret = NULL;
	return engine ? engine_disks(engine, ret) : 0;
}

void engine_thread_stats(struct engine_thread *t, struct engine_stats *ret,
	struct sched_figures *ret_figures, uint32_t *ret_kv_free, uint32_t *ret_kv_all)
{
	*ret = (struct engine_stats){0};
	*ret_figures = (struct sched_figures){0};
	*ret_kv_free = atomic_load(&t->kv_free);
	*ret_kv_all = atomic_load(&t->kv_all);
	/* Once it is told to stop, both may go away at any moment. */
	if (engine_thread_state(t) != ENGINE_THREAD_READY || atomic_load(&t->stop))
		return;
	engine_stats(atomic_load(&t->engine), ret);
	sched_figures_get(atomic_load(&t->sched), ret_figures);
}
