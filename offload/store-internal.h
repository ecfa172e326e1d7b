/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of the store share; nobody else includes it.
 *
 *   store.c         the interface: acquire, poll, release, reap, statistics
 *   store-layout.c  pure: where the parts of an expert lie in a slot, which reads bring them
 *   store-slot.c    items (distinct experts), size classes, slots, who gives way
 *   store-read.c    reads: queued, in flight, arriving, tried again, failing
 *
 * An *item* is a distinct list of extents; experts with equal extents are one item and so share a
 * slot.  All of it belongs to one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "limit.h"
#include "list.h"
#include "policy.h"
#include "store.h"

#define STORE_NONE UINT32_MAX

/* Consecutive bytes of one file into consecutive bytes of a slot. */
struct store_segment {
	uint32_t file;
	uint64_t offset; /* aligned, as is length */
	uint64_t length;
	uint64_t need; /* of length; the rest may lie behind the end of the file */
	uint64_t at;   /* in the slot, aligned */
};

struct store_layout {
	uint32_t n_segments;
	struct store_segment segment[STORE_PARTS];
	uint64_t part_at[STORE_PARTS]; /* UINT64_MAX: absent */
	uint64_t size;		       /* of the slot */
	uint64_t useful;	       /* bytes of the extents */
};

/* False where the extents overflow. */
bool store_layout_make(struct store_layout *ret, const struct store_expert *x, uint32_t align);

enum slot_state {
	SLOT_EMPTY,
	SLOT_READING, /* also with an error, until its last read is back */
	SLOT_READY,
	SLOT_FAILED, /* held; empty as soon as it is not */
};

/* Whose reads go first. */
enum store_rank {
	STORE_RANK_BACKGROUND, /* nobody waits for it */
	STORE_RANK_AHEAD,      /* somebody may want it soon: one at a time, on an idle disk */
	STORE_RANK_WANTED,
	STORE_RANK_URGENT,
	STORE_RANKS,
};

struct store_slot {
	char *memory;
	uint32_t item;
	uint32_t index; /* in its class */
	uint16_t class;
	uint8_t state;
	uint8_t segment; /* the next byte to ask for: in this segment, */
	uint64_t asked;	 /* so far into it */
	uint32_t holds;
	uint32_t withdrawn; /* by so many ranges; not in the free list while there is one */
	bool mark;	    /* of those who hold it */
	uint8_t rank;
	uint32_t requests; /* in flight or waiting for another try */
	int error;
	struct store_layout layout;
	struct list link; /* of its rank: reads not yet asked for; or free: empty */
};

struct store_class {
	uint64_t size;
	uint32_t items, slots, first;
	uint32_t withdrawn; /* of the slots */
	struct list free;
};

struct store_item {
	uint32_t group, expert; /* the first with these extents */
	uint32_t slot;
	uint16_t class;
};

/* One read; a part of a segment.  Its tag is (generation, index). */
struct store_request {
	struct store_slot *slot; /* NULL: the request is free */
	uint32_t generation, retries;
	uint32_t segment;
	uint64_t from, length; /* in the segment */
	uint64_t done;	       /* bytes of it that have arrived */
	bool in_flight;
	struct list link; /* free, or again: to be submitted once more */
};

/* Files on one device: it is kept busy whatever the others do. */
struct store_disk {
	dev_t device;
	size_t in_flight;
	uint64_t bytes_in_flight;
	uint64_t bytes_waiting; /* to be asked for yet, of those that are wanted */
	struct disk_tuning tuning;
	struct list again, ranks[STORE_RANKS];
};

struct store {
	struct store_config config;
	uint32_t *groups;  /* [config.groups + 1]: where a group begins in item_of */
	uint32_t *item_of; /* by cell, as the policy numbers them */
	bool *has_shared;  /* [groups] some of its experts lie where others lie */
	struct policy *policy;
	uint32_t choices[FORECAST_ROWS * LIMIT_TOP_K]; /* of a visit, by the first of those */
	struct store_item *items;
	uint32_t n_items;
	struct store_class *classes;
	uint32_t n_classes;
	struct store_slot *slots;
	uint32_t n_slots;
	uint32_t align;

	struct store_request *requests;
	uint32_t n_requests;
	struct list free_requests;
	struct store_disk *disks;
	uint32_t n_disks;
	uint32_t *disk_of; /* by file */
	size_t in_flight;
	uint64_t bytes_background; /* those of that rank start while less is in flight */
	uint64_t no_spin_until;
	unsigned refused; /* submissions in a row that took nothing while nothing was in flight */
	int finished;	  /* since the last store_reap() */

	struct store_stats stats;
	struct error error;
};

/* store-slot.c */
int store_slots_init(struct store *s, struct error *err);
void store_slots_deinit(struct store *s);
/* The number of the item's cell. */
uint32_t store_item_cell(const struct store *s, const struct store_item *item);
struct store_item *store_item_find(struct store *s, uint32_t group, uint32_t expert);
/*
 * An empty slot for this item; where there is none, one that gives way: for what is wanted any, for
 * what is read ahead one that is hardly ever wanted, for the background none.  Or NULL.
 */
struct store_slot *store_slot_take(struct store *s, struct store_item *item, enum store_rank rank);
/* Forgets what the slot holds. */
void store_slot_clear(struct store *s, struct store_slot *slot);
void store_slot_view(struct store_slot *slot, struct store_view *ret);

/* store-read.c */
int store_reads_init(struct store *s, struct error *err);
void store_reads_deinit(struct store *s);
/* Queues the reads into a slot that store_slot_take() gave. */
void store_read_start(struct store *s, struct store_slot *slot, enum store_rank rank);
/* Moves those reads that have not started behind the others of a higher rank. */
void store_read_hurry(struct store *s, struct store_slot *slot, enum store_rank rank);
/* True where no read has started; then none will. */
bool store_read_call_off(struct store *s, struct store_slot *slot);
/* Submits as much as is sensible. */
void store_read_pump(struct store *s);
/* Takes results; their number or -errno. */
int store_read_reap(struct store *s, uint64_t timeout_ns);
