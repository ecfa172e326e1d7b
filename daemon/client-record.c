/* SPDX-License-Identifier: MIT */
#include "client-record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "limit.h"
#include "manager.h"
#include "num.h"

static void client_write(struct client *c, uint16_t type, uint64_t id, const void *head,
	size_t head_size, const void *tail, size_t tail_size)
{
	/* There is room: client_serve() saw to it. */
	int r = channel_write2(&c->channel, type, id, head, head_size, tail, tail_size);

	if (r <= 0)
		client_kill(c, "it broke the protocol");
}

static void client_ok(struct client *c, uint64_t id)
{
	client_write(c, WIRE_OK, id, NULL, 0, NULL, 0);
}

static int client_write_error(struct client *c, uint64_t id, int code, const char *text)
{
	size_t n = num_min(strlen(text), (size_t)WIRE_TEXT_MAX);
	struct wire_error head = {.code = code, .text_length = (uint32_t)n};

	return channel_write2(&c->channel, WIRE_ERROR, id, &head, sizeof head, text, n);
}

static void client_error(struct client *c, uint64_t id, int code, const char *text)
{
	if (client_write_error(c, id, code, text) <= 0)
		client_kill(c, "it broke the protocol");
}

static struct submit *client_submit_find(const struct client *c, uint64_t id)
{
	list_for_each(it, &c->submits)
	{
		struct submit *s = list_entry(it, struct submit, link);

		if (s->wire_id == id)
			return s;
	}
	return NULL;
}

static struct request *client_request_find(const struct client *c, uint64_t id)
{
	list_for_each(it, &c->requests)
	{
		struct request *r = list_entry(it, struct request, link);

		if (r->wire_id == id)
			return r;
	}
	return NULL;
}

static bool client_is_zero(const uint8_t *id)
{
	static const uint8_t zero[WIRE_ID_SIZE];

	return !memcmp(id, zero, sizeof zero);
}

static void client_session_open(struct client *c, uint64_t id, const struct wire_session_open *open)
{
	struct session *session = NULL;
	struct wire_session answer = {0};
	bool known = false;
	int r;

	if (!client_is_zero(open->id)) {
		session = manager_session_find(c->manager, c->peer.uid, open->id);
		answer.flags = session ? WIRE_SESSION_FOUND : 0;
	}
	for (uint32_t i = 0; session && i < c->n_sessions; ++i)
		known |= c->sessions[i] == session;
	if (!known && c->n_sessions == LIMIT_SESSIONS_PER_CLIENT) {
		client_error(c, id, -EDQUOT, "this connection has as many sessions as it may open");
		return;
	}
	if (!session) {
		r = manager_session_new(c->manager, c->peer.uid, true, &session);
		if (r < 0) {
			client_error(c, id, r,
				r == -EDQUOT ? "this user has as many sessions as limits.sessions "
					       "allows, and all are in use"
					     : "no memory for a session");
			return;
		}
	}
	if (!known) {
		c->sessions[c->n_sessions++] = session;
		++session->opened;
	}
	session->used_ns = clock_now();
	memcpy(answer.id, session->id, sizeof answer.id);
	answer.positions = atomic_load(&session->held);
	client_write(c, WIRE_SESSION, id, &answer, sizeof answer, NULL, 0);
}

static void client_session_end(
	struct client *c, uint64_t id, const struct wire_session_ref *ref, bool forget)
{
	struct session *session = manager_session_find(c->manager, c->peer.uid, ref->id);

	if (!session) {
		client_error(c, id, -ENOENT, "there is no such session");
		return;
	}
	if (forget && !privilege_may(PRIVILEGE_FORGET, c->admin)) {
		client_error(c, id, -EACCES, "only administrators may do that");
		return;
	}
	for (uint32_t i = 0; i < c->n_sessions; ++i) {
		if (c->sessions[i] != session)
			continue;
		c->sessions[i] = c->sessions[--c->n_sessions];
		--session->opened;
		break;
	}
	if (forget)
		manager_session_forget(c->manager, session);
	else
		manager_session_release(c->manager, session);
	client_ok(c, id);
}

