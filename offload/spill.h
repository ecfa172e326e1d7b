/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The thread that writes and reads state files (spill-file.h), so that neither decode nor the loop
 * waits for a disk, be it slow or full: the reads of experts go by rings of their own.  Jobs are
 * done one at a time; loads, for which a request waits, before all others, which keep their order.
 *
 * One thread, the owner, makes all calls.  wake() is called by the spill thread after each job.
 */

#include <stdint.h>

#include "error.h"
#include "list.h"
#include "spill-file.h"

struct spill;

enum spill_kind {
	SPILL_SAVE,
	SPILL_LOAD,
	SPILL_REMOVE, /* the file of head.id */
	SPILL_SCAN,   /* what lies there: found, n_found and so on */
};

/* A file of the folder. */
struct spill_found {
	struct spill_head head;
	uint64_t size;
	uint64_t *chain; /* spill_chain() of its tokens */
};

struct spill_scan {
	struct spill_found *found; /* the oldest first */
	size_t n;
	unsigned damaged;   /* set aside now, as NAME.bad, what begins them */
	unsigned removed;   /* of other versions, or more than there may be */
	struct error error; /* about the last that could not be read */
};

struct spill_job {
	struct list link;
	enum spill_kind kind;
	struct spill_head head;
	uint32_t *tokens; /* head.n of them; SPILL_LOAD: n */
	uint32_t n;	  /* SPILL_LOAD: positions wanted */
	union {
		spill_read_fn read;   /* SPILL_SAVE */
		spill_write_fn write; /* SPILL_LOAD */
	};
	void *arg;
	void *owner;
	_Atomic(bool) stop; /* set by the owner: please end with -ECANCELED */
	/* results */
	int result; /* 0 or -errno; error says why */
	uint64_t ns;
	struct error error;
	struct spill_scan scan;
};

struct spill_config {
	int folder;		   /* stays the caller's */
	const struct spill_io *io; /* NULL: the system's */
	void (*wake)(void *arg);
	void *wake_arg;
};

/* 0 or -errno with *err. */
int spill_new(struct spill **ret, const struct spill_config *config, struct error *err);
/* Stops what is under way; jobs that nobody took are not touched any more.  NULL is fine. */
struct spill *spill_free(struct spill *s);

/* The job is the spill's until it is taken. */
void spill_submit(struct spill *s, struct spill_job *job);
/* One that is done, NULL: none yet. */
struct spill_job *spill_take(struct spill *s);
/* Waits until one is done, or nothing is under way, or timeout_ns is over. */
void spill_wait(struct spill *s, uint64_t timeout_ns);

void spill_scan_deinit(struct spill_scan *scan);
