/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The expert store: experts from extents of files into slots of memory, under one budget.  Knows
 * nothing of models: an expert is (group, index), its bytes up to STORE_PARTS extents; a group is a
 * layer.  "Resident" is a store with a slot for every expert.
 *
 * Files on different devices are read in parallel: each device has its own queue and depth.
 *
 * One thread (the engine) makes all calls.  Slot memory is the caller's.  A slot's state goes empty
 * -> reading -> raw -> ready; the fill hook runs between raw and ready.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "file.h"
#include "io.h"
#include "probe.h"
#include "policy.h"

#define STORE_PARTS 3

struct store;

struct store_extent {
	uint32_t file;
	uint64_t offset, size; /* size 0: the part is absent */
};

struct store_expert {
	struct store_extent part[STORE_PARTS];
};

/*
 * Where the bytes of an expert are, once ready: part[i] points at the extent's first byte.  Who
 * holds it may change them in place, and says so to later holders by the mark, which is false when
 * the bytes have just been read.
 */
struct store_view {
	void *part[STORE_PARTS];
	bool *mark;
};

struct store_config {
	struct io *io;
	const struct file *files;
	size_t n_files;
	uint32_t groups;
	const uint32_t *experts; /* [groups], 0 for a group without experts */
	/* Extents of an expert; must be constant.  Experts with equal extents share one slot. */
	void (*locate)(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret);
	void *locate_arg;
	void *memory; /* huge-page aligned */
	size_t size;
	/*
	 * Not 0: the memory is not there yet.  All of it is withdrawn at first, in ranges of so
	 * many bytes, and comes range by range with store_restore().
	 */
	size_t chunk;
	/* Called when all parts have arrived, may change the bytes in place; may be NULL. */
	void (*fill)(void *arg, uint32_t group, uint32_t expert, struct store_view *view);
	void *fill_arg;
	enum policy_kind policy;
};

/* Slot bytes needed for an expert of these extents, windows and alignment included. */
size_t store_slot_size(const struct store_expert *x, uint32_t align);

int store_new(struct store **ret, const struct store_config *config, struct error *err);
/* Waits for reads in flight. */
struct store *store_free(struct store *s);

enum store_state {
	STORE_READY,   /* view is valid until store_release() */
	STORE_READING, /* on its way; ask again after store_reap() */
	STORE_BUSY, /* no slot to be had now (all in use or in flight); try again after releases */
};

enum store_flags {
	STORE_DEMAND =
		1 << 0, /* counts one hit or miss: given once a step, not when asking again */
	STORE_URGENT =
		1 << 1, /* its reads go before all that are not urgent and not yet in flight */
	STORE_PRESENT =
		1 << 2, /* only where it has a slot: else STORE_BUSY, and nothing is counted */
};

/*
 * What the router chose for the rows of a step in one layer, before any of it is asked for: what
 * the policy forecasts by.  Those that are there are best asked for first, so that they do not give
 * way to the others.
 */
void store_visit(struct store *s, const struct forecast_visit *v);

/*
 * Asks for an expert that will be computed with.  READY and READING hold the slot (counted: one
 * release for each) until store_release().  Reads start with the next store_submit() or
 * store_reap().  Negative errno: the expert could not be read (-EIO, -ENODATA, -ESTALE ...) and
 * others that hold it have not heard so yet; nothing is held.
 */
int store_acquire(struct store *s, uint32_t group, uint32_t expert, unsigned flags);

/*
 * Asks for an expert that nobody computes with yet: takes only a slot that is free, and its reads
 * start after all others (store_set_background()).  STORE_READING: held, until store_release();
 * STORE_READY: it has a slot already, nothing is held; STORE_BUSY: no slot is free; -errno as
 * store_acquire().
 */
int store_fetch(struct store *s, uint32_t group, uint32_t expert);

/* How the reads of files on this device are to be; defaults until then. */
void store_tune(struct store *s, dev_t device, const struct disk_tuning *tuning);

/*
 * Asks for an expert that may be wanted soon: takes a slot that is free, or that of an expert that
 * is hardly ever wanted, and is read when nothing else is.  As store_fetch() otherwise.
 */
int store_fetch_ahead(struct store *s, uint32_t group, uint32_t expert);
/* Releases it.  True where its reads had not begun: they never will. */
bool store_call_off(struct store *s, uint32_t group, uint32_t expert);

/*
 * Reads of store_fetch() are begun while fewer bytes than these are in flight: with 1, only when
 * nothing is, so that an expert that is wanted waits for one of them at most.
 */
void store_set_background(struct store *s, uint64_t bytes);

/*
 * State of an expert held by store_acquire(): STORE_READY (fills *ret), STORE_READING, or -errno
 * where it cannot be read: it is to be released all the same.
 */
int store_poll(struct store *s, uint32_t group, uint32_t expert, struct store_view *ret);

/*
 * Starts the reads of what was acquired since, all in one submission where they fit; for a caller
 * that computes before its next store_reap(), which starts them too.
 */
void store_submit(struct store *s);

/*
 * Gives a hold back, in any state.  The last one of a failed expert empties its slot, so that a
 * later request tries anew; the last one of an expert whose reads have not started calls them off.
 */
void store_release(struct store *s, uint32_t group, uint32_t expert);

/*
 * Moves what has arrived; waits up to timeout_ns for the first read.  Number of experts finished
 * (ready or failed), or -errno where the reads themselves cannot go on.
 */
int store_reap(struct store *s, uint64_t timeout_ns);

/* Whether an expert is in a slot, whole: nothing would have to be read now. */
bool store_is_here(struct store *s, uint32_t group, uint32_t expert);

/*
 * Between pieces of work, without a system call where nothing has arrived: takes what has and
 * starts what waits for it, so that the disk does not stand still while experts are computed with.
 * What is finished by it counts in the next store_reap().
 */
void store_service(struct store *s);

/* Reads in flight. */
size_t store_in_flight(const struct store *s);

struct store_stats {
	uint64_t hits, misses, evictions;
	uint64_t bytes_read,
		bytes_useful; /* useful: extents of experts that a hold was taken for */
	uint64_t reads, retries, errors;
	uint64_t slots, slots_used;
	uint64_t experts, ready; /* distinct ones; those in slots, whole */
	uint64_t ready_bytes;	 /* of their extents */
	uint32_t disks;		 /* devices that files lie on: read in parallel */
};
void store_get_stats(const struct store *s, struct store_stats *ret);

/* The sentence for the last negative errno of this store, naming file, offset and reason. */
const char *store_error(const struct store *s);

/*
 * Takes the memory [p, p + n) out of use, so that its pages can be given back: slots that touch it
 * are emptied and stay empty until store_restore() with the same range.  -EBUSY where one of them
 * is held or being read, -ENOSPC where too few slots of a size would be left; then nothing changed.
 * Ranges may touch the same slot: it returns to use with the last of them.
 */
int store_withdraw(struct store *s, const void *p, size_t n);
void store_restore(struct store *s, const void *p, size_t n);

/*
 * What the policy learned and what is in memory, for a later run: see policy.h.  store_was_here():
 * whether the expert was in a slot then; before anything is acquired.
 */
size_t store_state_size(const struct store *s);
void store_state_get(const struct store *s, void *ret);
int store_state_set(struct store *s, const void *bytes, size_t n);
bool store_was_here(struct store *s, uint32_t group, uint32_t expert);

/* Whether [p, p + n) holds one of the first `least` slots of a size. */
bool store_holds_least(const struct store *s, const void *p, size_t n, uint32_t least);
