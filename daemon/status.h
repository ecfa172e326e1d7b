/* SPDX-License-Identifier: MIT */
#pragma once

/* The status as JSON, and the latencies that it reports.  Loop thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct manager;

#define STATUS_SAMPLES 1024u

/* The last so many, in nanoseconds. */
struct status_latencies {
	uint64_t samples[STATUS_SAMPLES];
	uint64_t n; /* ever */
};

void status_latency_add(struct status_latencies *l, uint64_t ns);
/* The q-th of 100 parts, 0 where there is none. */
uint64_t status_latency(const struct status_latencies *l, unsigned q);

/* status-sessions.c: the sessions that a user may know of, as a member of the object. */
void status_sessions(FILE *f, struct manager *m, uid_t uid, bool others);

/* A heap string, NULL without memory.  others: figures of other users too. */
char *status_json(struct manager *m, uid_t uid, int others, size_t *ret_size);
