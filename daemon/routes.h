/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What routers choose, on its way from the engine to the loop: a byte ring of whole entries
 * (struct wire_route and its choices), one producer (engine), one consumer (loop).  Who pushes has
 * seen that there is room.  A trace is such a ring for the tokens of all requests; the loop makes
 * and frees it, between TRACE and the message TRACED the engine holds it.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "desc.h"
#include "engine.h"
#include "list.h"
#include "wire.h"

struct client;

struct routes {
	uint8_t *bytes;
	uint32_t size;		      /* a power of two; 0: none */
	_Atomic(uint32_t) head, tail; /* free-running */
};

#define ROUTES_ENTRY_MAX (sizeof(struct wire_route) + LIMIT_TOP_K * sizeof(struct wire_choice))

struct trace {
	struct routes routes;
	_Atomic(uint64_t) tokens, lost;
	_Atomic(bool) to_loop;		    /* stands in the queue to the loop */
	uint32_t reserved[ENGINE_CONTEXTS]; /* engine: bytes that tokens under way will need */
	struct list link;		    /* loop: of manager->traces */
	struct client *client;		    /* loop: NULL: it has gone */
	uint64_t wire_id, heap;		    /* loop */
	uid_t uid;			    /* loop */
	bool greeted, ending, over; /* loop: begun; UNTRACE is out; the engine is done with it */
};

/* Bytes that the entries of one token take, all layers together; 0 without experts. */
uint32_t routes_token_bytes(const struct desc *d);

/*
 * The size for `want` bytes, as far as `most` go, and those that no ring needs more of; for `least`
 * in any case.
 */
uint32_t routes_size(uint64_t want, uint64_t least, uint64_t most);
/* Of such a size.  0 or -ENOMEM. */
int routes_init(struct routes *r, uint32_t size);
void routes_deinit(struct routes *r);

/* Engine: bytes that are free. */
uint32_t routes_room(const struct routes *r);
/* Engine: n bytes, of which there is room. */
void routes_push(struct routes *r, const void *entry, uint32_t n);

/*
 * Loop: copies whole entries, up to `room` bytes; their bytes and number.  They stay until
 * routes_take().
 */
uint32_t routes_peek(const struct routes *r, void *buffer, uint32_t room, uint32_t *ret_count);
void routes_take(struct routes *r, uint32_t n);
static inline bool routes_is_empty(const struct routes *r)
{
	return atomic_load(&r->head) == atomic_load(&r->tail);
}
