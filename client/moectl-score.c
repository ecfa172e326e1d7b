/* SPDX-License-Identifier: MIT */

/* score: how likely a text is to the model. */

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moectl.h"
#include "num.h"

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
		return json_array_append_new(
			s->tokens, json_pack("{s:I,s:o,s:o}", "id", (json_int_t)e->token, "logprob",
					   e->has_logprob ? json_number(e->logprob) : json_null(),
					   "text", json_text(e->text, e->text_length)));
	if (e->has_logprob)
		(void)printf("%8u %12.6f ", e->token, e->logprob);
	else
		(void)printf("%8u %12s ", e->token, "-");
	/* One token, one line. */
	for (const char *at = e->text, *end = at + e->text_length, *line; at < end; at = line + 1) {
		line = memchr(at, '\n', (size_t)(end - at));
		text_print(at, (size_t)((line ? line : end) - at));
		if (!line)
			break;
		text_print("\\n", 2);
	}
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
		return output_end();
	}
	out = json_pack("{s:O,s:o,s:o,s:I,s:I}", "tokens", s->tokens, "total",
		json_number(s->total), "perplexity", json_number(perplexity), "scored",
		(json_int_t)s->n, "prompt_tokens", (json_int_t)e->prompt_tokens);
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