/* What it grew to is counted. */
static int client_submit_count(struct client *c, struct submit *s, struct error *err)
{
	uint64_t heap = submit_heap(s);
	int r = manager_heap(c->manager, (int64_t)(heap - s->heap), err);

	if (r >= 0)
		s->heap = heap;
	return r;
}

static int client_submit(struct client *c, uint64_t id, const struct wire_submit *head)
{
	struct error err = ERROR_NONE;
	struct submit *s;
	int r;

	if (client_submit_find(c, id) || client_request_find(c, id))
		return -EPROTO;
	r = -EDQUOT;
	if (c->n_submits + c->n_requests >= c->manager->config.limit_requests)
		(void)error_set(
			&err, r, "as many requests as limits.requests allows are under way");
	else
		r = submit_new(&s, id, head, &err);
	if (r == -EPROTO)
		return r;
	if (r >= 0) {
		list_append(&c->submits, &s->link);
		++c->n_submits;
		r = client_submit_count(c, s, &err);
		if (r < 0)
			client_submit_drop(c, s);
	}
	if (r < 0)
		client_error(c, id, r, error_text(&err, r));
	return 0;
}

void client_submit_drop(struct client *c, struct submit *s)
{
	(void)manager_heap(c->manager, -(int64_t)s->heap, NULL);
	submit_free(s);
	--c->n_submits;
}

/* Pieces of a request that was refused meanwhile are still on their way: they are ignored. */
static int client_data(struct client *c, uint64_t id, const uint8_t *payload, size_t n)
{
	struct submit *s = client_submit_find(c, id);
	struct error err = ERROR_NONE;
	struct wire_data head;
	int r;

	if (n < sizeof head)
		return -EPROTO;
	if (!s)
		return 0;
	memcpy(&head, payload, sizeof head);
	r = submit_data(s, &head, payload + sizeof head, n - sizeof head, &c->manager->load,
		c->manager->prompt_max, &err);
	if (r == -EPROTO)
		return r;
	if (r >= 0)
		r = client_submit_count(c, s, &err);
	if (r < 0) {
		client_submit_drop(c, s);
		client_error(c, id, r, error_text(&err, r));
	}
	return 0;
}

static int client_user_requests(const struct client *c)
{
	int n = 0;

	list_for_each(it, &c->manager->clients)
	{
		const struct client *other = list_entry(it, struct client, link);

		if (other->peer.uid == c->peer.uid)
			n += (int)other->n_requests;
	}
	return n;
}

/* Whose connections have gone; the engine gives them back within a tile. */
static uint64_t client_user_orphans(const struct client *c)
{
	uint64_t n = 0;

	list_for_each(it, &c->manager->orphans) n +=
		list_entry(it, struct request, link)->uid == c->peer.uid;
	return n;
}

static int client_submit_session(
	struct client *c, struct submit *s, struct request *r, struct error *err)
{
	struct manager *m = c->manager;
	int k;

	r->uid = c->peer.uid;
	if (!client_is_zero(s->head.session)) {
		r->session = manager_session_find(m, c->peer.uid, s->head.session);
		return r->session ? 0 : error_set(err, -ENOENT, "there is no such session");
	}
	k = manager_session_new(m, c->peer.uid, false, &r->session);
	return k < 0 ? error_set(err, k, "no room for another session") : 0;
}

