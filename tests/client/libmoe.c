/* SPDX-License-Identifier: MIT */

/* libmoe against a fake daemon: what moe.h promises, one test a promise. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"
#include "moe.h"

#define WAIT_MS 20000

static char dir[] = "/tmp/moed-test-XXXXXX", path[64];

static struct fake *fake_with(struct fake_config config)
{
	config.path = path;
	return fake_start(&config);
}

static struct moe *opened(void)
{
	struct moe *m = NULL;

	assert_int_equal(moe_open(&m, path), 0);
	return m;
}

/* The next event but those of `skip` types. */
static const struct moe_event *next(struct moe *m)
{
	const struct moe_event *e = NULL;

	assert_int_equal(moe_next(m, WAIT_MS, &e), 1);
	assert_non_null(e->text);
	assert_int_equal(strlen(e->text) <= e->text_length, 1);
	assert_int_equal(e->text[e->text_length], 0);
	return e;
}

static const struct moe_event *next_of(struct moe *m, enum moe_event_type type)
{
	const struct moe_event *e = next(m);

	assert_int_equal(e->type, type);
	return e;
}

static const struct moe_event *skip_to(struct moe *m, enum moe_event_type type)
{
	const struct moe_event *e;

	while ((e = next(m))->type != type)
		;
	return e;
}

static uint64_t submit(struct moe *m, struct moe_session *s, const char *text)
{
	struct moe_request r = MOE_REQUEST_INIT;
	uint64_t number = 0;

	r.text = text;
	assert_int_equal(moe_submit(m, s, &r, &number), 0);
	assert_int_not_equal(number, 0);
	return number;
}

/* The text of an answer to its end. */
static const char *answer(struct moe *m, uint64_t number)
{
	static char text[1 << 20];
	const struct moe_event *e;
	size_t n = 0;

	for (;;) {
		e = next(m);
		if (e->request != number)
			continue;
		if (e->type == MOE_DONE)
			break;
		assert_int_not_equal(e->type, MOE_ERROR);
		if (e->type != MOE_TOKEN)
			continue;
		assert_true(n + e->text_length < sizeof(text));
		memcpy(text + n, e->text, e->text_length);
		n += e->text_length;
	}
	text[n] = 0;
	return text;
}

static void test_answer(void **state)
{
	struct fake *f = fake_with((struct fake_config){.loading = 3});
	struct moe *m = opened();
	const struct moe_event *e;
	uint64_t number = submit(m, NULL, "h\xc3\xa9!");

	for (unsigned i = 0; i < 3; i++) {
		e = next_of(m, MOE_LOADING);
		assert_int_equal(e->percent, i * 10);
		assert_string_equal(e->text, "loading");
	}
	e = next_of(m, MOE_READY);
	assert_int_equal(e->vocabulary, FAKE_VOCABULARY);
	assert_int_equal(e->context, FAKE_CONTEXT);
	assert_string_equal(e->text, "fake");
	e = next_of(m, MOE_ACCEPTED);
	assert_int_equal(e->request, number);
	assert_int_equal(e->ahead, 3);
	e = next_of(m, MOE_PROGRESS);
	assert_int_equal(e->done, 1);
	assert_int_equal(e->of, 2);
	e = next_of(m, MOE_TOKEN);
	assert_int_equal(e->token, 'h');
	assert_int_equal(e->has_logprob, 0);
	e = next_of(m, MOE_TOKEN);
	assert_string_equal(e->text, "\xc3\xa9");
	assert_int_equal(e->text_length, 2);
	assert_int_equal(e->position, 1);
	next_of(m, MOE_TOKEN);
	e = next_of(m, MOE_DONE);
	assert_int_equal(e->request, number);
	assert_int_equal(e->finish, MOE_FINISH_STOP);
	assert_int_equal(e->prompt_tokens, 4);
	assert_int_equal(e->generated, 3);
	assert_int_equal(e->queue_ns, 1000000000);
	assert_int_equal(e->io_wait_ns, 500000000);
	assert_int_equal(e->cache_misses, 5);
	assert_int_equal(e->bytes_useful, 4000);
	assert_int_equal(moe_next(m, 0, &e), 0);
	assert_int_equal(moe_next(m, 5, &e), 0);
	assert_int_equal(moe_next(m, MOE_SPIN, &e), 0);
	moe_close(m);
	fake_stop(f);
}

