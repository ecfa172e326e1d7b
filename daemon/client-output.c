/* SPDX-License-Identifier: MIT */
/* What requests bring back, into the client's ring while there is room. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client-record.h"
#include "limit.h"
#include "manager.h"
#include "num.h"

#define CLIENT_LOGITS_MAX ((RING_PAYLOAD_MAX - sizeof(struct wire_logits)) / sizeof(float))
#define CLIENT_STATUS_MAX 4096u
/* Of the entries in one record. */
#define CLIENT_ROUTES_MAX 8192u
static_assert(CLIENT_ROUTES_MAX >= ROUTES_ENTRY_MAX, "an entry must fit into a record");

/* 1: all that are here are out; 0: no room; negative: over. */
static int client_routes(struct client *c, struct routes *routes, uint64_t id, uint64_t lost)
{
	uint8_t entries[CLIENT_ROUTES_MAX];

	while (!routes_is_empty(routes)) {
		struct wire_routes head = {.lost = lost};
		uint32_t n = routes_peek(routes, entries, sizeof entries, &head.count);
		int k = channel_write2(
			&c->channel, WIRE_ROUTES, id, &head, sizeof head, entries, n);

		if (k <= 0)
			return k;
		routes_take(routes, n);
	}
	return 1;
}

static int client_trace_pump(struct client *c)
{
	struct trace *t = c->trace;
	struct wire_routes begun = {0};
	struct wire_traced end = {0};
	int k = 1;

	if (!t)
		return 1;
	/* Without entries: it is known from here on that all is told. */
	if (!t->greeted)
		k = channel_write2(
			&c->channel, WIRE_ROUTES, t->wire_id, &begun, sizeof begun, NULL, 0);
	t->greeted |= k > 0;
	if (k > 0)
		k = client_routes(c, &t->routes, t->wire_id, atomic_load(&t->lost));
	if (k <= 0 || !t->over)
		return k;
	end.tokens = atomic_load(&t->tokens);
	end.lost = atomic_load(&t->lost);
	k = channel_write2(&c->channel, WIRE_TRACED, t->wire_id, &end, sizeof end, NULL, 0);
	if (k > 0) {
		c->trace = NULL;
		manager_trace_free(c->manager, t);
	}
	return k;
}

/* 1: all of the row is out; 0: no room; negative: over. */
static int client_logits(struct client *c, struct request *r, const struct request_event *e)
{
	uint32_t all = c->manager->load.desc->vocabulary;

	while (r->logits_sent < all) {
		struct wire_logits head = {.position = e->position,
			.first = r->logits_sent,
			.count = (uint32_t)num_min(
				(size_t)(all - r->logits_sent), CLIENT_LOGITS_MAX),
			.of = all};
		int k = channel_write2(&c->channel, WIRE_LOGITS, r->wire_id, &head, sizeof head,
			r->logits + r->logits_sent, head.count * sizeof(float));

		if (k <= 0)
			return k;
		r->logits_sent += head.count;
	}
	return 1;
}

static int client_token(
	struct client *c, struct request *r, const struct request_event *e, const char *text)
{
	struct wire_token head = {.id = e->id,
		.position = e->position,
		.logprob = e->logprob,
		.text_length = e->text};

	if (e->flags & REQUEST_EVENT_LOGPROB)
		head.flags |= WIRE_TOKEN_LOGPROB;
	if (e->flags & REQUEST_EVENT_PROMPT)
		head.flags |= WIRE_TOKEN_PROMPT;
	if (e->flags & REQUEST_EVENT_LOGITS)
		return client_logits(c, r, e);
	return channel_write2(
		&c->channel, WIRE_TOKEN, r->wire_id, &head, sizeof head, text, e->text);
}

static void client_token_times(struct manager *m, struct request *r, const struct request_event *e)
{
	r->told += (e->flags & REQUEST_EVENT_TOKEN) != 0;
	if (!(e->flags & REQUEST_EVENT_TOKEN) || e->flags & REQUEST_EVENT_PROMPT)
		return;
	if (r->last_token_ns)
		status_latency_add(&m->token, e->time_ns - r->last_token_ns);
	else
		status_latency_add(&m->ttft, e->time_ns - r->submit_ns);
	r->last_token_ns = e->time_ns;
}

