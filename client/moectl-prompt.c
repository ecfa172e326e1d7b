/* SPDX-License-Identifier: MIT */

/* prompt: text in, tokens out. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moectl.h"
#include "num.h"

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

void answer_deinit(struct answer *a)
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

json_t *done_json(const struct moe_event *e)
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
			text_print(e->text, e->text_length);
			if (output_end())
				return EXIT_FAILED;
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
		if (k == 1 && e->type == MOE_DISCONNECTED)
			(void)complain("moed has gone; waiting until it is back, Ctrl-C leaves");
		if (k == 0 || e->request != request)
			continue;
		k = answer_event(o, e, a);
		if (k >= 0)
			return k;
	}
}

int answer_get(const struct options *o, struct moe *m, struct moe_session *s, struct moe_request *r,
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
		if (output_end())
			return EXIT_FAILED;
	}
	return k;
}

static int once(const struct options *o, struct moe *m, const char *text, size_t length)
{
	struct moe_request r = MOE_REQUEST_INIT;
	struct moe_turn turns[2];
	struct answer a = {0};
	int k;

	if (o->raw) {
		r.text = text;
		r.text_length = length;
	} else {
		r.turns = turns;
		if (o->system)
			turns[r.n_turns++] = (struct moe_turn){"system", o->system, MOE_NUL};
		turns[r.n_turns++] = (struct moe_turn){"user", text, length};
	}
	k = answer_get(o, m, NULL, &r, &a);
	answer_deinit(&a);
	return k;
}

int verb_prompt(const struct options *o)
{
	bool talks = !o->text && isatty(STDIN_FILENO) && !o->json;
	struct moe *m = NULL;
	char *text = NULL;
	size_t length = 0;
	int k;

	/* Read before Ctrl-C is caught: until then it ends the program. */
	if (!talks) {
		text = text_read(o, &length);
		if (!text)
			return EXIT_FAILED;
		/* A raw one is up to the model: some begin of themselves. */
		if (!length && !o->raw) {
			free(text);
			(void)complain("the prompt is empty: there is nothing to answer");
			return o->text && *o->text == 0 ? EXIT_USAGE : EXIT_FAILED;
		}
	}
	interrupts_catch();
	k = daemon_open(o, &m, NULL);
	if (k == 0)
		k = talks ? talk(o, m) : once(o, m, text, length);
	moe_close(m);
	free(text);
	return k;
}
