/* SPDX-License-Identifier: MIT */
#include "manager.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "limit.h"
#include "log.h"
#include "num.h"

#define MANAGER_EVENTS 64
#define MANAGER_ACCEPTS 32u
/* Timers are coarse: hello deadlines, drain, watchdog. */
#define MANAGER_TICK_MS 500
/* Of the plan's reserve, for what clients make the loop keep. */
#define MANAGER_HEAP_SHARE 4u
#define MANAGER_HEAP_LEAST (2u << 20)
/* One line about failed requests in so much time; the status counts all. */
#define MANAGER_FAILED_EVERY (10 * CLOCK_NS_PER_S)
/* After a ping that says that another follows. */
#define MANAGER_SPIN_ROUNDS 64u
#define MANAGER_SPIN (100 * CLOCK_NS_PER_US)
/* While the engine works without moving for so long, the watchdog is not fed. */
#define MANAGER_STUCK (20 * CLOCK_NS_PER_S)

int manager_watch(struct manager *m, int fd, void *source)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = source};

	return epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static int manager_signals(struct manager *m)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	/* A file that may not grow (LimitFSIZE=) is an error of the write. */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
		signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
		return -errno;
	m->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return m->signals < 0 ? -errno : 0;
}

static int manager_watch_pressure(struct manager *m)
{
	struct epoll_event e = {.events = m->budget.pressure.events, .data.ptr = &m->budget};

	if (m->budget.pressure.fd < 0)
		return 0;
	return epoll_ctl(m->epoll, EPOLL_CTL_ADD, m->budget.pressure.fd, &e) < 0 ? -errno : 0;
}

int manager_init(struct manager *m, struct error *err)
{
	const struct config *c = &m->config;
	struct group *group = getgrnam("moed-admin");
	struct engine_thread_config config = {
		.engine =
			{
				.path = c->model,
				.desc = m->load.desc,
				.plan = &m->load.plan,
				.threads = m->load.threads,
				.pin = c->pin,
				.disks = m->disks.known,
				.probe = true,
				.must_lock = c->memory_lock == CONFIG_LOCK_REQUIRED,
				.prefetch = ENGINE_PREFETCH_AUTO,
				.io = c->io == CONFIG_IO_URING	 ? ENGINE_IO_URING
				      : c->io == CONFIG_IO_PREAD ? ENGINE_IO_PREAD
								 : ENGINE_IO_AUTO,
			},
		.tokenizer = m->load.tokenizer,
		.context = m->load.context,
		.live_rows = m->load.plan.live_rows,
		.bulk_rows = m->load.plan.bulk_rows,
		.state_folder = m->folder->folder,
		.spill_folder = m->folder->sessions,
		.spill_quota = c->sessions_on_disk,
	};
	int r;

	list_init(&m->clients);
	list_init(&m->dead);
	list_init(&m->sessions);
	list_init(&m->orphans);
	list_init(&m->traces);
	m->signals = -1;
	budget_init(&m->budget, &m->load);
	disks_load(&m->disks, m->folder ? m->folder->folder : -1);
	config.engine.n_disks = m->disks.n;
	m->clients_max = (uint32_t)num_min(
		m->load.plan.use[PLAN_SEGMENTS] / (2 * segment_size(LIMIT_RING_MIN)),
		(uint64_t)LIMIT_CLIENTS);
	m->heap_max = num_max(
		m->load.plan.use[PLAN_RESERVE] / MANAGER_HEAP_SHARE, (uint64_t)MANAGER_HEAP_LEAST);
	/* Hostile text costs memory and time to tokenize: none is spent on what cannot fit. */
	m->prompt_max = tokenizer_most_bytes(m->load.tokenizer, m->load.context);
	m->prompt_max = num_min(m->prompt_max, m->heap_max / 2);
	m->prompt_max = num_min(m->prompt_max, LIMIT_PROMPT);
	m->engine_ns = clock_now();
	m->has_admin_gid = group;
	m->admin_gid = group ? group->gr_gid : 0;
	notify_init(&m->notify);
	m->epoll = epoll_create1(EPOLL_CLOEXEC);
	r = m->epoll < 0 ? -errno : manager_signals(m);
	if (r >= 0)
		r = manager_watch(m, m->signals, &m->signals);
	if (r >= 0)
		r = manager_watch(m, m->listener, &m->listener);
	if (r >= 0)
		r = engine_thread_new(&m->engine, &config);
	/* The service manager hears at once that this may take its time. */
	if (r >= 0)
		notify_loading(&m->notify, 0, "dense weights");
	if (r >= 0)
		r = manager_watch(m, engine_thread_fd(m->engine), &m->engine);
	if (r >= 0)
		r = manager_watch_pressure(m);
	return r < 0 ? error_errno(err, r, "cannot set up the event loop") : 0;
}

