/* SPDX-License-Identifier: MIT */

/* Sockets, bells, and two channels over real segments: nothing is lost while both may sleep. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"
#include "sock.h"

struct link {
	struct channel daemon, client;
};

static int setup(void **state)
{
	struct link *l = calloc(1, sizeof(*l));
	struct segment dw, cw, dr, cr;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(segment_make(&cw, LIMIT_RING_MIN, false, NULL), 0);
	assert_int_equal(segment_make(&dw, LIMIT_RING_MIN, true, NULL), 0);
	assert_int_equal(segment_map(&cr, dup(cw.fd), &cw.geometry, false, NULL), 0);
	assert_int_equal(segment_map(&dr, dup(dw.fd), &dw.geometry, true, NULL), 0);
	channel_init(&l->daemon, fds[0], &cw, &dw);
	channel_init(&l->client, fds[1], &dr, &cr);
	*state = l;
	return 0;
}

static int teardown(void **state)
{
	struct link *l = *state;

	channel_deinit(&l->daemon);
	channel_deinit(&l->client);
	free(l);
	return 0;
}

/* Waits as an event loop does. */
static void channel_wait(struct channel *c)
{
	struct pollfd p = {.fd = c->sock, .events = POLLIN};

	if (channel_sleep(c) == 0) {
		assert_int_equal(poll(&p, 1, 20000), 1);
		assert_int_equal(channel_wake(c), 0);
	}
}

#define ROUNDS 20000u

static void *echo(void *arg)
{
	struct channel *c = arg;
	struct wire_record record;
	uint64_t seen = 0;

	while (seen < ROUNDS) {
		while (channel_read(c, &record) == 1) {
			seen++;
			assert_int_equal(record.request, seen);
			while (channel_write2(c, record.type, record.request, c->payload,
				       record.size - sizeof(record), NULL, 0) == 0)
				channel_wait(c);
		}
		if (seen < ROUNDS)
			channel_wait(c);
	}
	assert_int_equal(channel_flush(c), 0);
	return NULL;
}

/* More is sent than both rings hold: each side sleeps for room and for records. */
static void test_no_bell_lost(void **state)
{
	struct link *l = *state;
	struct channel *c = &l->client;
	struct wire_record record;
	uint64_t sent = 0, got = 0;
	uint8_t data[900];
	pthread_t thread;

	memset(data, 7, sizeof(data));
	assert_int_equal(pthread_create(&thread, NULL, echo, &l->daemon), 0);
	while (got < ROUNDS) {
		while (sent < ROUNDS && channel_write2(c, 9, sent + 1, data,
						(sent * 13) % sizeof(data), NULL, 0) == 1)
			sent++;
		while (channel_read(c, &record) == 1) {
			got++;
			assert_int_equal(record.request, got);
			assert_int_equal(
				record.size, sizeof(record) + ((got - 1) * 13) % sizeof(data));
		}
		if (got < ROUNDS)
			channel_wait(c);
	}
	pthread_join(thread, NULL);
}

