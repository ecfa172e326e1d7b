/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One connection after WELCOME: socket, both segments, both rings, and when to ring the bell.  The
 * same on both sides.  Used by one thread; negative errno means that the connection is over:
 * -EPROTO (the other side broke the rules), -ECONNRESET (it has gone), or what the socket said.
 *
 * The pattern of use, in any event loop:
 *
 *	readable(socket):  channel_wake()            takes a bell, clears the sleep words
 *	work:              channel_read(), channel_write() until they return 0
 *	before waiting:    channel_sleep()           flushes; 1: work has come meanwhile, 0: wait
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ring.h"
#include "segment.h"

struct channel {
	int sock; /* owned */
	struct segment in, out;
	struct ring_reader reader;
	struct ring_writer writer;
	size_t blocked; /* payload that found no room: wait for that much; 0: nothing waits */
	uint8_t payload[RING_PAYLOAD_MAX] __attribute__((aligned(16)));
};

/* Takes over the socket and the segments (`out` is the one that this side writes). */
void channel_init(struct channel *c, int sock, struct segment *in, struct segment *out);
void channel_deinit(struct channel *c);

/* After the socket became readable.  0, or the connection is over. */
int channel_wake(struct channel *c);

/* 1: a record, its payload in c->payload (ret->size - sizeof(*ret) bytes); 0: none; -EPROTO. */
int channel_read(struct channel *c, struct wire_record *ret);

/* 1: written; 0: no room: channel_sleep() will wait for it; -EMSGSIZE; -EPROTO. */
int channel_write(struct channel *c, uint16_t type, uint64_t request, const struct iovec *pieces,
	size_t n_pieces);

/* The same for a fixed part and a tail; either may be empty. */
int channel_write2(struct channel *c, uint16_t type, uint64_t request, const void *head,
	size_t head_size, const void *tail, size_t tail_size);

/* Publishes both indices and rings where the other side sleeps.  0 or negative errno. */
int channel_flush(struct channel *c);

/*
 * Before waiting on the socket.  Flushes, sets the sleep words, looks again.  0: wait for the
 * socket; 1: there is a record, or room for what was blocked; or the connection is over.
 */
int channel_sleep(struct channel *c);

/*
 * The same for room alone, though records may lie there unread: what a side does that cannot answer
 * them before the other one reads.  0: wait; 1: that payload has room; or it is over.
 */
int channel_sleep_full(struct channel *c, size_t payload);