/* Everything that a request can say arrives as it was said. */
static void test_request(void **state)
{
	static const char *const stops[] = {"END", "\n\n"};
	const struct moe_turn turns[] = {{"system", "Be brief.", MOE_NUL}, {"user", "Hi there", 2},
		{"user", "@show", MOE_NUL}};
	const uint32_t ids[] = {5, 4000000000u, 0};
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	struct moe_request r = MOE_REQUEST_INIT;
	uint64_t number;

	r.turns = turns;
	r.n_turns = 3;
	r.stops = stops;
	r.n_stops = 2;
	r.temperature = 0.75f;
	r.top_p = 0.5f;
	r.min_p = 0.25f;
	r.top_k = 40;
	r.seed = UINT64_MAX;
	r.flags = MOE_IGNORE_END;
	assert_int_equal(moe_submit(m, NULL, &r, &number), 0);
	assert_string_equal(answer(m, number),
		"mode=2 f=8 max=0 k=40 t=0.75 p=0.5 m=0.25 seed=18446744073709551615;stop=END;"
		"stop=\n\n;turn=system;text=Be brief.;turn=user;text=Hi;turn=user;text=@show;");
	r = (struct moe_request)MOE_REQUEST_INIT;
	r.ids = ids;
	r.n_ids = 3;
	r.max_tokens = 4;
	assert_int_equal(moe_submit(m, NULL, &r, &number), 0);
	assert_string_equal(answer(m, number), "5 40");
	r = (struct moe_request)MOE_REQUEST_INIT;
	r.text = "a\0b";
	r.text_length = 3;
	assert_int_equal(moe_submit(m, NULL, &r, &number), 0);
	assert_memory_equal(answer(m, number), "a\0b", 4);
	moe_close(m);
	fake_stop(f);
}

static void refused(struct moe *m, const struct moe_request *r, int code)
{
	uint64_t number = 77;

	assert_int_equal(moe_submit(m, NULL, r, &number), code);
	assert_int_equal(number, 77);
	assert_string_not_equal(moe_last_error(m), "");
}

static void test_bad_requests(void **state)
{
	static const char *many[17];
	const struct moe_turn turn = {"user", NULL, 0};
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	struct moe_request r = MOE_REQUEST_INIT;
	uint32_t id = 1;

	refused(m, NULL, -EINVAL);
	refused(m, &r, -EINVAL); /* neither text, turns nor ids */
	r.text = "x", r.ids = &id, r.n_ids = 1;
	refused(m, &r, -EINVAL); /* two of them */
	r.text = NULL, r.n_ids = 0;
	refused(m, &r, -EINVAL);
	r.n_ids = SIZE_MAX / 2;
	assert_true(moe_submit(m, NULL, &r, NULL) == -EMSGSIZE);
	r.ids = NULL, r.turns = &turn, r.n_turns = 1;
	refused(m, &r, -EINVAL); /* a turn without text */
	r.n_turns = 0;
	refused(m, &r, -EINVAL);
	r.turns = NULL, r.text = "x", r.text_length = (16u << 20) + 1;
	refused(m, &r, -EMSGSIZE);
	r.text_length = 1, r.flags = 1u << 31;
	refused(m, &r, -EINVAL);
	r.flags = 0, r.stops = many, r.n_stops = 1;
	refused(m, &r, -EINVAL); /* a stop that is none */
	many[0] = "";
	refused(m, &r, -EINVAL);
	for (size_t i = 0; i < 17; i++)
		many[i] = "x";
	r.n_stops = 17;
	refused(m, &r, -EINVAL);
	r.n_stops = 0, r.size = 8;
	refused(m, &r, -EINVAL);
	assert_int_equal(moe_cancel(m, 99), -ENOENT);
	assert_int_equal(moe_ping(m, 2, NULL), -EINVAL);
	assert_int_equal(moe_admin(m, 3, NULL), -EINVAL);
	assert_int_equal(moe_open(NULL, path), -EINVAL);
	assert_int_equal(moe_submit(NULL, NULL, &r, NULL), -EINVAL);
	assert_int_equal(moe_next(m, -3, &(const struct moe_event *){NULL}), -EINVAL);
	assert_int_equal(moe_next(m, 0, NULL), -EINVAL);
	moe_close(NULL);
	/* Nothing of all that went out. */
	assert_string_equal(answer(m, submit(m, NULL, "fine")), "fine");
	moe_close(m);
	fake_stop(f);
}