static void manager_bury(struct manager *m)
{
	list_for_each_safe(it, &m->dead) client_free(list_entry(it, struct client, link));
}

/* ---- requests ---------------------------------------------------------------------------- */

void manager_submit(struct manager *m, struct request *r)
{
	++m->n_requests;
	++r->session->requests;
	r->session->used_ns = r->submit_ns;
	engine_thread_send(m->engine, SCHED_SUBMIT, r);
}

void manager_poke(struct manager *m, struct request *r)
{
	if (r->done)
		return;
	if (r->poked) {
		r->poke_again = true;
		return;
	}
	r->poked = true;
	engine_thread_send(m->engine, SCHED_POKE, r);
}

void manager_release(struct manager *m, struct request *r)
{
	if (r->client || !r->done || r->poked)
		return;
	(void)manager_heap(m, -(int64_t)r->heap, NULL);
	request_free(r);
}

int manager_heap(struct manager *m, int64_t change, struct error *err)
{
	if (change > 0 && m->heap + (uint64_t)change > m->heap_max)
		return error_set(err, -ENOBUFS,
			"moed holds as much for requests as its memory allows: try again later");
	m->heap += (uint64_t)change;
	return 0;
}

uint64_t manager_heap_room(const struct manager *m)
{
	return m->heap < m->heap_max ? (m->heap_max - m->heap) / 2 : 0;
}

void manager_spin(struct manager *m)
{
	if (m->state == MANAGER_READY && m->load.threads > 1 && engine_thread_idle(m->engine))
		m->spin_end_ns = clock_now() + MANAGER_SPIN;
}

bool manager_spins(const struct manager *m)
{
	return m->spin_end_ns;
}

void manager_totals(const struct manager *m, struct state_totals *ret)
{
	const struct state_totals *before = &m->folder->before;
	struct sched_figures f;
	struct engine_stats e;
	uint32_t kv_free, kv_all;

	engine_thread_stats(m->engine, &e, &f, &kv_free, &kv_all);
	*ret = (struct state_totals){
		.starts = before->starts + 1,
		.requests = before->requests + m->n_finished + m->n_failed,
		.failed = before->failed + m->n_failed,
		.prompt_tokens = before->prompt_tokens + f.prompt_tokens,
		.generated_tokens = before->generated_tokens + f.generated_tokens,
		.bytes_read = before->bytes_read + e.bytes_read,
	};
}

static void manager_pump(struct client *c)
{
	c->pumped = true;
	client_pump(c);
}

/* The administrator learns of disks and models that fail, not of prompts that are too long. */
static void manager_log_failed(struct manager *m, const struct request *r)
{
	uint64_t now = clock_now();

	if (r->finish != REQUEST_FAILED || r->error.code == -ENOSPC)
		return;
	if (m->failed_ns && now - m->failed_ns < MANAGER_FAILED_EVERY)
		return;
	m->failed_ns = now;
	log_error("a request failed: %s", error_text(&r->error, r->error.code));
}

static void manager_done(struct manager *m, struct request *r)
{
	struct session *session = r->session;

	manager_log_failed(m, r);

	r->done = true;
	--m->n_requests;
	--session->requests;
	session->used_ns = clock_now();
	manager_session_release(m, session);
	if (r->client)
		manager_pump(r->client);
	else
		manager_release(m, r);
}

