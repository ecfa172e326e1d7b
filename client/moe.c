/* SPDX-License-Identifier: MIT */
#include "handle.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "num.h"

#define DEFAULT_SOCKET "/run/moed/moed.sock"
#define ALIVE 0x4d4f4521u
#define SPINS_BLIND 4096 /* looks of a spinning caller between looks at the socket */
#define PUBLIC __attribute__((visibility("default")))

static _Thread_local struct error open_error;

static int alive_check(const struct moe *m)
{
	if (!m)
		return -EINVAL;
	return *m->alive == ALIVE ? 0 : -ECHILD;
}

static uint32_t *alive_new(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (madvise(p, page, MADV_WIPEONFORK) < 0) {
		(void)munmap(p, page);
		return NULL;
	}
	*p = ALIVE;
	return p;
}

static void handle_free(struct moe *m)
{
	connection_drop(m);
	pending_drop(m);
	while (m->requests)
		request_end(m, m->requests->number);
	while (m->sessions)
		session_free(m->sessions);
	(void)fd_close(m->timer);
	(void)fd_close(m->epoll);
	if (m->alive)
		(void)munmap(m->alive, (size_t)sysconf(_SC_PAGESIZE));
	free(m->held);
	free(m);
}

static int handle_init(struct moe *m)
{
	struct epoll_event e = {.events = EPOLLIN};

	m->alive = alive_new();
	if (!m->alive)
		return error_errno(&m->err, -ENOMEM, "cannot get memory for a connection");
	m->epoll = epoll_create1(EPOLL_CLOEXEC);
	m->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (m->epoll < 0 || m->timer < 0 || epoll_ctl(m->epoll, EPOLL_CTL_ADD, m->timer, &e) < 0)
		return error_errno(&m->err, -errno, "cannot make a connection's descriptors");
	return 0;
}

PUBLIC int moe_open(struct moe **ret, const char *path)
{
	struct moe *m;
	int k;

	open_error = ERROR_NONE;
	if (!ret)
		return error_set(&open_error, -EINVAL, "moe_open() needs a place for the handle");
	if (!path)
		path = getenv("MOED_SOCKET");
	if (!path || !*path)
		path = DEFAULT_SOCKET;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_errno(&open_error, -ENOMEM, "cannot get memory for a connection");
	m->epoll = m->timer = m->sock = -1;
	m->last = &m->first;
	m->state = HANDLE_WAITING;
	k = snprintf(m->path, sizeof(m->path), "%s", path) < (int)sizeof(m->path) ? 0
										  : -ENAMETOOLONG;
	if (k == 0)
		k = handle_init(m);
	if (k == 0)
		k = connection_start(m);
	if (k == -EAGAIN) { /* many connect at once */
		m->err = ERROR_NONE;
		connection_retry(m);
		k = 0;
	}
	if (k < 0) {
		(void)error_set(&open_error, k, "%s", error_text(&m->err, k));
		handle_free(m);
		return k;
	}
	*ret = m;
	return 0;
}

PUBLIC void moe_close(struct moe *m)
{
	if (m)
		handle_free(m);
}

PUBLIC int moe_fd(struct moe *m)
{
	int k = alive_check(m);

	return k < 0 ? k : m->epoll;
}

/* What has to be told about a connection that was lost, one event a call. */
static int lost_next(struct moe *m)
{
	struct request *found;
	bool tell = false;

	while (!tell) {
		found = NULL;
		for (struct request *r = m->requests; r; r = r->next)
			found = r->lost ? r : found;
		if (!found)
			break;
		/* Sessions are opened again by themselves, closing ones are closed. */
		tell = found->kind != REQUEST_SESSION && found->kind != REQUEST_CLOSE;
		event_set(m, MOE_ERROR, found->number);
		request_end(m, found->number);
	}
	if (!tell) {
		m->tell_lost = false;
		event_set(m, MOE_DISCONNECTED, 0);
	}
	m->event.code = -ECONNRESET;
	m->event.text = "moed has gone";
	m->event.text_length = strlen(m->event.text);
	return 1;
}

/* Requests that were cancelled before they were sent.  0: that was all. */
static int cancelled_next(struct moe *m)
{
	for (struct request *r = m->requests; r; r = r->next) {
		if (!r->cancelled)
			continue;
		event_set(m, MOE_DONE, r->number);
		m->event.finish = MOE_FINISH_CANCELLED;
		request_end(m, r->number);
		return 1;
	}
	m->tell_cancelled = false;
	connection_woken(m);
	return 0;
}

