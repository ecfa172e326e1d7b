/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The scheduler: which rows of which requests go into the next step.  Engine thread only.
 *
 * Users (uids) take turns, in the queue as in a step.  A request with more than one token to
 * compute goes into the BULK context in chunks, one with a single token into the LIVE context; the
 * tiles of both alternate.  Where the pool of keys and values runs dry, idle sessions give theirs
 * up, oldest first; then the active request with the least progress goes back to the queue.  What
 * is given up goes to a state file and comes back from there; where that cannot be, it is computed
 * again: the tokens are the same.
 *
 * A prompt begins with what is longest: what its session holds, what another session of the same
 * user holds (they share the blocks then), or a state file of that user.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "list.h"
#include "request.h"
#include "spill.h"
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
	SCHED_FOUND,	  /* to the loop: a new struct session, of an earlier run */
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
	struct spill *spill;  /* NULL: nothing goes to disk */
	uint64_t spill_quota; /* bytes of files */
};

struct sched;

int sched_new(struct sched **ret, const struct sched_config *config);
/*
 * Hands back every request (cancelled), writes sessions that can be found again to disk, as far as
 * that goes in a few seconds, and frees the sequences of `idle` sessions.
 */
struct sched *sched_free(struct sched *s);

/* Takes over what a scan found, once it is done; sessions go to the loop. */
void sched_adopt(struct sched *s, struct spill_job *scan);

void sched_submit(struct sched *s, struct request *r);
void sched_poke(struct sched *s, struct request *r);
void sched_forget(struct sched *s, struct session *session);

/* Traces from the next steps on; ends it: SCHED_UNTRACED comes. */
void sched_trace(struct sched *s, struct trace *t);
void sched_untrace(struct sched *s, struct trace *t);

enum sched_result {
	SCHED_RUN_IDLE, /* nothing to do until a message comes, a spill job ends, or it is time */
	SCHED_RUN_MORE, /* call again */
	SCHED_RUN_WAITING, /* only reads are awaited: engine_wait() */
};

/* A tile of each context. */
enum sched_result sched_run(struct sched *s);

/* After SCHED_RUN_IDLE: when to call again at the latest; UINT64_MAX: never. */
uint64_t sched_timeout(const struct sched *s);

/* Why something did not go to disk or did not come back. */
enum sched_refusal {
	SCHED_REFUSED_QUOTA,   /* larger than the quota */
	SCHED_REFUSED_FULL,    /* the disk is full */
	SCHED_REFUSED_ERROR,   /* the disk fails, or there was no memory */
	SCHED_REFUSED_DAMAGED, /* set aside */
	SCHED_REFUSED_FOREIGN, /* of another model, build or version */
	SCHED_REFUSALS,
};

/* State files. */
struct sched_disk {
	uint64_t quota, bytes, files;
	uint64_t saved, restored, restored_tokens, preempted, resumed, removed;
	uint64_t save_ns, restore_ns;
	uint64_t refused[SCHED_REFUSALS];
	bool resting; /* the disk failed a moment ago: it is left alone for a while */
};

/* For people; any thread. */
struct sched_figures {
	uint32_t queued, active;
	uint64_t prompt_tokens, reused_tokens, shared_tokens, generated_tokens, preemptions,
		evictions;
	struct sched_disk disk;
};
void sched_figures_get(struct sched *s, struct sched_figures *ret);
