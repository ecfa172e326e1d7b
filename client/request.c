/* SPDX-License-Identifier: MIT */
#include "handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

#define PIECE_MAX (RING_PAYLOAD_MAX - sizeof(struct wire_data))

int request_new(struct moe *m, enum request_kind kind, struct moe_session *s, uint64_t *ret)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->number = ++m->next_request;
	r->kind = kind;
	r->session = s;
	r->next = m->requests;
	m->requests = r;
	*ret = r->number;
	return 0;
}

struct request *request_find(struct moe *m, uint64_t number)
{
	struct request *r = m->requests;

	while (r && r->number != number)
		r = r->next;
	return r;
}

void request_end(struct moe *m, uint64_t number)
{
	for (struct request **at = &m->requests, *r; (r = *at); at = &r->next) {
		if (r->number != number)
			continue;
		*at = r->next;
		free(r->data);
		free(r);
		return;
	}
}

int pending_add(struct moe *m, struct moe_session *s, uint16_t type, uint64_t request,
	const void *head, size_t head_size, const void *tail, size_t tail_size)
{
	struct pending *p = malloc(sizeof(*p) + head_size + tail_size);

	if (!p)
		return -ENOMEM;
	*p = (struct pending){
		.session = s, .request = request, .type = type, .size = head_size + tail_size};
	if (head_size)
		memcpy(p->payload, head, head_size);
	if (tail_size)
		memcpy(p->payload + head_size, tail, tail_size);
	*m->last = p;
	m->last = &p->next;
	return 0;
}

static void pending_pop(struct moe *m)
{
	struct pending *p = m->first;

	m->first = p->next;
	if (!m->first)
		m->last = &m->first;
	free(p);
}

void pending_drop(struct moe *m)
{
	while (m->first)
		pending_pop(m);
}

/* Takes back a request of which nothing was sent yet.  False: something was. */
bool pending_withdraw(struct moe *m, uint64_t number)
{
	bool found = false;

	for (struct pending **at = &m->first, *p; (p = *at);) {
		found |= p->request == number && (p->type == WIRE_SUBMIT || p->type == WIRE_TRACE);
		if (!found || p->request != number) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		free(p);
	}
	m->last = &m->first;
	while (*m->last)
		m->last = &(*m->last)->next;
	return found;
}

/* Records that name a session begin with its id, which is known once it is open. */
static bool names_session(uint16_t type)
{
	return type == WIRE_SUBMIT || type == WIRE_SESSION_CLOSE || type == WIRE_SESSION_FORGET;
}

/*
 * Sends what there is room for, in order.  A session that is not open yet holds back what comes
 * after; one that failed sends its requests without a session: they are answered all the same.
 */
int pending_flush(struct moe *m)
{
	struct pending *p;
	int k;

	while ((p = m->first)) {
		if (p->session && names_session(p->type)) {
			if (!p->session->open && !p->session->failed)
				break;
			if (p->session->open)
				memcpy(p->payload, p->session->id, WIRE_ID_SIZE);
		}
		k = channel_write2(&m->channel, p->type, p->request, p->payload, p->size, NULL, 0);
		if (k < 0)
			return k;
		if (k == 0)
			break;
		if (p->session && p->session->closing && names_session(p->type) &&
			p->type != WIRE_SUBMIT)
			session_free(p->session);
		pending_pop(m);
	}
	return channel_flush(&m->channel);
}

/* Takes back what was queued since `mark`, so that a failed call leaves nothing half sent. */
static void pending_cut(struct moe *m, struct pending **mark)
{
	struct pending *p = *mark, *next;

	for (*mark = NULL, m->last = mark; p; p = next) {
		next = p->next;
		free(p);
	}
}

static int data_add(
	struct moe *m, uint64_t number, enum wire_data_kind kind, const void *bytes, size_t size)
{
	const struct wire_data data = {.kind = kind};
	/* A multiple of 4, so that no id is cut. */
	const size_t piece_max = PIECE_MAX & ~(size_t)3;
	const uint8_t *at = bytes;
	size_t n;
	int k;

	do {
		n = num_min(size, piece_max);
		k = pending_add(m, NULL, WIRE_DATA, number, &data, sizeof(data), at, n);
		if (k < 0)
			return k;
		at += n;
		size -= n;
	} while (size);
	return 0;
}

static size_t length_of(const char *text, size_t length)
{
	return length == MOE_NUL ? strlen(text) : length;
}

static int prompt_add(struct moe *m, uint64_t number, const struct moe_request *r)
{
	const struct moe_turn *t;
	int k = 0;

	if (r->text)
		return data_add(
			m, number, WIRE_DATA_TEXT, r->text, length_of(r->text, r->text_length));
	if (r->ids)
		return data_add(m, number, WIRE_DATA_IDS, r->ids, r->n_ids * sizeof(*r->ids));
	for (size_t i = 0; i < r->n_turns && k == 0; i++) {
		t = &r->turns[i];
		k = data_add(m, number, WIRE_DATA_TURN, t->role, strlen(t->role));
		if (k == 0)
			k = data_add(m, number, WIRE_DATA_TEXT, t->text,
				length_of(t->text, t->text_length));
	}
	return k;
}