/* 1: an event; 0: none before the channel has more; or the connection is over. */
static int channel_next(struct moe *m, bool spin)
{
	struct wire_record record;
	int k, gone = 0;

	/* Awake there is nothing to learn from the socket, except once in a while that it lives. */
	if (m->asleep || (spin && ++m->spins % SPINS_BLIND == 0)) {
		gone = channel_wake(&m->channel);
		m->asleep = false;
	}
	for (;;) {
		k = pending_flush(m);
		if (k < 0 && k != -ECONNRESET)
			return k;
		if (k < 0)
			gone = k;
		k = channel_read(&m->channel, &record);
		if (k < 0)
			return k;
		if (k == 0) {
			if (gone < 0 || spin)
				return gone;
			k = channel_sleep(&m->channel);
			m->asleep = k == 0;
			if (k <= 0)
				return k;
			continue;
		}
		k = event_from_record(m, &record);
		if (k)
			return k;
	}
}

static int state_next(struct moe *m, bool spin)
{
	int k;

	if (m->tell_cancelled && cancelled_next(m))
		return 1;
	if (m->tell_lost)
		return lost_next(m);
	switch (m->state) {
	case HANDLE_WAITING:
		return connection_timer(m);
	case HANDLE_GREETING:
		return connection_greet(m);
	case HANDLE_READY:
		k = channel_next(m, spin);
		if (k >= 0)
			return k;
		if (k == -ENOMEM)
			return k;
		connection_lost(m, k);
		return lost_next(m);
	case HANDLE_DEAD:
		break;
	}
	return m->dead;
}

