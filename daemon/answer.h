/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The text of one answer: bytes of tokens in, whole characters out, as soon as it is certain that
 * they are not the beginning of a stop string.  Engine thread; pure but for its buffer.
 */

#include <stdbool.h>
#include <stddef.h>

#include "tokenizer.h"

struct answer_stop {
	const char *text;
	size_t size; /* 1 to LIMIT_STOP_LENGTH */
};

struct answer {
	struct utf8_stream utf8;
	const struct answer_stop *stops;
	size_t n_stops;
	char *text; /* [0, ready) may go out, [ready, n) is held back */
	size_t ready, n, room;
};

/* The stops must outlive the answer. */
void answer_init(struct answer *a, const struct answer_stop *stops, size_t n_stops);
void answer_deinit(struct answer *a);

/*
 * Adds the bytes of a token.  1: a stop string is complete, what stands before it is ready and
 * nothing follows; 0: go on; -ENOMEM.
 */
int answer_push(struct answer *a, const char *bytes, size_t n);

/* The answer ends without a stop string: all that was held back becomes ready.  0 or -ENOMEM. */
int answer_flush(struct answer *a);

/* Forgets the first n ready bytes. */
void answer_take(struct answer *a, size_t n);
