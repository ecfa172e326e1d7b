/* SPDX-License-Identifier: MIT */
#ifndef MOE_H
#define MOE_H

/*
 * libmoe: a client of moed, the daemon that keeps one Mixture-of-Experts model ready.
 *
 * Everything is asynchronous: calls put requests on their way and moe_next() returns what comes
 * back, one event at a time.  It works in any event loop: wait until moe_fd() is readable, then
 * call moe_next(m, 0, &event) until it returns 0.  Many sessions and requests share a connection.
 *
 * Return values: 0 or positive for success, a negative errno for failure; moe_strerror() tells what
 * it means, moe_last_error() why it happened.  Nothing is printed, no signal handler is installed,
 * no thread is started, and no call waits except moe_next() with a timeout.
 *
 * Threads: a handle (and its sessions) is used by one thread at a time; different handles are
 * independent.  After fork() a handle belongs to the parent: in the child every call returns
 * -ECHILD, except moe_close(), which frees the child's copy and leaves the parent's alone.
 *
 * When the daemon goes away, moe_next() returns one MOE_ERROR with -ECONNRESET for each request
 * that was going on, then MOE_DISCONNECTED, and connects again by itself (MOE_READY tells when).
 * Sessions are found again by their ids.  What is submitted meanwhile is sent then.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOE_ID_SIZE 16

struct moe;
struct moe_session;

enum moe_event_type {
	MOE_LOADING = 1,      /* the daemon loads its model: percent, text */
	MOE_READY = 2,	      /* connected: vocabulary, context, text (the daemon's version) */
	MOE_DISCONNECTED = 3, /* the daemon has gone: code, text */
	MOE_SESSION = 4,      /* session; found is 1 where the id asked for was known */
	MOE_ACCEPTED = 5,     /* request; ahead: requests before it in the queue */
	MOE_PROGRESS = 6,     /* request; done of `of` positions of the prompt are computed */
	MOE_TOKEN = 7,	 /* request; token, position, text (may be ""), logprob if has_logprob */
	MOE_LOGITS = 8,	 /* request; logits, n_logits, position; comes before its MOE_TOKEN */
	MOE_DONE = 9,	 /* request has ended: finish and figures */
	MOE_ERROR = 10,	 /* request has failed and ended: code, text */
	MOE_STATUS = 11, /* request of moe_status() or moe_experts(): text is JSON */
	MOE_PONG = 12,	 /* request of moe_ping() */
	MOE_OK = 13,	 /* request of moe_admin() was carried out */
	MOE_ROUTES = 14, /* request (MOE_WANT_ROUTES), or of moe_trace(): routes, n_routes, lost */
};

enum moe_finish {
	MOE_FINISH_STOP = 1,	  /* the model ended, or a stop string came */
	MOE_FINISH_LENGTH = 2,	  /* max_tokens, or the context is full */
	MOE_FINISH_CANCELLED = 3, /* moe_cancel() */
};

/* An expert that the router of a layer chose for a token. */
struct moe_route {
	uint32_t turn;	   /* tells requests apart in a trace of all; else 0 */
	uint32_t position; /* of the token in its session */
	uint32_t layer;
	uint32_t slot; /* 0: the best, 1: the second, ... */
	uint32_t expert;
	uint32_t expert_bytes; /* of one expert of the layer */
	float weight;
	int decode;   /* a token of the answer; 0: of the prompt */
	int resident; /* it was in memory when it was chosen */
};

/*
 * An event belongs to the library and is valid until the next call on the same handle.  Fields that
 * its type does not name are 0.  text is UTF-8, never NULL, and ends with a NUL that text_length
 * does not count.  Later versions may append fields.
 */
struct moe_event {
	enum moe_event_type type;
	int code;
	uint64_t request;
	struct moe_session *session;
	const char *text;
	size_t text_length;
	uint32_t percent;
	uint32_t ahead;
	uint32_t done;
	uint32_t of;
	int found;
	uint32_t token;
	uint32_t position;
	int has_logprob;
	float logprob;
	int from_prompt; /* a token of the prompt: scoring */
	const float *logits;
	size_t n_logits;
	uint32_t vocabulary;
	uint64_t context;
	enum moe_finish finish;
	uint32_t prompt_tokens;
	uint32_t generated;
	uint32_t reused; /* tokens of the prompt that were computed before */
	uint64_t queue_ns;
	uint64_t prefill_ns;
	uint64_t decode_ns;
	uint64_t io_wait_ns;
	uint64_t cache_hits;
	uint64_t cache_misses;
	uint64_t bytes_read;
	uint64_t bytes_useful;
	const struct moe_route *routes;
	size_t n_routes;
	uint64_t lost; /* tokens of a trace for which there was no room, since it began */
};

/* For text that ends with a NUL. */
#define MOE_NUL ((size_t)-1)

struct moe_turn {
	const char *role; /* "system", "user", "assistant" */
	const char *text;
	size_t text_length; /* or MOE_NUL */
};

#define MOE_WANT_LOGPROBS 1u /* has_logprob in every MOE_TOKEN */
#define MOE_WANT_LOGITS 2u   /* MOE_LOGITS before every MOE_TOKEN */
#define MOE_SCORE 4u	     /* generate nothing: one MOE_TOKEN for each token of the prompt */
#define MOE_IGNORE_END 8u    /* go on to max_tokens: for measurements */
#define MOE_WANT_ROUTES 16u  /* MOE_ROUTES for all tokens that are computed, which then are all */

