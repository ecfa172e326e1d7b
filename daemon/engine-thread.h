/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The engine thread, as the loop sees it: it loads the model, then runs the scheduler until it is
 * told to stop.  All functions are the loop thread's.  Messages of the scheduler come through
 * engine_thread_take() after the descriptor became readable.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "pressure.h"
#include "queue.h"
#include "sched.h"
#include "tokenizer.h"

struct engine_thread;

struct engine_thread_config {
	struct engine_config engine; /* progress is ours */
	const struct tokenizer *tokenizer;
	uint32_t context, live_rows, bulk_rows;
	int state_folder; /* < 0: none; stays the caller's, as the next */
	int spill_folder; /* of state files; < 0: none */
	uint64_t spill_quota;
};

enum engine_thread_state {
	ENGINE_THREAD_LOADING,
	ENGINE_THREAD_READY,
	ENGINE_THREAD_FAILED, /* engine_thread_error() */
	ENGINE_THREAD_ENDED,
};

/* Starts the thread; loading goes on there.  0 or -errno. */
int engine_thread_new(struct engine_thread **ret, const struct engine_thread_config *config);
/* Stops (within a tile) and waits; the messages of the end can be taken afterwards. */
void engine_thread_join(struct engine_thread *t);
/* Joins and frees.  NULL is fine; returns NULL. */
struct engine_thread *engine_thread_free(struct engine_thread *t);

/* Readable when there are messages, progress, or a change of state. */
int engine_thread_fd(const struct engine_thread *t);
enum engine_thread_state engine_thread_state(const struct engine_thread *t);
const struct error *engine_thread_error(const struct engine_thread *t);
/* 0 to 100, and the phase. */
unsigned engine_thread_percent(const struct engine_thread *t, enum engine_phase *ret_phase);
/* A number that grows while the thread lives and is not stuck. */
uint64_t engine_thread_beat(const struct engine_thread *t);
/* True while it sleeps for want of work. */
bool engine_thread_idle(const struct engine_thread *t);

/* Acknowledges the descriptor; before engine_thread_take(). */
void engine_thread_ack(struct engine_thread *t);
bool engine_thread_take(struct engine_thread *t, struct queue_message *ret);
/* The messages to the engine; SCHED_FORGET may also be sent while loading. */
void engine_thread_send(struct engine_thread *t, uint32_t type, void *object);
/* Reads and takes nothing any more that no request needs: the daemon is about to end. */
void engine_thread_settle(struct engine_thread *t);
/* When nothing was left to read ahead and no memory to come; 0: not yet. */
uint64_t engine_thread_filled(const struct engine_thread *t);
/* Asks to stop: loading ends, requests come back cancelled, the state becomes ENDED. */
void engine_thread_stop(struct engine_thread *t);

/*
 * Gives memory of slots back to the system (a piece, as soon as one is not in use),
 * takes a piece of it again, or leaves it.  engine_stats.given_bytes tells what came of it.
 */
void engine_thread_pressure(struct engine_thread *t, enum pressure_advice advice);
/* The limit is lower than at the start by so many bytes: slots are given back as soon as may be. */
void engine_thread_less(struct engine_thread *t, uint64_t bytes);

/* Of its memory in huge pages, 0 until it is ready; takes a while. */
uint64_t engine_thread_huge(struct engine_thread *t);
/* Its disks; 0 until it is ready. */
uint32_t engine_thread_disks(struct engine_thread *t, const struct engine_disk **ret);
void engine_thread_stats(struct engine_thread *t, struct engine_stats *ret,
	struct sched_figures *ret_figures, uint32_t *ret_kv_free, uint32_t *ret_kv_all);
