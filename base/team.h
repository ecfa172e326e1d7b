/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A small team of threads for data-parallel work.  The thread that calls team_run() is worker 0;
 * the others spin for a bounded time between jobs and then sleep, so an idle team uses no CPU.
 * Nobody waits for a worker that has not begun: where neighbours or other threads take the
 * processors, the job is done by those that run.  No lock and no allocation in team_run().
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct team;

/*
 * Called on worker 0 and on those others that come before it returns there; at most once on each,
 * worker < workers.  So the work is handed out with team_take(), not by the worker's number.
 */
typedef void (*team_fn)(void *arg, unsigned worker, unsigned workers);

/* n_threads: 1 to LIMIT_THREADS.  0 or -errno. */
int team_new(struct team **ret, unsigned n_threads);

/* Ends and joins the threads.  NULL is fine; returns NULL. */
struct team *team_free(struct team *t);

unsigned team_size(const struct team *t);

/* Runs fn on the workers and returns when all that it began on have returned.  One caller at a
 * time. */
void team_run(struct team *t, team_fn fn, void *arg);

/*
 * Work handed out in pieces of `piece` items, so that a worker slowed by a neighbour takes fewer.
 * False when nothing is left.  The counter starts at 0 and is shared by the workers of one job.
 */
static inline bool team_take(
	atomic_size_t *next, size_t n, size_t piece, size_t *begin, size_t *end)
{
	size_t b = atomic_fetch_add_explicit(next, piece, memory_order_relaxed);

	if (b >= n)
		return false;
	*begin = b;
	*end = b + piece < n ? b + piece : n;
	return true;
}