static void manager_poked(struct manager *m, struct request *r)
{
	r->poked = false;
	if (r->poke_again && !r->done) {
		r->poke_again = false;
		manager_poke(m, r);
	} else {
		manager_release(m, r);
	}
}

static void manager_traced(struct manager *m, struct trace *t, bool over)
{
	t->over |= over;
	if (!over)
		atomic_store(&t->to_loop, false);
	if (t->client)
		manager_pump(t->client);
	else if (t->over)
		manager_trace_free(m, t);
}

static void manager_message(struct manager *m, const struct queue_message *message)
{
	struct request *r = message->object;
	struct session *session = message->object;

	switch (message->type) {
	case SCHED_OUTPUT:
		atomic_store(&r->to_loop, false);
		if (r->client)
			manager_pump(r->client);
		break;
	case SCHED_DONE:
		manager_done(m, r);
		break;
	case SCHED_POKED:
		manager_poked(m, r);
		break;
	case SCHED_FOUND:
		manager_session_found(m, session);
		break;
	case SCHED_FORGOTTEN:
		list_remove(&session->link);
		free(session);
		break;
	case SCHED_ROUTES:
	case SCHED_UNTRACED:
		manager_traced(m, message->object, message->type == SCHED_UNTRACED);
		break;
	case SCHED_EXPERTS:
		experts_here(m);
		break;
	default:
		break;
	}
}

/* ---- life -------------------------------------------------------------------------------- */

static double manager_seconds(const struct manager *m, uint64_t ns)
{
	return (double)(ns - m->start_ns) / 1e9;
}

/* Where the time of the start went. */
static void manager_log_start(struct manager *m, const struct engine_stats *e)
{
	char dense[NUM_SIZE_TEXT_MAX], arena[NUM_SIZE_TEXT_MAX];

	log_info("ready after %.2f s: %s in %s; %s, %s", manager_seconds(m, m->ready_ns),
		m->load.desc->arch, m->load.limit_text, e->io, e->tier);
	log_info("of these header and vocabulary %.2f s; then %s of dense weights in %.2f s "
		 "(%.2f GB/s), the least memory in %.2f s; %s of %s taken",
		manager_seconds(m, m->engine_ns), num_format_size(e->dense_bytes, dense),
		(double)e->dense_ns / 1e9,
		e->dense_ns ? (double)e->dense_bytes / (double)e->dense_ns : 0.0,
		(double)e->memory_ns / 1e9, num_format_size(e->taken_bytes, arena),
		num_format_size(e->arena_bytes, (char[NUM_SIZE_TEXT_MAX]){0}));
	if (!e->locks)
		log_warning("memory is not locked: raise LimitMEMLOCK= of the service (ulimit -l)");
	if (!e->direct)
		log_warning(
			"the file system of %s buffers direct reads; what that leaves in the page "
			"cache is dropped after each read",
			m->config.model);
}

static void manager_ready(struct manager *m)
{
	struct engine_stats e;
	struct sched_figures f;
	const struct engine_disk *disks;
	uint32_t kv_free, kv_all, n_disks;

	if (m->state != MANAGER_LOADING)
		return;
	m->state = MANAGER_READY;
	m->ready_ns = clock_now();
	engine_thread_stats(m->engine, &e, &f, &kv_free, &kv_all);
	notify_ready(&m->notify, "Ready");
	manager_log_start(m, &e);
	n_disks = engine_thread_disks(m->engine, &disks);
	disks_report(&m->disks, m->folder ? m->folder->folder : -1, disks, n_disks);
	list_for_each_safe(it, &m->clients)
		client_progress(list_entry(it, struct client, link), 100);
	list_for_each_safe(it, &m->clients)
	{
		struct client *c = list_entry(it, struct client, link);

		client_settle(c);
	}
}

