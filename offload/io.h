/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Reads of registered model files, behind a table that tests replace.  One thread owns an io and
 * makes all calls.  Files are named by their index, never by descriptor, so that the io_uring rung
 * can lock itself to them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct io;

struct io_read {
	uint64_t tag; /* comes back with the result */
	uint32_t file;
	uint32_t length; /* multiple of the file's alignment */
	uint64_t offset; /* multiple of the file's alignment */
	void *buffer;	 /* aligned likewise; untouched by the caller until the result */
};

struct io_result {
	uint64_t tag;
	int32_t res; /* bytes read (short at the end of the file or by chance), or -errno */
};

struct io_ops {
	const char *name; /* "io_uring", "io_uring (plain)", "pread" */
	/* Queues and submits; returns how many were taken (0 when full), or -errno. */
	int (*submit)(struct io *io, const struct io_read *reads, size_t n);
	/* Up to max results; waits at most timeout_ns for the first (0: only looks).  Count or
	 * -errno. */
	int (*reap)(struct io *io, struct io_result *results, size_t max, uint64_t timeout_ns);
	/*
	 * Whether a reap() would find something, without a system call: to be asked between pieces
	 * of other work.
	 */
	bool (*ready)(const struct io *io);
	/* Most reads in flight at once. */
	size_t (*depth)(const struct io *io);
	/* Waits for what is in flight, then frees. */
	void (*free)(struct io *io);
};

struct io {
	const struct io_ops *ops;
};

/*
 * The set-up ladder over `n` open descriptors (kept open by the caller): a restricted ring with
 * deferred task work, a plain restricted ring, a pool of threads.  0 or -errno with *err.
 */
int io_ring_new(struct io **ret, const int *fds, size_t n, struct error *err);
int io_pool_new(struct io **ret, const int *fds, size_t n, unsigned threads, struct error *err);
