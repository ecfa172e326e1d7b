/* SPDX-License-Identifier: MIT */
#include "fake.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "channel.h"
#include "fd.h"
#include "num.h"
#include "sock.h"

#define CONNS 40
#define SUBMITS 16

struct submit {
	uint64_t number; /* 0: none */
	struct wire_submit head;
	char *text; /* of the last turn, or ids as text */
	size_t n;
	char *show;
	size_t n_show;
	uint32_t ids;
	bool hangs;
};

struct conn {
	bool used, running;
	struct channel channel;
	struct submit submits[SUBMITS];
};

struct fake {
	struct fake_config config;
	char path[128];
	int listener, stop[2];
	atomic_bool stopping;
	pthread_t thread;
	struct conn conns[CONNS];
	unsigned answers; /* given so far */
};

static struct {
	uint8_t ids[256][WIRE_ID_SIZE];
	uint32_t held[256]; /* token ids of the last request */
	size_t n;
} sessions;

/* False: the connection is over. */
static bool put(struct fake *f, struct conn *c, uint16_t type, uint64_t number, const void *head,
	size_t n_head, const void *tail, size_t n_tail)
{
	struct pollfd p[2] = {{f->stop[0], POLLIN, 0}, {c->channel.sock, POLLIN, 0}};
	int k;

	while ((k = channel_write2(&c->channel, type, number, head, n_head, tail, n_tail)) == 0) {
		k = channel_sleep_full(&c->channel, n_head + n_tail);
		if (k == 0)
			(void)poll(p, 2, -1);
		if (k < 0 || atomic_load(&f->stopping) || channel_wake(&c->channel) < 0)
			return false;
	}
	return k > 0;
}

static bool put_text(struct fake *f, struct conn *c, uint64_t number, int32_t code, const char *s)
{
	struct wire_error e = {code, (uint32_t)strlen(s)};

	return put(f, c, WIRE_ERROR, number, &e, sizeof e, s, e.text_length);
}

static void submit_clear(struct submit *s)
{
	free(s->text);
	free(s->show);
	*s = (struct submit){0};
}

static struct submit *submit_find(struct conn *c, uint64_t number)
{
	for (size_t i = 0; i < SUBMITS; i++)
		if (c->submits[i].number == number)
			return &c->submits[i];
	return NULL;
}

static void add(char **text, size_t *n, const void *bytes, size_t more)
{
	*text = realloc(*text, *n + more + 1);
	assert(*text);
	if (more)
		memcpy(*text + *n, bytes, more);
	*n += more;
	(*text)[*n] = 0;
}

static void show(struct submit *s, const char *name, const void *bytes, size_t n)
{
	add(&s->show, &s->n_show, name, strlen(name));
	add(&s->show, &s->n_show, bytes, n);
	add(&s->show, &s->n_show, ";", 1);
}

static void show_head(struct submit *s)
{
	char text[256];
	int n = snprintf(text, sizeof text, "%u f=%u max=%u k=%u t=%g p=%g m=%g seed=%llu",
		s->head.mode, s->head.flags, s->head.max_tokens, s->head.top_k,
		(double)s->head.temperature, (double)s->head.top_p, (double)s->head.min_p,
		(unsigned long long)s->head.seed);

	show(s, "mode=", text, (size_t)n);
}

static void on_data(struct submit *s, const uint8_t *payload, size_t n)
{
	struct wire_data head;
	uint32_t id;
	char text[16];

	assert(n >= sizeof head);
	memcpy(&head, payload, sizeof head);
	payload += sizeof head;
	n -= sizeof head;
	if (head.kind == WIRE_DATA_TURN) {
		s->n = 0;
		show(s, "turn=", payload, n);
	} else if (head.kind == WIRE_DATA_STOP) {
		show(s, "stop=", payload, n);
	} else if (head.kind == WIRE_DATA_TEXT) {
		add(&s->text, &s->n, payload, n);
		show(s, "text=", payload, n);
	} else {
		for (; n; n -= sizeof id, payload += sizeof id, s->ids++) {
			memcpy(&id, payload, sizeof id);
			add(&s->text, &s->n, text, (size_t)snprintf(text, sizeof text, "%u ", id));
		}
	}
}

static bool put_logits(struct fake *f, struct conn *c, const struct submit *s, uint32_t position)
{
	static float row[4000];
	struct wire_logits head = {.position = position, .of = FAKE_VOCABULARY};

	for (; head.first < head.of; head.first += head.count) {
		head.count = num_min((uint32_t)ARRAY_SIZE(row), head.of - head.first);
		for (uint32_t i = 0; i < head.count; i++)
			row[i] = (float)(head.first + i) + (float)position / 1024;
		if (!put(f, c, WIRE_LOGITS, s->number, &head, sizeof head, row,
			    head.count * sizeof(float)))
			return false;
	}
	return true;
}

