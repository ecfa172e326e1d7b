/* SPDX-License-Identifier: MIT */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client-record.h"
#include "clock.h"
#include "config.h"
#include "fd.h"
#include "limit.h"
#include "log.h"
#include "manager.h"
#include "num.h"

/* Records taken from one client before the others have their turn. */
#define CLIENT_BATCH 64u
/* What the memory plan counts for a client. */
#define CLIENT_RING LIMIT_RING_MIN

/* Clients cannot fill the log: so many lines about them in so much time, then how many more. */
#define CLIENT_LOG_LINES 20u
#define CLIENT_LOG_NS (10 * CLOCK_NS_PER_S)

static bool client_may_log(struct manager *m)
{
	uint64_t now = clock_now();

	if (now - m->complaints_ns >= CLIENT_LOG_NS) {
		if (m->n_complaints > CLIENT_LOG_LINES)
			log_notice("%u more lines about clients were left out",
				m->n_complaints - CLIENT_LOG_LINES);
		m->complaints_ns = now;
		m->n_complaints = 0;
	}
	return ++m->n_complaints <= CLIENT_LOG_LINES;
}

static void client_log(const struct client *c, enum log_level level, const char *what)
{
	char uid[16], pid[16];
	struct log_field fields[] = {{"MOED_CLIENT_UID", uid}, {"MOED_CLIENT_PID", pid}};

	if (!client_may_log(c->manager))
		return;
	(void)snprintf(uid, sizeof uid, "%u", (unsigned)c->peer.uid);
	(void)snprintf(pid, sizeof pid, "%d", (int)c->peer.pid);
	log_fields(
		level, fields, ARRAY_SIZE(fields), "client of uid %s, pid %s: %s", uid, pid, what);
}

static bool client_is_admin(const struct manager *m, const struct sock_peer *peer, int sock)
{
	gid_t groups[256];
	socklen_t size = sizeof groups;

	if (!peer->uid || peer->uid == geteuid())
		return true;
	if (!m->has_admin_gid)
		return false;
	if (peer->gid == m->admin_gid)
		return true;
	/* A user in more groups than that is no administrator. */
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return false;
	for (size_t i = 0; i < size / sizeof *groups; ++i)
		if (groups[i] == m->admin_gid)
			return true;
	return false;
}

int client_new(struct manager *m, int sock, const struct sock_peer *peer, int refuse)
{
	struct client *c = calloc(1, sizeof *c);
	int r;

	if (!c) {
		fd_close(sock);
		return -ENOMEM;
	}
	c->manager = m;
	c->sock = sock;
	c->peer = *peer;
	c->refuse = refuse;
	c->admin = client_is_admin(m, peer, sock);
	c->hello_end_ns = clock_now() + LIMIT_HELLO_MS * CLOCK_NS_PER_MS;
	list_init(&c->submits);
	list_init(&c->requests);
	r = manager_watch(m, sock, c);
	if (r < 0) {
		fd_close(sock);
		free(c);
		return r;
	}
	list_append(&m->clients, &c->link);
	++m->n_clients;
	return 0;
}

void client_kill(struct client *c, const char *why)
{
	struct manager *m = c->manager;

	if (c->state == CLIENT_DEAD)
		return;
	if (why)
		client_log(c, LOG_LEVEL_NOTICE, why);
	if (c->state == CLIENT_RUNNING)
		channel_deinit(&c->channel);
	else
		c->sock = fd_close(c->sock);
	c->state = CLIENT_DEAD;
	list_remove(&c->link);
	list_append(&m->dead, &c->link);
	--m->n_clients;
	list_for_each_safe(it, &c->submits)
		client_submit_drop(c, list_entry(it, struct submit, link));
	list_for_each_safe(it, &c->requests)
	{
		struct request *r = list_entry(it, struct request, link);

		r->client = NULL;
		atomic_store(&r->cancel, true);
		list_remove(&r->link);
		list_append(&m->orphans, &r->link);
		manager_poke(m, r);
		manager_release(m, r);
	}
	for (uint32_t i = 0; i < c->n_sessions; ++i) {
		--c->sessions[i]->opened;
		manager_session_release(m, c->sessions[i]);
	}
	c->n_sessions = 0;
	if (c->trace) {
		c->trace->client = NULL;
		manager_trace_end(m, c->trace);
		if (c->trace->over)
			manager_trace_free(m, c->trace);
		c->trace = NULL;
	}
	free(c->status);
	c->status = NULL;
}

