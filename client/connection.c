/* SPDX-License-Identifier: MIT */
#include "handle.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "num.h"
#include "sock.h"

#define RETRY_FIRST_MS 50
#define RETRY_LAST_MS 2000

static int watch(struct moe *m, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int connection_start(struct moe *m)
{
	const struct wire_hello hello = {
		.message = {WIRE_MAGIC, WIRE_HELLO, sizeof(hello)},
		.major = WIRE_MAJOR,
		.minor = WIRE_MINOR,
	};
	cleanup_fd_ int fd = sock_connect(m->path, &m->err);
	int k;

	if (fd < 0)
		return steal_fd(fd);
	k = sock_send(fd, &hello, sizeof(hello), NULL, 0);
	if (k < 0)
		return error_errno(&m->err, k, "cannot greet moed at %s", m->path);
	k = watch(m, fd);
	if (k < 0)
		return error_errno(&m->err, k, "cannot watch the connection to moed");
	m->sock = steal_fd(fd);
	m->state = HANDLE_GREETING;
	return 0;
}

void connection_retry(struct moe *m)
{
	unsigned doublings = num_min(m->retries, 10u);
	uint64_t ms = num_min((uint64_t)RETRY_FIRST_MS << doublings, (uint64_t)RETRY_LAST_MS);
	struct itimerspec when = {
		.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000},
	};

	m->retries++;
	m->state = HANDLE_WAITING;
	(void)timerfd_settime(m->timer, 0, &when, NULL);
}

void connection_wake(struct moe *m)
{
	const struct itimerspec soon = {.it_value = {.tv_nsec = 1}};

	(void)timerfd_settime(m->timer, 0, &soon, NULL);
}

/* While waiting, the timer means something else as well: a try too many does no harm. */
void connection_woken(struct moe *m)
{
	uint64_t times;

	if (m->state != HANDLE_WAITING)
		(void)!read(m->timer, &times, sizeof(times));
}

/* The time to connect again may have come. */
int connection_timer(struct moe *m)
{
	uint64_t times;
	int k;

	if (read(m->timer, &times, sizeof(times)) != sizeof(times))
		return 0;
	k = connection_start(m);
	/* A restart takes its time; a daemon that never was there is not waited for. */
	if (k < 0 && !m->was_ready && k != -EAGAIN) {
		m->state = HANDLE_DEAD;
		m->dead = k;
		return k;
	}
	if (k < 0) {
		m->err = ERROR_NONE;
		connection_retry(m);
	}
	return 0;
}

/* The connection without what was said over it. */
void connection_drop(struct moe *m)
{
	int fd = m->state == HANDLE_READY ? m->channel.sock : m->sock;

	/*
	 * Closing would not end the watch while a forked child has the socket too.  In that child
	 * the watch is the parent's.
	 */
	if (fd >= 0 && *m->alive)
		(void)epoll_ctl(m->epoll, EPOLL_CTL_DEL, fd, NULL);
	if (m->state == HANDLE_READY)
		channel_deinit(&m->channel);
	m->sock = fd_close(m->sock);
	m->asleep = false;
}

/* All requests are told so, then the connection as a whole, then it is tried again. */
void connection_lost(struct moe *m, int code)
{
	connection_drop(m);
	for (struct request *r = m->requests; r; r = r->next)
		r->lost = true;
	pending_drop(m);
	for (struct moe_session *s = m->sessions, *next; s; s = next) {
		next = s->next;
		s->open = s->failed = false;
		s->request = 0;
		if (s->closing)
			session_free(s);
	}
	m->tell_lost = true;
	if (code == -EPROTO) {
		m->state = HANDLE_DEAD;
		m->dead = code;
		(void)error_set(&m->err, code,
			"moed broke the protocol: the versions of moed and libmoe may not fit");
		return;
	}
	connection_retry(m);
}

