/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The private queue between loop and engine: one producer, one consumer, a fixed number of
 * messages.  Its size is such that it cannot be full: a request stands in a direction's queue at
 * most once with each type of message, a session at most once, and both have their limits.
 */

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "limit.h"

#define QUEUE_SIZE 16384u
static_assert(QUEUE_SIZE >= 3 * LIMIT_REQUESTS + 4 * LIMIT_SESSIONS + 64, "queue too small");

struct queue_message {
	uint32_t type;
	void *object;
};

struct queue {
	_Alignas(128) _Atomic(uint32_t) head; /* producer's */
	_Alignas(128) _Atomic(uint32_t) tail; /* consumer's */
	struct queue_message messages[QUEUE_SIZE];
};

static inline bool queue_push(struct queue *q, uint32_t type, void *object)
{
	uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);

	if (head - atomic_load_explicit(&q->tail, memory_order_acquire) >= QUEUE_SIZE)
		return false;
	q->messages[head % QUEUE_SIZE] = (struct queue_message){type, object};
	atomic_store_explicit(&q->head, head + 1, memory_order_release);
	return true;
}

static inline bool queue_pop(struct queue *q, struct queue_message *ret)
{
	uint32_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);

	if (tail == atomic_load_explicit(&q->head, memory_order_acquire))
		return false;
	*ret = q->messages[tail % QUEUE_SIZE];
	atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
	return true;
}
