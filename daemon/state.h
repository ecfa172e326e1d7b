/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The state directory: a lock, so that two daemons do not share it, the totals of all runs, and the
 * folder where the engine thread keeps sessions.
 * Its contents are checked like everything from outside; what is damaged is set aside and said.
 * Loop thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct state_totals {
	uint64_t starts, requests, failed, prompt_tokens, generated_tokens, bytes_read;
};

struct state {
	int folder;		    /* locked */
	int sessions;		    /* folder in it for their files; -1: there is none */
	struct state_totals before; /* of earlier runs */
};

/* Makes the folder where only it is missing.  0 or -errno with *err. */
int state_init(struct state *s, const char *path, struct error *err);
/*
 * The folder of state files, made where it is missing; keep: else it is emptied, and -1.  Where
 * that fails, -errno with *err: nothing goes to disk then.
 */
int state_sessions(struct state *s, bool keep, struct error *err);
/* Replaces the file as a whole.  0 or -errno with *err. */
int state_save(const struct state *s, const struct state_totals *totals, struct error *err);
void state_deinit(struct state *s);
