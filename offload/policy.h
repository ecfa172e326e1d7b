/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Which slot is given up next: the one policy, compiled into the engine and into the trace replay.
 * Pure: no I/O, no clock, no allocation after policy_new().  Slots of one size class have one
 * policy object; slots are numbered 0 to n - 1.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct policy;

int policy_new(struct policy **ret, uint32_t n_slots, uint32_t n_groups);
struct policy *policy_free(struct policy *p);

/* The slot now holds (group, expert); it is the newest. */
void policy_insert(struct policy *p, uint32_t slot, uint32_t group, uint32_t expert);
/* The slot was used. */
void policy_touch(struct policy *p, uint32_t slot);
/* The slot is empty. */
void policy_remove(struct policy *p, uint32_t slot);
/*
 * The slot to give up, for which may_evict says true (called for candidates, best first); -1 where
 * there is none.
 */
int64_t policy_victim(struct policy *p, bool (*may_evict)(void *arg, uint32_t slot), void *arg);
