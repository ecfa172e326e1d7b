/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The arena: one contiguous reservation of anonymous memory with transparent huge pages, locked as
 * its pages come, and kept out of core dumps and forked children.  Everything large in the daemon
 * lives here, so that the memory limit is one number known at start-up.
 *
 * Reserving it asks whether so much may be locked; its pages are taken one range after the other,
 * by whoever wants them and by the threads of a taker (taker.h).  Each is zeroed by the kernel as
 * it is taken: 0.12 s per GiB on one core, and on a virtual machine whose host has to find the
 * memory first up to 2.6 s.
 *
 * Allocation is by bump pointer: parts are never freed one by one.  Whole huge pages inside a part
 * may be given back to the kernel and taken again (pressure); their content is lost.
 * One thread reserves and allocates; mem_arena_take() may be called by any, also for pages that
 * another is taking.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define MEM_CHUNK ((size_t)64 << 20)
#define MEM_HUGE_PAGE ((size_t)2 << 20)

struct mem_arena;

/* Told after each chunk is taken: bytes so far, of all.  May be NULL. */
typedef void (*mem_progress_fn)(void *arg, size_t done, size_t all);

enum mem_arena_flags {
	MEM_LOCK = 1 << 0,     /* locked; failing is an error that names RLIMIT_MEMLOCK */
	MEM_TRY_LOCK = 1 << 1, /* locked, or else not (mem_arena_is_locked() tells) */
};

/*
 * Address space for size bytes (rounded up to MEM_HUGE_PAGE), of which nothing is taken yet; locks
 * the whole range, so that what the locking limit forbids is an error here and not later.  0 or
 * -errno with *err.
 */
int mem_arena_reserve(struct mem_arena **ret, size_t size, unsigned flags, struct error *err);

/* The same, and takes all of it in chunks: a shortage is -ENOMEM here and not a kill later. */
int mem_arena_new(struct mem_arena **ret, size_t size, unsigned flags, mem_progress_fn progress,
	void *progress_arg, struct error *err);

/* Unmaps everything.  NULL is fine; returns NULL. */
struct mem_arena *mem_arena_free(struct mem_arena *a);

/* A part of n bytes, zeroed, aligned to `align` (a power of two); NULL where it does not fit. */
void *mem_arena_alloc(struct mem_arena *a, size_t n, size_t align);

size_t mem_arena_size(const struct mem_arena *a);
size_t mem_arena_used(const struct mem_arena *a);
/* Bytes whose pages are there. */
size_t mem_arena_taken(const struct mem_arena *a);
/* Whether they are locked, all of them. */
bool mem_arena_is_locked(const struct mem_arena *a);
/* Bytes that are both. */
size_t mem_arena_locked(const struct mem_arena *a);

/*
 * Bytes of it in huge pages, as /proc/self/smaps tells; 0 where it does not.  Looks at every page
 * of the process that is not huge: not to be asked often.  Any thread.
 */
uint64_t mem_arena_huge(const struct mem_arena *a);

/* Start of the reservation, MEM_HUGE_PAGE-aligned. */
void *mem_arena_base(const struct mem_arena *a);

/*
 * Takes the pages [p, p + n) that are not there yet, one after the other, or gives them back.  p
 * and n are multiples of MEM_HUGE_PAGE within the arena.  0 or -errno; -ENOMEM where the system has
 * none: those before are there then.
 */
int mem_arena_take(struct mem_arena *a, void *p, size_t n);
int mem_arena_give_back(struct mem_arena *a, void *p, size_t n);
