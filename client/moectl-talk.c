/* SPDX-License-Identifier: MIT */

/* prompt without a text on a terminal: a conversation, line by line. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moectl.h"

#define TALK_TURNS 1024
#define TALK_LINE 65536

struct talk {
	const struct options *o;
	struct moe *m;
	struct moe_session *session;
	struct moe_turn turns[TALK_TURNS];
	size_t n;
	char line[TALK_LINE];
};

static int talk_push(struct talk *t, const char *role, const char *text, size_t n)
{
	char *copy = malloc(n + 1);

	if (!copy)
		return complain("out of memory");
	memcpy(copy, text, n);
	copy[n] = 0;
	t->turns[t->n++] = (struct moe_turn){role, copy, n};
	return EXIT_OK;
}

static void talk_pop(struct talk *t)
{
	free((char *)(uintptr_t)t->turns[--t->n].text);
}

/*
 * One line of the terminal, which gives it whole.  1: it is in t->line, *ret bytes; 0: leave.
 * Ctrl-C is let in only while waiting; the second one without a line in between leaves.
 */
static int talk_line(struct talk *t, size_t *ret)
{
	ssize_t n;

	while (interrupts() < 2) {
		(void)fputs("> ", stderr);
		if (!input_wait()) {
			(void)fputs(interrupts() < 2 ? "\n(once more, or Ctrl-D, leaves)\n" : "\n",
				stderr);
			continue;
		}
		n = read(STDIN_FILENO, t->line, sizeof(t->line));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (t->line[n - 1] == '\n')
			n--;
		if (n == 0)
			continue;
		*ret = (size_t)n;
		return 1;
	}
	return 0;
}

/* What happened since the last answer, so that a restarted daemon is noticed before asking it. */
static int talk_settle(struct talk *t)
{
	struct pollfd p = {.fd = moe_fd(t->m), .events = POLLIN};
	const struct moe_event *e;
	int k;

	do {
		k = moe_next(t->m, 0, &e);
	} while (k > 0 || (k == 0 && poll(&p, 1, 0) > 0));
	if (k < 0)
		return complain(
			"%s", *moe_last_error(t->m) ? moe_last_error(t->m) : moe_strerror(k));
	return EXIT_OK;
}

static int talk_answer(struct talk *t, size_t length)
{
	struct moe_request r = MOE_REQUEST_INIT;
	struct answer a = {0};
	int k;

	if (talk_push(t, "user", t->line, length))
		return EXIT_FAILED;
	if (t->o->raw) {
		r.text = t->line;
		r.text_length = length;
	} else {
		r.turns = t->turns;
		r.n_turns = t->n;
	}
	k = answer_get(t->o, t->m, t->session, &r, &a);
	/* What was cut off is part of the conversation, what failed is not. */
	if (t->o->raw || k == EXIT_FAILED)
		talk_pop(t);
	else if (talk_push(t, "assistant", a.text ? a.text : "", a.length))
		k = EXIT_FAILED;
	answer_deinit(&a);
	if (k == EXIT_CANCELLED && interrupts() < 2)
		(void)fputs("(cancelled)\n", stderr);
	return k;
}

static int talk_run(struct talk *t)
{
	size_t length;

	if (t->o->system && talk_push(t, "system", t->o->system, strlen(t->o->system)))
		return EXIT_FAILED;
	(void)fputs("Ctrl-C cancels an answer, Ctrl-D leaves.\n", stderr);
	while (interrupts() < 2 && talk_line(t, &length)) {
		if (t->n + 2 > TALK_TURNS)
			return complain("the conversation has reached %d turns", TALK_TURNS);
		interrupts_reset();
		if (talk_settle(t))
			return EXIT_FAILED;
		/* It has said what failed; the next line may not. */
		(void)talk_answer(t, length);
	}
	(void)fputc('\n', stderr);
	return interrupts() < 2 ? EXIT_OK : EXIT_CANCELLED;
}

int talk(const struct options *o, struct moe *m)
{
	struct talk *t = calloc(1, sizeof(*t));
	int k;

	if (!t || moe_session_open(m, NULL, &t->session) < 0) {
		free(t);
		return complain("cannot begin a conversation: out of memory");
	}
	t->o = o;
	t->m = m;
	k = talk_run(t);
	(void)moe_session_close(t->session, 1);
	while (t->n)
		talk_pop(t);
	free(t);
	return k;
}