/* Once: nothing is left to read ahead. */
static void manager_filled(struct manager *m)
{
	uint64_t filled_ns = engine_thread_filled(m->engine);
	struct engine_stats e;
	struct sched_figures f;
	uint32_t kv_free, kv_all;
	char text[NUM_SIZE_TEXT_MAX];

	if (m->filled_ns || !filled_ns || m->state != MANAGER_READY)
		return;
	m->filled_ns = filled_ns;
	engine_thread_stats(m->engine, &e, &f, &kv_free, &kv_all);
	m->huge = engine_thread_huge(m->engine);
	/* 4 KiB pages halve what a virtual disk gives, and cost the compute as well. */
	if (m->huge < e.taken_bytes / 2)
		log_warning("only %s of %s of memory are in huge pages: reads and compute are "
			    "slower; see /sys/kernel/mm/transparent_hugepage/enabled",
			num_format_size(m->huge, text),
			num_format_size(e.taken_bytes, (char[NUM_SIZE_TEXT_MAX]){0}));
	if (!e.experts)
		return;
	if (e.ready >= e.experts)
		log_info("all experts in memory after %.2f s (%s)", manager_seconds(m, filled_ns),
			num_format_size(e.ready_bytes, text));
	else
		log_info("slots filled after %.2f s: %llu of %llu experts in memory (%s)",
			manager_seconds(m, filled_ns), (unsigned long long)e.ready,
			(unsigned long long)e.experts, num_format_size(e.ready_bytes, text));
}

static void manager_loading(struct manager *m)
{
	static const char *const names[] = {"dense weights", "memory"};
	enum engine_phase phase;
	unsigned percent = engine_thread_percent(m->engine, &phase);

	notify_loading(&m->notify, percent, names[phase]);
	if (percent == m->percent)
		return;
	m->percent = percent;
	list_for_each_safe(it, &m->clients)
		client_progress(list_entry(it, struct client, link), percent);
}

static void manager_engine(struct manager *m)
{
	enum engine_thread_state state;
	struct queue_message message;

	engine_thread_ack(m->engine);
	/* Read before the messages: what is ENDED sends none later. */
	state = engine_thread_state(m->engine);
	while (engine_thread_take(m->engine, &message))
		manager_message(m, &message);
	if (state == ENGINE_THREAD_LOADING) {
		manager_loading(m);
	} else if (state == ENGINE_THREAD_READY) {
		manager_ready(m);
		manager_filled(m);
	} else if (m->state != MANAGER_OVER) {
		const struct error *err = engine_thread_error(m->engine);

		if (m->state != MANAGER_DRAINING) {
			log_error("%s", error_text(err, err->code));
			m->result = err->code ? err->code : -EIO;
			notify_status(error_text(err, err->code));
		}
		m->state = MANAGER_OVER;
	}
	/* Those that were pumped may have room and records that no event tells of. */
	list_for_each_safe(it, &m->clients)
	{
		struct client *c = list_entry(it, struct client, link);

		if (c->pumped)
			client_settle(c);
	}
}

static void manager_accept(struct manager *m)
{
	for (unsigned i = 0; i < MANAGER_ACCEPTS; ++i) {
		struct sock_peer peer;
		uint64_t same = 0;
		int fd = sock_accept(m->listener, &peer);

		if (fd < 0) {
			if (fd != -EAGAIN && fd != -ECONNABORTED)
				log_warning("cannot accept a connection: %s", strerror(-fd));
			return;
		}
		++m->n_connects;
		list_for_each(it, &m->clients) same +=
			list_entry(it, struct client, link)->peer.uid == peer.uid;
		/* A few places are left for telling users that they have too many. */
		if (m->n_clients >= m->clients_max + 4 * LIMIT_CLIENTS_REFUSED ||
			same >= m->config.limit_connections + LIMIT_CLIENTS_REFUSED) {
			fd_close(fd);
			++m->n_refused;
			continue;
		}
		(void)client_new(m, fd, &peer,
			same >= m->config.limit_connections ? -EDQUOT
			: m->n_clients >= m->clients_max    ? -EUSERS
							    : 0);
	}
}

static void manager_changed(void *arg, const struct config_option *o)
{
	unsigned *n = arg;

	if (o->when == CONFIG_LIVE) {
		++n[0];
		log_notice("reload: %s changed", o->name);
	} else {
		++n[1];
		log_warning("reload: %s changed in the file; that acts after a restart", o->name);
	}
}

