/* SPDX-License-Identifier: MIT */

/*
 * trace: what the routers choose, as CSV: for a prompt of one's own, or for the tokens of all.  No
 * text and no token is in it.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "moectl-routes.h"

/* Of an answer, where its length is not asked for. */
#define TOKENS_DEFAULT 128

struct trace {
	const struct options *o;
	struct shape shape;
	struct tokens tokens;
	FILE *file;
	bool begun;		/* the header is written */
	uint64_t decoded, most; /* most: 0: no end */
};

static int file_open(struct trace *t)
{
	t->file = stdout;
	if (!t->o->output)
		return EXIT_OK;
	t->file = fopen(t->o->output, "we");
	return t->file ? EXIT_OK : complain("cannot write %s: %s", t->o->output, strerror(errno));
}

static int file_close(struct trace *t)
{
	bool failed;

	if (t->file == stdout)
		return output_end();
	failed = ferror(t->file);
	if (fclose(t->file) == EOF || failed)
		return complain("cannot write %s: %s", t->o->output, strerror(errno));
	return EXIT_OK;
}

/* Once, when it is known that there is something to write. */
static void header(struct trace *t)
{
	const struct shape *s = &t->shape;

	if (t->begun)
		return;
	t->begun = true;
	(void)fprintf(t->file,
		"# route_trace v1\n# model=%s arch=%s n_layer=%u n_expert=%u n_expert_used=%u\n",
		s->name, s->arch, s->layers, s->experts, s->top_k);
	for (uint32_t l = 0; l < s->layers; l++) {
		if (s->expert_bytes[l])
			(void)fprintf(t->file, "# layer=%u expert_bytes=%llu\n", l,
				(unsigned long long)s->expert_bytes[l]);
	}
	(void)fputs("turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n", t->file);
}

/* A tokens' done(). */
static int rows(void *arg, const struct token *token)
{
	struct trace *t = arg;
	const struct shape *s = &t->shape;

	header(t);
	for (uint32_t l = 0; l < s->layers; l++) {
		for (uint32_t i = 0; i < s->top_k && s->expert_bytes[l]; i++) {
			const struct choice *c = &token->choices[(size_t)l * s->top_k + i];

			(void)fprintf(t->file, "%u,%d,%u,%u,%u,%u,%.9g,%u,%llu\n", token->turn,
				token->decode, token->position, l, i, c->expert, (double)c->weight,
				c->resident,
				c->resident ? 0 : (unsigned long long)s->expert_bytes[l]);
		}
	}
	t->decoded += token->decode;
	if (ferror(t->file))
		return complain("cannot write the trace: %s", strerror(errno));
	/* Not a failure: what comes after it is not written. */
	return t->most && t->decoded == t->most ? -1 : 0;
}

static int own(struct trace *t, struct moe *m, const char *text, size_t length)
{
	const struct options *o = t->o;
	const struct moe_turn turn = {"user", text, length};
	struct moe_request r = MOE_REQUEST_INIT;
	uint64_t n = o->max_tokens ? o->max_tokens : TOKENS_DEFAULT;

	if (o->raw) {
		r.text = text;
		r.text_length = length;
	} else {
		r.turns = &turn;
		r.n_turns = 1;
	}
	/* The last token of an answer is not computed with. */
	r.max_tokens = (uint32_t)n + 1;
	r.flags = MOE_WANT_ROUTES | (o->max_tokens ? MOE_IGNORE_END : 0);
	return routes_get(m, &r, &t->tokens);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int all_done(struct trace *t, const struct moe_event *e)
{
	if (!e->lost)
		return EXIT_OK;
	(void)fprintf(
		t->file, "# tokens=%u lost=%llu\n", e->generated, (unsigned long long)e->lost);
	(void)complain("%llu tokens were left out, since this side was too slow for them",
		(unsigned long long)e->lost);
	return EXIT_OK;
}

/* One event of the trace.  -1: go on; else the exit status. */
static int all_event(struct trace *t, const struct moe_event *e, bool *over)
{
	int k;

	switch (e->type) {
	case MOE_ROUTES:
		header(t);
		k = *over ? 0 : tokens_add(&t->tokens, e);
		*over |= k < 0;
		/* Whoever looks on sees them now. */
		if (!*over && fflush(t->file) == EOF)
			k = complain("cannot write the trace: %s", strerror(errno));
		return k > 0 ? k : -1;
	case MOE_ERROR:
		return complain("%s", *e->text ? e->text : moe_strerror(e->code));
	case MOE_DONE:
		return all_done(t, e);
	default:
		return -1;
	}
}

static int all(struct trace *t, struct moe *m)
{
	uint64_t end = t->o->seconds ? now_ms() + t->o->seconds * 1000 : 0, request;
	int k = moe_trace(m, &request), status = -1;
	bool over = false, cancelled = false;
	const struct moe_event *e;

	if (k < 0)
		return complain("%s", moe_strerror(k));
	while (status < 0) {
		uint64_t now = now_ms();

		over |= interrupts() || (end && now >= end);
		if (interrupts() > 1)
			return EXIT_CANCELLED;
		if (over && !cancelled) {
			(void)moe_cancel(m, request);
			cancelled = true;
		}
		k = daemon_next_within(m, end && !over ? (int)(end - now) : -1, &e);
		if (k < 0)
			return EXIT_FAILED;
		if (k == 1 && e->request == request)
			status = all_event(t, e, &over);
	}
	return status;
}

static int usage(const char *what)
{
	(void)complain("%s; see moectl trace --help", what);
	return EXIT_USAGE;
}

static int check(const struct options *o)
{
	if (o->all && (o->n_sources || o->raw))
		return usage("--all traces the requests of others: it takes no prompt");
	if (!o->all && o->seconds)
		return usage("--seconds is for --all");
	if (o->n_sources > 1)
		return usage("there is more than one prompt");
	return EXIT_OK;
}

int verb_trace(const struct options *o)
{
	struct trace t = {.o = o, .most = o->all ? o->max_tokens : 0};
	struct moe *m = NULL;
	char *text = NULL;
	size_t length = 0;
	int k = check(o), end;

	if (k)
		return k;
	if (!o->all) {
		text = source_read(o, 0, &length);
		if (!text)
			return EXIT_FAILED;
	}
	interrupts_catch();
	k = daemon_open(o, &m, NULL);
	if (k == EXIT_OK)
		k = shape_get(m, &t.shape);
	if (k == EXIT_OK)
		k = file_open(&t);
	if (k == EXIT_OK) {
		t.tokens = (struct tokens){.shape = &t.shape, .done = rows, .arg = &t};
		k = o->all ? all(&t, m) : own(&t, m, text, length);
		end = file_close(&t);
		k = k == EXIT_OK ? end : k;
	}
	tokens_deinit(&t.tokens);
	shape_deinit(&t.shape);
	moe_close(m);
	free(text);
	return k;
}
