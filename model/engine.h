/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The engine: rows (sequence, position, token) through the model, layer by layer, experts from the
 * store.  A resumable cursor: engine_advance() does one tile (at most about 20 ms) and returns. Two
 * contexts share weights, slots and reads: LIVE (decode: few rows, one per sequence) and BULK
 * (prefill: many rows of few sequences); the caller alternates between them as it likes.  The
 * logits of a row depend on its sequence's tokens alone (NUMERICS): not on batch, chunk, context or
 * order.
 *
 * One thread: the one that calls engine_start() is worker 0 and makes all other calls, except those
 * marked "any thread".
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "desc.h"
#include "error.h"
#include "kernels.h"
#include "plan.h"
#include "policy.h"
#include "popularity.h"
#include "probe.h"

struct engine;
struct io;
struct engine_seq; /* the keys and values of one session */

enum engine_context {
	ENGINE_LIVE,
	ENGINE_BULK,
	ENGINE_CONTEXTS,
};

enum engine_phase {
	ENGINE_PHASE_DENSE,  /* reading dense weights, while memory is taken */
	ENGINE_PHASE_MEMORY, /* waiting for the rest of the least memory */
};

/* done of all bytes of a phase.  Non-zero stops the load with -ECANCELED. */
typedef int (*engine_progress_fn)(void *arg, enum engine_phase phase, uint64_t done, uint64_t all);

enum engine_io {
	ENGINE_IO_AUTO,	 /* io_uring, else the pread pool */
	ENGINE_IO_URING, /* or fail */
	ENGINE_IO_PREAD,
};

enum engine_prefetch {
	ENGINE_PREFETCH_OFF,
	ENGINE_PREFETCH_AUTO, /* where it is measured to be faster */
	ENGINE_PREFETCH_ON,   /* always, for tests */
};

struct engine_config {
	const char *path;
	const struct desc *desc; /* must outlive the engine */
	const struct plan *plan; /* copied */
	uint32_t threads;
	bool pin;	/* each thread to a processor, the caller too */
	bool must_lock; /* failing to lock memory is an error; else it is in the status */
	enum engine_io io;
	engine_progress_fn progress; /* may be NULL */
	void *progress_arg;
	const struct probe_entry *disks; /* what is known of disks: [n_disks] */
	size_t n_disks;
	bool probe; /* find out about the others, where not all experts fit: up to a second */
	/* Makes the reads instead, for tests: as io_ring_new().  NULL: what `io` says. */
	int (*io_new)(void *arg, struct io **ret, const int *fds, size_t n, struct error *err);
	void *io_new_arg;
	enum engine_prefetch prefetch;
	enum policy_kind policy; /* what gives way in the store; for tests: the first is the one */
};

/*
 * Reserves all memory, takes the least, opens the ring, reads the dense weights: rows can be
 * computed then.  The other memory comes meanwhile, by threads of the engine's own, and experts are
 * read as rows want them, or by engine_background().  0 or -errno with *err.
 */
int engine_start(struct engine **ret, const struct engine_config *config, struct error *err);
struct engine *engine_free(struct engine *e);

/* -ENOBUFS where LIMIT_SESSIONS are open. */
int engine_seq_new(struct engine *e, struct engine_seq **ret);
struct engine_seq *engine_seq_free(struct engine *e, struct engine_seq *s);
/* Positions held. */
uint32_t engine_seq_length(const struct engine_seq *s);
/* Forgets positions from n on, for a prompt that shares only a prefix.  No rows may be under way.
 */
void engine_seq_truncate(struct engine *e, struct engine_seq *s, uint32_t n);
/*
 * Takes the blocks for `n` more positions.  0, or -ENOSPC where the pool has not as many free
 * (nothing is taken then).  engine_begin() needs this done for its rows.
 */
int engine_seq_reserve(struct engine *e, struct engine_seq *s, uint32_t n);
/*
 * Instead of what it held, the sequence holds the first n positions of another, whose blocks they
 * share: n is at most what that one held before the rows that are under way in it.  0 or -ENOMEM.
 */
int engine_seq_share(
	struct engine *e, struct engine_seq *s, const struct engine_seq *from, uint32_t n);
/*
 * Keys and values as bytes, for state files: whole blocks of ENGINE_BLOCK positions, in an order
 * that depends on the model alone; [at, at + size) of those of the first n positions.  Any thread,
 * while nobody else uses the sequence.  What was written counts once engine_seq_written() says how
 * many positions it is; the sequence was empty before, and had them reserved.
 */
#define ENGINE_BLOCK 64u
uint64_t engine_seq_block_bytes(const struct engine *e);
void engine_seq_read(const struct engine *e, const struct engine_seq *s, uint32_t n, uint64_t at,
	void *to, size_t size);