static void client_submit_end(struct client *c, uint64_t id)
{
	struct submit *s = client_submit_find(c, id);
	struct manager *m = c->manager;
	struct wire_accepted accepted = {0};
	struct error err = ERROR_NONE;
	struct request *r = NULL;
	int k;

	if (!s)
		return;
	if (m->state != MANAGER_READY)
		k = error_set(&err, -ESHUTDOWN, "moed is stopping");
	else if ((uint64_t)client_user_requests(c) >= m->config.limit_requests ||
		 client_user_orphans(c) >= m->config.limit_requests ||
		 m->n_requests >= LIMIT_REQUESTS)
		k = error_set(
			&err, -EDQUOT, "as many requests as limits.requests allows are under way");
	else
		k = submit_finish(s, &m->load, m->config.limit_tokens, &r, &err);
	if (k >= 0 && r->flags & REQUEST_ROUTES &&
		request_want_routes(r, routes_token_bytes(m->load.desc), manager_heap_room(m)) < 0)
		k = error_errno(&err, -ENOMEM, "no memory for the routes");
	if (k >= 0) {
		uint64_t heap = request_heap(r, m->load.desc->vocabulary);

		k = manager_heap(m, (int64_t)heap, &err);
		if (k >= 0)
			r->heap = heap;
	}
	if (k >= 0)
		k = client_submit_session(c, s, r, &err);
	client_submit_drop(c, s);
	if (k < 0) {
		if (r)
			(void)manager_heap(m, -(int64_t)r->heap, NULL);
		request_free(r);
		client_error(c, id, k, error_text(&err, k));
		return;
	}
	r->client = c;
	list_append(&c->requests, &r->link);
	++c->n_requests;
	accepted.ahead = m->n_requests;
	manager_submit(m, r);
	client_write(c, WIRE_ACCEPTED, id, &accepted, sizeof accepted, NULL, 0);
}

static void client_cancel(struct client *c, uint64_t id)
{
	struct submit *s = client_submit_find(c, id);
	struct request *r = client_request_find(c, id);

	if (s) {
		client_submit_drop(c, s);
		client_error(c, id, -ECANCELED, "cancelled before it was complete");
	}
	if (c->trace && c->trace->wire_id == id)
		manager_trace_end(c->manager, c->trace);
	/* It may just have ended: then DONE is on its way. */
	if (r && !r->done) {
		atomic_store(&r->cancel, true);
		manager_poke(c->manager, r);
	}
}

static void client_status(struct client *c, uint64_t id)
{
	if (!privilege_may(PRIVILEGE_STATUS, c->admin)) {
		client_error(c, id, -EACCES, "only administrators may do that");
		return;
	}
	if (c->status || c->experts) {
		client_error(c, id, -EBUSY, "the last status is still on its way");
		return;
	}
	c->status = status_json(c->manager, c->peer.uid, privilege_may(PRIVILEGE_OTHERS, c->admin),
		&c->status_size);
	if (!c->status) {
		client_error(c, id, -ENOMEM, "no memory for the status");
		return;
	}
	c->status_sent = 0;
	c->status_id = id;
}

static void client_experts(struct client *c, uint64_t id)
{
	struct error err = ERROR_NONE;
	int r;

	if (!privilege_may(PRIVILEGE_OTHERS, c->admin)) {
		client_error(c, id, -EACCES,
			"what all users' texts chose is for root and members of the group "
			"moed-admin");
		return;
	}
	if (c->status || c->experts) {
		client_error(c, id, -EBUSY, "the last status is still on its way");
		return;
	}
	r = experts_ask(c, &err);
	if (r < 0) {
		client_error(c, id, r, error_text(&err, r));
		return;
	}
	c->status_sent = 0;
	c->status_id = id;
}

static int client_trace(struct client *c, uint64_t id, const struct wire_trace *trace)
{
	struct error err = ERROR_NONE;
	int r;

	if (trace->flags || trace->reserved)
		return -EPROTO;
	if (!privilege_may(PRIVILEGE_TRACE, c->admin))
		r = error_set(&err, -EACCES,
			"what is chosen for all users' texts is for root and members of the group "
			"moed-admin");
	else if (c->trace)
		r = error_set(&err, -EBUSY, "this connection has a trace already");
	else
		r = manager_trace_new(c->manager, c, id, &err);
	if (r < 0)
		client_error(c, id, r, error_text(&err, r));
	return 0;
}

