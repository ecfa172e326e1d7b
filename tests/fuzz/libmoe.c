/* SPDX-License-Identifier: MIT */

/*
 * A daemon that lies, to libmoe: the input is a list of what it does (a byte that says what, then
 * what that needs) in turns with what the program that uses libmoe does.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "moe.h"
#include "num.h"
#include "sock.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define STEPS 200u
#define EVENTS 40u

static char folder[] = "/tmp/moed-fuzz-XXXXXX", path[64];
static int listener = -1;

struct input {
	const uint8_t *at;
	size_t n;
};

struct daemon {
	int sock;
	bool has; /* segments */
	struct segment in, out;
	struct ring_writer writer;
	uint32_t rung;
};

static void tidy(void)
{
	(void)unlink(path);
	(void)rmdir(folder);
}

static void prepare(void)
{
	if (listener >= 0)
		return;
	if (!mkdtemp(folder))
		abort();
	(void)snprintf(path, sizeof(path), "%s/s", folder);
	(void)atexit(tidy);
	listener = sock_listen(path, 0600, NULL);
	if (listener < 0)
		abort();
}

static uint64_t take(struct input *in, size_t size)
{
	uint64_t v = 0;

	size = num_min(size, in->n);
	memcpy(&v, in->at, size);
	in->at += size;
	in->n -= size;
	return v;
}

static const uint8_t *take_bytes(struct input *in, size_t *n)
{
	const uint8_t *at = in->at;

	*n = num_min(*n, in->n);
	in->at += *n;
	in->n -= *n;
	return at;
}

/* Any packet, with a right header where that is wanted. */
static void do_packet(struct input *in, struct daemon *d)
{
	struct wire_message head = {WIRE_MAGIC, (uint16_t)take(in, 1), 0};
	uint8_t packet[300];
	size_t n = take(in, 1);
	const uint8_t *bytes = take_bytes(in, &n);
	bool right = head.type & 0x80;

	head.type &= 0x7f;
	head.size = (uint16_t)(sizeof(head) + n);
	memcpy(packet, &head, sizeof(head));
	memcpy(packet + (right ? sizeof(head) : 0), bytes, n);
	(void)sock_send(d->sock, packet, right ? head.size : n, NULL, 0);
}

/* A sound WELCOME but for one number. */
static void do_welcome(struct input *in, struct daemon *d)
{
	struct wire_welcome w = {.message = {WIRE_MAGIC, WIRE_WELCOME, sizeof(w)},
		.major = WIRE_MAJOR,
		.record_max = LIMIT_RECORD,
		.vocabulary = 300,
		.context = 100};
	size_t at = take(in, 1), size = take(in, 1) % 9;
	uint64_t value = take(in, size);
	int fds[2];

	if (d->has)
		return;
	if (segment_make(&d->in, LIMIT_RING_MIN, false, NULL) < 0)
		return;
	if (segment_make(&d->out, LIMIT_RING_MIN, true, NULL) < 0) {
		segment_deinit(&d->in);
		return;
	}
	w.client = d->in.geometry;
	w.daemon = d->out.geometry;
	if (at + size <= sizeof(w))
		memcpy((uint8_t *)&w + at, &value, size);
	fds[0] = at == 255 ? d->out.fd : d->in.fd;
	fds[1] = at == 254 ? d->in.fd : d->out.fd;
	(void)sock_send(d->sock, &w, sizeof(w), fds, at == 253 ? 1 : 2);
	ring_writer_init(&d->writer, d->out.map, d->in.map, &d->out.geometry);
	d->has = true;
}

/* A sound record of any type and content, for one of the first requests. */
static void do_record(struct input *in, struct daemon *d)
{
	uint16_t type = (uint16_t)take(in, 1);
	uint64_t request = take(in, 1);
	size_t n = take(in, 1);
	struct iovec piece = {.iov_base = (void *)(uintptr_t)take_bytes(in, &n)};

	piece.iov_len = n;
	(void)ring_write(&d->writer, type, request, &piece, 1);
	ring_writer_publish(&d->writer);
}

/* Any bytes in the ring, any number in the header. */
static void do_scribble(struct input *in, struct daemon *d)
{
	uint32_t at = (uint32_t)take(in, 2);
	size_t n = take(in, 1);
	const uint8_t *bytes = take_bytes(in, &n);

	memcpy((uint8_t *)d->out.map + num_min((uint64_t)at, d->out.size - n), bytes, n);
}

