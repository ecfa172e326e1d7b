/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Threads that take the pages of an arena ahead of those who will use them, range by range: the
 * kernel zeroes each page as it is taken, while the disk works for the one who waits here.  They
 * end by themselves when all is taken, or when the system has no more.
 *
 * One thread makes all calls.
 */

#include <stddef.h>
#include <stdint.h>

#include "mem.h"

struct taker;

struct taker_range {
	size_t offset, size; /* in the arena, multiples of MEM_HUGE_PAGE */
};

/* Begins with the first range.  The arena must outlive the taker.  0 or -errno. */
int taker_new(struct taker **ret, struct mem_arena *a, const struct taker_range *ranges, size_t n,
	unsigned threads);

/* Ends the threads after the page that each is taking. */
void taker_stop(struct taker *t);
/* Stops and frees.  NULL is fine; returns NULL. */
struct taker *taker_free(struct taker *t);

/* Bytes taken, counted from the begin of the first range on without a gap. */
size_t taker_done(struct taker *t);

/*
 * Waits until so many bytes are taken, at most those of all ranges: 1; 0 where timeout_ns is over
 * before; -errno where the system has not as many.
 */
int taker_wait(struct taker *t, size_t bytes, uint64_t timeout_ns);
