/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A byte ring between two processes that do not trust each other: one producer, one consumer,
 * free-running 64-bit indices, records of struct wire_record at multiples of 16 bytes.
 *
 * Used by both sides, each with its own views; a view is used by one thread.  Geometry and the own
 * index are kept privately; from the other side's memory only its index, its two sleep words and
 * the records are read, each once, into a copy that is validated.  A violation is -EPROTO: the
 * caller ends the connection.
 *
 * Sleeping: before waiting for its bell a side calls *_sleep(), which publishes the sleep word and
 * then looks again (all seq_cst: either this side sees the other's index, or the other sees the
 * sleep word); after waking it calls *_wake().  After moving its own index, a side asks *_bell()
 * whether the other one sleeps and must be rung.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "limit.h"
#include "wire.h"

#define RING_PAYLOAD_MAX (LIMIT_RECORD - sizeof(struct wire_record))

struct ring_reader {
	const uint8_t *data; /* the other side's ring */
	uint64_t size;
	uint64_t record_max;
	const uint64_t *head;	   /* the other side's */
	uint64_t *tail;		   /* mine */
	uint32_t *sleep;	   /* mine: I wait for records */
	const uint32_t *peer_full; /* the other side waits for room */
	uint64_t head_seen, tail_own, tail_published, tail_rung;
	uint32_t sleep_last, rung_last;
};

struct ring_writer {
	uint8_t *data; /* my ring */
	uint64_t size;
	uint64_t record_max;
	uint64_t *head;		    /* mine */
	const uint64_t *tail;	    /* the other side's */
	uint32_t *sleep;	    /* mine: I wait for room */
	const uint32_t *peer_empty; /* the other side waits for records */
	uint64_t head_own, head_published, head_rung, tail_seen;
	uint32_t sleep_last, rung_last;
};

/* `mine` and `other` are mapped segments that hold rings of these geometries (already checked). */
void ring_reader_init(struct ring_reader *r, struct wire_segment *mine,
	const struct wire_segment *other, const struct wire_geometry *other_geometry);
void ring_writer_init(struct ring_writer *w, struct wire_segment *mine,
	const struct wire_segment *other, const struct wire_geometry *my_geometry);

/*
 * Copies the next record out: its header into *ret, its payload into buf of RING_PAYLOAD_MAX bytes.
 * 1: a record; 0: the ring is empty; -EPROTO: the other side broke the rules.
 */
int ring_read(struct ring_reader *r, struct wire_record *ret, void *buf);

/* True: nothing there, the sleep word stands, wait for the bell.  False: awake, there is work. */
bool ring_reader_sleep(struct ring_reader *r);
void ring_reader_wake(struct ring_reader *r);

/* Publishes what was consumed (ring_read() does so by itself once in a while). */
void ring_reader_publish(struct ring_reader *r);

/* Publishes, and says whether the other side sleeps for room and is to be rung. */
bool ring_reader_bell(struct ring_reader *r);

/*
 * Appends one record made of the pieces.  1: written; 0: no room now; -EMSGSIZE: larger than a
 * record may be; -EPROTO: the other side's index is impossible.  It becomes visible with
 * ring_writer_publish() or ring_writer_bell().
 */
int ring_write(struct ring_writer *w, uint16_t type, uint64_t request, const struct iovec *pieces,
	size_t n_pieces);

/* Bytes that a record of this payload takes in the ring (without a pad before it). */
size_t ring_record_space(size_t payload);

/* 1: ring_write() of a payload of that size would succeed now; 0: not; -EPROTO. */
int ring_writer_room(struct ring_writer *w, size_t payload);

void ring_writer_publish(struct ring_writer *w);

/* Publishes, and says whether the other side sleeps for records and is to be rung. */
bool ring_writer_bell(struct ring_writer *w);

/*
 * True: less room than a record of that payload needs, the sleep word stands.  False: there is
 * room (or the index is impossible: ring_write() will say so).
 */
bool ring_writer_sleep(struct ring_writer *w, size_t payload);
void ring_writer_wake(struct ring_writer *w);
