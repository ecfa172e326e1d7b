/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The loop thread's world: listening socket, clients, sessions, signals, timers and the engine
 * thread.  Nothing here waits for a client or touches weights.
 */

#include <stdbool.h>
#include <stdint.h>

#include "budget.h"
#include "client.h"
#include "configuration.h"
#include "disks.h"
#include "engine-thread.h"
#include "experts.h"
#include "list.h"
#include "load.h"
#include "notify.h"
#include "state.h"
#include "status.h"

enum manager_state {
	MANAGER_LOADING,
	MANAGER_READY,
	MANAGER_DRAINING,
	MANAGER_OVER,
};

struct manager {
	struct config config;
	int (*reread)(void *arg, struct config *ret, struct error *err);
	void *reread_arg;
	struct load load;
	struct engine_thread *engine;
	enum manager_state state;
	int result; /* of manager_run() */
	int epoll, listener, signals;
	const struct state *folder;
	struct list clients, dead, sessions;
	struct list orphans; /* requests whose client has gone */
	struct list traces;  /* of all requests; n_traces of them */
	uint32_t n_traces;
	struct experts experts;
	uint32_t n_clients, n_requests, n_again;
	uint32_t clients_max; /* segments of more are not in the plan */
	uint64_t heap,
		heap_max;     /* prompts and requests, of all users; part of the plan's reserve */
	uint64_t prompt_max;  /* bytes of text of one request */
	uint64_t spin_end_ns; /* until then the loop does not sleep; 0: it may */
	uint64_t start_ns;    /* of the process; set by who makes the manager */
	uint64_t engine_ns, ready_ns, filled_ns; /* when it was started, ready, had read ahead */
	uint64_t drain_end_ns, beat, beat_ns;
	gid_t admin_gid;
	bool has_admin_gid;
	unsigned percent;
	struct notify notify;
	struct budget budget;
	struct disks disks;
	uint64_t huge; /* bytes of memory in huge pages, when the slots were filled */
	struct status_latencies ttft, token;
	uint64_t failed_ns;	/* when a failed request was last logged */
	uint64_t complaints_ns; /* since when complaints about clients are counted */
	unsigned n_complaints;
	uint64_t n_found; /* sessions of earlier runs */
	uint64_t n_connects, n_refused, n_finished, n_failed;
};

int manager_init(struct manager *m, struct error *err);
void manager_deinit(struct manager *m);
/* 0 where the daemon was asked to end, else -errno (logged). */
int manager_run(struct manager *m);

int manager_watch(struct manager *m, int fd, void *source);
/* 0 or -errno with *err; logged and told to the service manager here. */
int manager_reload(struct manager *m, struct error *err);
void manager_drain(struct manager *m);

/* Counts bytes of heap that clients hold; -ENOBUFS where there are too many. */
int manager_heap(struct manager *m, int64_t change, struct error *err);
/* Half of what may still be counted: somebody else wants some too. */
uint64_t manager_heap_room(const struct manager *m);
/* Another record of this client is about to come: waits for it awake, if nobody needs the core. */
void manager_spin(struct manager *m);
bool manager_spins(const struct manager *m);
/* What all runs did, this one included. */
void manager_totals(const struct manager *m, struct state_totals *ret);

/* Clients' requests to the engine. */
void manager_submit(struct manager *m, struct request *r);
void manager_poke(struct manager *m, struct request *r);
/* The client has gone, or has read all of the outcome. */
void manager_release(struct manager *m, struct request *r);

/* traces.c: what routers choose for all requests; 0 or -errno with *err. */
int manager_trace_new(struct manager *m, struct client *c, uint64_t wire_id, struct error *err);
/* No more of it: the engine is told, once. */
void manager_trace_end(struct manager *m, struct trace *t);
/* The engine is done with it, and its client has all, or has gone. */
void manager_trace_free(struct manager *m, struct trace *t);

/* named: it is found by its id later; else it goes with its request.  -EDQUOT where the user has as
 * many as it may, and all are in use. */
int manager_session_new(struct manager *m, uid_t uid, bool named, struct session **ret);
/* One of an earlier run, which the engine found on disk. */
void manager_session_found(struct manager *m, struct session *session);
/* NULL unless id and uid both match. */
struct session *manager_session_find(struct manager *m, uid_t uid, const uint8_t *id);
/* Goes to the engine to be forgotten, once nobody needs it. */
void manager_session_release(struct manager *m, struct session *session);
void manager_session_forget(struct manager *m, struct session *session);
