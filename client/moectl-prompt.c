/* SPDX-License-Identifier: MIT */

/* prompt and score: text in, tokens out. */

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moectl.h"
#include "num.h"

struct answer {
	char *text;
	size_t length, room;
	json_t *ids;
	struct moe_event done; /* its figures */
};

static int answer_add(struct answer *a, const char *text, size_t n)
{
	if (a->length + n + 1 > a->room) {
		size_t room = (a->length + n + 1) * 2;
		char *larger = realloc(a->text, room);

		if (!larger)
			return complain("out of memory");
		a->text = larger;
		a->room = room;
	}
	memcpy(a->text + a->length, text, n);
	a->length += n;
	a->text[a->length] = 0;
	return 0;
}

static void answer_deinit(struct answer *a)
{
	free(a->text);
	json_decref(a->ids);
	*a = (struct answer){0};
}

static const char *finish_name(enum moe_finish finish)
{
	return finish == MOE_FINISH_STOP     ? "stop"
	       : finish == MOE_FINISH_LENGTH ? "length"
					     : "cancelled";
}

static json_t *done_json(const struct moe_event *e)
{
	return json_pack("{s:{s:f,s:f,s:f,s:f},s:{s:I,s:I,s:I}}", "timing", "queue_s",
		seconds(e->queue_ns), "prefill_s", seconds(e->prefill_ns), "decode_s",
		seconds(e->decode_ns), "io_wait_s", seconds(e->io_wait_ns), "cache", "hits",
		(json_int_t)e->cache_hits, "misses", (json_int_t)e->cache_misses, "bytes_read",
		(json_int_t)e->bytes_read);
}

static int answer_print(const struct answer *a)
{
	json_t *o = json_pack("{s:o,s:O,s:I,s:s}", "text",
		json_text(a->text ? a->text : "", a->length), "ids", a->ids, "prompt_tokens",
		(json_int_t)a->done.prompt_tokens, "finish", finish_name(a->done.finish));
	json_t *figures = done_json(&a->done);

	if (!o || !figures || json_object_update(o, figures) < 0) {
		json_decref(o);
		o = NULL;
	}
	json_decref(figures);
	return json_print(o);
}

/* One event of the request.  -1: go on; else the exit status. */
static int answer_event(const struct options *o, const struct moe_event *e, struct answer *a)
{
	switch (e->type) {
	case MOE_TOKEN:
		if (json_array_append_new(a->ids, json_integer(e->token)) < 0 ||
			answer_add(a, e->text, e->text_length))
			return EXIT_FAILED;
		if (!o->json && e->text_length) {
			(void)fwrite(e->text, 1, e->text_length, stdout);
			if (fflush(stdout) == EOF)
				return complain("cannot write the answer: %s", strerror(errno));
		}
		return -1;
	case MOE_ERROR:
		return complain("%s", *e->text ? e->text : moe_strerror(e->code));
	case MOE_DONE:
		a->done = *e;
		return e->finish == MOE_FINISH_CANCELLED ? EXIT_CANCELLED : EXIT_OK;
	default:
		return -1;
	}
}

/* The first Ctrl-C cancels, the second leaves at once. */
static int answer_wait(const struct options *o, struct moe *m, uint64_t request, struct answer *a)
{
	const struct moe_event *e;
	bool cancelled = false;
	int k;

	for (;;) {
		if (interrupts() > 1)
			return EXIT_CANCELLED;
		if (interrupts() && !cancelled) {
			(void)moe_cancel(m, request);
			cancelled = true;
		}
		k = daemon_next(m, &e);
		if (k < 0)
			return EXIT_FAILED;
		if (k == 0 || e->request != request)
			continue;
		k = answer_event(o, e, a);
		if (k >= 0)
			return k;
	}
}

static int ask(const struct options *o, struct moe *m, struct moe_session *s, struct moe_request *r,
	struct answer *a)
{
	uint64_t request;
	int k;

	a->ids = json_array();
	if (!a->ids)
		return complain("out of memory");
	r->stops = o->stops;
	r->n_stops = o->n_stops;
	r->temperature = (float)o->temperature;
	r->top_p = (float)o->top_p;
	r->min_p = (float)o->min_p;
	r->top_k = (uint32_t)o->top_k;
	r->max_tokens = (uint32_t)o->max_tokens;
	r->seed = o->seed;
	k = moe_submit(m, s, r, &request);
	if (k < 0)
		return complain("%s", *moe_last_error(m) ? moe_last_error(m) : moe_strerror(k));
	k = answer_wait(o, m, request, a);
	if (k == EXIT_OK || k == EXIT_CANCELLED) {
		if (o->json)
			return answer_print(a) == EXIT_OK ? k : EXIT_FAILED;
		if (a->length && a->text[a->length - 1] != '\n')
			(void)putchar('\n');
		if (fflush(stdout) == EOF)
			return complain("cannot write the answer: %s", strerror(errno));
	}
	return k;
}

