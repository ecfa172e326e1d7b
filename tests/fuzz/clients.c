/* SPDX-License-Identifier: MIT */

/*
 * Clients that lie, to the loop thread of moed: all of it, from accept() on, with an engine that
 * answers what the input says.  The input is a list of steps (a byte that says what, then what that
 * needs); the loop asks for the engine's beat once a turn, and one step is done then.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "manager.h"
#include "num.h"
#include "sock.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define STEPS 300u
#define CLIENTS 3u
#define RUNNING 256u
#define MESSAGES 4096u

struct hostile {
	int sock;
	bool welcome;
	struct channel channel;
};

struct engine_thread {
	int fd;
	bool stopped;
	struct request *running[RUNNING];
	size_t n_running;
	struct trace *traces[LIMIT_TRACES];
	struct queue_message messages[MESSAGES];
	size_t first, last;
};

static struct {
	const uint8_t *at;
	size_t n;
	unsigned steps, loading;
	struct hostile clients[CLIENTS];
} in;

static struct manager manager;
static struct engine_thread engine;
static char folder[] = "/tmp/moed-fuzz-XXXXXX", path[64];

/* ---- the engine ---------------------------------------------------------------------------- */

static void post(uint32_t type, void *object)
{
	if (engine.last - engine.first == MESSAGES)
		abort();
	engine.messages[engine.last++ % MESSAGES] = (struct queue_message){type, object};
}

static void finish(size_t i, enum request_finish how)
{
	struct request *r = engine.running[i];

	engine.running[i] = engine.running[--engine.n_running];
	r->finish = how;
	if (how == REQUEST_FAILED)
		(void)error_set(&r->error, -EIO, "an expert could not be read");
	post(SCHED_DONE, r);
}

/* Routes of a token, to whoever wants them. */
static void emit_routes(struct request *r, uint8_t n)
{
	struct {
		struct wire_route head;
		struct wire_choice choices[8];
	} entry = {.head = {.position = n, .layer = n, .count = n % 9}};
	uint32_t size = (uint32_t)(sizeof(entry.head) + n % 9 * sizeof(*entry.choices));

	for (uint32_t i = 0; i < n % 4u && r->routes.size; i++)
		if (routes_room(&r->routes) >= size)
			routes_push(&r->routes, &entry, size);
	for (size_t i = 0; i < LIMIT_TRACES; i++) {
		struct trace *t = engine.traces[i];

		if (!t)
			continue;
		for (uint32_t j = 0; j < n && routes_room(&t->routes) >= size; j++)
			routes_push(&t->routes, &entry, size);
		if (!atomic_exchange(&t->to_loop, true))
			post(SCHED_ROUTES, t);
	}
}

static void emit(struct request *r, uint8_t n)
{
	struct request_event e = {.id = n, .flags = REQUEST_EVENT_TOKEN | (n & 2)};
	struct request_event row = {.id = n, .flags = REQUEST_EVENT_LOGITS};
	static const char text[256] = "text";

	emit_routes(r, n);
	if (r->flags & REQUEST_LOGITS) {
		if (atomic_load(&r->logits_full))
			return;
		if (request_out_room(r) < 2 * request_event_size(n)) {
			atomic_store(&r->starved, true);
			return;
		}
		atomic_store(&r->logits_full, true);
		request_out_push(r, &row, "", 0);
	}
	if (request_out_room(r) < request_event_size(n)) {
		atomic_store(&r->starved, true);
		return;
	}
	atomic_store(&r->computed, r->n_prompt);
	request_out_push(r, &e, text, n);
	if (!atomic_exchange(&r->to_loop, true))
		post(SCHED_OUTPUT, r);
}

int engine_thread_new(struct engine_thread **ret, const struct engine_thread_config *config)
{
	engine = (struct engine_thread){.fd = eventfd(1, EFD_CLOEXEC)};
	*ret = &engine;
	return engine.fd < 0 ? -errno : 0;
}

void engine_thread_join(struct engine_thread *t)
{
	while (t->n_running)
		finish(0, REQUEST_CANCELLED);
}