int manager_reload(struct manager *m, struct error *err)
{
	struct config fresh;
	unsigned n[2] = {0, 0};
	char outcome[256];
	int r;

	if (m->state >= MANAGER_DRAINING)
		return error_set(err, -ESHUTDOWN, "moed is stopping");
	/* READY would come with the outcome: while loading that is too early. */
	if (m->state == MANAGER_READY)
		notify_reloading();
	r = m->reread(m->reread_arg, &fresh, err);
	if (r < 0) {
		log_error("reload failed, everything stays as it was: %s", error_text(err, r));
		(void)snprintf(
			outcome, sizeof outcome, "Ready; the last reload failed, see the log");
	} else {
		config_reload(&m->config, &fresh, manager_changed, n);
		config_deinit(&fresh);
		if (m->state == MANAGER_READY)
			budget_limit(&m->budget, m->engine, &m->load, m->config.memory_limit);
		log_set_level(config_log_level(&m->config));
		(void)snprintf(outcome, sizeof outcome,
			"Ready; reloaded: %u options changed, %u wait for a restart", n[0], n[1]);
		log_notice("reloaded: %u options changed, %u wait for a restart", n[0], n[1]);
	}
	if (m->state == MANAGER_READY)
		notify_reloaded(outcome);
	return r;
}

void manager_drain(struct manager *m)
{
	if (m->state == MANAGER_OVER)
		return;
	if (m->state == MANAGER_DRAINING) {
		/* Asked twice: at once. */
		m->drain_end_ns = 0;
		return;
	}
	log_info("stopping: %u requests under way", m->n_requests);
	notify_stopping("Stopping", m->config.drain_s * CLOCK_NS_PER_S);
	if (m->state == MANAGER_LOADING)
		m->drain_end_ns = 0;
	else
		m->drain_end_ns = clock_now() + m->config.drain_s * CLOCK_NS_PER_S;
	m->state = MANAGER_DRAINING;
	engine_thread_settle(m->engine);
	(void)epoll_ctl(m->epoll, EPOLL_CTL_DEL, m->listener, NULL);
}

static void manager_on_signals(struct manager *m)
{
	struct signalfd_siginfo info;
	struct error err = ERROR_NONE;

	while (read(m->signals, &info, sizeof info) == (ssize_t)sizeof info)
		if (info.ssi_signo == SIGHUP)
			(void)manager_reload(m, &err);
		else
			manager_drain(m);
}

/* Drained: nothing is left to compute, and clients have had their answers. */
static bool manager_is_drained(const struct manager *m)
{
	if (m->n_requests)
		return false;
	list_for_each(
		it, &m->clients) if (list_entry(it, struct client, link)->n_requests) return false;
	return true;
}

static void manager_tick(struct manager *m)
{
	uint64_t now = clock_now(), beat = engine_thread_beat(m->engine);

	list_for_each_safe(it, &m->clients)
	{
		struct client *c = list_entry(it, struct client, link);

		if (c->state == CLIENT_HELLO && now >= c->hello_end_ns)
			client_kill(c, "it does not greet");
	}
	if (beat != m->beat || engine_thread_idle(m->engine)) {
		m->beat = beat;
		m->beat_ns = now;
	}
	if (m->state == MANAGER_READY)
		budget_tick(&m->budget, m->engine, &m->load, m->config.memory_limit, now);
	if (now - m->beat_ns < MANAGER_STUCK)
		notify_watchdog(&m->notify, now);
	if (m->state == MANAGER_DRAINING && (now >= m->drain_end_ns || manager_is_drained(m))) {
		if (m->n_requests)
			log_notice("%u requests are cut off", m->n_requests);
		m->state = MANAGER_OVER;
	}
}

static bool manager_has_greeting(const struct manager *m)
{
	list_for_each(it, &m->clients) if (list_entry(it, struct client, link)->state ==
					   CLIENT_HELLO) return true;
	return false;
}

/* Until the watchdog or the memory's pressure is due. */
static int manager_sleep_ms(const struct manager *m)
{
	int pressure = budget_timeout_ms(&m->budget);
	int watchdog = notify_timeout_ms(&m->notify, clock_now());

	/* Withheld, since the engine is stuck: it may get over it. */
	if (watchdog == 0)
		watchdog = MANAGER_TICK_MS;
	return watchdog < 0 || (pressure >= 0 && pressure < watchdog) ? pressure : watchdog;
}