static int once(const struct options *o, struct moe *m)
{
	struct moe_request r = MOE_REQUEST_INIT;
	struct moe_turn turns[2];
	struct answer a = {0};
	size_t length;
	char *text;
	int k;

	text = text_read(o, &length);
	if (!text)
		return EXIT_FAILED;
	if (o->raw) {
		r.text = text;
		r.text_length = length;
	} else {
		r.turns = turns;
		if (o->system)
			turns[r.n_turns++] = (struct moe_turn){"system", o->system, MOE_NUL};
		turns[r.n_turns++] = (struct moe_turn){"user", text, length};
	}
	k = ask(o, m, NULL, &r, &a);
	answer_deinit(&a);
	free(text);
	return k;
}

#define TALK_TURNS 1024

struct talk {
	struct moe_turn turns[TALK_TURNS];
	size_t n, n_owned;
};

static void talk_pop(struct talk *t)
{
	free((char *)(uintptr_t)t->turns[--t->n].text);
}

static int talk_line(const struct options *o, struct moe *m, struct moe_session *s, struct talk *t,
	char *line, size_t length)
{
	struct moe_request r = MOE_REQUEST_INIT;
	struct answer a = {0};
	int k;

	t->turns[t->n++] = (struct moe_turn){"user", line, length};
	if (o->raw) {
		r.text = line;
		r.text_length = length;
	} else {
		r.turns = t->turns;
		r.n_turns = t->n;
	}
	interrupts_reset();
	k = ask(o, m, s, &r, &a);
	if (o->raw || k != EXIT_OK) {
		talk_pop(t); /* what failed is not part of the conversation */
	} else {
		t->turns[t->n++] =
			(struct moe_turn){"assistant", a.text ? a.text : strdup(""), a.length};
		a.text = NULL;
	}
	answer_deinit(&a);
	if (k == EXIT_CANCELLED && interrupts() < 2) {
		(void)fputs("(cancelled)\n", stderr);
		k = EXIT_OK;
	}
	return k;
}

/* On a terminal: line by line, until the end of input or Ctrl-C at the prompt. */
static int conversation(const struct options *o, struct moe *m)
{
	struct talk *t = calloc(1, sizeof(*t));
	struct moe_session *s = NULL;
	size_t room, first = o->system ? 1 : 0;
	int k = EXIT_OK;
	ssize_t n;
	char *line;

	if (!t || moe_session_open(m, NULL, &s) < 0) {
		free(t);
		return complain("cannot begin a conversation");
	}
	if (o->system)
		t->turns[t->n++] = (struct moe_turn){"system", strdup(o->system), MOE_NUL};
	(void)fputs("Ctrl-C cancels an answer, Ctrl-D leaves.\n", stderr);
	while (t->n + 2 <= TALK_TURNS && (k == EXIT_OK || k == EXIT_FAILED)) {
		(void)fputs("> ", stderr);
		line = NULL;
		room = 0;
		n = getline(&line, &room, stdin);
		if (n > 0 && line[n - 1] == '\n')
			line[--n] = 0;
		if (n <= 0) {
			free(line);
			if (n == 0)
				continue;
			(void)fputc('\n', stderr);
			k = EXIT_OK;
			break;
		}
		k = talk_line(o, m, s, t, line, (size_t)n);
	}
	if (t->n + 2 > TALK_TURNS)
		(void)complain("the conversation has reached %d turns", TALK_TURNS);
	(void)moe_session_close(s, 1);
	while (t->n > first)
		talk_pop(t);
	if (t->n)
		talk_pop(t);
	free(t);
	return k;
}

int verb_prompt(const struct options *o)
{
	bool talk = !o->text && isatty(STDIN_FILENO) && !o->json;
	struct moe *m;
	int k;

	interrupts_catch();
	k = daemon_open(o, &m, NULL);
	if (k)
		return k;
	k = talk ? conversation(o, m) : once(o, m);
	moe_close(m);
	return k;
}

