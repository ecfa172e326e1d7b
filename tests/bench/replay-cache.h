/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A cache of experts that a trace is replayed into: what is wanted is looked for and brought, and
 * what gives way is the policy's to say, the same that the engine runs (offload/policy.c); or
 * Belady's, which knows the rest of the trace and so cannot be beaten.
 *
 * As in the engine, all experts of a visit are known before the first is brought: those that are
 * there are hits and stay, the others are brought in ascending order.
 */

#include <stdbool.h>
#include <stdint.h>

#include "replay-trace.h"

enum cache_kind {
	CACHE_BELADY,
	CACHE_LRU,
	CACHE_LFU,
	CACHE_LAYER_LFU, /* each layer an equal part */
	CACHE_OURS,
	CACHE_KINDS,
};

struct cache;

struct cache_config {
	enum cache_kind kind;
	uint64_t slots;	   /* experts that fit, of whatever size; 0: */
	uint64_t bytes;	   /* that fit */
	bool filled;	   /* with the first experts of the file, as the daemon starts */
	uint64_t restart;  /* ours: after so many steps of decode, from the kept state; 0: never */
	uint64_t from, to; /* steps of decode that count; to 0: all */
};

int cache_new(struct cache **ret, const struct trace *t, const struct cache_config *config);
struct cache *cache_free(struct cache *c);

/*
 * Begins visit i, in turn.  ret_missing[0 .. return value): the cells that are to be brought;
 * *ret_wanted: how many are wanted in all.
 */
uint32_t cache_visit(struct cache *c, uint64_t i, uint32_t *ret_missing, uint32_t *ret_wanted);
/* Brings a cell; false where nothing may give way for it, so that it is used without a place. */
bool cache_bring(struct cache *c, uint32_t cell);
/* The same before anybody wants it: takes no place of a cell that is more likely to be wanted. */
bool cache_stage(struct cache *c, uint32_t cell);
bool cache_has(const struct cache *c, uint32_t cell);

const char *cache_name(enum cache_kind kind);

struct cache_count {
	uint64_t wanted, hits, bytes; /* bytes: read */
};

/* All visits; [0]: of prefill, [1]: of decode. */
int cache_replay(
	struct cache_count ret[2], const struct trace *t, const struct cache_config *config);