static int manager_timeout(const struct manager *m)
{
	uint64_t ms = MANAGER_TICK_MS;

	if (m->n_again || m->state == MANAGER_OVER)
		return 0;
	if (m->state == MANAGER_DRAINING)
		return 20;
	/* Nothing has to be looked at: the next ping, or somebody's event. */
	if (m->state == MANAGER_READY && !manager_has_greeting(m))
		return manager_sleep_ms(m);
	if (m->notify.watchdog_ns)
		ms = num_min(ms, m->notify.watchdog_ns / CLOCK_NS_PER_MS / 2 + 1);
	return (int)ms;
}

static void manager_again(struct manager *m)
{
	if (!m->n_again)
		return;
	m->n_again = 0;
	list_for_each_safe(it, &m->clients)
	{
		struct client *c = list_entry(it, struct client, link);

		if (c->again)
			client_settle(c);
	}
}

/* Bounded: ends by itself where no client asks for more. */
static void manager_busy(struct manager *m)
{
	while (m->spin_end_ns) {
		for (unsigned i = 0; i < MANAGER_SPIN_ROUNDS; ++i)
			list_for_each_safe(it, &m->clients)
			{
				struct client *c = list_entry(it, struct client, link);

				if (c->busy)
					client_settle(c);
			}
		if (clock_now() < m->spin_end_ns && engine_thread_idle(m->engine))
			continue;
		m->spin_end_ns = 0;
		list_for_each_safe(it, &m->clients)
		{
			struct client *c = list_entry(it, struct client, link);

			if (!c->busy)
				continue;
			c->busy = false;
			client_settle(c);
		}
	}
}

int manager_run(struct manager *m)
{
	struct epoll_event events[MANAGER_EVENTS];

	while (m->state != MANAGER_OVER) {
		int n = epoll_wait(m->epoll, events, MANAGER_EVENTS, manager_timeout(m));

		if (n < 0 && errno != EINTR) {
			log_error("the event loop failed: %s", strerror(errno));
			return -errno;
		}
		manager_again(m);
		for (int i = 0; i < n; ++i) {
			void *source = events[i].data.ptr;

			if (source == &m->signals)
				manager_on_signals(m);
			else if (source == &m->listener)
				manager_accept(m);
			else if (source == &m->engine)
				manager_engine(m);
			else if (source == &m->budget)
				budget_event(&m->budget);
			else
				client_event(source);
		}
		manager_busy(m);
		manager_tick(m);
		manager_bury(m);
	}
	return m->result;
}

static void manager_save(struct manager *m)
{
	struct error err = ERROR_NONE;
	struct state_totals totals;

	/* A start that failed is none. */
	if (engine_thread_state(m->engine) != ENGINE_THREAD_READY)
		return;
	manager_totals(m, &totals);
	if (state_save(m->folder, &totals, &err) < 0)
		log_warning("%s", error_text(&err, 0));
}

void manager_deinit(struct manager *m)
{
	struct queue_message message;

	list_for_each_safe(it, &m->clients) client_kill(list_entry(it, struct client, link), NULL);
	manager_bury(m);
	if (m->engine) {
		manager_save(m);
		engine_thread_join(m->engine);
		/* Requests and sessions come back with these. */
		while (engine_thread_take(m->engine, &message))
			manager_message(m, &message);
	}
	list_for_each_safe(it, &m->orphans) request_free(list_entry(it, struct request, link));
	list_for_each_safe(it, &m->sessions)
	{
		struct session *s = list_entry(it, struct session, link);

		list_remove(&s->link);
		free(s->tokens);
		free(s);
	}
	list_for_each_safe(it, &m->traces)
		manager_trace_free(m, list_entry(it, struct trace, link));
	m->engine = engine_thread_free(m->engine);
	experts_deinit(&m->experts);
	m->signals = fd_close(m->signals);
	budget_deinit(&m->budget);
	m->epoll = fd_close(m->epoll);
}
