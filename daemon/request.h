/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Requests and sessions as both threads see them.  Each field says whose it is:
 *
 *	loop    only the loop thread touches it
 *	fixed   the loop sets it before sched's SUBMIT message, nobody changes it afterwards
 *	engine  only the engine thread, from SUBMIT to DONE
 *	shared  atomics, and the output ring: one producer (engine), one consumer (loop)
 *
 * The loop makes and frees both.  Between SUBMIT and the message DONE the engine holds a request;
 * between SUBMIT of the first request and the message FORGOTTEN it holds a session.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "answer.h"
#include "engine.h"
#include "error.h"
#include "list.h"
#include "routes.h"
#include "sampler.h"

#define SESSION_ID_SIZE 16

struct client;
struct spill_job;

/* Engine: the state file of a session, and what is done with it. */
struct session_file {
	struct list link;      /* of sched->files, least recently used first */
	uint32_t n;	       /* positions in it; 0: there is none */
	uint64_t bytes;	       /* of the file */
	uint64_t *chain;       /* spill_chain() of its tokens */
	bool clean;	       /* seq holds what it holds */
	struct spill_job *job; /* under way: seq is left as it is meanwhile */
	bool evict;	       /* after it, seq is emptied */
	bool forget;	       /* after it, the session goes */
};

struct session {
	uint8_t id[SESSION_ID_SIZE];
	uid_t uid;
	struct list link;	/* loop: of manager->sessions */
	uint32_t opened;	/* loop: by so many connections */
	uint32_t requests;	/* loop: not yet done */
	uint64_t used_ns;	/* loop: last use */
	bool forget;		/* loop: FORGET goes out when no request is left */
	bool forgetting;	/* loop: FORGET is on its way */
	bool named;		/* fixed: found by its id later, after a restart too */
	_Atomic(uint32_t) held; /* shared: positions held, in memory or on disk, for people */
	struct list idle;	/* engine: of sched->idle, oldest first */
	struct engine_seq *seq; /* engine */
	uint32_t *tokens;	/* engine: what seq holds */
	bool busy;		/* engine: a request runs in it */
	uint64_t idle_ns;	/* engine: since when it is not */
	struct session_file file;
};

enum request_finish {
	REQUEST_STOP = 1,
	REQUEST_LENGTH,
	REQUEST_CANCELLED,
	REQUEST_FAILED, /* error says why */
};

enum request_flags {
	REQUEST_LOGPROBS = 1 << 0,
	REQUEST_LOGITS = 1 << 1,
	REQUEST_SCORE = 1 << 2,
	REQUEST_IGNORE_END = 1 << 3,
	REQUEST_ROUTES = 1 << 4,
};

/* In the output ring, followed by `text` bytes. */
struct request_event {
	uint32_t size; /* of both together, a multiple of 8 */
	uint32_t id;
	uint32_t position;
	uint32_t flags; /* enum request_event_flags */
	float logprob;
	uint32_t text;
	uint64_t time_ns;
};

enum request_event_flags {
	REQUEST_EVENT_TOKEN = 1 << 0,
	REQUEST_EVENT_LOGPROB = 1 << 1,
	REQUEST_EVENT_LOGITS = 1 << 2, /* only: request->logits is filled; emptied by the loop */
	REQUEST_EVENT_PROMPT = 1 << 3,
};

#define REQUEST_TEXT_MAX 4096u /* of one event */

struct request_figures {
	uint32_t reused, generated;
	uint64_t start_ns, first_ns, end_ns; /* admitted, first token or last of the prompt, done */
	uint64_t io_wait_ns, hits, misses, bytes_read, bytes_useful;
};

enum request_state {
	REQUEST_QUEUED,
	REQUEST_ACTIVE,
	REQUEST_OVER, /* the outcome is known, text may be left to go out */
};

struct request {
	/* fixed */
	struct session *session;
	uid_t uid;
	uint32_t flags;
	uint32_t n_prompt;
	uint32_t max_tokens; /* 0: up to the end of the context */
	struct sampler_params sampling;
	struct answer_stop stops[LIMIT_STOPS];
	uint32_t n_stops;
	uint64_t submit_ns;

	/* loop */
	struct client *client; /* NULL: it has gone */
	uint64_t wire_id;
	struct list link; /* of client->requests or manager->orphans */
	uint64_t heap;	  /* bytes that manager_heap() counts */
	bool done;
	bool poked, poke_again; /* POKE is out; another is wanted after it */
	uint64_t last_token_ns;
	uint32_t logits_sent; /* floats of the row that is going out */
	uint32_t progress_sent;
	uint32_t told; /* tokens of the answer, or scored, that have gone out */

	/* engine */
	struct list user_link; /* of the user's queue or active list */
	struct list over_link;
	enum request_state state;
	uint32_t *tokens; /* the prompt (made by the loop), then the answer */
	uint32_t n_tokens, room_tokens;
	uint32_t base;	 /* positions of seq before the step under way */
	bool holds;	 /* the session: it was admitted */
	uint32_t serial; /* in the order in which they came */
	uint32_t routed; /* positions whose routes were given out, or are about to be */
	bool resumed;	 /* it was admitted before */
	uint32_t scored; /* tokens of the prompt that were given out (scoring) */
	int in_step;	 /* enum engine_context, or -1 */
	uint32_t step_rows;
	uint64_t round;		    /* last looked at for a step */
	bool deferred;		    /* the last token is not out yet, for text that is held back */
	struct request_event token; /* that token */
	struct answer answer;
	struct engine_stats before;

	/* engine until DONE, then loop */
	enum request_finish finish;
	struct error error;
	struct request_figures figures;

	/* shared */
	_Atomic(bool) cancel;	    /* loop: please stop */
	_Atomic(bool) starved;	    /* engine waits for room in the output */
	_Atomic(bool) to_loop;	    /* stands in the queue to the loop */
	_Atomic(uint32_t) computed; /* positions of the prompt, for PROGRESS */
	float *logits;		    /* one row; whose, says logits_full */
	_Atomic(bool) logits_full;
	struct routes routes; /* for REQUEST_ROUTES */
	_Atomic(uint32_t) out_head, out_tail;
	uint8_t out[LIMIT_REQUEST_OUTPUT] __attribute__((aligned(8)));
};

/* NULL where there is no memory.  vocabulary: length of a row, for REQUEST_LOGITS. */
struct request *request_new(uint32_t flags, uint32_t vocabulary);
/*
 * Room for the routes of the prompt, of so many bytes a token, as far as `most` bytes go; two tokens
 * in any case.  The less, the smaller are the steps of the prompt.  0 or -ENOMEM.
 */
int request_want_routes(struct request *r, uint32_t token_bytes, uint64_t most);
/* Bytes of heap that it may come to hold: the prompt, and an answer as long. */
uint64_t request_heap(const struct request *r, uint32_t vocabulary);
/* Not while the engine holds it.  NULL is fine; returns NULL. */
struct request *request_free(struct request *r);

/* Engine: bytes that are free for events. */
size_t request_out_room(const struct request *r);
/* Engine: appends one event; there must be room for its size. */
void request_out_push(struct request *r, struct request_event *e, const char *text, size_t n);
/* Bytes that an event with so much text takes. */
static inline size_t request_event_size(size_t text)
{
	return (sizeof(struct request_event) + text + 7) & ~(size_t)7;
}
/* Loop: the oldest event and its text (REQUEST_TEXT_MAX bytes of room); false: none. */
bool request_out_peek(const struct request *r, struct request_event *ret, char *text);
void request_out_take(struct request *r, const struct request_event *e);