/* Numbers parted by blanks, commas or brackets.  -1: complained about. */
static ssize_t ids_parse(char *text, uint32_t **ret)
{
	size_t room = strlen(text) / 2 + 1, n = 0;
	uint32_t *ids = malloc(room * sizeof(*ids));
	char *save = NULL;

	for (char *t = strtok_r(text, " \t\r\n,[]", &save); ids && t;
		t = strtok_r(NULL, " \t\r\n,[]", &save)) {
		uint64_t v;

		if (num_parse_u64(t, 0, UINT32_MAX, &v) < 0) {
			free(ids);
			(void)complain("'%s' is no token id", t);
			return -1;
		}
		ids[n++] = (uint32_t)v;
	}
	if (!ids || !n) {
		free(ids);
		(void)complain("there are no token ids");
		return -1;
	}
	*ret = ids;
	return (ssize_t)n;
}

struct score {
	json_t *tokens;
	double total;
	uint64_t n;
};

static int score_token(const struct options *o, const struct moe_event *e, struct score *s)
{
	if (e->has_logprob) {
		s->total += e->logprob;
		s->n++;
	}
	if (o->json)
		return json_array_append_new(s->tokens,
			json_pack("{s:I,s:o,s:o}", "id", (json_int_t)e->token, "logprob",
				e->has_logprob && isfinite(e->logprob) ? json_real(e->logprob)
								       : json_null(),
				"text", json_text(e->text, e->text_length)));
	if (e->has_logprob)
		(void)printf("%8u %12.6f ", e->token, e->logprob);
	else
		(void)printf("%8u %12s ", e->token, "-");
	for (size_t i = 0; i < e->text_length; i++)
		(void)(e->text[i] == '\n' ? fputs("\\n", stdout) : putchar(e->text[i]));
	(void)putchar('\n');
	return 0;
}

static int score_end(const struct options *o, const struct moe_event *e, struct score *s)
{
	double perplexity = s->n ? exp(-s->total / (double)s->n) : 1;
	json_t *out, *figures;

	if (!o->json) {
		(void)printf("total %.6f  tokens %llu  perplexity %.6f\n", s->total,
			(unsigned long long)s->n, perplexity);
		return fflush(stdout) == EOF ? complain("cannot write: %s", strerror(errno))
					     : EXIT_OK;
	}
	out = json_pack("{s:O,s:f,s:f,s:I,s:I}", "tokens", s->tokens, "total", s->total,
		"perplexity", perplexity, "scored", (json_int_t)s->n, "prompt_tokens",
		(json_int_t)e->prompt_tokens);
	figures = done_json(e);
	if (out && figures)
		(void)json_object_update(out, figures);
	json_decref(figures);
	return json_print(out);
}

static int score_wait(const struct options *o, struct moe *m, uint64_t request)
{
	struct score s = {.tokens = json_array()};
	const struct moe_event *e;
	int k, status = -1;

	while (status < 0) {
		k = daemon_next(m, &e);
		if (k < 0)
			status = EXIT_FAILED;
		else if (k == 0)
			status = interrupts() ? EXIT_CANCELLED : -1;
		else if (e->request != request)
			continue;
		else if (e->type == MOE_TOKEN)
			status = score_token(o, e, &s) ? complain("out of memory") : -1;
		else if (e->type == MOE_ERROR)
			status = complain("%s", *e->text ? e->text : moe_strerror(e->code));
		else if (e->type == MOE_DONE)
			status = score_end(o, e, &s);
	}
	json_decref(s.tokens);
	return status;
}

int verb_score(const struct options *o)
{
	struct moe_request r = MOE_REQUEST_INIT;
	uint32_t *ids = NULL;
	uint64_t request;
	struct moe *m = NULL;
	size_t length;
	ssize_t n = 0;
	char *text;
	int k;

	text = text_read(o, &length);
	if (!text)
		return EXIT_FAILED;
	if (o->ids)
		n = ids_parse(text, &ids);
	interrupts_catch();
	k = n < 0 ? EXIT_FAILED : daemon_open(o, &m, NULL);
	if (k == 0) {
		r.text = o->ids ? NULL : text;
		r.text_length = length;
		r.ids = ids;
		r.n_ids = (size_t)n;
		r.flags = MOE_SCORE | MOE_WANT_LOGPROBS;
		k = moe_submit(m, NULL, &r, &request);
		k = k < 0 ? complain("%s", *moe_last_error(m) ? moe_last_error(m) : moe_strerror(k))
			  : score_wait(o, m, request);
	}
	moe_close(m);
	free(ids);
	free(text);
	return k;
}