static bool put_done(struct fake *f, struct conn *c, struct submit *s, uint32_t finish, uint32_t n)
{
	struct wire_done done = {.finish = finish,
		.prompt_tokens = (uint32_t)s->n,
		.generated = n,
		.queue_ns = 1000000000,
		.prefill_ns = 2000000000,
		.decode_ns = 3000000000,
		.io_wait_ns = 500000000,
		.hits = 10,
		.misses = 5,
		.bytes_read = 4096,
		.bytes_useful = 4000};
	uint64_t number = s->number;

	for (size_t i = 0; i < sessions.n; i++) {
		if (memcmp(s->head.session, sessions.ids[i], WIRE_ID_SIZE) != 0)
			continue;
		done.reused = num_min(sessions.held[i], s->ids);
		sessions.held[i] = s->ids;
	}
	submit_clear(s);
	f->answers++;
	return put(f, c, WIRE_DONE, number, &done, sizeof done, NULL, 0);
}

/* The text, a character a token; NUL is the end token. */
static bool answer(struct fake *f, struct conn *c, struct submit *s, const char *text, size_t size)
{
	uint32_t max = s->head.flags & WIRE_SUBMIT_SCORE ? 0 : s->head.max_tokens;
	struct wire_token t = {.flags = 0};
	uint32_t n = 0;

	for (size_t i = 0, l; i < size && (!max || n < max); i += l, n++) {
		for (l = 1; i + l < size && ((uint8_t)text[i + l] & 0xc0) == 0x80; l++)
			;
		t.id = (uint8_t)text[i];
		t.position = n;
		t.text_length = (uint32_t)l;
		t.flags = s->head.flags & WIRE_SUBMIT_SCORE ? WIRE_TOKEN_PROMPT : 0;
		if (s->head.flags & WIRE_SUBMIT_LOGPROBS && (n || !t.flags))
			t.flags |= WIRE_TOKEN_LOGPROB;
		t.logprob = -0.5f;
		if (s->head.flags & WIRE_SUBMIT_LOGITS && !put_logits(f, c, s, n))
			return false;
		if (!put(f, c, WIRE_TOKEN, s->number, &t, sizeof t, text + i, l))
			return false;
	}
	return put_done(f, c, s, max && n == max ? WIRE_FINISH_LENGTH : WIRE_FINISH_STOP, n);
}

static bool on_submit_end(struct fake *f, struct conn *c, struct submit *s)
{
	static const char esc[] = "a\033[31mb\tc\n\x7f";
	struct wire_accepted accepted = {.ahead = 3};
	struct wire_progress progress = {.done = 1, .of = 2};
	const char *t = s->text ? s->text : "";

	if (!put(f, c, WIRE_ACCEPTED, s->number, &accepted, sizeof accepted, NULL, 0) ||
		!put(f, c, WIRE_PROGRESS, s->number, &progress, sizeof progress, NULL, 0))
		return false;
	if (strcmp(t, "@drop") == 0)
		return false;
	if (strcmp(t, "@hang") == 0) {
		s->hangs = true;
		return true;
	}
	if (strcmp(t, "@break") == 0)
		return put(f, c, WIRE_DONE, s->number, "short", 5, NULL, 0);
	if (strcmp(t, "@error") == 0) {
		uint64_t number = s->number;

		submit_clear(s);
		return put_text(f, c, number, -EIO, "the expert could not be read");
	}
	if (strcmp(t, "@esc") == 0)
		return answer(f, c, s, esc, sizeof esc - 1);
	if (strcmp(t, "@show") == 0)
		return answer(f, c, s, s->show, s->n_show);
	return answer(f, c, s, t, s->n);
}

static bool on_session(struct fake *f, struct conn *c, const struct wire_record *r)
{
	struct wire_session answer = {.positions = 7};
	struct wire_session_open open;

	memcpy(&open, c->channel.payload, sizeof open);
	for (size_t i = 0; i < sessions.n; i++)
		if (memcmp(open.id, sessions.ids[i], WIRE_ID_SIZE) == 0)
			answer.flags = WIRE_SESSION_FOUND;
	if (open.id[0] == 0xff) /* the test's way to have one refused */
		return put_text(f, c, r->request, -EDQUOT, "too many sessions");
	memcpy(answer.id, open.id, WIRE_ID_SIZE);
	if (!answer.flags) {
		assert(sessions.n < ARRAY_SIZE(sessions.ids));
		assert(getrandom(answer.id, WIRE_ID_SIZE, 0) == WIRE_ID_SIZE);
		answer.id[0] &= 0x7f;
		memcpy(sessions.ids[sessions.n++], answer.id, WIRE_ID_SIZE);
	}
	return put(f, c, WIRE_SESSION, r->request, &answer, sizeof answer, NULL, 0);
}