void engine_seq_write(
	struct engine *e, const struct engine_seq *s, uint64_t at, const void *from, size_t size);
void engine_seq_written(struct engine *e, struct engine_seq *s, uint32_t n);
/* Of everything that such bytes depend on: model file, description, numerics, build. */
uint64_t engine_identity(const struct engine *e);
/* Free and all positions of the pool. */
void engine_kv(const struct engine *e, uint32_t *ret_free, uint32_t *ret_all);

enum engine_want {
	ENGINE_WANT_LOGITS = 1 << 0, /* on_logits is called for the row */
	ENGINE_WANT_ROUTES = 1 << 1, /* on_route is called for the row and each MoE layer */
};

struct engine_row {
	struct engine_seq *seq;
	uint32_t token;
	uint32_t want; /* enum engine_want */
	void *arg;     /* handed to the callbacks */
};

/* A callback may drop and free sequences, its own too; it begins no step. */
struct engine_callbacks {
	/* logits[vocabulary], valid during the call; error: 0, else negative errno of this row. */
	void (*on_logits)(void *arg, const float *logits);
	void (*on_route)(void *arg, uint32_t layer, const uint32_t *experts, const float *weights,
		uint32_t k);
	/* The row failed (unreadable expert: -EIO, not finite: -EDOM, ...); no logits will come. */
	void (*on_error)(void *arg, int code, const char *text);
};

/*
 * Starts a step in a context that is idle.  Rows of one sequence stand in ascending order and take
 * the positions from engine_seq_length() on, which grows at once.  At most plan.live_rows or
 * plan.bulk_rows rows.  A sequence may be in one context at a time.  0 or -EINVAL, -EBUSY, -ERANGE.
 */
int engine_begin(struct engine *e, enum engine_context c, const struct engine_row *rows, size_t n,
	const struct engine_callbacks *callbacks);

enum engine_result {
	ENGINE_IDLE, /* no step in this context, or the step has ended: every callback was called */
	ENGINE_MORE, /* a tile was done, more is to do */
	/*
	 * Nothing of this context can be computed until a read arrives, or until the other context
	 * gives slots back: whoever waits for one goes on advancing both.
	 */
	ENGINE_WAITING,
};

/*
 * One tile of a context.  Callbacks happen inside.  Negative errno only for faults of the engine;
 * the step is over then without further callbacks, and its rows are no longer held.
 */
int engine_advance(struct engine *e, enum engine_context c);

/*
 * Sleeps until a read has arrived, or memory where none is under way, or timeout_ns is over.  For
 * when all contexts wait.
 */
int engine_wait(struct engine *e, uint64_t timeout_ns);

/*
 * A little of what is to do where nobody waits: puts memory that has come to use, reads experts
 * into free slots, in the order of the file, until none is free or all are there.  busy: rows are
 * being computed, so that one read is in flight at most, and only when nobody waits for another.
 * ENGINE_MORE: call again; ENGINE_WAITING: for reads or memory, engine_wait(); ENGINE_IDLE: nothing
 * is left to do.
 */
enum engine_result engine_background(struct engine *e, bool busy);
/* Whether every expert is in a slot, or no more slots are to be had. */
bool engine_is_filled(const struct engine *e);
/*
 * What the cache of experts learned, and which it holds, as bytes for a later run with the same
 * engine_identity(): its background reads first what was there then.  Size 0: nothing, for want of
 * experts.  engine_cache_set(): 0 or -EINVAL, before the first row.
 */
size_t engine_cache_size(const struct engine *e);
void engine_cache_get(const struct engine *e, void *ret);
int engine_cache_set(struct engine *e, const void *bytes, size_t n);

/* Ends that, for good: an engine that is about to be freed reads and takes no more. */
void engine_background_stop(struct engine *e);
/* All of it at once, for tools and tests: the memory, and with `experts` their slots filled. */
int engine_fill(struct engine *e, bool experts);

/* Drops the rows of a sequence from the step under way: no more callbacks for them. */
void engine_drop(struct engine *e, struct engine_seq *s);

/* Bytes of its memory in huge pages; not to be asked often (mem_arena_huge()).  Any thread. */
uint64_t engine_huge_bytes(const struct engine *e);

enum engine_disk_source {
	ENGINE_DISK_DEFAULT, /* a small or wholly resident model: nobody asked */
	ENGINE_DISK_REMEMBERED,
	ENGINE_DISK_PROBED,
};

/* A device that files of the model lie on: read in parallel with the others. */
struct engine_disk {
	dev_t device;
	uint32_t file; /* the first on it */
	enum engine_disk_source source;
	uint64_t probe_ns;
	struct probe_entry entry;
};

