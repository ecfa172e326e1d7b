/* SPDX-License-Identifier: MIT */
#include "handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"

void event_set(struct moe *m, enum moe_event_type type, uint64_t request)
{
	m->event = (struct moe_event){.type = type, .request = request, .text = ""};
	m->text[0] = 0;
}

void event_text(struct moe *m, const void *text, size_t length)
{
	length = num_min(length, sizeof(m->text) - 1);
	memcpy(m->text, text, length);
	m->text[length] = 0;
	m->event.text = m->text;
	m->event.text_length = length;
}

/* Copies the fixed part of a payload; false where it is too short for it. */
static bool part(const struct moe *m, size_t size, void *ret, size_t ret_size)
{
	if (size < ret_size)
		return false;
	memcpy(ret, m->channel.payload, ret_size);
	return true;
}

static int on_session(struct moe *m, struct request *r, size_t size)
{
	struct moe_session *s = r->session;
	struct wire_session w;

	if (r->kind != REQUEST_SESSION || !part(m, size, &w, sizeof(w)))
		return -EPROTO;
	event_set(m, MOE_SESSION, r->number);
	m->event.session = s;
	m->event.found = !!(w.flags & WIRE_SESSION_FOUND);
	if (s) {
		memcpy(s->id, w.id, WIRE_ID_SIZE);
		s->has_id = s->open = true;
		s->request = 0;
	}
	request_end(m, r->number);
	return s && !s->closing;
}

static int on_token(struct moe *m, struct request *r, size_t size)
{
	struct wire_token w;

	if (!part(m, size, &w, sizeof(w)) || w.text_length > size - sizeof(w))
		return -EPROTO;
	event_set(m, MOE_TOKEN, r->number);
	m->event.token = w.id;
	m->event.position = w.position;
	m->event.logprob = w.flags & WIRE_TOKEN_LOGPROB ? w.logprob : 0;
	m->event.has_logprob = !!(w.flags & WIRE_TOKEN_LOGPROB);
	m->event.from_prompt = !!(w.flags & WIRE_TOKEN_PROMPT);
	event_text(m, m->channel.payload + sizeof(w), w.text_length);
	return 1;
}

/* Puts a piece where it belongs.  1: the whole is there, 0: more is to come, -EPROTO, -ENOMEM. */
static int piece_add(struct request *r, const uint8_t *bytes, size_t n, uint64_t offset,
	uint64_t of, uint64_t max)
{
	if (of > max || offset != r->data_got || n > of - offset || (r->data && of != r->data_size))
		return -EPROTO;
	if (!r->data) {
		r->data = malloc(of + 1);
		if (!r->data)
			return -ENOMEM;
		r->data_size = of;
	}
	memcpy(r->data + offset, bytes, n);
	r->data_got += n;
	return r->data_got == of;
}

/* The caller's until the next call. */
static uint8_t *data_hold(struct moe *m, struct request *r)
{
	free(m->held);
	m->held = steal_ptr(r->data);
	m->held[r->data_size] = 0;
	r->data_got = 0;
	return m->held;
}

static int on_logits(struct moe *m, struct request *r, size_t size)
{
	struct wire_logits w;
	int k;

	if (!part(m, size, &w, sizeof(w)) || (size - sizeof(w)) / sizeof(float) < w.count)
		return -EPROTO;
	k = piece_add(r, m->channel.payload + sizeof(w), w.count * sizeof(float),
		(uint64_t)w.first * sizeof(float), (uint64_t)w.of * sizeof(float),
		LIMIT_VOCABULARY * sizeof(float));
	if (k <= 0)
		return k;
	event_set(m, MOE_LOGITS, r->number);
	m->event.position = w.position;
	m->event.logits = (const float *)(const void *)data_hold(m, r);
	m->event.n_logits = w.of;
	return 1;
}

/* The choices of one entry, best first. */
static void route_expand(const struct wire_route *w, const uint8_t *choices, struct moe_route *ret)
{
	for (uint32_t i = 0; i < w->count; i++) {
		struct wire_choice c;

		memcpy(&c, choices + i * sizeof(c), sizeof(c));
		ret[i] = (struct moe_route){.turn = w->turn,
			.position = w->position,
			.layer = w->layer,
			.slot = i,
			.expert = c.expert,
			.expert_bytes = w->bytes,
			.weight = c.weight,
			.decode = !!(w->flags & WIRE_ROUTE_DECODE),
			.resident = !!(c.flags & WIRE_CHOICE_RESIDENT)};
	}
}

static int on_routes(struct moe *m, struct request *r, size_t size)
{
	const uint8_t *at = m->channel.payload + sizeof(struct wire_routes);
	struct moe_route *routes;
	struct wire_routes head;
	size_t n = 0;

	if ((r->kind != REQUEST_SUBMIT && r->kind != REQUEST_TRACE) ||
		!part(m, size, &head, sizeof(head)))
		return -EPROTO;
	size -= sizeof(head);
	/* At most so many, since each takes as many bytes. */
	routes = calloc(size / sizeof(struct wire_choice) + 1, sizeof(*routes));
	if (!routes)
		return -ENOMEM;
	for (uint32_t i = 0; i < head.count; i++) {
		struct wire_route w;
		size_t bytes;

		if (size < sizeof(w))
			break;
		memcpy(&w, at, sizeof(w));
		bytes = sizeof(w) + w.count * sizeof(struct wire_choice);
		if (bytes > size)
			break;
		route_expand(&w, at + sizeof(w), routes + n);
		n += w.count;
		at += bytes;
		size -= bytes;
	}
	free(m->held);
	m->held = (uint8_t *)routes;
	if (size)
		return -EPROTO;
	event_set(m, MOE_ROUTES, r->number);
	m->event.routes = routes;
	m->event.n_routes = n;
	m->event.lost = head.lost;
	return 1;
}