static bool on_status(struct fake *f, struct conn *c, uint64_t number)
{
	struct wire_status_piece piece = {0};
	char text[1024];
	int n = snprintf(text, sizeof text,
		"{\"version\":\"fake\",\"budget\":{\"limit\":4096},\"x\":[1,2],"
		"\"name\":\"a\\u001bb\",\"ok\":true,\"rate\":0.5,"
		"\"cache\":{\"hits\":%u,\"misses\":%u},"
		"\"io\":{\"bytes_read\":%u,\"bytes_useful\":%u},"
		"\"time\":{\"decode\":{\"tokens\":%u,\"ns\":{\"head\":%u,\"moe\":{\"down\":%u}}},"
		"\"prefill\":{\"tokens\":0,\"ns\":{\"head\":0,\"moe\":{\"down\":0}}},"
		"\"idle_ns\":%llu},"
		"\"kernels\":{\"tier\":\"t\",\"products\":{\"Q9\":{\"layout\":\"packed\","
		"\"decode\":{\"kernel\":\"one\",\"tile\":\"8x1\"},\"prefill\":7}}}}",
		10 * f->answers, 5 * f->answers, 4096 * f->answers, 4000 * f->answers,
		10 * f->answers, 400 * f->answers, 600 * f->answers, 1000000000ull * f->answers);

	assert(n > 0 && (size_t)n < sizeof text);
	piece.of = (uint32_t)n;
	for (; piece.offset < piece.of; piece.offset += 7)
		if (!put(f, c, WIRE_STATUS_PIECE, number, &piece, sizeof piece, text + piece.offset,
			    num_min(7u, piece.of - piece.offset)))
			return false;
	return true;
}

/* False: the connection is over. */
static bool on_record(struct fake *f, struct conn *c, const struct wire_record *r)
{
	struct submit *s = submit_find(c, r->request);
	size_t n = r->size - sizeof *r;

	switch (r->type) {
	case WIRE_SESSION_OPEN:
		return on_session(f, c, r);
	case WIRE_SESSION_CLOSE:
	case WIRE_SESSION_FORGET:
		return put(f, c, WIRE_OK, r->request, NULL, 0, NULL, 0);
	case WIRE_SUBMIT:
		assert(!s);
		s = submit_find(c, 0);
		assert(s);
		s->number = r->request;
		memcpy(&s->head, c->channel.payload, sizeof s->head);
		show_head(s);
		return true;
	case WIRE_DATA:
		assert(s);
		on_data(s, c->channel.payload, n);
		return true;
	case WIRE_SUBMIT_END:
		assert(s);
		return on_submit_end(f, c, s);
	case WIRE_CANCEL:
		return !s || put_done(f, c, s, WIRE_FINISH_CANCELLED, 0);
	case WIRE_STATUS:
		return on_status(f, c, r->request);
	case WIRE_PING:
		return put(f, c, WIRE_PONG, r->request, c->channel.payload, n, NULL, 0);
	case WIRE_ADMIN:
		return c->channel.payload[0] == WIRE_ADMIN_RELOAD
			       ? put(f, c, WIRE_OK, r->request, NULL, 0, NULL, 0)
			       : put_text(f, c, r->request, -EACCES,
					 "only administrators may do that");
	default:
		return false;
	}
}

static void conn_end(struct conn *c)
{
	for (size_t i = 0; i < SUBMITS; i++)
		submit_clear(&c->submits[i]);
	channel_deinit(&c->channel);
	c->used = c->running = false;
}

static void packet(int fd, uint16_t type, void *head, size_t size, const char *text)
{
	struct wire_message *m = head;
	char all[WIRE_PACKET_MAX];

	*m = (struct wire_message){WIRE_MAGIC, type, (uint16_t)(size + strlen(text))};
	memcpy(all, head, size);
	memcpy(all + size, text, strlen(text));
	(void)sock_send(fd, all, m->size, NULL, 0);
}