PUBLIC int moe_next(struct moe *m, int timeout_ms, const struct moe_event **ret)
{
	uint64_t end, now;
	struct pollfd p;
	int k = alive_check(m), wait = timeout_ms;

	if (k < 0)
		return k;
	if (!ret || timeout_ms < MOE_SPIN)
		return -EINVAL;
	end = timeout_ms > 0 ? clock_now() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS : 0;
	for (;;) {
		m->event.type = 0;
		k = state_next(m, timeout_ms == MOE_SPIN);
		if (k > 0)
			*ret = &m->event;
		if (k || timeout_ms == 0 || timeout_ms == MOE_SPIN)
			return k;
		if (timeout_ms > 0) {
			now = clock_now();
			if (now >= end)
				return 0;
			wait = (int)((end - now + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS);
		}
		/* While connected the timer rests: past the epoll, which costs a microsecond. */
		p = (struct pollfd){.fd = m->state == HANDLE_READY ? m->channel.sock : m->epoll,
			.events = POLLIN};
		k = poll(&p, 1, wait);
		if (k < 0)
			return errno == EINTR ? 0 : -errno;
	}
}

/*
 * Sends at once what there is room for.  The caller may wait for the descriptor next, without a
 * moe_next() before: so it must become readable when there is room for the rest, and when the
 * connection turns out to be over, which is moe_next()'s to tell.
 */
static void send_now(struct moe *m)
{
	int k;

	if (m->state != HANDLE_READY || m->tell_lost)
		return;
	do {
		k = pending_flush(m);
		if (k == 0 && m->asleep && m->channel.blocked)
			k = channel_sleep_full(&m->channel, m->channel.blocked);
	} while (k > 0);
	if (k < 0)
		connection_wake(m);
}

PUBLIC int moe_session_open(struct moe *m, const void *id, struct moe_session **ret)
{
	static const uint8_t none[WIRE_ID_SIZE];
	struct moe_session *s;
	int k = alive_check(m);

	if (k < 0)
		return k;
	if (!ret)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->m = m;
	if (id && memcmp(id, none, WIRE_ID_SIZE) != 0) {
		memcpy(s->id, id, WIRE_ID_SIZE);
		s->has_id = true;
	}
	s->next = m->sessions;
	m->sessions = s;
	/* Without a connection it is asked for once there is one. */
	k = m->state == HANDLE_READY ? session_ask(s) : 0;
	if (k < 0) {
		session_free(s);
		return k;
	}
	send_now(m);
	*ret = s;
	return 0;
}

PUBLIC int moe_session_id(struct moe_session *s, void *ret_id)
{
	int k = s ? alive_check(s->m) : -EINVAL;

	if (k < 0)
		return k;
	if (!s->has_id)
		return -EAGAIN;
	memcpy(ret_id, s->id, WIRE_ID_SIZE);
	return 0;
}

PUBLIC int moe_session_close(struct moe_session *s, int forget)
{
	struct wire_session_ref ref = {{0}};
	uint64_t number;
	struct moe *m;
	int k = s ? alive_check(s->m) : -EINVAL;

	if (k < 0)
		return k;
	m = s->m;
	if (m->state != HANDLE_READY || s->failed) {
		session_free(s);
		return 0;
	}
	k = request_new(m, REQUEST_CLOSE, NULL, &number);
	if (k < 0)
		return k;
	k = pending_add(m, s, forget ? WIRE_SESSION_FORGET : WIRE_SESSION_CLOSE, number, &ref,
		sizeof(ref), NULL, 0);
	if (k < 0) {
		request_end(m, number);
		return k;
	}
	s->closing = true;
	send_now(m);
	return 0;
}

/* Than minor 1: it would end the connection. */
static bool is_older(const struct moe *m)
{
	return m->state == HANDLE_READY && m->minor < 1;
}

PUBLIC int moe_submit(struct moe *m, struct moe_session *s, const struct moe_request *request,
	uint64_t *ret_request)
{
	uint64_t number;
	int k = alive_check(m);

	if (k < 0)
		return k;
	m->err = ERROR_NONE;
	if (!request || request->size < sizeof(*request) || (s && (s->m != m || s->closing)))
		return error_set(&m->err, -EINVAL,
			"a request must start from MOE_REQUEST_INIT, and its "
			"session must be open on the same handle");
	if (m->state == HANDLE_DEAD)
		return m->dead;
	if (request->flags & MOE_WANT_ROUTES && is_older(m))
		return error_set(&m->err, -EPROTONOSUPPORT, "moed is too old to tell routes");
	k = request_new(m, REQUEST_SUBMIT, s, &number);
	if (k < 0)
		return k;
	k = submit_encode(m, s, request, number);
	if (k < 0) {
		request_end(m, number);
		return k;
	}
	send_now(m);
	if (ret_request)
		*ret_request = number;
	return 0;
}

static int simple(struct moe *m, enum request_kind kind, uint16_t type, const void *payload,
	size_t size, uint64_t *ret_request)
{
	uint64_t number;
	int k = alive_check(m);

	if (k < 0)
		return k;
	if (m->state == HANDLE_DEAD)
		return m->dead;
	k = request_new(m, kind, NULL, &number);
	if (k < 0)
		return k;
	k = pending_add(m, NULL, type, number, payload, size, NULL, 0);
	if (k < 0) {
		request_end(m, number);
		return k;
	}
	send_now(m);
	if (ret_request)
		*ret_request = number;
	return 0;
}

PUBLIC int moe_cancel(struct moe *m, uint64_t request)
{
	struct request *r;
	int k = alive_check(m);

	if (k < 0)
		return k;
	r = request_find(m, request);
	if (!r || (r->kind != REQUEST_SUBMIT && r->kind != REQUEST_TRACE) || r->lost ||
		r->cancelled)
		return -ENOENT;
	if (pending_withdraw(m, request)) {
		r->cancelled = m->tell_cancelled = true;
		connection_wake(m);
		return 0;
	}
	k = pending_add(m, NULL, WIRE_CANCEL, request, NULL, 0, NULL, 0);
	if (k < 0)
		return k;
	send_now(m);
	return 0;
}

PUBLIC int moe_status(struct moe *m, uint64_t *ret_request)
{
	return simple(m, REQUEST_STATUS, WIRE_STATUS, NULL, 0, ret_request);
}

PUBLIC int moe_experts(struct moe *m, uint64_t *ret_request)
{
	if (alive_check(m) == 0 && is_older(m))
		return -EPROTONOSUPPORT;
	return simple(m, REQUEST_STATUS, WIRE_EXPERTS, NULL, 0, ret_request);
}

PUBLIC int moe_trace(struct moe *m, uint64_t *ret_request)
{
	const struct wire_trace trace = {.flags = 0};

	if (alive_check(m) == 0 && is_older(m))
		return -EPROTONOSUPPORT;
	return simple(m, REQUEST_TRACE, WIRE_TRACE, &trace, sizeof(trace), ret_request);
}

PUBLIC int moe_ping(struct moe *m, unsigned flags, uint64_t *ret_request)
{
	const struct wire_ping ping = {.flags = flags};

	if (flags & ~MOE_PING_BUSY)
		return -EINVAL;
	return simple(m, REQUEST_PING, WIRE_PING, &ping, sizeof(ping), ret_request);
}

PUBLIC int moe_admin(struct moe *m, unsigned verb, uint64_t *ret_request)
{
	const struct wire_admin admin = {.verb = verb};

	if (verb != MOE_ADMIN_RELOAD && verb != MOE_ADMIN_DRAIN)
		return -EINVAL;
	return simple(m, REQUEST_ADMIN, WIRE_ADMIN, &admin, sizeof(admin), ret_request);
}

PUBLIC const char *moe_last_error(struct moe *m)
{
	return m ? m->err.text : open_error.text;
}

PUBLIC const char *moe_strerror(int code)
{
	switch (code) {
	case -ECHILD:
		return "this handle belongs to the parent process: open one of your own";
	case -ECONNRESET:
		return "moed has gone";
	case -EPROTO:
		return "the protocol was broken";
	case -EPROTONOSUPPORT:
		return "moed and libmoe speak different versions of the protocol";
	case -EDQUOT:
		return "too many connections, sessions or requests of this user";
	default:
		return code < 0 ? strerrordesc_np(-code) ?: "unknown error" : "success";
	}
}
