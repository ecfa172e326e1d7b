/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What of its memory the running daemon gives back and takes again: at once and for good where the
 * limit was lowered (the option, or the control group's), a chunk at a time where other programs
 * lack memory, and again slowly when all is calm.  Loop thread; the engine thread does it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine-thread.h"
#include "load.h"
#include "pressure.h"

struct budget {
	struct pressure pressure;
	uint64_t limit;	     /* that holds now */
	uint64_t less;	     /* below the plan's */
	uint64_t given;	     /* bytes of slots that the engine has given back, when last seen */
	unsigned stuck;	     /* looks in a row that found more to give, and nothing given */
	uint64_t gave, took; /* looks that found more, or less, given back; for people */
};

void budget_init(struct budget *b, const struct load *l);
void budget_deinit(struct budget *b);

/* Looks at the limit again; `wanted` is the option memory.limit. */
void budget_limit(
	struct budget *b, struct engine_thread *t, const struct load *l, const char *wanted);

/* The descriptor of the pressure has an event. */
void budget_event(struct budget *b);
/* With each turn of the loop, once the engine is ready. */
void budget_tick(struct budget *b, struct engine_thread *t, const struct load *l,
	const char *wanted, uint64_t now_ns);
/* How long the loop may sleep: ms, or -1. */
int budget_timeout_ms(const struct budget *b);