static void do_index(struct input *in, struct daemon *d)
{
	uint64_t which = take(in, 1), value = take(in, 1 + which / 8 % 8);
	struct wire_segment *s = d->out.map;

	switch (which % 4) {
	case 0:
		__atomic_store_n(&s->head, value, __ATOMIC_SEQ_CST);
		break;
	case 1:
		__atomic_store_n(&s->tail, value, __ATOMIC_SEQ_CST);
		break;
	case 2:
		__atomic_store_n(&s->sleep_empty, (uint32_t)value, __ATOMIC_SEQ_CST);
		break;
	default:
		__atomic_store_n(&s->sleep_full, (uint32_t)value, __ATOMIC_SEQ_CST);
	}
}

/* What the program asks for. */
static void do_call(struct input *in, struct moe *m, struct moe_session **s)
{
	struct moe_request r = MOE_REQUEST_INIT;
	unsigned char id[MOE_ID_SIZE] = {1};
	uint64_t what = take(in, 1);

	switch (what % 8) {
	case 0:
		r.text = "text";
		r.flags = (uint32_t)what / 8 % 32;
		(void)moe_submit(m, *s, &r, NULL);
		break;
	case 1:
		if (!*s)
			(void)moe_session_open(m, what & 8 ? id : NULL, s);
		break;
	case 2:
		if (*s)
			(void)moe_session_close(*s, what & 8 ? 1 : 0);
		*s = NULL;
		break;
	case 3:
		if (what & 8)
			(void)moe_experts(m, NULL);
		else if (what & 16)
			(void)moe_trace(m, NULL);
		else
			(void)moe_status(m, NULL);
		break;
	case 4:
		(void)moe_cancel(m, what / 8);
		break;
	case 5:
		(void)moe_ping(m, what & 8 ? MOE_PING_BUSY : 0, NULL);
		break;
	case 6:
		(void)moe_admin(m, MOE_ADMIN_RELOAD, NULL);
		break;
	default:
		r.text = "";
		r.text_length = 0;
		(void)moe_submit(m, *s, &r, NULL);
	}
}

/* Everything that an event promises is there. */
static void look(const struct moe_event *e)
{
	float sum = 0;

	if (!e->text || e->text[e->text_length] || !e->type)
		abort();
	for (size_t i = 0; i < e->n_logits; i++)
		sum += e->logits[i];
	for (size_t i = 0; i < e->n_routes; i++)
		sum += e->routes[i].weight;
	__asm__ volatile("" : : "x"(sum));
	if (e->type == MOE_ERROR && e->code >= 0)
		abort();
}

static void step(struct input *in, struct daemon *d, struct moe *m, struct moe_session **s)
{
	const struct moe_event *e;
	uint64_t what = take(in, 1);

	switch (what % 8) {
	case 0:
		do_packet(in, d);
		break;
	case 1:
		do_welcome(in, d);
		break;
	case 2:
	case 3:
		if (d->has)
			do_record(in, d);
		break;
	case 4:
		if (d->has)
			do_scribble(in, d);
		break;
	case 5:
		if (d->has)
			do_index(in, d);
		break;
	case 6:
		do_call(in, m, s);
		break;
	default:
		(void)sock_bell(d->sock);
		for (unsigned i = 0; i < EVENTS && moe_next(m, 0, &e) > 0; i++)
			look(e);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct input in = {bytes, n};
	struct daemon d = {.in = SEGMENT_NULL, .out = SEGMENT_NULL};
	struct moe_session *s = NULL;
	const struct moe_event *e;
	struct sock_peer peer;
	struct moe *m;

	prepare();
	if (moe_open(&m, path) < 0)
		abort();
	d.sock = sock_accept(listener, &peer);
	if (d.sock < 0)
		abort();
	for (unsigned i = 0; i < STEPS && in.n; i++)
		step(&in, &d, m, &s);
	(void)sock_bell(d.sock);
	for (unsigned i = 0; i < EVENTS && moe_next(m, 0, &e) > 0; i++)
		look(e);
	(void)close(d.sock);
	for (unsigned i = 0; i < EVENTS && moe_next(m, 0, &e) > 0; i++)
		look(e);
	moe_close(m);
	segment_deinit(&d.in);
	segment_deinit(&d.out);
	return 0;
}
