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

#define TEXT_MAX ((size_t)16 << 20)

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

int daemon_next(struct moe *m, const struct moe_event **ret)
{
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
		k = ppoll(&p, 1, NULL, catching ? &waiting_mask : NULL);
		if (k < 0 && errno == EINTR)
			return 0;
	}
}

int daemon_open(const struct options *o, struct moe **ret, uint32_t *ret_vocabulary)
{
	bool terminal = isatty(STDERR_FILENO), shown = false;
	const struct moe_event *e;
	struct moe *m;
	int k;

	k = moe_open(&m, o->socket);
	if (k < 0) {
		const char *hint = k == -ENOENT || k == -ECONNREFUSED
					   ? "is it running (systemctl status moed)?"
				   : k == -EACCES ? "are you in the group moed?"
						  : "";

		return complain("%s%s%s", moe_last_error(NULL), *hint ? "; " : "", hint);
	}
	while ((k = daemon_next(m, &e)) >= 0 && !(k == 1 && e->type == MOE_READY)) {
		if (k == 0 && interrupts()) {
			moe_close(m);
			return EXIT_CANCELLED;
		}
		if (k == 1 && e->type == MOE_LOADING && terminal) {
			(void)fprintf(stderr, "\rloading %u %%", e->percent);
			shown = true;
		}
	}
	if (shown)
		(void)fputs("\r\033[K", stderr);
	if (k < 0) {
		moe_close(m);
		return EXIT_FAILED;
	}
	if (ret_vocabulary)
		*ret_vocabulary = e->vocabulary;
	*ret = m;
	return 0;
}

char *text_read(const struct options *o, size_t *ret_length)
{
	size_t room = 65536, n = 0, got;
	char *text, *larger;

	if (o->text && strcmp(o->text, "-") != 0) {
		*ret_length = strlen(o->text);
		return strdup(o->text);
	}
	text = malloc(room + 1);
	while (text && (got = fread(text + n, 1, room - n, stdin)) > 0) {
		n += got;
		if (n < room)
			continue;
		larger = room < TEXT_MAX ? realloc(text, room * 2 + 1) : NULL;
		if (!larger) {
			(void)complain("standard input is longer than %zu bytes", TEXT_MAX);
			free(text);
			return NULL;
		}
		text = larger;
		room *= 2;
	}
	if (!text || ferror(stdin)) {
		(void)complain("cannot read standard input: %s", strerror(errno));
		free(text);
		return NULL;
	}
	text[n] = 0;
	*ret_length = n;
	return text;
}

/* Bytes of the character at s, or 0 where it is none. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
	size_t length = s[0] < 0x80   ? 1
			: s[0] < 0xc2 ? 0
			: s[0] < 0xe0 ? 2
			: s[0] < 0xf0 ? 3
			: s[0] < 0xf5 ? 4
				      : 0;

	if (length > n)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	if (length == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)))
		return 0;
	if (length == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)))
		return 0;
	return length;
}

json_t *json_text(const char *text, size_t length)
{
	char *clean = malloc(length * 3 + 1);
	size_t n = 0, l;
	json_t *value;

	if (!clean)
		return NULL;
	for (size_t i = 0; i < length; i += l ? l : 1) {
		l = utf8_length((const unsigned char *)text + i, length - i);
		memcpy(clean + n, l ? text + i : "\xef\xbf\xbd", l ? l : 3);
		n += l ? l : 3;
	}
	value = json_stringn(clean, n);
	free(clean);
	return value;
}

int json_print(json_t *value)
{
	int k;

	if (!value)
		return complain("cannot put the answer together: out of memory");
	k = json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
	json_decref(value);
	if (k < 0 || putchar('\n') == EOF || fflush(stdout) == EOF)
		return complain("cannot write the answer: %s", strerror(errno));
	return EXIT_OK;
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
