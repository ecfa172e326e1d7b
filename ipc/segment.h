/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The two memfds of one connection.  The daemon makes both (segment_make), one per writer; sealed
 * against shrinking, growing and more sealing, so that no access can fault; the one that the
 * daemon writes is also sealed against future writes after the daemon has mapped it, so that the
 * client can map it only for reading.  The client checks all of that before mapping (segment_map).
 *
 * One thread each.  Negative errno on failure, nothing is left behind.
 */

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "wire.h"

struct segment {
	struct wire_segment *map; /* NULL: none */
	uint64_t size;
	int fd; /* daemon: to be sent; may be closed (segment_close_fd) once sent */
	struct wire_geometry geometry;
};

#define SEGMENT_NULL ((struct segment){.fd = -1})

/*
 * Daemon: a new segment with a ring of ring_size bytes (a power of two between LIMIT_RING_MIN and
 * LIMIT_RING_MAX), mapped read-write, header written.  daemon_writes: seal against future writes.
 */
int segment_make(struct segment *ret, uint32_t ring_size, bool daemon_writes, struct error *err);

/*
 * Client: takes fd over (closed in every case), checks size, seals and header against the geometry
 * of WELCOME, maps it read-only where the daemon writes, else read-write.
 */
int segment_map(struct segment *ret, int fd, const struct wire_geometry *geometry,
	bool daemon_writes, struct error *err);

/* Bytes of address space and memory that a ring of that size takes as a segment. */
uint64_t segment_size(uint32_t ring_size);

void segment_close_fd(struct segment *s);
void segment_deinit(struct segment *s);