struct engine_thread *engine_thread_free(struct engine_thread *t)
{
	if (t)
		(void)close(t->fd);
	return NULL;
}

int engine_thread_fd(const struct engine_thread *t)
{
	return t->fd;
}

enum engine_thread_state engine_thread_state(const struct engine_thread *t)
{
	return t->stopped   ? ENGINE_THREAD_ENDED
	       : in.loading ? ENGINE_THREAD_LOADING
			    : ENGINE_THREAD_READY;
}

const struct error *engine_thread_error(const struct engine_thread *t)
{
	static const struct error none;

	return &none;
}

unsigned engine_thread_percent(const struct engine_thread *t, enum engine_phase *ret_phase)
{
	*ret_phase = 0;
	return in.loading;
}

bool engine_thread_idle(const struct engine_thread *t)
{
	return !t->n_running;
}

/* Stays readable, so that the loop never waits. */
void engine_thread_ack(struct engine_thread *t)
{
}

bool engine_thread_take(struct engine_thread *t, struct queue_message *ret)
{
	if (t->first == t->last)
		return false;
	*ret = t->messages[t->first++ % MESSAGES];
	return true;
}

static void trace(struct engine_thread *t, struct trace *from, struct trace *to)
{
	for (size_t i = 0; i < LIMIT_TRACES; i++) {
		if (t->traces[i] == from) {
			t->traces[i] = to;
			return;
		}
	}
	abort(); /* more than the limits allow */
}

void engine_thread_send(struct engine_thread *t, uint32_t type, void *object)
{
	if (type == SCHED_FORGET) {
		post(SCHED_FORGOTTEN, object);
	} else if (type == SCHED_SUBMIT) {
		if (t->n_running == RUNNING)
			abort(); /* more than the limits allow */
		t->running[t->n_running++] = object;
	} else if (type == SCHED_TRACE) {
		trace(t, NULL, object);
	} else if (type == SCHED_UNTRACE) {
		trace(t, object, NULL);
		post(SCHED_UNTRACED, object);
	} else if (type == SCHED_EXPERTS) {
		post(SCHED_EXPERTS, object);
	} else {
		for (size_t i = 0; i < t->n_running; i++) {
			if (t->running[i] == object && atomic_load(&t->running[i]->cancel)) {
				finish(i, REQUEST_CANCELLED);
				break;
			}
		}
		post(SCHED_POKED, object);
	}
}

uint64_t engine_thread_huge(struct engine_thread *t)
{
	(void)t;
	return 0;
}

uint32_t engine_thread_disks(struct engine_thread *t, const struct engine_disk **ret)
{
	(void)t;
	*ret = NULL;
	return 0;
}

void engine_thread_less(struct engine_thread *t, uint64_t bytes)
{
	(void)t;
	(void)bytes;
}

void engine_thread_pressure(struct engine_thread *t, enum pressure_advice advice)
{
}

void engine_thread_settle(struct engine_thread *t)
{
}

uint64_t engine_thread_filled(const struct engine_thread *t)
{
	return 0;
}

void engine_thread_stop(struct engine_thread *t)
{
	t->stopped = true;
}

void engine_thread_stats(struct engine_thread *t, struct engine_stats *ret,
	struct sched_figures *ret_figures, uint32_t *ret_kv_free, uint32_t *ret_kv_all)
{
	*ret = (struct engine_stats){0};
	*ret_figures = (struct sched_figures){0};
	*ret_kv_free = *ret_kv_all = 0;
}

/* ---- no pressure ---------------------------------------------------------------------------- */

void pressure_init(struct pressure *p, const char *root)
{
	*p = (struct pressure){.fd = -1};
}

void pressure_deinit(struct pressure *p)
{
}

void pressure_event(struct pressure *p)
{
	(void)p;
}

int pressure_timeout_ms(const struct pressure *p, bool given)
{
	return -1;
}

bool pressure_is_due(const struct pressure *p, uint64_t now_ns)
{
	return false;
}

enum pressure_advice pressure_look(struct pressure *p, bool given, uint64_t now_ns)
{
	return 0;
}

