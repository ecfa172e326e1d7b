/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Which expert gives way to another: the one policy, compiled into the engine and into the trace
 * replay.  Pure: no I/O, no clock, no chance, no allocation after policy_new().  One thread.
 *
 * An expert is a *cell*: the experts of all groups (layers) numbered through, group by group.  A
 * cell that is in memory is in a size class, and gives way to others of its class only.
 *
 * POLICY_FORECAST gives up the cell that is least likely to be wanted when its layer comes next
 * (forecast.h), where layers that come soon weigh more.  The plain ones are there to compare with,
 * and because tokens must not depend on any.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "forecast.h"

struct policy;

enum policy_kind {
	POLICY_FORECAST,
	POLICY_LRU, /* least recently used */
	POLICY_LFU, /* least often used since the start, of these the least recently */
	POLICY_KINDS,
};

struct policy_config {
	enum policy_kind kind;
	uint32_t groups, classes;
	const uint32_t *experts; /* [groups] */
};

/* 0, -EINVAL, -ENOMEM. */
int policy_new(struct policy **ret, const struct policy_config *config);
struct policy *policy_free(struct policy *p);

/* A layer's choices are known; before its experts are looked for. */
void policy_visit(struct policy *p, const struct forecast_visit *v);
/* The cell is used: once a visit. */
void policy_touch(struct policy *p, uint32_t cell);
/* The cell is in memory now. */
void policy_insert(struct policy *p, uint32_t cell, uint32_t class);
void policy_remove(struct policy *p, uint32_t cell);
/*
 * The cell of a class to give up, of those for which may_evict says true (called for candidates);
 * -1 where there is none.
 */
int64_t policy_victim(
	struct policy *p, uint32_t class, bool (*may_evict)(void *arg, uint32_t cell), void *arg);
/* Whether it is hardly ever wanted: it may give way to what is only likely to be. */
bool policy_is_cold(const struct policy *p, uint32_t cell);

/*
 * What was learned, and which cells are in memory, as bytes for a later run over the same groups.
 * policy_set(): 0, or -EINVAL where the bytes are not of such a policy (then nothing changed); it
 * is to be called before anything is in memory.  policy_was_in(): whether the cell was in memory
 * when they were taken.
 */
size_t policy_state_size(const struct policy *p);
void policy_get(const struct policy *p, void *ret);
int policy_set(struct policy *p, const void *bytes, size_t n);
bool policy_was_in(const struct policy *p, uint32_t cell);
