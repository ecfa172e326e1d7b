/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moectl.h"

static volatile sig_atomic_t n_interrupts;
static sigset_t waiting_mask;
static bool catching;

int complain(const char *format, ...)
{
	va_list args;

	(void)fputs("moectl: ", stderr);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputc('\n', stderr);
	return EXIT_FAILED;
}

static void on_interrupt(int signal)
{
	(void)signal;
	n_interrupts++;
}

/* The signal is let in only while waiting, so that none falls between looking and waiting. */
void interrupts_catch(void)
{
	struct sigaction action = {.sa_handler = on_interrupt};
	sigset_t block;

	(void)sigemptyset(&block);
	(void)sigaddset(&block, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &block, &waiting_mask);
	(void)sigdelset(&waiting_mask, SIGINT);
	(void)sigaction(SIGINT, &action, NULL);
	catching = true;
}

int interrupts(void)
{
	return n_interrupts;
}

void interrupts_reset(void)
{
	n_interrupts = 0;
}

bool input_wait(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

	return ppoll(&p, 1, NULL, &waiting_mask) >= 0;
}

int daemon_next(struct moe *m, const struct moe_event **ret)
{
	return daemon_next_within(m, -1, ret);
}

int daemon_next_within(struct moe *m, int ms, const struct moe_event **ret)
{
	const struct timespec wait = {ms / 1000, ms % 1000 * 1000000L};
	struct pollfd p = {.fd = moe_fd(m), .events = POLLIN};
	int k;

	for (;;) {
		k = moe_next(m, 0, ret);
		if (k < 0) {
			(void)complain(
				"%s", *moe_last_error(m) ? moe_last_error(m) : moe_strerror(k));
			return k;
		}
		if (k > 0)
			return k;
		k = ppoll(&p, 1, ms < 0 ? NULL : &wait, catching ? &waiting_mask : NULL);
		if (k == 0 || (k < 0 && errno == EINTR))
			return 0;
	}
}

/* On a terminal the percentage is kept up to date on one line; elsewhere it is said once. */
static void loading_show(const struct moe_event *e, bool *shown)
{
	if (isatty(STDERR_FILENO))
		(void)fprintf(stderr, "\rmoed loads its model: %u %%", e->percent);
	else if (!*shown)
		(void)fprintf(
			stderr, "moectl: moed loads its model (%u %%): waiting\n", e->percent);
	*shown = true;
}

int open_failed(int code)
{
	const char *hint = code == -ENOENT || code == -ECONNREFUSED
				   ? "; is it running (systemctl status moed)?  Another socket is "
				     "named by --socket or $MOED_SOCKET"
			   : code == -EACCES || code == -EPERM
				   ? "; are you in the group moed (id -nG)?"
				   : "";

	return complain("%s%s", moe_last_error(NULL), hint);
}

int daemon_open(const struct options *o, struct moe **ret, uint32_t *ret_vocabulary)
{
	const struct moe_event *e;
	bool shown = false;
	struct moe *m;
	int k;

	k = moe_open(&m, o->socket);
	if (k < 0)
		return open_failed(k);
	while ((k = daemon_next(m, &e)) >= 0 && !(k == 1 && e->type == MOE_READY)) {
		if (k == 0 && interrupts())
			break;
		if (k == 1 && e->type == MOE_LOADING)
			loading_show(e, &shown);
	}
	if (shown && isatty(STDERR_FILENO))
		(void)fputs("\r\033[K", stderr);
	if (k <= 0) {
		moe_close(m);
		return k < 0 ? EXIT_FAILED : EXIT_CANCELLED;
	}
	if (ret_vocabulary)
		*ret_vocabulary = e->vocabulary;
	*ret = m;
	return 0;
}

double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double percentile(double *values, size_t n, double p)
{
	size_t at;

	qsort(values, n, sizeof(*values), compare);
	at = (size_t)(p / 100 * (double)n);
	return values[at < n ? at : n - 1];
}