/* ---- the clients --------------------------------------------------------------------------- */

static uint64_t take(size_t size)
{
	uint64_t v = 0;

	size = num_min(size, in.n);
	memcpy(&v, in.at, size);
	in.at += size;
	in.n -= size;
	return v;
}

static const uint8_t *take_bytes(size_t *n)
{
	const uint8_t *at = in.at;

	*n = num_min(*n, in.n);
	in.at += *n;
	in.n -= *n;
	return at;
}

static void hostile_close(struct hostile *h)
{
	if (h->welcome)
		channel_deinit(&h->channel);
	else if (h->sock >= 0)
		(void)close(h->sock);
	*h = (struct hostile){.sock = -1};
}

static int hostile_sock(const struct hostile *h)
{
	return h->welcome ? h->channel.sock : h->sock;
}

static void hostile_hello(struct hostile *h)
{
	struct wire_hello hello = {.message = {WIRE_MAGIC, WIRE_HELLO, sizeof(hello)},
		.major = WIRE_MAJOR,
		.minor = WIRE_MINOR};

	hostile_close(h);
	h->sock = sock_connect(path, NULL);
	if (h->sock >= 0)
		(void)sock_send(h->sock, &hello, sizeof(hello), NULL, 0);
}

/* What the daemon has sent on the socket; a WELCOME is taken up. */
static void hostile_packets(struct hostile *h)
{
	struct segment daemon = SEGMENT_NULL, own = SEGMENT_NULL;
	union {
		struct wire_welcome welcome;
		char bytes[WIRE_PACKET_MAX];
	} p;
	int fds[2] = {-1, -1};
	size_t n_fds = 2;
	ssize_t n;

	while (!h->welcome && (n = sock_recv(h->sock, &p, sizeof(p), fds, &n_fds)) > 0) {
		if (n_fds == 2) {
			if (segment_map(&own, fds[0], &p.welcome.client, false, NULL) < 0 ||
				segment_map(&daemon, fds[1], &p.welcome.daemon, true, NULL) < 0)
				abort();
			channel_init(&h->channel, h->sock, &daemon, &own);
			h->welcome = true;
		}
		n_fds = 2;
	}
}

static void put(struct hostile *h, uint16_t type, uint64_t number, const void *bytes, size_t n)
{
	(void)channel_write2(&h->channel, type, number, bytes, n, NULL, 0);
	(void)channel_flush(&h->channel);
}

/* A sound request, but for what the input changes. */
static void hostile_submit(struct hostile *h)
{
	struct {
		struct wire_data head;
		char text[256];
	} data = {.head = {.kind = (uint32_t)take(1) % 6}};
	struct wire_submit submit = {.mode = 1 + (uint32_t)take(1) % 3, .top_p = 1};
	uint64_t number = take(1), at = take(1), value = take(1);
	size_t n = take(1);
	const uint8_t *bytes = take_bytes(&n);

	submit.flags = (uint32_t)value % 32;
	if (at < sizeof(submit))
		((uint8_t *)&submit)[at] = (uint8_t)value;
	memcpy(data.text, bytes, n);
	put(h, WIRE_SUBMIT, number, &submit, sizeof(submit));
	put(h, WIRE_DATA, number, &data, sizeof(data.head) + n);
	if (!(at & 0x80))
		put(h, WIRE_SUBMIT_END, number, NULL, 0);
}

