/* SPDX-License-Identifier: MIT */

/* Traces of all requests: their life on the loop's side. */

#include <errno.h>
#include <stdlib.h>

#include "log.h"
#include "manager.h"

/* Tokens that must have room. */
#define TRACE_TOKENS 16u

/* As large as may be: a long prompt is told whole then. */
static int trace_room(struct manager *m, struct trace *t, struct error *err)
{
	uint64_t least = (uint64_t)routes_token_bytes(m->load.desc) * TRACE_TOKENS;
	uint32_t size = routes_size(UINT64_MAX, least, manager_heap_room(m));
	int r = manager_heap(m, (int64_t)size, err);

	if (r < 0)
		return r;
	t->heap = size;
	r = routes_init(&t->routes, size);
	if (r < 0)
		(void)manager_heap(m, -(int64_t)t->heap, NULL);
	return r < 0 ? error_errno(err, r, "no memory for a trace") : 0;
}

int manager_trace_new(struct manager *m, struct client *c, uint64_t wire_id, struct error *err)
{
	struct trace *t;
	int r;

	if (!m->load.desc->experts)
		return error_set(err, -ENOTSUP, "the model has no experts");
	if (m->n_traces == LIMIT_TRACES)
		return error_set(
			err, -EDQUOT, "%u traces are running: as many as may", LIMIT_TRACES);
	t = calloc(1, sizeof *t);
	if (!t)
		return error_errno(err, -ENOMEM, "no memory for a trace");
	r = trace_room(m, t, err);
	if (r < 0) {
		free(t);
		return r;
	}
	t->client = c;
	t->wire_id = wire_id;
	t->uid = c->peer.uid;
	c->trace = t;
	list_append(&m->traces, &t->link);
	++m->n_traces;
	log_notice("uid %u traces what the routers choose for all requests", (unsigned)t->uid);
	engine_thread_send(m->engine, SCHED_TRACE, t);
	return 0;
}

void manager_trace_end(struct manager *m, struct trace *t)
{
	if (t->ending)
		return;
	t->ending = true;
	engine_thread_send(m->engine, SCHED_UNTRACE, t);
}

void manager_trace_free(struct manager *m, struct trace *t)
{
	log_notice("uid %u traces no more", (unsigned)t->uid);
	list_remove(&t->link);
	--m->n_traces;
	(void)manager_heap(m, -(int64_t)t->heap, NULL);
	routes_deinit(&t->routes);
	free(t);
}
