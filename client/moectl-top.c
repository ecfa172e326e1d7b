/* SPDX-License-Identifier: MIT */

/* top: a look at the daemon every second: a screen on a terminal, else a line each. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "moectl-look.h"
#include "moectl.h"
#include "num.h"

#define LINES_PER_HEADER 20

enum top_state { TOP_WAITING, TOP_LOADING, TOP_READY, TOP_GONE };

struct top {
	const struct options *o;
	struct moe *m;
	bool screen, raw;
	enum top_state state;
	unsigned percent;
	json_t *before, *now;
	double before_s, now_s; /* when they were taken */
	uint64_t request;	/* of the status under way, or 0 */
	bool due;		/* a look is to be shown with the next status */
	uint64_t shown, looks;
	struct termios cooked;
};

static volatile sig_atomic_t top_ended, top_stopped, top_resized;

static void on_signal(int signal)
{
	top_ended |= signal == SIGINT || signal == SIGTERM || signal == SIGHUP;
	top_stopped |= signal == SIGTSTP;
	top_resized |= signal == SIGWINCH;
}

/* They are let in only while waiting. */
static void signals_catch(sigset_t *ret_waiting)
{
	static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH};
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t block;

	(void)sigemptyset(&block);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		(void)sigaddset(&block, caught[i]);
	(void)sigprocmask(SIG_BLOCK, &block, ret_waiting);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++) {
		(void)sigdelset(ret_waiting, caught[i]);
		(void)sigaction(caught[i], &action, NULL);
	}
}

static double now_s(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the terminal ------------------------------------------------------------------------ */

static void screen_enter(struct top *t)
{
	struct termios raw;

	if (!t->screen)
		return;
	t->raw = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->cooked) == 0;
	if (t->raw) {
		raw = t->cooked;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	(void)fputs("\033[?1049h\033[?25l\033[2J", stdout);
	(void)fflush(stdout);
}

static void screen_leave(struct top *t)
{
	if (!t->screen)
		return;
	(void)fputs("\033[?25h\033[?1049l", stdout);
	(void)fflush(stdout);
	if (t->raw)
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &t->cooked);
}

/* Ctrl-Z: the terminal as it was, until we are let go on. */
static void screen_stop(struct top *t)
{
	top_stopped = 0;
	screen_leave(t);
	(void)raise(SIGSTOP);
	screen_enter(t);
}

static const char *state_text(const struct top *t, char *buf, size_t size)
{
	if (t->state == TOP_LOADING)
		(void)snprintf(buf, size, "loading %u %%", t->percent);
	else
		(void)snprintf(buf, size, "%s",
			t->state == TOP_GONE ? "gone: waiting until it is back" : "connecting");
	return buf;
}

static int screen_draw(const struct top *t, const struct look *l)
{
	char *text = NULL, state[64];
	unsigned columns = 80, rows = 24;
	struct winsize w;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	if (!f)
		return complain("out of memory");
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
		columns = w.ws_col;
		rows = w.ws_row;
	}
	if (l)
		look_screen(l, f, columns, rows > 1 ? rows - 1 : 1);
	else
		(void)fprintf(f, "moed: %s\n", state_text(t, state, sizeof(state)));
	if (fclose(f) == EOF) {
		free(text);
		return complain("out of memory");
	}
	(void)fputs("\033[H", stdout);
	for (const char *at = text, *end; *at; at = end + 1) {
		end = strchr(at, '\n');
		(void)printf("%.*s\033[K\n", (int)(end - at), at);
	}
	(void)printf("\033[J\033[%u;1H\033[7m q ends \033[0m\033[K", rows);
	free(text);
	return output_end();
}

/* ---- looks ------------------------------------------------------------------------------- */

static int show_json(const struct top *t, const struct look *l)
{
	static const char *const states[] = {"connecting", "loading", "ready", "gone"};
	json_t *o = l ? look_json(l) : json_pack("{s:s}", "state", states[t->state]);

	if (o && !l && t->state == TOP_LOADING)
		(void)json_object_set_new(o, "percent", json_integer(t->percent));
	if (o)
		(void)json_object_set_new(o, "time_s", json_integer((json_int_t)time(NULL)));
	return json_print(o);
}

static int show_line(const struct top *t, const struct look *l)
{
	char state[64];

	if (t->shown % LINES_PER_HEADER == 0)
		look_header(stdout);
	if (l)
		look_line(l, stdout);
	else
		(void)printf("%s\n", state_text(t, state, sizeof(state)));
	return output_end();
}

/* What is known now.  EXIT_OK, or it cannot be written. */
static int show(struct top *t)
{
	struct look l, *shown = NULL;
	int k;

	if (t->state == TOP_READY && t->now) {
		look_take(&l, t->before, t->now, t->now_s - t->before_s);
		shown = &l;
	}
	k = t->screen	 ? screen_draw(t, shown)
	    : t->o->json ? show_json(t, shown)
			 : show_line(t, shown);
	t->shown++;
	return k;
}

