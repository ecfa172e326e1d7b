/* SPDX-License-Identifier: MIT */

/*
 * The round trip through the rings beside a bare one over SEQPACKET sockets, taken in turns so that
 * both see the same machine: `bench-ping [SOCKET [COUNT]]` with a moed that runs.  Prints JSON.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "moe.h"
#include "num.h"

#define ROUNDS 10u
#define COUNT 2000u
#define WARM 50u /* of each round, not counted */
#define BYTES 32 /* a PING record */

struct series {
	const char *name;
	double *us;
	size_t n;
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(struct series *s, double q)
{
	size_t at = (size_t)(q * (double)s->n);

	qsort(s->us, s->n, sizeof(*s->us), compare);
	return s->n ? s->us[num_min(at, s->n - 1)] : 0;
}

static void add(struct series *s, unsigned i, uint64_t start)
{
	if (i >= WARM)
		s->us[s->n++] = (double)(clock_now() - start) / 1e3;
}

static int bare_round(struct series *s, int fd, unsigned count)
{
	char bytes[BYTES] = {0};

	for (unsigned i = 0; i < count + WARM; i++) {
		uint64_t start = clock_now();

		if (send(fd, bytes, sizeof(bytes), 0) != BYTES ||
			recv(fd, bytes, sizeof(bytes), 0) != BYTES)
			return -errno;
		add(s, i, start);
	}
	return 0;
}

static int moe_round(struct series *s, struct moe *m, unsigned count, bool busy)
{
	const struct moe_event *e;
	uint64_t number;
	int k;

	for (unsigned i = 0; i < count + WARM; i++) {
		uint64_t start = clock_now();

		k = moe_ping(m, busy ? MOE_PING_BUSY : 0, &number);
		do {
			if (k >= 0)
				k = moe_next(m, busy ? MOE_SPIN : MOE_FOREVER, &e);
		} while (k == 0 || (k == 1 && e->request != number));
		if (k < 0 || e->type != MOE_PONG)
			return k < 0 ? k : -EPROTO;
		add(s, i, start);
	}
	return 0;
}

static void echo(int fd)
{
	char bytes[BYTES];

	while (recv(fd, bytes, sizeof(bytes), 0) == BYTES) {
		if (send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != BYTES)
			break;
	}
	_exit(0);
}

static int measure(struct series *s, struct moe *m, unsigned count)
{
	int fds[2], k = 0;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	child = fork();
	if (child < 0)
		return -errno;
	if (child == 0) {
		(void)close(fds[0]);
		echo(fds[1]);
	}
	(void)close(fds[1]);
	for (unsigned i = 0; i < ROUNDS && k == 0; i++) {
		k = bare_round(&s[0], fds[0], count);
		if (k == 0)
			k = moe_round(&s[1], m, count, false);
		if (k == 0)
			k = moe_round(&s[2], m, count, true);
	}
	(void)close(fds[0]);
	(void)waitpid(child, NULL, 0);
	return k;
}

static void print(struct series *s)
{
	double bare = quantile(&s[0], 0.5);

	(void)printf("{");
	for (unsigned i = 0; i < 3; i++)
		(void)printf("\"%s_us\": {\"p50\": %.2f, \"p99\": %.2f}, ", s[i].name,
			quantile(&s[i], 0.5), quantile(&s[i], 0.99));
	(void)printf("\"sleeping_to_bare\": %.2f, \"busy_to_bare\": %.2f}\n",
		bare > 0 ? quantile(&s[1], 0.5) / bare : 0,
		bare > 0 ? quantile(&s[2], 0.5) / bare : 0);
}

int main(int argc, char **argv)
{
	struct series s[3] = {{"bare", NULL, 0}, {"sleeping", NULL, 0}, {"busy", NULL, 0}};
	const struct moe_event *e;
	uint64_t count = COUNT;
	struct moe *m;
	int k;

	if (argc > 2 && num_parse_u64(argv[2], 1, 1000000, &count) < 0)
		return 2;
	for (unsigned i = 0; i < 3; i++) {
		s[i].us = calloc(count * ROUNDS, sizeof(double));
		if (!s[i].us)
			return 1;
	}
	k = moe_open(&m, argc > 1 ? argv[1] : NULL);
	if (k < 0) {
		(void)fprintf(stderr, "bench-ping: %s\n", moe_last_error(NULL));
		return 1;
	}
	while ((k = moe_next(m, MOE_FOREVER, &e)) >= 0 && !(k == 1 && e->type == MOE_READY))
		;
	if (k >= 0)
		k = measure(s, m, (unsigned)count);
	if (k < 0)
		(void)fprintf(stderr, "bench-ping: %s\n", moe_strerror(k));
	else
		print(s);
	moe_close(m);
	for (unsigned i = 0; i < 3; i++)
		free(s[i].us);
	return k < 0;
}