static int welcome_take(struct moe *m, const struct wire_welcome *w, int *fds)
{
	struct segment in = SEGMENT_NULL, out = SEGMENT_NULL;
	int k;

	k = segment_map(&out, steal_fd(fds[0]), &w->client, false, &m->err);
	if (k == 0)
		k = segment_map(&in, steal_fd(fds[1]), &w->daemon, true, &m->err);
	if (k < 0) {
		segment_deinit(&out);
		segment_deinit(&in);
		return k;
	}
	channel_init(&m->channel, steal_fd(m->sock), &in, &out);
	m->state = HANDLE_READY;
	m->minor = w->minor;
	m->was_ready = true;
	m->retries = 0;
	for (struct moe_session *s = m->sessions; s && k == 0; s = s->next)
		k = s->request ? 0 : session_ask(s);
	event_set(m, MOE_READY, 0);
	m->event.vocabulary = w->vocabulary;
	m->event.context = w->context;
	event_text(m, w->version, strnlen(w->version, sizeof(w->version)));
	return k < 0 ? k : 1;
}

/* Whether a refusal may pass by itself: the daemon is being stopped or restarted. */
static bool refusal_passes(const struct moe *m, int code)
{
	return m->was_ready && (code == -ESHUTDOWN || code == -EAGAIN);
}

static int refused_take(
	struct moe *m, const struct wire_refused *r, const char *text, size_t length)
{
	if (r->code >= 0 || r->code < -4095)
		return -EPROTO;
	if (refusal_passes(m, r->code)) {
		connection_drop(m);
		connection_retry(m);
		return 0;
	}
	m->err = ERROR_NONE;
	return error_set(&m->err, r->code, "moed refused the connection: %.*s", (int)length, text);
}

union packet {
	struct wire_message message;
	struct wire_loading loading;
	struct wire_refused refused;
	struct wire_welcome welcome;
	char bytes[WIRE_PACKET_MAX];
};

static int packet_take(struct moe *m, const union packet *p, size_t n, int *fds, size_t n_fds)
{
	if (n < sizeof(p->message) || p->message.magic != WIRE_MAGIC || p->message.size != n)
		return -EPROTO;
	switch (p->message.type) {
	case WIRE_LOADING:
		if (n < sizeof(p->loading) || p->loading.text_length > n - sizeof(p->loading))
			return -EPROTO;
		event_set(m, MOE_LOADING, 0);
		m->event.percent = num_min(p->loading.percent, 100u);
		event_text(m, p->bytes + sizeof(p->loading), p->loading.text_length);
		return 1;
	case WIRE_REFUSED:
		if (n < sizeof(p->refused) || p->refused.text_length > n - sizeof(p->refused))
			return -EPROTO;
		return refused_take(
			m, &p->refused, p->bytes + sizeof(p->refused), p->refused.text_length);
	case WIRE_WELCOME:
		if (n < sizeof(p->welcome) || n_fds != 2 || p->welcome.major != WIRE_MAJOR)
			return -EPROTO;
		return welcome_take(m, &p->welcome, fds);
	default:
		return -EPROTO;
	}
}

static int greeting_failed(struct moe *m, int code)
{
	connection_drop(m);
	m->state = HANDLE_DEAD;
	m->dead = code;
	if (!m->err.code)
		(void)error_set(&m->err, code,
			code == -EPROTO ? "whoever serves %s does not speak moed's protocol"
					: "moed at %s ended before it was ready: see its log "
					  "(journalctl -u moed)",
			m->path);
	return code;
}

int connection_greet(struct moe *m)
{
	int fds[SOCK_FDS_MAX] = {-1, -1}, k;
	size_t n_fds = ARRAY_SIZE(fds);
	union packet packet;
	ssize_t n;

	n = sock_recv(m->sock, &packet, sizeof(packet), fds, &n_fds);
	if (n == -EAGAIN)
		return 0;
	if (n <= 0) {
		if (!m->was_ready)
			return greeting_failed(m, n == -EMSGSIZE ? -EPROTO : -ECONNRESET);
		connection_drop(m);
		connection_retry(m);
		return 0;
	}
	k = packet_take(m, &packet, (size_t)n, fds, n_fds);
	(void)fd_close(fds[0]);
	(void)fd_close(fds[1]);
	return k < 0 ? greeting_failed(m, k) : k;
}