static void statuses_drop(struct top *t)
{
	json_decref(t->before);
	json_decref(t->now);
	t->before = t->now = NULL;
	t->request = 0;
}

static int status_here(struct top *t, const struct moe_event *e)
{
	json_t *value = json_loadb(e->text, e->text_length, JSON_REJECT_DUPLICATES, NULL);
	bool first = !t->now;

	t->request = 0;
	if (!json_is_object(value)) {
		json_decref(value);
		return complain("the daemon's status is not readable");
	}
	json_decref(t->before);
	t->before = t->now;
	t->before_s = t->now_s;
	t->now = value;
	t->now_s = now_s();
	/* The first is what the next ones are compared with; a screen need not stay empty. */
	if (first)
		return t->screen ? show(t) : EXIT_OK;
	t->looks += t->due;
	t->due = false;
	return show(t);
}

static void status_ask(struct top *t)
{
	if (t->request == 0 && moe_status(t->m, &t->request) < 0)
		t->request = 0;
}

static int on_event(struct top *t, const struct moe_event *e)
{
	switch (e->type) {
	case MOE_LOADING:
		t->state = TOP_LOADING;
		t->percent = e->percent;
		return t->screen ? show(t) : EXIT_OK;
	case MOE_READY:
		t->state = TOP_READY;
		statuses_drop(t);
		status_ask(t);
		return EXIT_OK;
	case MOE_DISCONNECTED:
		t->state = TOP_GONE;
		statuses_drop(t);
		return t->screen ? show(t) : EXIT_OK;
	case MOE_STATUS:
		return e->request == t->request ? status_here(t, e) : EXIT_OK;
	case MOE_ERROR:
		if (e->request != t->request || e->code == -ECONNRESET)
			return EXIT_OK;
		return complain("%s", *e->text ? e->text : moe_strerror(e->code));
	default:
		return EXIT_OK;
	}
}

static int events(struct top *t)
{
	const struct moe_event *e;
	int k;

	while ((k = moe_next(t->m, 0, &e)) > 0) {
		k = on_event(t, e);
		if (k)
			return k;
	}
	if (k < 0)
		return complain(
			"%s", *moe_last_error(t->m) ? moe_last_error(t->m) : moe_strerror(k));
	return EXIT_OK;
}

/* False: q, or the end of the input. */
static bool keys(struct top *t)
{
	char c[16];
	ssize_t n = read(STDIN_FILENO, c, sizeof(c));

	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
		return false;
	for (ssize_t i = 0; i < n; i++) {
		if (c[i] == 'q' || c[i] == 'Q')
			return false;
	}
	return true;
}

/* Waits for an event, a key, a signal or the time.  False: it was asked to end. */
static bool pause_until(struct top *t, double end, const sigset_t *waiting)
{
	struct pollfd p[2] = {{.fd = moe_fd(t->m), .events = POLLIN},
		{.fd = t->raw ? STDIN_FILENO : -1, .events = POLLIN}};
	double left = end - now_s();
	struct timespec ts = {0, 0};

	if (left > 0) {
		ts.tv_sec = (time_t)left;
		ts.tv_nsec = (long)((left - (double)ts.tv_sec) * 1e9);
	}
	if (ppoll(p, 2, &ts, waiting) < 0 && errno != EINTR)
		return false;
	if (p[1].revents && !keys(t))
		return false;
	return !top_ended;
}

/* It is time for one. */
static int look(struct top *t)
{
	if (t->state == TOP_READY) {
		t->due = true;
		status_ask(t);
		return EXIT_OK;
	}
	t->looks++;
	return show(t);
}

static int run(struct top *t, const sigset_t *waiting)
{
	double next = now_s() + t->o->interval;
	int k = EXIT_OK;

	while (k == EXIT_OK) {
		k = events(t);
		if (k || (t->o->count && t->looks >= t->o->count))
			break;
		if (top_stopped)
			screen_stop(t);
		if (top_resized && t->screen && k == EXIT_OK) {
			top_resized = 0;
			k = show(t);
		}
		if (k == EXIT_OK && now_s() >= next) {
			next = num_max(next + t->o->interval, now_s() + t->o->interval / 2);
			k = look(t);
			continue;
		}
		if (k == EXIT_OK && !pause_until(t, next, waiting))
			break;
	}
	return k;
}

int verb_top(const struct options *o)
{
	struct top t = {.o = o, .screen = !o->json && isatty(STDOUT_FILENO)};
	sigset_t waiting;
	int k;

	k = moe_open(&t.m, o->socket);
	if (k < 0)
		return open_failed(k);
	signals_catch(&waiting);
	screen_enter(&t);
	k = run(&t, &waiting);
	screen_leave(&t);
	statuses_drop(&t);
	moe_close(t.m);
	return k;
}