struct client *client_free(struct client *c)
{
	list_remove(&c->link);
	free(c);
	return NULL;
}

static void client_refuse(struct client *c, int code)
{
	struct {
		struct wire_refused head;
		char text[WIRE_TEXT_MAX];
	} packet = {0};
	int n;

	if (code == -EPROTONOSUPPORT)
		n = snprintf(packet.text, sizeof packet.text,
			"moed speaks protocol %u, the client %u: use programs of one release",
			WIRE_MAJOR, c->major);
	else if (code == -EDQUOT)
		n = snprintf(packet.text, sizeof packet.text,
			"this user has %llu connections already, which is the limit",
			(unsigned long long)c->manager->config.limit_connections);
	else if (code == -EUSERS)
		n = snprintf(packet.text, sizeof packet.text,
			"moed has %u connections already, as many as its memory limit has room for",
			c->manager->clients_max);
	else if (code == -ESHUTDOWN)
		n = snprintf(packet.text, sizeof packet.text, "moed is stopping");
	else
		n = snprintf(packet.text, sizeof packet.text, "refused: %s", strerror(-code));
	packet.head = (struct wire_refused){
		.message = {WIRE_MAGIC, WIRE_REFUSED, (uint16_t)(sizeof packet.head + (size_t)n)},
		.code = code,
		.text_length = (uint32_t)n,
		.major = WIRE_MAJOR,
		.minor = WIRE_MINOR,
	};
	(void)sock_send(c->sock, &packet, packet.head.message.size, NULL, 0);
	++c->manager->n_refused;
	client_kill(c, code == -EDQUOT || code == -EUSERS ? "refused: too many connections" : NULL);
}

static int client_welcome(struct client *c)
{
	const struct manager *m = c->manager;
	struct segment in = SEGMENT_NULL, out = SEGMENT_NULL;
	struct wire_welcome w = {
		.message = {WIRE_MAGIC, WIRE_WELCOME, sizeof w},
		.major = WIRE_MAJOR,
		.minor = c->minor,
		.pid = (uint32_t)getpid(),
		.record_max = LIMIT_RECORD,
		.sessions_max = LIMIT_SESSIONS_PER_CLIENT,
		.requests_max = (uint32_t)m->config.limit_requests,
		.vocabulary = m->load.desc->vocabulary,
		.context = m->load.context,
		.prompt_max = m->prompt_max,
	};
	int fds[2], r;

	r = segment_make(&in, CLIENT_RING, false, NULL);
	if (r >= 0)
		r = segment_make(&out, CLIENT_RING, true, NULL);
	if (r >= 0) {
		w.client = in.geometry;
		w.daemon = out.geometry;
		(void)snprintf(w.version, sizeof w.version, "%s", MOED_VERSION);
		fds[0] = in.fd;
		fds[1] = out.fd;
		r = sock_send(c->sock, &w, sizeof w, fds, 2);
	}
	if (r < 0) {
		segment_deinit(&in);
		segment_deinit(&out);
		return r;
	}
	segment_close_fd(&in);
	segment_close_fd(&out);
	channel_init(&c->channel, steal_fd(c->sock), &in, &out);
	c->state = CLIENT_RUNNING;
	c->again = true;
	return 0;
}

void client_progress(struct client *c, unsigned percent)
{
	struct {
		struct wire_loading head;
		char text[64];
	} packet = {0};
	int n, r;

	if (c->state != CLIENT_LOADING)
		return;
	if (c->manager->state == MANAGER_READY) {
		r = client_welcome(c);
		if (r < 0)
			client_kill(c, r == -EPIPE ? NULL : "cannot be welcomed");
		return;
	}
	n = snprintf(packet.text, sizeof packet.text, "loading %u %%", percent);
	packet.head = (struct wire_loading){
		.message = {WIRE_MAGIC, WIRE_LOADING, (uint16_t)(sizeof packet.head + (size_t)n)},
		.percent = percent,
		.text_length = (uint32_t)n,
	};
	/* One that does not read these misses some. */
	r = sock_send(c->sock, &packet, packet.head.message.size, NULL, 0);
	if (r < 0 && r != -EAGAIN)
		client_kill(c, NULL);
}