static int prompt_check(struct moe *m, const struct moe_request *r)
{
	uint64_t bytes = 0;

	if (!!r->text + !!r->turns + !!r->ids != 1)
		return error_set(&m->err, -EINVAL, "a request has one of text, turns and ids");
	if (r->text)
		bytes = length_of(r->text, r->text_length);
	if (r->n_turns > LIMIT_TURNS || (r->turns && !r->n_turns) || (r->ids && !r->n_ids))
		return error_set(&m->err, -EINVAL, "a request has 1 to %u turns, 1 or more ids",
			LIMIT_TURNS);
	for (size_t i = 0; r->turns && i < r->n_turns; i++) {
		if (!r->turns[i].role || !r->turns[i].text)
			return error_set(&m->err, -EINVAL, "a turn lacks its role or text");
		if (strlen(r->turns[i].role) > PIECE_MAX)
			return error_set(&m->err, -EINVAL, "the name of a role is too long");
		if (!num_add(bytes, length_of(r->turns[i].text, r->turns[i].text_length), &bytes))
			return -EMSGSIZE;
	}
	if (r->ids && !num_mul(r->n_ids, sizeof(*r->ids), &bytes))
		return -EMSGSIZE;
	if (bytes > LIMIT_PROMPT)
		return error_set(&m->err, -EMSGSIZE, "the prompt has %llu bytes, more than %llu",
			(unsigned long long)bytes, (unsigned long long)LIMIT_PROMPT);
	return 0;
}

static int stops_check(struct moe *m, const struct moe_request *r)
{
	if (r->n_stops > LIMIT_STOPS || (r->n_stops && !r->stops))
		return error_set(
			&m->err, -EINVAL, "a request has at most %u stop strings", LIMIT_STOPS);
	for (size_t i = 0; i < r->n_stops; i++) {
		size_t n = r->stops[i] ? strlen(r->stops[i]) : 0;

		if (n == 0 || n > LIMIT_STOP_LENGTH)
			return error_set(&m->err, -EINVAL, "a stop string has 1 to %u bytes",
				LIMIT_STOP_LENGTH);
	}
	return 0;
}

int submit_encode(
	struct moe *m, struct moe_session *s, const struct moe_request *r, uint64_t number)
{
	struct wire_submit submit = {
		.mode = r->text	 ? WIRE_MODE_TEXT
			: r->ids ? WIRE_MODE_IDS
				 : WIRE_MODE_CHAT,
		.flags = r->flags,
		.max_tokens = r->max_tokens,
		.top_k = r->top_k,
		.temperature = r->temperature,
		.top_p = r->top_p,
		.min_p = r->min_p,
		.seed = r->seed,
	};
	struct pending **mark = m->last;
	int k;

	k = prompt_check(m, r);
	if (k == 0)
		k = stops_check(m, r);
	if (k < 0)
		return k;
	if (r->flags & ~WIRE_SUBMIT_FLAGS)
		return error_set(&m->err, -EINVAL, "unknown flags in a request");
	k = pending_add(m, s, WIRE_SUBMIT, number, &submit, sizeof(submit), NULL, 0);
	for (size_t i = 0; k == 0 && i < r->n_stops; i++)
		k = data_add(m, number, WIRE_DATA_STOP, r->stops[i], strlen(r->stops[i]));
	if (k == 0)
		k = prompt_add(m, number, r);
	if (k == 0)
		k = pending_add(m, NULL, WIRE_SUBMIT_END, number, NULL, 0, NULL, 0);
	if (k < 0)
		pending_cut(m, mark);
	return k;
}

/* Out of the list, and no more named by what is under way. */
void session_free(struct moe_session *s)
{
	struct moe *m = s->m;

	for (struct moe_session **at = &m->sessions; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	for (struct request *r = m->requests; r; r = r->next)
		r->session = r->session == s ? NULL : r->session;
	for (struct pending *p = m->first; p; p = p->next)
		p->session = p->session == s ? NULL : p->session;
	free(s);
}

/* SESSION_OPEN goes before everything that waits: others may wait for its answer. */
int session_ask(struct moe_session *s)
{
	struct moe *m = s->m;
	struct wire_session_open open = {.flags = 0};
	struct pending *p, **last = m->last;
	int k;

	if (s->has_id)
		memcpy(open.id, s->id, WIRE_ID_SIZE);
	k = request_new(m, REQUEST_SESSION, s, &s->request);
	if (k < 0)
		return k;
	k = pending_add(m, NULL, WIRE_SESSION_OPEN, s->request, &open, sizeof(open), NULL, 0);
	if (k < 0) {
		request_end(m, s->request);
		s->request = 0;
		return k;
	}
	if (last != &m->first) {
		p = *last;
		*last = NULL;
		m->last = last;
		p->next = m->first;
		m->first = p;
	}
	return 0;
}