/*
 * What to answer.  Exactly one of text (raw, no template), turns (the whole conversation, rendered
 * by the model's template) and ids is given.  Start from MOE_REQUEST_INIT.
 */
struct moe_request {
	size_t size; /* sizeof(struct moe_request), for later versions */
	const char *text;
	size_t text_length; /* or MOE_NUL */
	const struct moe_turn *turns;
	size_t n_turns;
	const uint32_t *ids;
	size_t n_ids;
	const char *const *stops; /* up to 16 strings that end the answer */
	size_t n_stops;
	float temperature;   /* 0: always the likeliest token */
	float top_p;	     /* 1: off */
	float min_p;	     /* 0: off */
	uint32_t top_k;	     /* 0: off */
	uint32_t max_tokens; /* 0: until the context is full */
	uint32_t flags;
	uint64_t seed;
};

#define MOE_REQUEST_INIT                                                                           \
	{                                                                                          \
		sizeof(struct moe_request), NULL, MOE_NUL, NULL, 0, NULL, 0, NULL, 0, 0.0f, 1.0f,  \
			0.0f, 0, 0, 0, 0                                                           \
	}

#define MOE_ADMIN_RELOAD 1u
#define MOE_ADMIN_DRAIN 2u

/* For moe_next(): look without preparing to be polled; for callers that spin. */
#define MOE_SPIN (-2)
#define MOE_FOREVER (-1)

/* The next moe_ping() follows at once: the daemon may spin for it. */
#define MOE_PING_BUSY 1u

/*
 * Connects to the daemon at path (NULL: $MOED_SOCKET, else /run/moed/moed.sock).  The handle in
 * *ret is the caller's, to be freed with moe_close().  Requests may be submitted at once.
 * -ENOENT, -ECONNREFUSED (no daemon there), -EACCES (not in the group), -ENOMEM, ...
 */
int moe_open(struct moe **ret, const char *path);

/* Closes the connection, ends its requests, frees the handle and its sessions.  NULL is fine. */
void moe_close(struct moe *m);

/* The descriptor to poll for reading; the library's; the same for the life of the handle. */
int moe_fd(struct moe *m);

/*
 * The next event into *ret.  timeout_ms: 0 returns at once, MOE_FOREVER waits, MOE_SPIN see above.
 * 1: an event; 0: none within that time, or a signal came; negative: the handle is of no further
 * use (-EACCES, -EDQUOT, -EPROTONOSUPPORT where the daemon refused; -EPROTO; -ECHILD).
 */
int moe_next(struct moe *m, int timeout_ms, const struct moe_event **ret);

/*
 * A session: a conversation whose computed state the daemon keeps.  id: MOE_ID_SIZE bytes of an
 * earlier one, or NULL for a new one.  *ret belongs to m; MOE_SESSION comes once it is open (or
 * MOE_ERROR with event.session set), but it may be submitted to at once.
 */
int moe_session_open(struct moe *m, const void *id, struct moe_session **ret);

/* Copies the id (MOE_ID_SIZE bytes), by which it can be found later; -EAGAIN before MOE_SESSION. */
int moe_session_id(struct moe_session *s, void *ret_id);

/* Ends the use of s, which is freed.  forget: the daemon drops its state as well. */
int moe_session_close(struct moe_session *s, int forget);

/*
 * Submits a request; all of it is copied.  s: NULL for none.  ret_request (may be NULL): its number
 * in the events to come, which end with MOE_DONE or MOE_ERROR.  -EINVAL, -EMSGSIZE, -ENOMEM.
 */
int moe_submit(struct moe *m, struct moe_session *s, const struct moe_request *request,
	uint64_t *ret_request);

/* Asks for its end, which comes as MOE_DONE (MOE_ERROR).  -ENOENT: no such request goes on. */
int moe_cancel(struct moe *m, uint64_t request);

/* Asks for the daemon's status: MOE_STATUS. */
int moe_status(struct moe *m, uint64_t *ret_request);

/*
 * Asks how often each expert was used since the daemon's start (administrators): MOE_STATUS.
 * -EPROTONOSUPPORT: the daemon is too old for that.
 */
int moe_experts(struct moe *m, uint64_t *ret_request);

/*
 * Asks for what the routers choose for the tokens of all users (administrators): MOE_ROUTES, at
 * first one without routes, until moe_cancel(); then MOE_DONE, where `generated` are the tokens
 * told and `lost` those left out because this side read too slowly.  -EPROTONOSUPPORT as above.
 */
int moe_trace(struct moe *m, uint64_t *ret_request);

/* Asks for a sign of life: MOE_PONG.  flags: 0 or MOE_PING_BUSY. */
int moe_ping(struct moe *m, unsigned flags, uint64_t *ret_request);

/* Administration (who may is the daemon's to say): MOE_OK or MOE_ERROR. */
int moe_admin(struct moe *m, unsigned verb, uint64_t *ret_request);

/* What went wrong last, in a sentence; "" where nothing did.  m may be NULL after moe_open(). */
const char *moe_last_error(struct moe *m);

/* What a negative return value means; static storage, any thread. */
const char *moe_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
