/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The arena: one contiguous reservation of anonymous memory, taken in chunks of MEM_CHUNK bytes
 * with transparent huge pages, populated, locked, and kept out of core dumps and forked children.
 * Everything large in the daemon lives here, so that the memory limit is one number known at
 * start-up.
 *
 * Allocation is by bump pointer: parts are never freed one by one.  Whole chunks inside a part may
 * be given back to the kernel and taken again (pressure); their content is lost.
 * Not thread-safe; the memory itself may be used from any thread.
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
	MEM_LOCK = 1 << 0, /* mlock every chunk; failing is an error that names RLIMIT_MEMLOCK */
	MEM_TRY_LOCK = 1 << 1, /* mlock all, or else nothing (mem_arena_locked() tells) */
};

/*
 * Takes size bytes (rounded up to MEM_HUGE_PAGE), chunk by chunk with MADV_POPULATE_WRITE, so that
 * a shortage is -ENOMEM here and not a kill later.  0 or -errno with *err.
 */
int mem_arena_new(struct mem_arena **ret, size_t size, unsigned flags, mem_progress_fn progress,
	void *progress_arg, struct error *err);

/* Unmaps everything.  NULL is fine; returns NULL. */
struct mem_arena *mem_arena_free(struct mem_arena *a);

/* A part of n bytes, zeroed, aligned to `align` (a power of two); NULL where it does not fit. */
void *mem_arena_alloc(struct mem_arena *a, size_t n, size_t align);

size_t mem_arena_size(const struct mem_arena *a);
size_t mem_arena_used(const struct mem_arena *a);
size_t mem_arena_locked(const struct mem_arena *a);

/* Start of the reservation, MEM_HUGE_PAGE-aligned. */
void *mem_arena_base(const struct mem_arena *a);

/*
 * Gives the pages [p, p + n) back (munlock, MADV_DONTNEED) or takes them again (populate, lock).
 * p and n are multiples of MEM_HUGE_PAGE within the arena.  0 or -errno: not taken then.
 */
int mem_arena_give_back(struct mem_arena *a, void *p, size_t n);
int mem_arena_take_again(struct mem_arena *a, void *p, size_t n);
