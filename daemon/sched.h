/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The scheduler: which rows of which requests go into the next step.  Engine thread only.
 *
 * Users (uids) take turns, in the queue as in a step.  A request with more than one token to
 * compute goes into the BULK context in chunks, one with a single token into the LIVE context; the
 * tiles of both alternate.  Where the pool of keys and values runs dry, idle sessions lose theirs,
 * oldest first; then the active request with the least progress goes back to the queue and is
 * computed again later: the tokens are the same.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "list.h"
#include "request.h"
#include "tokenizer.h"

/* Messages, both ways. */
enum sched_message {
	SCHED_SUBMIT = 1, /* to the engine: struct request */
	SCHED_POKE,	  /* to the engine: a request was cancelled, or has room again */
	SCHED_FORGET,	  /* to the engine: struct session without requests */
	SCHED_POKED,	  /* to the loop: that POKE was taken */
	SCHED_OUTPUT,	  /* to the loop: a request has output, or progress */
	SCHED_DONE,	  /* to the loop: the request is the loop's again */
	SCHED_FORGOTTEN,  /* to the loop: the session is the loop's again */
	SCHED_TRACE,	  /* to the engine: a struct trace of all requests */
	SCHED_UNTRACE,	  /* to the engine: no more of that */
	SCHED_ROUTES,	  /* to the loop: a trace has entries */
	SCHED_UNTRACED,	  /* to the loop: the trace is the loop's again */
	SCHED_EXPERTS,	  /* both ways: a struct popularity to be filled in */
};

struct sched_config {
	struct engine *engine;
	const struct tokenizer *tokenizer;
	uint32_t vocabulary;
	uint32_t context; /* positions of one session */
	uint32_t live_rows, bulk_rows;
	const struct desc *desc; /* NULL: nobody is told what routers choose */
	void (*post)(void *arg, uint32_t message, void *object);
	void *arg;
};

struct sched;

int sched_new(struct sched **ret, const struct sched_config *config);
/* Hands back every request (cancelled) and frees the sequences of `idle` sessions. */
struct sched *sched_free(struct sched *s);

void sched_submit(struct sched *s, struct request *r);
void sched_poke(struct sched *s, struct request *r);
void sched_forget(struct sched *s, struct session *session);

/* Traces from the next steps on; ends it: SCHED_UNTRACED comes. */
void sched_trace(struct sched *s, struct trace *t);
void sched_untrace(struct sched *s, struct trace *t);

enum sched_result {
	SCHED_RUN_IDLE,	   /* nothing to do until a message comes */
	SCHED_RUN_MORE,	   /* call again */
	SCHED_RUN_WAITING, /* only reads are awaited: engine_wait() */
};

/* A tile of each context. */
enum sched_result sched_run(struct sched *s);

/* For people; any thread. */
struct sched_figures {
	uint32_t queued, active;
	uint64_t prompt_tokens, reused_tokens, generated_tokens, preemptions, evictions;
};
void sched_figures_get(struct sched *s, struct sched_figures *ret);