/*
 * As an event loop does it: the descriptor alone says when.  The prompt is larger than the ring,
 * and is submitted while the handle sleeps.
 */
static void test_poll(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	struct pollfd p = {.fd = moe_fd(m), .events = POLLIN};
	struct moe_request r = MOE_REQUEST_INIT;
	const struct moe_event *e;
	size_t n = 1 << 20, tokens = 0;
	char *text = malloc(n);
	uint64_t number;
	int k, done = 0;

	skip_to(m, MOE_READY);
	while (moe_next(m, 0, &e) > 0)
		;
	memset(text, 'x', n);
	r.text = text;
	r.text_length = n;
	r.max_tokens = 3000;
	assert_int_equal(moe_submit(m, NULL, &r, &number), 0);
	free(text); /* it was copied */
	while (!done) {
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		while ((k = moe_next(m, 0, &e)) > 0) {
			tokens += e->type == MOE_TOKEN;
			done |= e->type == MOE_DONE;
			if (e->type == MOE_DONE)
				assert_int_equal(e->prompt_tokens, n);
		}
		assert_int_equal(k, 0);
	}
	assert_int_equal(tokens, 3000);
	assert_int_equal(p.fd, moe_fd(m));
	assert_int_equal(poll(&p, 1, 0), 0);
	moe_close(m);
	fake_stop(f);
}

static void test_logits(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	struct moe_request r = MOE_REQUEST_INIT;
	const struct moe_event *e;

	r.text = "ab";
	r.flags = MOE_WANT_LOGITS | MOE_WANT_LOGPROBS | MOE_SCORE;
	assert_int_equal(moe_submit(m, NULL, &r, NULL), 0);
	skip_to(m, MOE_PROGRESS);
	for (uint32_t position = 0; position < 2; position++) {
		e = next_of(m, MOE_LOGITS);
		assert_int_equal(e->position, position);
		assert_int_equal(e->n_logits, FAKE_VOCABULARY);
		for (uint32_t i = 0; i < FAKE_VOCABULARY; i++)
			assert_true(e->logits[i] == (float)i + (float)position / 1024);
		e = next_of(m, MOE_TOKEN);
		assert_int_equal(e->from_prompt, 1);
		assert_int_equal(e->has_logprob, position > 0);
		assert_true(e->logprob == (position ? -0.5f : 0.0f));
	}
	next_of(m, MOE_DONE);
	moe_close(m);
	fake_stop(f);
}

static void test_sessions(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	unsigned char id[MOE_ID_SIZE], again[MOE_ID_SIZE], bad[MOE_ID_SIZE] = {0xff};
	struct moe_session *s[16], *t;
	const struct moe_event *e;
	uint64_t numbers[16];

	/* Before the connection stands: submitted to at once. */
	for (size_t i = 0; i < 16; i++) {
		assert_int_equal(moe_session_open(m, NULL, &s[i]), 0);
		assert_int_equal(moe_session_id(s[i], id), -EAGAIN);
	}
	for (size_t i = 0; i < 16; i++)
		numbers[i] = submit(m, s[i], "abc");
	for (size_t i = 0, opens = 0, dones = 0; dones < 16; i++) {
		e = next(m);
		opens += e->type == MOE_SESSION && !e->found;
		dones += e->type == MOE_DONE && e->request == numbers[dones];
		if (dones)
			assert_int_equal(opens, 16);
	}
	assert_int_equal(moe_session_id(s[3], id), 0);
	assert_int_equal(moe_session_open(m, id, &t), 0);
	e = next_of(m, MOE_SESSION);
	assert_ptr_equal(e->session, t);
	assert_int_equal(e->found, 1);
	assert_int_equal(moe_session_close(t, 0), 0);
	/* One that is refused: told, and its requests are answered without it. */
	assert_int_equal(moe_session_open(m, bad, &t), 0);
	e = next_of(m, MOE_ERROR);
	assert_ptr_equal(e->session, t);
	assert_int_equal(e->code, -EDQUOT);
	assert_string_equal(answer(m, submit(m, t, "q")), "q");
	assert_int_equal(moe_session_close(t, 1), 0);
	/* Closed with requests under way: they are answered. */
	numbers[0] = submit(m, s[0], "last");
	assert_int_equal(moe_session_close(s[0], 1), 0);
	assert_string_equal(answer(m, numbers[0]), "last");
	/* After a restart: found again, and used as if nothing had been. */
	fake_stop(f);
	next_of(m, MOE_DISCONNECTED);
	f = fake_with((struct fake_config){.hello_drops = 1});
	numbers[1] = submit(m, s[3], "more");
	e = skip_to(m, MOE_SESSION);
	assert_int_equal(e->found, 1);
	assert_string_equal(answer(m, numbers[1]), "more");
	assert_int_equal(moe_session_id(s[3], again), 0);
	assert_memory_equal(id, again, MOE_ID_SIZE);
	moe_close(m);
	fake_stop(f);
}