static void hostile_index(struct hostile *h)
{
	uint64_t which = take(1), value = take(1 + which / 8 % 8);
	struct wire_segment *s = h->channel.out.map;

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

static void hostile_welcomed(struct hostile *h, unsigned what)
{
	struct wire_record record;
	const uint8_t *bytes;
	uint64_t number;
	uint16_t type;
	size_t n, at;

	switch (what) {
	case 0:
	case 1:
		type = (uint16_t)take(1), number = take(1), n = take(1);
		bytes = take_bytes(&n);
		put(h, type, number, bytes, n);
		break;
	case 2:
		hostile_submit(h);
		break;
	case 3:
		at = take(2), n = take(1);
		bytes = take_bytes(&n);
		memcpy((uint8_t *)h->channel.out.map + num_min(at, h->channel.out.size - n), bytes,
			n);
		break;
	case 4:
		hostile_index(h);
		break;
	default:
		while (channel_read(&h->channel, &record) > 0)
			;
		(void)channel_flush(&h->channel);
	}
}

static void step(void)
{
	uint8_t what = (uint8_t)take(1);
	struct hostile *h = &in.clients[what / 16 % CLIENTS];
	const uint8_t *bytes;
	size_t n;

	switch (what % 16) {
	case 0: /* a turn of the loop */
		break;
	case 1:
		hostile_hello(h);
		break;
	case 2:
		n = take(1);
		bytes = take_bytes(&n);
		if (hostile_sock(h) < 0)
			h->sock = sock_connect(path, NULL);
		(void)sock_send(hostile_sock(h), bytes, n, NULL, 0);
		break;
	case 3:
		hostile_close(h);
		break;
	case 4:
		if (engine.n_running)
			emit(engine.running[take(1) % engine.n_running], (uint8_t)take(1));
		break;
	case 5:
		if (engine.n_running) {
			n = take(1) % engine.n_running;
			finish(n, 1 + (uint32_t)take(1) % 4);
		}
		break;
	case 6:
		(void)sock_bell(hostile_sock(h));
		break;
	default:
		if (h->sock >= 0 && !h->welcome)
			hostile_packets(h);
		if (h->welcome)
			hostile_welcomed(h, what % 16 - 7);
	}
}

/* Called by the loop once a turn. */
uint64_t engine_thread_beat(const struct engine_thread *t)
{
	if (in.loading)
		in.loading--;
	else if (in.n && in.steps < STEPS)
		step();
	else if (in.steps > STEPS + 8)
		manager.state = MANAGER_OVER;
	else
		in.steps = num_max(in.steps, STEPS);
	return in.steps++;
}

/* ---- the process --------------------------------------------------------------------------- */

static void silence(
	enum log_level level, const char *text, const struct log_field *fields, size_t n_fields)
{
}

static int reread(void *arg, struct config *ret, struct error *err)
{
	return error_set(err, -ENOENT, "there is no configuration");
}

static void tidy(void)
{
	(void)unlink(path);
	(void)rmdir(folder);
	load_deinit(&manager.load);
	config_deinit(&manager.config);
}

static void prepare(void)
{
	struct error err = ERROR_NONE;

	if (*path)
		return;
	log_set_sink(silence);
	if (!mkdtemp(folder))
		abort();
	(void)snprintf(path, sizeof(path), "%s/s", folder);
	if (config_init(&manager.config) < 0 ||
		config_set(&manager.config, "model", FUZZ_MODEL, &err) < 0 ||
		config_set(&manager.config, "memory.limit", "96M", &err) < 0 ||
		load_init(&manager.load, &manager.config, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err.text);
		abort();
	}
	manager.listener = sock_listen(path, 0600, &err);
	if (manager.listener < 0)
		abort();
	(void)atexit(tidy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const struct state totals = {.folder = -1};
	struct manager fresh = {.reread = reread, .folder = &totals};
	int listener;

	prepare();
	listener = manager.listener;
	fresh.config = manager.config;
	fresh.load = manager.load;
	fresh.listener = listener;
	manager = fresh;
	in.at = bytes;
	in.n = n;
	in.steps = 0;
	in.loading = (unsigned)take(1) % 4;
	for (size_t i = 0; i < CLIENTS; i++)
		in.clients[i] = (struct hostile){.sock = -1};
	if (manager_init(&manager, NULL) < 0)
		abort();
	(void)manager_run(&manager);
	for (size_t i = 0; i < CLIENTS; i++)
		hostile_close(&in.clients[i]);
	engine.stopped = true; /* so that no totals are kept */
	manager_deinit(&manager);
	if (engine.n_running || engine.first != engine.last)
		abort(); /* something was lost on the way */
	manager.listener = listener;
	return 0;
}