static void client_hello(struct client *c)
{
	struct wire_hello hello;
	ssize_t n = sock_recv_plain(c->sock, &hello, sizeof hello);

	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		client_kill(c, n == -EMSGSIZE ? "its greeting is too long" : NULL);
		return;
	}
	if (c->state != CLIENT_HELLO) {
		client_kill(c, "it speaks before it is welcomed");
		return;
	}
	if ((size_t)n < sizeof hello.message + 2 * sizeof(uint16_t) ||
		hello.message.magic != WIRE_MAGIC || hello.message.type != WIRE_HELLO ||
		hello.message.size != n) {
		client_kill(c, "its greeting is none");
		return;
	}
	c->major = hello.major;
	if (c->major != WIRE_MAJOR) {
		client_refuse(c, -EPROTONOSUPPORT);
		return;
	}
	if ((size_t)n != sizeof hello || hello.flags || hello.reserved[0] || hello.reserved[1]) {
		client_kill(c, "its greeting has an unknown form");
		return;
	}
	c->minor = (uint16_t)num_min((unsigned)hello.minor, WIRE_MINOR);
	if (c->refuse || !privilege_may(PRIVILEGE_PROMPT, c->admin)) {
		client_refuse(c, c->refuse ? c->refuse : -EACCES);
		return;
	}
	if (c->manager->state == MANAGER_DRAINING) {
		client_refuse(c, -ESHUTDOWN);
		return;
	}
	c->state = CLIENT_LOADING;
	client_progress(c, c->manager->percent);
}

/* Records in, answers out, until neither moves; then the sleep words. */
static void client_serve(struct client *c)
{
	struct wire_record record;
	bool full = false;
	unsigned n = 0;
	int r;

	c->again = false;
	client_pump(c);
	while (c->state == CLIENT_RUNNING && n < CLIENT_BATCH) {
		/* Each record may be answered: without room for that it waits. */
		r = ring_writer_room(&c->channel.writer, CLIENT_REPLY_MAX);
		full = !r;
		if (r > 0)
			r = channel_read(&c->channel, &record);
		if (!r)
			break;
		if (r > 0)
			r = client_record(c, &record);
		if (r < 0) {
			client_kill(c, "it broke the protocol");
			return;
		}
		++n;
	}
	client_pump(c);
	if (c->state != CLIENT_RUNNING)
		return;
	if (n == CLIENT_BATCH) {
		c->again = true;
		r = channel_flush(&c->channel);
	} else if (c->busy && manager_spins(c->manager)) {
		r = channel_flush(&c->channel);
	} else {
		/* With records waiting for room, more of them are no reason to be awake. */
		r = full ? channel_sleep_full(&c->channel, CLIENT_REPLY_MAX)
			 : channel_sleep(&c->channel);
		c->again = r > 0;
	}
	if (r < 0)
		client_kill(c, r == -EPROTO ? "it broke the protocol" : NULL);
}

void client_settle(struct client *c)
{
	c->pumped = false;
	if (c->state != CLIENT_RUNNING)
		return;
	client_serve(c);
	if (c->state == CLIENT_RUNNING && c->again)
		++c->manager->n_again;
}

void client_event(struct client *c)
{
	int r;

	if (c->state == CLIENT_HELLO || c->state == CLIENT_LOADING) {
		client_hello(c);
		/* It may be welcome, and have sent something already. */
		client_settle(c);
	} else if (c->state == CLIENT_RUNNING) {
		r = channel_wake(&c->channel);
		if (r < 0) {
			client_kill(c, r == -EPROTO ? "it sent what is no bell" : NULL);
			return;
		}
		client_settle(c);
	}
}
