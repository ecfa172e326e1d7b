/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One connection: hello, loading, then records.  A client that breaks a rule loses its connection,
 * with one line in the log; a client that does not read is paused and nobody waits for it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "experts.h"
#include "list.h"
#include "privilege.h"
#include "request.h"
#include "sock.h"

struct manager;

enum client_state {
	CLIENT_HELLO,	/* nothing came yet */
	CLIENT_LOADING, /* hello came, the model loads */
	CLIENT_RUNNING,
	CLIENT_DEAD,
};

struct client {
	struct list link; /* of manager->clients or ->dead */
	struct manager *manager;
	enum client_state state;
	int sock; /* until channel has it */
	struct sock_peer peer;
	bool admin;
	int refuse; /* negative errno that waits for the hello, or 0 */
	uint64_t hello_end_ns;
	uint16_t major, minor;
	struct channel channel;
	bool again;  /* there is work that no event will announce */
	bool busy;   /* another record was announced: looked at while the loop spins */
	bool pumped; /* outside of client_event(): client_settle() is due */
	struct list submits, requests;
	uint32_t n_submits, n_requests;
	struct session *sessions[LIMIT_SESSIONS_PER_CLIENT]; /* opened here */
	uint32_t n_sessions;
	char *status; /* on its way out */
	size_t status_size, status_sent;
	uint64_t status_id;
	enum experts_wait experts; /* the status on its way is that of experts, still to come */
	struct trace *trace;
};

/* Takes the socket over. */
int client_new(struct manager *m, int sock, const struct sock_peer *peer, int refuse);
/* Ends the connection; freed by client_free() once nobody holds it. */
void client_kill(struct client *c, const char *why);
struct client *client_free(struct client *c);

void client_event(struct client *c);
/* After client_pump(): records that waited for room, and the sleep words. */
void client_settle(struct client *c);
/* Output of one of its requests has come, or there is room. */
void client_pump(struct client *c);
/* While loading: tells how far it is; after: welcomes. */
void client_progress(struct client *c, unsigned percent);
