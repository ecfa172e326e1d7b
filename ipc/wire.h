/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Every byte that crosses between a client and the daemon; docs/PROTOCOL.md says the same in words.
 *
 * Two carriers.  The socket (SOCK_SEQPACKET) carries the greeting, one message a packet, and after
 * WELCOME nothing but bells: one byte 0x01.  The segments (two memfds, one per writer) carry
 * records.  All numbers are little-endian, all reserved fields are zero and checked to be so by the
 * daemon (that is what lets a later minor use them).
 *
 * Used by daemon/ and client/; pure data, no functions that fail.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "moed's shared memory is little-endian and used in place"
#endif

#define WIRE_AT(type, member, at)                                                                  \
	static_assert(offsetof(struct type, member) == (at), #type "." #member " moved")
#define WIRE_SIZE(type, bytes) static_assert(sizeof(struct type) == (bytes), #type " changed size")

#define WIRE_MAJOR 1u /* another major is refused, both numbers named */
#define WIRE_MINOR 1u /* the lower of the two minors is spoken; 1: routes and experts */

#define WIRE_MAGIC 0x31454f4du			 /* "MOE1": first field of socket messages */
#define WIRE_SEGMENT_MAGIC 0x314745534d454f4dull /* "MOEMSEG1": first field of segments */

#define WIRE_BELL 0x01u
#define WIRE_TEXT_MAX 1024u   /* text of LOADING, REFUSED and ERROR */
#define WIRE_PACKET_MAX 2048u /* one message on the socket */
#define WIRE_ID_SIZE 16u      /* session ids: random, made by the daemon; zeros mean none */

/* ---- the socket ------------------------------------------------------------------------- */

enum wire_message_type {
	WIRE_HELLO = 1,	  /* client: struct wire_hello */
	WIRE_LOADING = 2, /* daemon, any number: struct wire_loading and text */
	WIRE_WELCOME = 3, /* daemon, last: struct wire_welcome and two descriptors */
	WIRE_REFUSED = 4, /* daemon, last: struct wire_refused and text */
};

/* Every message begins so; size is that of the whole packet. */
struct wire_message {
	uint32_t magic;
	uint16_t type;
	uint16_t size;
};
WIRE_AT(wire_message, magic, 0);
WIRE_AT(wire_message, type, 4);
WIRE_AT(wire_message, size, 6);
WIRE_SIZE(wire_message, 8);

struct wire_hello {
	struct wire_message message;
	uint16_t major;
	uint16_t minor;
	uint32_t flags; /* none yet: 0 */
	uint64_t reserved[2];
};
WIRE_AT(wire_hello, major, 8);
WIRE_AT(wire_hello, minor, 10);
WIRE_AT(wire_hello, flags, 12);
WIRE_AT(wire_hello, reserved, 16);
WIRE_SIZE(wire_hello, 32);

struct wire_loading {
	struct wire_message message;
	uint32_t percent;     /* 0 to 100 */
	uint32_t text_length; /* bytes of UTF-8 that follow, such as "loading 43 %" */
};
WIRE_AT(wire_loading, percent, 8);
WIRE_AT(wire_loading, text_length, 12);
WIRE_SIZE(wire_loading, 16);

struct wire_refused {
	struct wire_message message;
	int32_t code; /* negative errno: -EPROTONOSUPPORT, -EACCES, -EDQUOT, -ESHUTDOWN, ... */
	uint32_t text_length; /* bytes that follow */
	uint16_t major;	      /* what the daemon speaks */
	uint16_t minor;
	uint32_t reserved;
};
WIRE_AT(wire_refused, code, 8);
WIRE_AT(wire_refused, text_length, 12);
WIRE_AT(wire_refused, major, 16);
WIRE_AT(wire_refused, minor, 18);
WIRE_AT(wire_refused, reserved, 20);
WIRE_SIZE(wire_refused, 24);

/* Where the ring lies in a segment. */
struct wire_geometry {
	uint64_t segment_size; /* of the memfd */
	uint32_t ring_offset;
	uint32_t ring_size; /* a power of two */
};
WIRE_AT(wire_geometry, segment_size, 0);
WIRE_AT(wire_geometry, ring_offset, 8);
WIRE_AT(wire_geometry, ring_size, 12);
WIRE_SIZE(wire_geometry, 16);

/* Comes with two descriptors: the segment that the client writes, the one that the daemon writes.
 */
struct wire_welcome {
	struct wire_message message;
	uint16_t major;
	uint16_t minor; /* the lower one: what is spoken from here on */
	uint32_t pid;	/* of the daemon */
	struct wire_geometry client;
	struct wire_geometry daemon;
	uint32_t record_max;   /* bytes of one record, header included */
	uint32_t sessions_max; /* open at once on this connection */
	uint32_t requests_max; /* in the queue at once, of this user */
	uint32_t vocabulary;   /* tokens; the length of a row of logits */
	uint64_t context;      /* positions that one session can hold */
	uint64_t prompt_max;   /* bytes of text of one request */
	uint64_t features;     /* none yet: 0 */
	uint64_t reserved[2];
	char version[32]; /* of the daemon, padded with zeros */
};
WIRE_AT(wire_welcome, major, 8);
WIRE_AT(wire_welcome, minor, 10);
WIRE_AT(wire_welcome, pid, 12);
WIRE_AT(wire_welcome, client, 16);
WIRE_AT(wire_welcome, daemon, 32);
WIRE_AT(wire_welcome, record_max, 48);
WIRE_AT(wire_welcome, sessions_max, 52);
WIRE_AT(wire_welcome, requests_max, 56);
WIRE_AT(wire_welcome, vocabulary, 60);
WIRE_AT(wire_welcome, context, 64);
WIRE_AT(wire_welcome, prompt_max, 72);
WIRE_AT(wire_welcome, features, 80);
WIRE_AT(wire_welcome, reserved, 88);
WIRE_AT(wire_welcome, version, 104);
WIRE_SIZE(wire_welcome, 136);

/* ---- the segments ------------------------------------------------------------------------ */

/*
 * The start of both segments.  Whoever writes the segment produces into the ring that lies in it,
 * and consumes from the ring in the other one; so `head` here belongs to the ring in this segment
 * and `tail` to the ring in the other.  The header is written by the daemon before the descriptors
 * are sent, is informative afterwards, and is never read again: both sides keep the geometry of
 * WELCOME privately.  Each hot word has 128 bytes to itself (lines are fetched in pairs).
 *
 * A sleep word is 0 while its owner is awake; before it waits for its bell, the owner stores a
 * number other than 0 that differs from the last one.  The other side rings once per number.
 */
struct wire_segment {
	uint64_t magic;
	uint16_t major;
	uint16_t minor;
	uint32_t header_size; /* sizeof(struct wire_segment) */
	struct wire_geometry geometry;
	uint64_t features;
	uint64_t reserved[11];
	uint64_t head; /* bytes produced into the ring in this segment, ever */
	uint64_t pad_head[15];
	uint64_t tail; /* bytes consumed from the ring in the other segment, ever */
	uint64_t pad_tail[15];
	uint32_t sleep_empty; /* I wait for records in the other ring */
	uint32_t pad_empty[31];
	uint32_t sleep_full; /* I wait for room in my ring */
	uint32_t pad_full[31];
};
WIRE_AT(wire_segment, magic, 0);
WIRE_AT(wire_segment, major, 8);
WIRE_AT(wire_segment, minor, 10);
WIRE_AT(wire_segment, header_size, 12);
WIRE_AT(wire_segment, geometry, 16);
WIRE_AT(wire_segment, features, 32);
WIRE_AT(wire_segment, reserved, 40);
WIRE_AT(wire_segment, head, 128);
WIRE_AT(wire_segment, tail, 256);
WIRE_AT(wire_segment, sleep_empty, 384);
WIRE_AT(wire_segment, sleep_full, 512);
WIRE_SIZE(wire_segment, 640);

#define WIRE_RING_OFFSET 4096u
#define WIRE_ALIGN 16u

/* ---- records ----------------------------------------------------------------------------- */

enum wire_type {
	WIRE_PAD = 0, /* skip to the end of the ring */

	/* client to daemon */
	WIRE_SESSION_OPEN = 1,	 /* struct wire_session_open; answered by SESSION or ERROR */
	WIRE_SESSION_CLOSE = 2,	 /* struct wire_session_ref: stays findable by id; OK or ERROR */
	WIRE_SESSION_FORGET = 3, /* struct wire_session_ref: gone, spilled state too; OK or ERROR */
	WIRE_SUBMIT = 4,	 /* struct wire_submit, then DATA..., then SUBMIT_END */
	WIRE_DATA = 5,		 /* struct wire_data and bytes */
	WIRE_SUBMIT_END = 6,	 /* no payload */
	WIRE_CANCEL = 7, /* no payload; the request ends with DONE cancelled (or as it ended) */
	WIRE_STATUS = 8, /* no payload; answered by STATUS_PIECE... or ERROR */
	WIRE_PING = 9,	 /* struct wire_ping; answered by PONG */
	WIRE_ADMIN = 10, /* struct wire_admin; OK or ERROR */
	/* minor 1 */
	WIRE_EXPERTS = 11, /* no payload; answered by STATUS_PIECE... or ERROR */
	WIRE_TRACE = 12,   /* struct wire_trace; ROUTES... until CANCEL, then TRACED; or ERROR */

	/* daemon to client */
	WIRE_SESSION = 32,	/* struct wire_session */
	WIRE_OK = 33,		/* no payload */
	WIRE_ACCEPTED = 34,	/* struct wire_accepted */
	WIRE_PROGRESS = 35,	/* struct wire_progress */
	WIRE_TOKEN = 36,	/* struct wire_token and text */
	WIRE_LOGITS = 37,	/* struct wire_logits and floats */
	WIRE_DONE = 38,		/* struct wire_done; ends the request */
	WIRE_ERROR = 39,	/* struct wire_error and text; ends the request */
	WIRE_STATUS_PIECE = 40, /* struct wire_status_piece and JSON text */
	WIRE_PONG = 41,		/* struct wire_ping */
	/* minor 1 */
	WIRE_ROUTES = 42, /* struct wire_routes and entries */
	WIRE_TRACED = 43, /* struct wire_traced; ends a trace */
};

/*
 * Precedes every payload, at a multiple of 16 in the ring; size counts header and payload without
 * the filling up to the next multiple of 16.  No record crosses the end of the ring.
 *
 * request is chosen by the client: not 0, and not one that is still going on.  Every answer bears
 * the number of what it answers; 0 in an answer means the connection as a whole.
 */
struct wire_record {
	uint32_t size;
	uint16_t type;
	uint16_t flags; /* reserved: 0 */
	uint64_t request;
};
WIRE_AT(wire_record, size, 0);
WIRE_AT(wire_record, type, 4);
WIRE_AT(wire_record, flags, 6);
WIRE_AT(wire_record, request, 8);
WIRE_SIZE(wire_record, 16);

struct wire_session_open {
	uint8_t id[WIRE_ID_SIZE]; /* zeros: a new one */
	uint32_t flags;		  /* none yet: 0 */
	uint32_t reserved;
};
WIRE_AT(wire_session_open, id, 0);
WIRE_AT(wire_session_open, flags, 16);
WIRE_AT(wire_session_open, reserved, 20);
WIRE_SIZE(wire_session_open, 24);

struct wire_session_ref {
	uint8_t id[WIRE_ID_SIZE];
};
WIRE_SIZE(wire_session_ref, 16);

#define WIRE_SESSION_FOUND 1u /* the id asked for; without it, a new session with a new id */

struct wire_session {
	uint8_t id[WIRE_ID_SIZE];
	uint32_t flags;
	uint32_t reserved;
	uint64_t positions; /* of the prompt and answer that it holds */
};
WIRE_AT(wire_session, id, 0);
WIRE_AT(wire_session, flags, 16);
WIRE_AT(wire_session, reserved, 20);
WIRE_AT(wire_session, positions, 24);
WIRE_SIZE(wire_session, 32);

enum wire_mode {
	WIRE_MODE_TEXT = 1, /* raw text, taken as it is (a BOS where the model wants one) */
	WIRE_MODE_CHAT = 2, /* turns, rendered by the model's template */
	WIRE_MODE_IDS = 3,  /* token ids, taken as they are */
};

#define WIRE_SUBMIT_LOGPROBS 1u	  /* TOKEN carries the log-probability */
#define WIRE_SUBMIT_LOGITS 2u	  /* LOGITS before each TOKEN: the row it was drawn from */
#define WIRE_SUBMIT_SCORE 4u	  /* no generation: TOKEN for every token of the prompt */
#define WIRE_SUBMIT_IGNORE_EOS 8u /* go on to max_tokens: for measurements */
#define WIRE_SUBMIT_ROUTES 16u	  /* ROUTES of every position that is computed; minor 1 */
#define WIRE_SUBMIT_FLAGS 31u
#define WIRE_SUBMIT_FLAGS_0 15u /* those of minor 0 */

/*
 * A request always carries its whole prompt (the whole conversation); the session is where the
 * computed state lives, and whatever prefix of it the new prompt shares is not computed again.  So
 * a session that was lost costs time, never correctness.
 */
struct wire_submit {
	uint8_t session[WIRE_ID_SIZE]; /* zeros: none, state is freed when the request ends */
	uint32_t mode;
	uint32_t flags;
	uint32_t max_tokens; /* 0: up to the end of the context */
	uint32_t top_k;	     /* 0: off */
	float temperature;   /* 0: greedy */
	float top_p;	     /* above 0, to 1; 1: off */
	float min_p;	     /* 0 to 1; 0: off */
	uint32_t reserved;
	uint64_t seed;
	uint64_t reserved2[2];
};
WIRE_AT(wire_submit, session, 0);
WIRE_AT(wire_submit, mode, 16);
WIRE_AT(wire_submit, flags, 20);
WIRE_AT(wire_submit, max_tokens, 24);
WIRE_AT(wire_submit, top_k, 28);
WIRE_AT(wire_submit, temperature, 32);
WIRE_AT(wire_submit, top_p, 36);
WIRE_AT(wire_submit, min_p, 40);
WIRE_AT(wire_submit, reserved, 44);
WIRE_AT(wire_submit, seed, 48);
WIRE_AT(wire_submit, reserved2, 56);
WIRE_SIZE(wire_submit, 72);

enum wire_data_kind {
	WIRE_DATA_TURN = 1, /* begins a turn; bytes: the role ("system", "user", "assistant") */
	WIRE_DATA_TEXT = 2, /* more text of the turn, or of the raw prompt */
	WIRE_DATA_IDS = 3,  /* more ids: u32 each */
	WIRE_DATA_STOP = 4, /* one whole stop string */
};

struct wire_data {
	uint32_t kind;
	uint32_t reserved;
};
WIRE_AT(wire_data, kind, 0);
WIRE_AT(wire_data, reserved, 4);
WIRE_SIZE(wire_data, 8);

#define WIRE_PING_BUSY 1u /* another follows at once: the daemon may spin for it, bounded */

struct wire_ping {
	uint64_t cookie; /* comes back */
	uint32_t flags;
	uint32_t reserved;
};
WIRE_AT(wire_ping, cookie, 0);
WIRE_AT(wire_ping, flags, 8);
WIRE_AT(wire_ping, reserved, 12);
WIRE_SIZE(wire_ping, 16);

enum wire_admin_verb {
	WIRE_ADMIN_RELOAD = 1,
	WIRE_ADMIN_DRAIN = 2,
};

struct wire_admin {
	uint32_t verb;
	uint32_t reserved;
};
WIRE_AT(wire_admin, verb, 0);
WIRE_AT(wire_admin, reserved, 4);
WIRE_SIZE(wire_admin, 8);

struct wire_accepted {
	uint32_t ahead; /* requests before this one in the queue */
	uint32_t reserved;
};
WIRE_AT(wire_accepted, ahead, 0);
WIRE_AT(wire_accepted, reserved, 4);
WIRE_SIZE(wire_accepted, 8);

struct wire_progress {
	uint32_t done; /* positions of the prompt computed */
	uint32_t of;
};
WIRE_AT(wire_progress, done, 0);
WIRE_AT(wire_progress, of, 4);
WIRE_SIZE(wire_progress, 8);

#define WIRE_TOKEN_LOGPROB 1u /* logprob is set */
#define WIRE_TOKEN_PROMPT 2u  /* a token of the prompt (scoring) */

/* text is whole UTF-8 characters and may be empty (the rest of a character is still to come). */
struct wire_token {
	uint32_t id;
	uint32_t position;
	float logprob;
	uint32_t flags;
	uint32_t text_length;
	uint32_t reserved;
};
WIRE_AT(wire_token, id, 0);
WIRE_AT(wire_token, position, 4);
WIRE_AT(wire_token, logprob, 8);
WIRE_AT(wire_token, flags, 12);
WIRE_AT(wire_token, text_length, 16);
WIRE_AT(wire_token, reserved, 20);
WIRE_SIZE(wire_token, 24);

struct wire_logits {
	uint32_t position;
	uint32_t first; /* index of the first float in the row */
	uint32_t count; /* floats that follow */
	uint32_t of;	/* length of the row */
};
WIRE_AT(wire_logits, position, 0);
WIRE_AT(wire_logits, first, 4);
WIRE_AT(wire_logits, count, 8);
WIRE_AT(wire_logits, of, 12);
WIRE_SIZE(wire_logits, 16);

enum wire_finish {
	WIRE_FINISH_STOP = 1,	   /* an end token or a stop string */
	WIRE_FINISH_LENGTH = 2,	   /* max_tokens or the end of the context; every scoring */
	WIRE_FINISH_CANCELLED = 3, /* CANCEL */
};

struct wire_done {
	uint32_t finish;
	uint32_t prompt_tokens;
	uint32_t generated;
	uint32_t reused; /* of the prompt, from the session's state */
	uint64_t queue_ns;
	uint64_t prefill_ns;
	uint64_t decode_ns;
	uint64_t io_wait_ns; /* of prefill and decode together */
	uint64_t hits;	     /* experts found in their slots */
	uint64_t misses;
	uint64_t bytes_read;
	uint64_t bytes_useful;
	uint64_t reserved[4];
};
WIRE_AT(wire_done, finish, 0);
WIRE_AT(wire_done, prompt_tokens, 4);
WIRE_AT(wire_done, generated, 8);
WIRE_AT(wire_done, reused, 12);
WIRE_AT(wire_done, queue_ns, 16);
WIRE_AT(wire_done, prefill_ns, 24);
WIRE_AT(wire_done, decode_ns, 32);
WIRE_AT(wire_done, io_wait_ns, 40);
WIRE_AT(wire_done, hits, 48);
WIRE_AT(wire_done, misses, 56);
WIRE_AT(wire_done, bytes_read, 64);
WIRE_AT(wire_done, bytes_useful, 72);
WIRE_AT(wire_done, reserved, 80);
WIRE_SIZE(wire_done, 112);

struct wire_error {
	int32_t code; /* negative errno */
	uint32_t text_length;
};
WIRE_AT(wire_error, code, 0);
WIRE_AT(wire_error, text_length, 4);
WIRE_SIZE(wire_error, 8);

/* The piece that ends at `of` is the last. */
struct wire_status_piece {
	uint32_t offset; /* of this piece in the text */
	uint32_t of;	 /* bytes of the whole text */
};
WIRE_AT(wire_status_piece, offset, 0);
WIRE_AT(wire_status_piece, of, 4);
WIRE_SIZE(wire_status_piece, 8);

struct wire_trace {
	uint32_t flags; /* none yet: 0 */
	uint32_t reserved;
};
WIRE_AT(wire_trace, flags, 0);
WIRE_AT(wire_trace, reserved, 4);
WIRE_SIZE(wire_trace, 8);

/* Precedes `count` entries, each a struct wire_route and its choices. */
struct wire_routes {
	uint64_t lost; /* tokens, since the trace began, for which there was no room */
	uint32_t count;
	uint32_t reserved;
};
WIRE_AT(wire_routes, lost, 0);
WIRE_AT(wire_routes, count, 8);
WIRE_AT(wire_routes, reserved, 12);
WIRE_SIZE(wire_routes, 16);

#define WIRE_ROUTE_DECODE 1u /* a token of the answer; else of the prompt */

/* What the router of a layer chose for a token; its choices follow, the best first. */
struct wire_route {
	uint32_t turn;	   /* tells requests apart in a trace of all; else 0 */
	uint32_t position; /* of the token in its session */
	uint32_t bytes;	   /* of one expert of the layer */
	uint16_t layer;
	uint8_t flags;
	uint8_t count; /* choices */
};
WIRE_AT(wire_route, turn, 0);
WIRE_AT(wire_route, position, 4);
WIRE_AT(wire_route, bytes, 8);
WIRE_AT(wire_route, layer, 12);
WIRE_AT(wire_route, flags, 14);
WIRE_AT(wire_route, count, 15);
WIRE_SIZE(wire_route, 16);

#define WIRE_CHOICE_RESIDENT 1u /* it was in memory when it was chosen */

struct wire_choice {
	uint16_t expert;
	uint16_t flags;
	float weight;
};
WIRE_AT(wire_choice, expert, 0);
WIRE_AT(wire_choice, flags, 2);
WIRE_AT(wire_choice, weight, 4);
WIRE_SIZE(wire_choice, 8);

struct wire_traced {
	uint64_t tokens; /* whose routes were sent */
	uint64_t lost;	 /* for which there was no room */
};
WIRE_AT(wire_traced, tokens, 0);
WIRE_AT(wire_traced, lost, 8);
WIRE_SIZE(wire_traced, 16);