static int client_outcome(struct client *c, struct request *r)
{
	const struct request_figures *f = &r->figures;
	uint64_t start = f->start_ns ? f->start_ns : f->end_ns;
	uint64_t first = f->first_ns ? f->first_ns : f->end_ns;
	struct wire_done done = {
		.finish = r->finish,
		.prompt_tokens = r->n_prompt,
		.generated = f->generated,
		.reused = f->reused,
		.queue_ns = start - r->submit_ns,
		.prefill_ns = first - start,
		.decode_ns = f->end_ns - first,
		.io_wait_ns = f->io_wait_ns,
		.hits = f->hits,
		.misses = f->misses,
		.bytes_read = f->bytes_read,
		.bytes_useful = f->bytes_useful,
	};
	const char *text;
	size_t n;
	struct wire_error head;

	if (r->finish != REQUEST_FAILED)
		return channel_write2(
			&c->channel, WIRE_DONE, r->wire_id, &done, sizeof done, NULL, 0);
	text = error_text(&r->error, r->error.code);
	n = num_min(strlen(text), (size_t)WIRE_TEXT_MAX);
	head = (struct wire_error){.code = r->error.code, .text_length = (uint32_t)n};
	return channel_write2(&c->channel, WIRE_ERROR, r->wire_id, &head, sizeof head, text, n);
}

static int client_prompt_progress(struct client *c, struct request *r)
{
	struct wire_progress p = {.done = atomic_load(&r->computed), .of = r->n_prompt};
	int k;

	if (p.done == r->progress_sent || r->last_token_ns || r->flags & REQUEST_SCORE)
		return 1;
	k = channel_write2(&c->channel, WIRE_PROGRESS, r->wire_id, &p, sizeof p, NULL, 0);
	if (k > 0)
		r->progress_sent = p.done;
	return k;
}

/* 1: nothing is left (the request may be gone); 0: no room; negative: over. */
static int client_request_pump(struct client *c, struct request *r)
{
	char text[REQUEST_TEXT_MAX];
	struct request_event e;
	bool taken = false;
	bool routed = !routes_is_empty(&r->routes);
	int k = client_prompt_progress(c, r);

	if (k > 0)
		k = client_routes(c, &r->routes, r->wire_id, 0);
	taken = routed && k > 0;
	while (k > 0 && request_out_peek(r, &e, text)) {
		k = client_token(c, r, &e, text);
		if (k <= 0)
			break;
		client_token_times(c->manager, r, &e);
		request_out_take(r, &e);
		if (e.flags & REQUEST_EVENT_LOGITS) {
			r->logits_sent = 0;
			atomic_store(&r->logits_full, false);
		}
		taken = true;
	}
	if (taken && atomic_exchange(&r->starved, false) && !r->done)
		manager_poke(c->manager, r);
	if (k > 0 && r->done) {
		k = client_outcome(c, r);
		if (k > 0) {
			r->client = NULL;
			--c->n_requests;
			if (r->finish == REQUEST_FAILED)
				++c->manager->n_failed;
			else
				++c->manager->n_finished;
			manager_release(c->manager, r);
		}
	}
	return k;
}

static int client_status_pump(struct client *c)
{
	while (c->status) {
		size_t n = num_min(c->status_size - c->status_sent, (size_t)CLIENT_STATUS_MAX);
		struct wire_status_piece head = {
			.offset = (uint32_t)c->status_sent, .of = (uint32_t)c->status_size};
		int k = channel_write2(&c->channel, WIRE_STATUS_PIECE, c->status_id, &head,
			sizeof head, c->status + c->status_sent, n);

		if (k <= 0)
			return k;
		c->status_sent += n;
		if (c->status_sent == c->status_size) {
			free(c->status);
			c->status = NULL;
		}
	}
	return 1;
}

void client_pump(struct client *c)
{
	int k;

	if (c->state != CLIENT_RUNNING)
		return;
	k = client_status_pump(c);
	if (k > 0)
		k = client_trace_pump(c);
	list_for_each_safe(it, &c->requests)
	{
		if (k <= 0)
			break;
		k = client_request_pump(c, list_entry(it, struct request, link));
	}
	/* Whoever was first now goes last. */
	if (!list_is_empty(&c->requests)) {
		struct list *first = c->requests.next;

		list_remove(first);
		list_append(&c->requests, first);
	}
	if (k < 0)
		client_kill(c, "it broke the protocol");
}
