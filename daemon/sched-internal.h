/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What sched.c (queue, admission, memory), sched-spill.c (state files) and sched-step.c (rows,
 * tokens) share.  Engine thread.
 */

#include <assert.h>
#include <stdatomic.h>

#include "sched.h"

struct sched_user {
	uid_t uid;
	struct list link;   /* of sched->users, next turn first */
	struct list queued; /* requests, oldest first */
	struct list active; /* next turn first */
};

struct sched_row {
	struct request *request;
	uint32_t position;
	uint8_t routes; /* sched-routes.c: who is told */
};
static_assert(LIMIT_TRACES < 8, "sched_row.routes is too small");

struct sched_step {
	bool running;
	size_t n;
	struct sched_row *rows;
	struct engine_row *engine_rows;
};

/* Counters that other threads see. */
struct sched_counters {
	_Atomic(uint64_t) bytes, files, saved, restored, restored_tokens, preempted, resumed,
		removed, save_ns, restore_ns, refused[SCHED_REFUSALS];
	_Atomic(bool) resting;
};

struct sched_spill {
	struct list files;  /* of sessions, struct session_file.link */
	struct list strays; /* files that no session can use, oldest first */
	struct sched_counters n;
	struct list jobs; /* under way */
	uint32_t evicts;  /* of them, those that give positions back */
	uint64_t identity;
	uint64_t rest_end_ns; /* until then nothing is written; 0: it may be */
	uint64_t next_ns;     /* to look for sessions to be written ahead */
	bool stopping;
};

struct sched {
	struct sched_config config;
	struct sched_spill spill;
	struct list users;
	struct list idle; /* sessions with a sequence and no request, oldest first */
	struct list over; /* requests whose outcome is known */
	uint32_t n_active;
	uint64_t round;
	struct sched_step steps[ENGINE_CONTEXTS];
	void *scratch;	      /* of the sampler */
	uint32_t route_bytes; /* of a token */
	struct trace *traces[LIMIT_TRACES];
	uint32_t serial;		    /* of the last request */
	enum engine_context routes_context; /* of the tile under way */
	_Atomic(uint32_t) queued, active;
	_Atomic(uint64_t) prompt_tokens, reused_tokens, shared_tokens, generated_tokens,
		preemptions, evictions;
};

/* The outcome of a request, once; the rest follows after the tile. */
void sched_over(struct sched *s, struct request *r, enum request_finish finish);
void sched_fail(struct sched *s, struct request *r, int code, const char *text);

/* True: n more positions are reserved.  False: not now (r may have gone back to the queue). */
bool sched_reserve(struct sched *s, struct request *r, uint32_t n);

/* Starts a step in a context where there is none. */
void sched_step_begin(struct sched *s, enum engine_context c);
/* No more callbacks for the rows of r, which is in a step. */
void sched_step_drop(struct sched *s, struct request *r);
/* A tile of it. */
enum sched_result sched_step_advance(struct sched *s, enum engine_context c);

/* The callbacks get the row; the scheduler is found through it. */
extern __thread struct sched *sched_current;

/* sched-routes.c: at most so many of r's rows have room for their routes. */
uint32_t sched_routes_rows(struct sched *s, struct request *r, uint32_t most);
/* Whether anybody is told what is chosen for the row, which is about to go into a step. */
bool sched_routes_add(struct sched *s, enum engine_context c, struct sched_row *row);
void sched_on_route(
	void *arg, uint32_t layer, const uint32_t *experts, const float *weights, uint32_t k);
void sched_routes_end(struct sched *s, enum engine_context c);

/* Tells the loop that there is something to read. */
void sched_output(struct sched *s, struct request *r);
/* The text that was held back, with the last token. */
void sched_flush(struct sched *s, struct request *r);

/* sched.c: the session goes back to the loop. */
void sched_forgotten(struct sched *s, struct session *session);

/* sched-spill.c */
void sched_spill_init(struct sched *s);
/* What has ended. */
void sched_spill_poll(struct sched *s);
/*
 * Empties the sequence of a session, which holds tokens[0..] and is in no step: at once, or after
 * it was written to disk.  True: at once.
 */
bool sched_spill_evict(struct sched *s, struct session *session, const uint32_t *tokens);
/* Positions that a file of the user has of the prompt; 0: none.  *ret: whose file. */
uint32_t sched_spill_find(const struct sched *s, const struct request *r, struct session **ret);
/* Reads n positions from the file of `from` into the session of r, which has room for them. */
int sched_spill_load(struct sched *s, struct request *r, struct session *from, uint32_t n);
/* Somebody wants the session: a file that is only being written in advance is not. */
void sched_spill_hurry(struct session *session);
/* The file goes.  Its session is not used any more, or never. */
void sched_spill_remove(struct sched *s, struct session *session);
/* Where nobody waits: writes sessions that have been idle for a while. */
void sched_spill_ahead(struct sched *s);
/* Cuts off what is under way, but for what is removed. */
void sched_spill_settle(struct sched *s);
/* Writes all that can be found again, and waits for it, but not for long. */
void sched_spill_stop(struct sched *s);
void sched_spill_deinit(struct sched *s);
void sched_spill_figures(struct sched *s, struct sched_disk *ret);
