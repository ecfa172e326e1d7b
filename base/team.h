/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A small team of threads for data-parallel work.  The thread that calls team_run() is worker 0;
 * the others spin for a bounded time between jobs and then sleep, so an idle team uses no CPU.
 * One that was preempted within a job, and so kept the caller waiting, stays away for a while: its
 * processor is a neighbour's.
 * Nobody waits for a worker that has not begun: where neighbours or other threads take the
 * processors, the job is done by those that run.  No lock and no allocation in team_run().
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limit.h"

struct team;

/*
 * Called on worker 0 and on those others that come before it returns there; at most once on each,
 * worker < workers.  So the work is handed out by struct team_shares, not by the worker's number.
 */
typedef void (*team_fn)(void *arg, unsigned worker, unsigned workers);

/* n_threads: 1 to LIMIT_THREADS.  0 or -errno. */
int team_new(struct team **ret, unsigned n_threads);

/* Ends and joins the threads.  NULL is fine; returns NULL. */
struct team *team_free(struct team *t);

unsigned team_size(const struct team *t);

/*
 * Binds each thread, the caller as worker 0 too, to one of the processors that the caller may use,
 * in turn.  Threads that any of them starts later inherit that.  0 or -errno.
 */
int team_pin(struct team *t);

/* Runs fn on the workers and returns when all that it began on have returned.  One caller at a
 * time. */
void team_run(struct team *t, team_fn fn, void *arg);

/*
 * The items of one job, a contiguous share for each worker: a worker takes from the front of its
 * own, so that what it reads follows on in memory, and when that is empty from the back of the
 * others', so that a worker slowed by a neighbour, or one that never came, holds nobody up.
 */
struct team_shares {
	unsigned workers;
	uint32_t piece, least;
	struct {
		_Alignas(64) _Atomic uint64_t left; /* begin, and end in the upper half */
	} share[LIMIT_THREADS];
};

/*
 * n items for so many workers, taken `piece` at once, and fewer where a share ends, down to
 * `least`, so that all workers end at about the same time.  The shares begin at multiples of
 * `piece`.  1 <= least <= piece.
 */
void team_shares_init(
	struct team_shares *s, unsigned workers, uint32_t n, uint32_t piece, uint32_t least);

/* Items that are nobody else's; false when nothing is left. */
bool team_shares_take(struct team_shares *s, unsigned worker, uint32_t *begin, uint32_t *end);