static int on_traced(struct moe *m, struct request *r, size_t size)
{
	struct wire_traced w;

	if (r->kind != REQUEST_TRACE || !part(m, size, &w, sizeof(w)))
		return -EPROTO;
	event_set(m, MOE_DONE, r->number);
	m->event.finish = MOE_FINISH_CANCELLED;
	m->event.generated = (uint32_t)num_min(w.tokens, (uint64_t)UINT32_MAX);
	m->event.lost = w.lost;
	request_end(m, r->number);
	return 1;
}

static int on_status(struct moe *m, struct request *r, size_t size)
{
	struct wire_status_piece w;
	int k;

	if (r->kind != REQUEST_STATUS || !part(m, size, &w, sizeof(w)))
		return -EPROTO;
	k = piece_add(
		r, m->channel.payload + sizeof(w), size - sizeof(w), w.offset, w.of, LIMIT_PROMPT);
	if (k <= 0)
		return k;
	event_set(m, MOE_STATUS, r->number);
	m->event.text = (const char *)data_hold(m, r);
	m->event.text_length = w.of;
	request_end(m, r->number);
	return 1;
}

static int on_done(struct moe *m, struct request *r, size_t size)
{
	struct wire_done w;

	if (!part(m, size, &w, sizeof(w)) || w.finish < WIRE_FINISH_STOP ||
		w.finish > WIRE_FINISH_CANCELLED)
		return -EPROTO;
	event_set(m, MOE_DONE, r->number);
	m->event.finish = (enum moe_finish)w.finish;
	m->event.prompt_tokens = w.prompt_tokens;
	m->event.generated = w.generated;
	m->event.reused = w.reused;
	m->event.queue_ns = w.queue_ns;
	m->event.prefill_ns = w.prefill_ns;
	m->event.decode_ns = w.decode_ns;
	m->event.io_wait_ns = w.io_wait_ns;
	m->event.cache_hits = w.hits;
	m->event.cache_misses = w.misses;
	m->event.bytes_read = w.bytes_read;
	m->event.bytes_useful = w.bytes_useful;
	request_end(m, r->number);
	return 1;
}

static int on_error(struct moe *m, struct request *r, size_t size)
{
	struct wire_error w;
	bool tell = r->kind != REQUEST_CLOSE;

	if (!part(m, size, &w, sizeof(w)) || w.text_length > size - sizeof(w) || w.code >= 0 ||
		w.code < -4095)
		return -EPROTO;
	event_set(m, MOE_ERROR, r->number);
	m->event.code = w.code;
	event_text(m, m->channel.payload + sizeof(w), w.text_length);
	if (r->kind == REQUEST_SESSION && r->session) {
		m->event.session = r->session;
		r->session->failed = true;
		r->session->request = 0;
	}
	request_end(m, r->number);
	return tell;
}

static int on_small(struct moe *m, struct request *r, const struct wire_record *record, size_t size)
{
	struct wire_accepted accepted;
	struct wire_progress progress;
	bool tell = r->kind != REQUEST_CLOSE;

	switch (record->type) {
	case WIRE_ACCEPTED:
		if (!part(m, size, &accepted, sizeof(accepted)))
			return -EPROTO;
		event_set(m, MOE_ACCEPTED, r->number);
		m->event.ahead = accepted.ahead;
		return 1;
	case WIRE_PROGRESS:
		if (!part(m, size, &progress, sizeof(progress)))
			return -EPROTO;
		event_set(m, MOE_PROGRESS, r->number);
		m->event.done = progress.done;
		m->event.of = progress.of;
		return 1;
	case WIRE_PONG:
	case WIRE_OK:
		event_set(m, record->type == WIRE_PONG ? MOE_PONG : MOE_OK, r->number);
		request_end(m, r->number);
		return tell;
	default:
		return 0; /* of a later minor */
	}
}

int event_from_record(struct moe *m, const struct wire_record *record)
{
	struct request *r = request_find(m, record->request);
	size_t size = record->size - sizeof(*record);

	/* An answer to what has ended may still have been on its way. */
	if (!r)
		return record->type < WIRE_SESSION ? -EPROTO : 0;
	switch (record->type) {
	case WIRE_SESSION:
		return on_session(m, r, size);
	case WIRE_TOKEN:
		return on_token(m, r, size);
	case WIRE_LOGITS:
		return on_logits(m, r, size);
	case WIRE_STATUS_PIECE:
		return on_status(m, r, size);
	case WIRE_DONE:
		return on_done(m, r, size);
	case WIRE_ERROR:
		return on_error(m, r, size);
	case WIRE_ROUTES:
		return on_routes(m, r, size);
	case WIRE_TRACED:
		return on_traced(m, r, size);
	default:
		return record->type < WIRE_SESSION ? -EPROTO : on_small(m, r, record, size);
	}
}