/* One that cannot answer waits for room, not for the records that lie there already. */
static void test_sleep_full(void **state)
{
	struct link *l = *state;
	struct pollfd p = {.fd = l->daemon.sock, .events = POLLIN};
	static const uint8_t data[8000];
	struct wire_record record;

	assert_int_equal(channel_write2(&l->client, 9, 1, NULL, 0, NULL, 0), 1);
	assert_int_equal(channel_flush(&l->client), 0);
	assert_int_equal(channel_sleep_full(&l->daemon, sizeof(data)), 1); /* there is room */
	while (channel_write2(&l->daemon, 41, 1, data, sizeof(data), NULL, 0) == 1)
		;
	assert_int_equal(channel_sleep_full(&l->daemon, sizeof(data)), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	/* More records ring for nothing; room does, once. */
	assert_int_equal(channel_write2(&l->client, 9, 2, NULL, 0, NULL, 0), 1);
	assert_int_equal(channel_flush(&l->client), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(channel_read(&l->client, &record), 1);
	assert_int_equal(channel_flush(&l->client), 0);
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_int_equal(channel_wake(&l->daemon), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(channel_sleep_full(&l->daemon, sizeof(data)), 1);
	assert_int_equal(channel_write2(&l->daemon, 41, 1, data, sizeof(data), NULL, 0), 1);
	for (uint64_t i = 1; i <= 2; i++) {
		assert_int_equal(channel_read(&l->daemon, &record), 1);
		assert_int_equal(record.request, i);
	}
	/* A tail that cannot be ends the wait, and the next write. */
	while (channel_write2(&l->daemon, 41, 1, data, sizeof(data), NULL, 0) == 1)
		;
	l->client.out.map->tail = 8;
	assert_int_equal(channel_sleep_full(&l->daemon, sizeof(data)), 1);
	assert_int_equal(channel_write2(&l->daemon, 41, 1, data, sizeof(data), NULL, 0), -EPROTO);
}

static void test_closed(void **state)
{
	struct link *l = *state;
	struct wire_record record;

	assert_int_equal(channel_write2(&l->daemon, 39, 5, "x", 1, NULL, 0), 1);
	assert_int_equal(channel_flush(&l->daemon), 0);
	channel_deinit(&l->daemon);
	assert_int_equal(channel_wake(&l->client), -ECONNRESET);
	/* What was said before is still heard. */
	assert_int_equal(channel_read(&l->client, &record), 1);
	assert_int_equal(channel_write2(&l->client, 1, 5, "x", 1, NULL, 0), 1);
	assert_int_equal(channel_flush(&l->client), 0); /* nobody sleeps there: no bell */
	assert_int_equal(sock_bell(l->client.sock), -ECONNRESET);
}

static void test_not_a_bell(void **state)
{
	struct link *l = *state;

	assert_int_equal(send(l->client.sock, "\2", 1, 0), 1);
	assert_int_equal(channel_wake(&l->daemon), -EPROTO);
	assert_int_equal(send(l->client.sock, "\1\1", 2, 0), 2);
	assert_int_equal(channel_wake(&l->daemon), -EPROTO);
	assert_int_equal(sock_bell(l->client.sock), 0);
	assert_int_equal(channel_wake(&l->daemon), 0);
}

static int fds_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_bell_flood_and_fds(void **state)
{
	struct link *l = *state;
	int before = fds_open(), fds[2] = {0, 1}, got[2];
	size_t n = 1;
	char packet[8];

	for (int i = 0; i < 100000; i++) /* ends though nobody reads */
		assert_int_equal(sock_bell(l->client.sock), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(channel_wake(&l->daemon), 0);
	/* Descriptors sent with a bell never arrive. */
	assert_int_equal(sock_send(l->client.sock, "\1", 1, fds, 2), 0);
	assert_int_equal(channel_wake(&l->daemon), 0);
	assert_int_equal(fds_open(), before);
	/* More than there is room for: refused and closed. */
	assert_int_equal(sock_send(l->client.sock, "\1", 1, fds, 2), 0);
	assert_int_equal(sock_recv(l->daemon.sock, packet, sizeof(packet), got, &n), -EMSGSIZE);
	assert_int_equal(fds_open(), before);
	n = 2;
	assert_int_equal(sock_send(l->client.sock, "abc", 3, fds, 2), 0);
	assert_int_equal(sock_recv(l->daemon.sock, packet, sizeof(packet), got, &n), 3);
	assert_int_equal(n, 2);
	assert_int_equal(fds_open(), before + 2);
	close(got[0]);
	close(got[1]);
	assert_int_equal(sock_send(l->client.sock, "0123456789", 10, NULL, 0), 0);
	assert_int_equal(sock_recv_plain(l->daemon.sock, packet, sizeof(packet)), -EMSGSIZE);
}

static void test_listen(void **state)
{
	char dir[] = "/tmp/moed-test-XXXXXX", path[64], long_path[200];
	struct error err = ERROR_NONE;
	struct sock_peer peer;
	struct stat st;
	int a, b, c;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	assert_int_equal(sock_connect(path, &err), -ENOENT);
	a = sock_listen(path, 0660, NULL);
	assert_true(a >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	assert_int_equal(sock_accept(a, &peer), -EAGAIN);
	assert_int_equal(sock_listen(path, 0660, NULL), -EADDRINUSE);
	c = sock_connect(path, NULL);
	assert_true(c >= 0);
	b = sock_accept(a, &peer); /* the probe of sock_listen() above */
	close(b);
	b = sock_accept(a, &peer);
	assert_true(b >= 0);
	assert_int_equal(peer.uid, getuid());
	assert_int_equal(peer.pid, getpid());
	close(a);
	close(b);
	close(c);
	a = sock_listen(path, 0600, NULL); /* the old file is nobody's */
	assert_true(a >= 0);
	close(a);
	unlink(path);
	a = open(path, O_CREAT | O_WRONLY, 0600);
	close(a);
	assert_int_equal(sock_listen(path, 0600, NULL), -EEXIST);
	unlink(path);
	rmdir(dir);
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = 0;
	assert_int_equal(sock_connect(long_path, NULL), -ENAMETOOLONG);
	assert_int_equal(sock_connect("", NULL), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_no_bell_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sleep_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_a_bell, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bell_flood_and_fds, setup, teardown),
		cmocka_unit_test(test_listen),
	};

	return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