static bool welcome(struct fake *f, struct conn *c, int fd)
{
	struct segment in, out;
	uint32_t ring = f->config.ring ? f->config.ring : LIMIT_RING_MIN;
	struct wire_welcome w = {.message = {WIRE_MAGIC, WIRE_WELCOME, sizeof w},
		.major = WIRE_MAJOR,
		.pid = (uint32_t)getpid(),
		.record_max = LIMIT_RECORD,
		.sessions_max = 16,
		.requests_max = 16,
		.vocabulary = FAKE_VOCABULARY,
		.context = FAKE_CONTEXT,
		.prompt_max = LIMIT_PROMPT,
		.version = "fake"};
	int fds[2];

	assert(segment_make(&in, ring, false, NULL) == 0);
	assert(segment_make(&out, ring, true, NULL) == 0);
	w.client = in.geometry;
	w.daemon = out.geometry;
	fds[0] = in.fd;
	fds[1] = out.fd;
	if (sock_send(fd, &w, sizeof w, fds, 2) < 0) {
		segment_deinit(&in);
		segment_deinit(&out);
		return false;
	}
	segment_close_fd(&in);
	segment_close_fd(&out);
	channel_init(&c->channel, fd, &in, &out);
	return true;
}

/* The greeting is read at once: tests' clients send it with connecting. */
static bool greet(struct fake *f, struct conn *c, int fd)
{
	struct pollfd p = {fd, POLLIN, 0};
	struct wire_refused refused = {.code = f->config.refuse, .major = WIRE_MAJOR};
	struct wire_hello hello;

	if (poll(&p, 1, 5000) != 1 ||
		sock_recv_plain(fd, &hello, sizeof hello) != (ssize_t)sizeof hello ||
		hello.message.magic != WIRE_MAGIC || hello.message.type != WIRE_HELLO ||
		hello.major != WIRE_MAJOR)
		return false;
	if (f->config.hello_drops) {
		f->config.hello_drops--;
		return false;
	}
	for (unsigned i = 0; i < f->config.loading; i++) {
		struct wire_loading loading = {.percent = i * 10, .text_length = 7};

		packet(fd, WIRE_LOADING, &loading, sizeof loading, "loading");
	}
	if (f->config.refuse) {
		refused.text_length = 9;
		packet(fd, WIRE_REFUSED, &refused, sizeof refused, "no, sorry");
		return false;
	}
	return welcome(f, c, fd);
}

static void on_accept(struct fake *f)
{
	struct sock_peer peer;
	int fd = sock_accept(f->listener, &peer);

	for (size_t i = 0; fd >= 0 && i < CONNS; i++) {
		struct conn *c = &f->conns[i];

		if (c->used)
			continue;
		if (greet(f, c, fd))
			c->used = c->running = true;
		else
			(void)fd_close(fd);
		return;
	}
	(void)fd_close(fd);
}

static void on_conn(struct fake *f, struct conn *c)
{
	struct wire_record r;
	int k = channel_wake(&c->channel);

	do {
		while (k >= 0 && (k = channel_read(&c->channel, &r)) > 0)
			k = on_record(f, c, &r) ? 0 : -ECONNRESET;
		if (k >= 0)
			k = channel_sleep(&c->channel);
	} while (k > 0);
	if (k < 0)
		conn_end(c);
}

static void *serve(void *arg)
{
	struct fake *f = arg;
	struct pollfd p[CONNS + 2];
	struct conn *of[CONNS + 2];
	nfds_t n;

	while (!atomic_load(&f->stopping)) {
		p[0] = (struct pollfd){f->stop[0], POLLIN, 0};
		p[1] = (struct pollfd){f->listener, POLLIN, 0};
		n = 2;
		for (size_t i = 0; i < CONNS; i++) {
			struct conn *c = &f->conns[i];

			/* Also what came before the first sleep word. */
			if (c->running)
				on_conn(f, c);
			if (c->used) {
				c->running = false;
				of[n] = c;
				p[n++] = (struct pollfd){c->channel.sock, POLLIN, 0};
			}
		}
		(void)poll(p, n, -1);
		for (nfds_t i = 2; i < n; i++)
			of[i]->running = p[i].revents != 0;
		if (p[1].revents)
			on_accept(f);
	}
	for (size_t i = 0; i < CONNS; i++)
		if (f->conns[i].used)
			conn_end(&f->conns[i]);
	return NULL;
}

struct fake *fake_start(const struct fake_config *config)
{
	struct fake *f = calloc(1, sizeof *f);

	assert(f);
	f->config = *config;
	(void)snprintf(f->path, sizeof f->path, "%s", config->path);
	f->listener = sock_listen(f->path, 0600, NULL);
	assert(f->listener >= 0);
	assert(pipe(f->stop) == 0);
	assert(pthread_create(&f->thread, NULL, serve, f) == 0);
	return f;
}

void fake_stop(struct fake *f)
{
	atomic_store(&f->stopping, true);
	(void)!write(f->stop[1], "", 1);
	(void)pthread_join(f->thread, NULL);
	(void)close(f->stop[0]);
	(void)close(f->stop[1]);
	(void)close(f->listener);
	(void)unlink(f->path);
	free(f);
}