static void test_cancel(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	struct pollfd p = {.fd = moe_fd(m), .events = POLLIN};
	const struct moe_event *e;
	uint64_t first, second;

	/* Before it was sent. */
	first = submit(m, NULL, "@hang");
	assert_int_equal(moe_cancel(m, first), 0);
	assert_int_equal(moe_cancel(m, first), -ENOENT);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	e = next_of(m, MOE_DONE);
	assert_int_equal(e->request, first);
	assert_int_equal(e->finish, MOE_FINISH_CANCELLED);
	/* While it goes on; others are not touched. */
	first = submit(m, NULL, "@hang");
	second = submit(m, NULL, "@hang");
	skip_to(m, MOE_PROGRESS);
	next_of(m, MOE_ACCEPTED);
	next_of(m, MOE_PROGRESS);
	assert_int_equal(moe_cancel(m, second), 0);
	e = next_of(m, MOE_DONE);
	assert_int_equal(e->request, second);
	assert_int_equal(e->finish, MOE_FINISH_CANCELLED);
	assert_int_equal(moe_cancel(m, second), -ENOENT);
	assert_int_equal(moe_next(m, 10, &e), 0);
	/* Without a connection. */
	fake_stop(f);
	e = next_of(m, MOE_ERROR);
	assert_int_equal(e->request, first);
	assert_int_equal(e->code, -ECONNRESET);
	next_of(m, MOE_DISCONNECTED);
	first = submit(m, NULL, "@hang");
	assert_int_equal(moe_cancel(m, first), 0);
	next_of(m, MOE_DONE);
	/* The descriptor rests again. */
	f = fake_with((struct fake_config){0});
	next_of(m, MOE_READY);
	assert_int_equal(moe_next(m, 0, &e), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	moe_close(m);
	fake_stop(f);
}

static void test_small_requests(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	const struct moe_event *e;
	uint64_t number;

	assert_int_equal(moe_status(m, &number), 0);
	e = skip_to(m, MOE_STATUS);
	assert_int_equal(e->request, number);
	assert_ptr_equal(strstr(e->text, "{\"version\":\"fake\""), e->text);
	assert_int_equal(e->text[e->text_length - 1], '}');
	for (unsigned busy = 0; busy < 2; busy++) {
		assert_int_equal(moe_ping(m, busy, &number), 0);
		e = next_of(m, MOE_PONG);
		assert_int_equal(e->request, number);
	}
	assert_int_equal(moe_admin(m, MOE_ADMIN_RELOAD, &number), 0);
	next_of(m, MOE_OK);
	assert_int_equal(moe_admin(m, MOE_ADMIN_DRAIN, &number), 0);
	e = next_of(m, MOE_ERROR);
	assert_int_equal(e->code, -EACCES);
	assert_int_equal(e->request, number);
	number = submit(m, NULL, "@error");
	e = skip_to(m, MOE_ERROR);
	assert_int_equal(e->request, number);
	assert_int_equal(e->code, -EIO);
	assert_string_equal(e->text, "the expert could not be read");
	assert_string_equal(answer(m, submit(m, NULL, "on")), "on");
	moe_close(m);
	fake_stop(f);
}

static void test_reconnect(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	const struct moe_event *e;
	uint64_t a, b;

	a = submit(m, NULL, "@hang");
	b = submit(m, NULL, "@drop");
	e = skip_to(m, MOE_ERROR);
	assert_int_equal(e->request, a);
	assert_int_equal(e->code, -ECONNRESET);
	e = next_of(m, MOE_ERROR);
	assert_int_equal(e->request, b);
	/* Submitted while there is no connection: answered by the next one. */
	a = submit(m, NULL, "again");
	e = next_of(m, MOE_DISCONNECTED);
	assert_int_equal(e->code, -ECONNRESET);
	assert_string_equal(answer(m, a), "again");
	for (int i = 0; i < 3; i++) {
		fake_stop(f);
		next_of(m, MOE_DISCONNECTED);
		assert_int_equal(moe_next(m, 120, &e), 0);
		f = fake_with((struct fake_config){0});
		next_of(m, MOE_READY);
	}
	/* One that is being stopped is waited for, one that refuses for good is not. */
	fake_stop(f);
	next_of(m, MOE_DISCONNECTED);
	f = fake_with((struct fake_config){.refuse = -ESHUTDOWN});
	assert_int_equal(moe_next(m, 300, &e), 0);
	fake_stop(f);
	f = fake_with((struct fake_config){.refuse = -EACCES});
	assert_int_equal(moe_next(m, WAIT_MS, &e), -EACCES);
	assert_non_null(strstr(moe_last_error(m), "no, sorry"));
	assert_int_equal(moe_next(m, 0, &e), -EACCES);
	assert_int_equal(moe_status(m, NULL), -EACCES);
	moe_close(m);
	fake_stop(f);
}

static void test_no_daemon(void **state)
{
	const struct moe_event *e;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct moe *m = NULL;
	struct fake *f;
	int fd, peer;

	assert_int_equal(moe_open(&m, path), -ENOENT);
	assert_null(m);
	assert_non_null(strstr(moe_last_error(NULL), path));
	assert_int_equal(moe_open(&m, "/"
				      "012345678901234567890123456789012345678901234567890123456789"
				      "0123456789012345678"
				      "01234567890123456789012345678901234567890"),
		-ENAMETOOLONG);
	f = fake_with((struct fake_config){.refuse = -EDQUOT});
	m = opened();
	assert_int_equal(moe_next(m, WAIT_MS, &e), -EDQUOT);
	moe_close(m);
	fake_stop(f);
	f = fake_with((struct fake_config){.loading = 1, .hello_drops = 1});
	m = opened();
	assert_int_equal(moe_next(m, WAIT_MS, &e), -ECONNRESET);
	moe_close(m);
	fake_stop(f);
	/* Somebody else's socket. */
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path, path, strlen(path) + 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	m = opened();
	peer = accept(fd, NULL, NULL);
	assert_int_equal(send(peer, "HTTP/1.1 400\r\n", 14, 0), 14);
	assert_int_equal(moe_next(m, WAIT_MS, &e), -EPROTO);
	assert_string_not_equal(moe_last_error(m), "");
	moe_close(m);
	close(peer);
	/* Too many at once: tried again by itself. */
	struct moe *many[8];
	for (size_t i = 0; i < 8; i++)
		many[i] = opened();
	for (size_t i = 0; i < 8; i++)
		moe_close(many[i]);
	close(fd);
	unlink(path);
}

static void test_broken(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	const struct moe_event *e;
	uint64_t number = submit(m, NULL, "@break");

	e = skip_to(m, MOE_ERROR);
	assert_int_equal(e->request, number);
	next_of(m, MOE_DISCONNECTED);
	assert_int_equal(moe_next(m, 0, &e), -EPROTO);
	assert_string_not_equal(moe_last_error(m), "");
	moe_close(m);
	fake_stop(f);
}

static int child(struct moe *m, struct moe_session *s)
{
	struct moe_request r = MOE_REQUEST_INIT;
	const struct moe_event *e;
	unsigned char id[MOE_ID_SIZE];
	struct moe_session *t;
	int bad = 0;

	r.text = "x";
	bad |= moe_fd(m) != -ECHILD;
	bad |= moe_next(m, 0, &e) != -ECHILD;
	bad |= moe_submit(m, s, &r, NULL) != -ECHILD;
	bad |= moe_session_open(m, NULL, &t) != -ECHILD;
	bad |= moe_session_id(s, id) != -ECHILD;
	bad |= moe_session_close(s, 1) != -ECHILD;
	bad |= moe_cancel(m, 1) != -ECHILD;
	bad |= moe_status(m, NULL) != -ECHILD;
	bad |= moe_ping(m, 0, NULL) != -ECHILD;
	bad |= moe_admin(m, MOE_ADMIN_RELOAD, NULL) != -ECHILD;
	bad |= !*moe_strerror(-ECHILD);
	moe_close(m);
	/* One of its own works. */
	bad |= moe_open(&m, path) != 0;
	bad |= moe_next(m, WAIT_MS, &e) != 1 || e->type != MOE_READY;
	moe_close(m);
	return bad;
}

static void test_fork(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	struct moe_session *s;
	int status = -1;
	pid_t pid;

	assert_int_equal(moe_session_open(m, NULL, &s), 0);
	skip_to(m, MOE_SESSION);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(child(m, s));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_string_equal(answer(m, submit(m, s, "still here")), "still here");
	moe_close(m);
	fake_stop(f);
}

static int fds_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* A library leaves signals and descriptors as they were, and dies of no SIGPIPE. */
static void test_manners(void **state)
{
	struct sigaction before[NSIG], after;
	struct fake *f = fake_with((struct fake_config){0});
	sigset_t mask_before, mask_after;
	struct moe *m;
	int fds;

	for (int i = 1; i < NSIG; i++)
		(void)sigaction(i, NULL, &before[i]);
	(void)pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	m = opened();
	skip_to(m, MOE_READY);
	moe_close(m);
	fds = fds_open();
	for (int i = 0; i < 30; i++) {
		m = opened();
		if (i % 3)
			skip_to(m, MOE_READY);
		(void)submit(m, NULL, i % 2 ? "@hang" : "text");
		moe_close(m);
	}
	m = opened();
	skip_to(m, MOE_READY);
	fake_stop(f);
	for (int i = 0; i < 100; i++)
		(void)submit(m, NULL, "x");
	moe_close(m);
	assert_true(fds_open() <= fds);
	for (int i = 1; i < NSIG; i++) {
		if (sigaction(i, NULL, &after) == 0)
			assert_true(after.sa_handler == before[i].sa_handler);
	}
	(void)pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	assert_memory_equal(&mask_before, &mask_after, sizeof(unsigned long));
}

/* A signal ends a wait. */
static void on_alarm(int signal)
{
	(void)signal;
}

static void test_signal(void **state)
{
	struct sigaction action = {.sa_handler = on_alarm}, old;
	struct fake *f = fake_with((struct fake_config){0});
	struct moe *m = opened();
	const struct moe_event *e;

	skip_to(m, MOE_READY);
	(void)sigaction(SIGALRM, &action, &old);
	ualarm(20000, 20000);
	assert_int_equal(moe_next(m, MOE_FOREVER, &e), 0);
	ualarm(0, 0);
	(void)sigaction(SIGALRM, &old, NULL);
	moe_close(m);
	fake_stop(f);
}

static void *worker(void *arg)
{
	struct moe *m = opened();
	char text[32];

	for (int i = 0; i < 200; i++) {
		const struct moe_event *e;
		uint64_t number;
		size_t n = 0;

		(void)snprintf(text, sizeof text, "%p %d", arg, i);
		number = submit(m, NULL, text);
		while ((e = next(m))->type != MOE_DONE || e->request != number) {
			if (e->type == MOE_TOKEN)
				assert_int_equal(e->text[0], text[n++]);
		}
		assert_int_equal(n, strlen(text));
	}
	moe_close(m);
	return NULL;
}

static void test_threads(void **state)
{
	struct fake *f = fake_with((struct fake_config){0});
	static char names[3];
	pthread_t threads[3];

	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker, names + i), 0);
	for (size_t i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	fake_stop(f);
}

static void test_strerror(void **state)
{
	assert_string_equal(moe_strerror(0), "success");
	assert_string_not_equal(moe_strerror(-EPROTO), moe_strerror(-ECHILD));
	assert_non_null(moe_strerror(-100000));
	assert_string_equal(moe_last_error(NULL) ? "ok" : "", "ok");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_poll),
		cmocka_unit_test(test_logits),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_small_requests),
		cmocka_unit_test(test_reconnect),
		cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_manners),
		cmocka_unit_test(test_signal),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_strerror),
	};
	int k;

	if (!mkdtemp(dir))
		return 1;
	(void)snprintf(path, sizeof path, "%s/s", dir);
	k = cmocka_run_group_tests_name("libmoe", tests, NULL, NULL);
	(void)unlink(path);
	(void)rmdir(dir);
	return k;
}