static int client_admin(struct client *c, uint64_t id, const struct wire_admin *admin)
{
	bool reload = admin->verb == WIRE_ADMIN_RELOAD;
	struct error err = ERROR_NONE;
	int r;

	if (admin->reserved || (!reload && admin->verb != WIRE_ADMIN_DRAIN))
		return -EPROTO;
	if (!privilege_may(reload ? PRIVILEGE_RELOAD : PRIVILEGE_DRAIN, c->admin)) {
		client_error(c, id, -EACCES,
			"only root and members of the group moed-admin may do that");
		return 0;
	}
	if (reload) {
		r = manager_reload(c->manager, &err);
		if (r < 0) {
			client_error(c, id, r, error_text(&err, r));
			return 0;
		}
	} else {
		manager_drain(c->manager);
	}
	client_ok(c, id);
	return 0;
}

/* Sizes are exact, but for DATA. */
static bool client_size_is_right(uint16_t type, size_t n)
{
	static const size_t sizes[] = {
		[WIRE_SESSION_OPEN] = sizeof(struct wire_session_open),
		[WIRE_SESSION_CLOSE] = sizeof(struct wire_session_ref),
		[WIRE_SESSION_FORGET] = sizeof(struct wire_session_ref),
		[WIRE_SUBMIT] = sizeof(struct wire_submit),
		[WIRE_ADMIN] = sizeof(struct wire_admin),
		[WIRE_PING] = sizeof(struct wire_ping),
		[WIRE_EXPERTS] = 0,
		[WIRE_TRACE] = sizeof(struct wire_trace),
	};

	return type == WIRE_DATA || (type < ARRAY_SIZE(sizes) && sizes[type] == n);
}

int client_record(struct client *c, const struct wire_record *record)
{
	size_t n = record->size - sizeof *record;
	const uint8_t *payload = c->channel.payload;
	union {
		struct wire_session_open open;
		struct wire_session_ref ref;
		struct wire_submit submit;
		struct wire_ping ping;
		struct wire_admin admin;
		struct wire_trace trace;
	} u;

	if (!record->request || record->flags || !client_size_is_right(record->type, n))
		return -EPROTO;
	memcpy(&u, payload, num_min(n, sizeof u));
	/* What both sides know. */
	if (c->minor < 1 &&
		(record->type > WIRE_ADMIN ||
			(record->type == WIRE_SUBMIT && u.submit.flags & ~WIRE_SUBMIT_FLAGS_0)))
		return -EPROTO;
	switch (record->type) {
	case WIRE_SESSION_OPEN:
		if (u.open.flags || u.open.reserved)
			return -EPROTO;
		client_session_open(c, record->request, &u.open);
		return 0;
	case WIRE_SESSION_CLOSE:
	case WIRE_SESSION_FORGET:
		client_session_end(c, record->request, &u.ref, record->type == WIRE_SESSION_FORGET);
		return 0;
	case WIRE_SUBMIT:
		return client_submit(c, record->request, &u.submit);
	case WIRE_DATA:
		return client_data(c, record->request, payload, n);
	case WIRE_SUBMIT_END:
		client_submit_end(c, record->request);
		return 0;
	case WIRE_CANCEL:
		client_cancel(c, record->request);
		return 0;
	case WIRE_STATUS:
		client_status(c, record->request);
		return 0;
	case WIRE_PING:
		if (u.ping.flags & ~WIRE_PING_BUSY || u.ping.reserved)
			return -EPROTO;
		c->busy = u.ping.flags & WIRE_PING_BUSY;
		if (c->busy)
			manager_spin(c->manager);
		client_write(c, WIRE_PONG, record->request, &u.ping, sizeof u.ping, NULL, 0);
		return 0;
	case WIRE_ADMIN:
		return client_admin(c, record->request, &u.admin);
	case WIRE_EXPERTS:
		client_experts(c, record->request);
		return 0;
	case WIRE_TRACE:
		return client_trace(c, record->request, &u.trace);
	default:
		return -EPROTO;
	}
}
