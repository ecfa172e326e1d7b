/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The inside of a libmoe handle.  connection.c owns the socket's life (connect, greet, lose,
 * connect again), request.c what is sent, event.c what comes back, moe.c the public calls.
 * One thread at a time; negative errno; sentences go to m->err.
 */

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "error.h"
#include "moe.h"

enum handle_state {
	HANDLE_WAITING,	 /* for the timer, to connect again */
	HANDLE_GREETING, /* HELLO is sent */
	HANDLE_READY,
	HANDLE_DEAD, /* m->dead tells why */
};

struct moe_session {
	struct moe *m;
	struct moe_session *next;
	uint8_t id[WIRE_ID_SIZE];
	bool has_id; /* id is one to ask for */
	bool open;   /* the daemon has answered on this connection */
	bool failed; /* ... and refused */
	bool closing;
	uint64_t request; /* of the SESSION_OPEN under way, or 0 */
};

/* A record that waits for room in the ring, or for its session to be open. */
struct pending {
	struct pending *next;
	struct moe_session *session;
	uint64_t request;
	uint16_t type;
	size_t size;
	uint8_t payload[];
};

enum request_kind {
	REQUEST_SUBMIT,
	REQUEST_SESSION,
	REQUEST_CLOSE, /* its answer is not told */
	REQUEST_STATUS,
	REQUEST_PING,
	REQUEST_ADMIN,
	REQUEST_TRACE,
};

/* Something that the daemon has to answer. */
struct request {
	struct request *next;
	uint64_t number;
	enum request_kind kind;
	bool lost;	/* to be told -ECONNRESET */
	bool cancelled; /* before anything of it was sent: to be told so */
	struct moe_session *session;
	uint8_t *data; /* pieces of a row of logits, or of a status, put together */
	size_t data_size, data_got;
};

struct moe {
	uint32_t *alive; /* a page that the kernel wipes in a forked child */
	int epoll;
	int timer;
	enum handle_state state;
	int dead;
	uint16_t minor; /* that is spoken; while ready */
	bool was_ready;
	bool asleep; /* the sleep words stand: the bell will ring */
	unsigned spins;
	bool tell_lost, tell_cancelled;
	unsigned retries;
	int sock; /* while greeting; later the channel's */
	struct channel channel;
	char path[sizeof(((struct error *)0)->text)];
	struct moe_session *sessions;
	struct pending *first, **last;
	struct request *requests;
	uint64_t next_request;
	struct moe_event event;
	char text[RING_PAYLOAD_MAX + 1];
	uint8_t *held; /* data of the event that was returned last */
	struct error err;
};

/* connection.c */
int connection_start(struct moe *m);
int connection_timer(struct moe *m);
void connection_retry(struct moe *m); /* later */
void connection_wake(struct moe *m);  /* the descriptor becomes readable at once */
void connection_woken(struct moe *m);
int connection_greet(struct moe *m); /* 1: m->event is set, 0: nothing yet */
void connection_lost(struct moe *m, int code);
void connection_drop(struct moe *m);

/* request.c */
int request_new(struct moe *m, enum request_kind kind, struct moe_session *s, uint64_t *ret);
struct request *request_find(struct moe *m, uint64_t number);
void request_end(struct moe *m, uint64_t number);
int pending_add(struct moe *m, struct moe_session *s, uint16_t type, uint64_t request,
	const void *head, size_t head_size, const void *tail, size_t tail_size);
int pending_flush(struct moe *m);
void pending_drop(struct moe *m);
bool pending_withdraw(struct moe *m, uint64_t number);
int submit_encode(
	struct moe *m, struct moe_session *s, const struct moe_request *r, uint64_t number);
void session_free(struct moe_session *s);
int session_ask(struct moe_session *s);

/* event.c */
void event_set(struct moe *m, enum moe_event_type type, uint64_t request);
void event_text(struct moe *m, const void *text, size_t length);
int event_from_record(struct moe *m, const struct wire_record *record); /* 1, 0: none, -EPROTO */