/* [count], constant once the engine has started.  Any thread. */
uint32_t engine_disks(const struct engine *e, const struct engine_disk **ret);

/*
 * Under memory pressure: gives a chunk of the slots' memory back to the system, or takes one again.
 * Bytes; 0 where there is none to give now (reads in flight, too few slots left) or to take; -errno
 * where the system has none (-ENOMEM).
 */
int64_t engine_give_back(struct engine *e);
int64_t engine_take_again(struct engine *e);
/*
 * The limit is lower than that of the plan by so many bytes, which are to be given back for good:
 * engine_take_again() leaves them, engine_owes() says how many are to be given yet.
 */
void engine_set_less(struct engine *e, uint64_t bytes);
uint64_t engine_owes(const struct engine *e);

/* What the engine thread does, from mark to mark; the team's work counts as its own. */
enum engine_time {
	ENGINE_TIME_SCHEDULE, /* between two tiles: whatever the caller does */
	ENGINE_TIME_EMBED,
	ENGINE_TIME_HEAD,
	ENGINE_TIME_SAMPLE, /* in on_logits */
	ENGINE_TIME_NORM,
	ENGINE_TIME_QKV,
	ENGINE_TIME_ROPE, /* norms of heads, rotation, storing keys and values */
	ENGINE_TIME_ATTENTION,
	ENGINE_TIME_OUTPUT, /* the attention's product into the residual */
	ENGINE_TIME_ROUTER,
	ENGINE_TIME_CACHE, /* looking for experts, asking for reads */
	ENGINE_TIME_WAIT,  /* for reads */
	ENGINE_TIME_GATE_UP,
	ENGINE_TIME_DOWN,
	ENGINE_TIME_SUM,
	ENGINE_TIMES,
	ENGINE_TIME_IN_LAYER = ENGINE_TIME_NORM, /* from here on */
};

enum engine_layer {
	ENGINE_LAYER_NONE, /* outside of the layers */
	ENGINE_LAYER_MOE,
	ENGINE_LAYER_DENSE,
	ENGINE_LAYERS,
};

const char *engine_time_name(enum engine_time t);
const char *engine_layer_name(enum engine_layer y);

/* Together: the time since the start. */
struct engine_times {
	uint64_t ns[ENGINE_CONTEXTS][ENGINE_LAYERS][ENGINE_TIMES];
	uint64_t idle_ns;
};

/* The caller slept for want of work: the time since the last call is idle. */
void engine_rested(struct engine *e);

/* Experts of the next layer that its router named on the present layer's state, read ahead. */
struct engine_ahead {
	uint64_t issued;   /* read, in whole or in part, before anybody wanted them */
	uint64_t useful;   /* then wanted, */
	uint64_t late;	   /* and not yet there */
	const char *state; /* "on", "off", "trying" */
	const char *why;   /* a clause */
};

struct engine_stats {
	uint64_t hits, misses; /* of wanted experts */
	uint64_t evictions;    /* experts that gave way to others */
	uint64_t bytes_read;   /* windows around extents included */
	uint64_t bytes_useful; /* of extents that were computed with */
	uint64_t reads, read_errors;
	uint64_t wait_ns, compute_ns; /* engine thread: nothing to compute; computing */
	uint64_t rows_live, rows_bulk, steps_live, steps_bulk;
	uint64_t tiles; /* heartbeat */
	uint64_t slots, slots_used;
	uint64_t experts, ready;	    /* distinct ones; those in slots, whole */
	uint64_t ready_bytes;		    /* of their extents */
	uint64_t locked_bytes, arena_bytes; /* locked as soon as they are taken; all */
	uint64_t taken_bytes;		    /* of the arena: pages that are there */
	uint64_t given_bytes;		    /* of the slots: back to the system, or not to be had */
	uint64_t dense_ns, memory_ns;	    /* of the start: weights read, least memory taken */
	uint64_t dense_bytes;
	bool locks; /* what is taken is locked */
	struct engine_times times;
	struct engine_ahead ahead;
	bool direct;	/* reads bypass the page cache */
	const char *io; /* "io_uring", "io_uring (plain)", "pread" */
	const char *tier;
	const struct kernels *kernels;
};
/* Any thread: a consistent enough snapshot for people. */
void engine_stats(const struct engine *e, struct engine_stats *ret);

const struct kernels *engine_kernels(const struct engine *e);

/* Copies the counts of all experts, and which of them are in slots now, into one of that size. */
void engine_popularity(struct engine *e, struct popularity *ret);
/* Whether an expert is in a slot, whole. */
bool engine_expert_is_here(const struct engine *e, uint32_t layer, uint32_t expert);
