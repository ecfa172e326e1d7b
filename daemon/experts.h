/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The counts of experts as JSON.  The engine's thread makes a copy, of which there is one at a
 * time; clients that ask meanwhile wait for the next, so that what they get is not older than their
 * question.  Loop thread.
 */

#include <stdbool.h>

#include "error.h"
#include "popularity.h"

struct client;
struct manager;

enum experts_wait {
	EXPERTS_NONE,
	EXPERTS_WANTED, /* for the next copy */
	EXPERTS_ASKED,	/* for the one that is being made */
};

struct experts {
	struct popularity copy; /* the engine's while `out` */
	bool out;
};

/* c->status will be the answer.  0 or -errno with *err. */
int experts_ask(struct client *c, struct error *err);
/* The copy is back. */
void experts_here(struct manager *m);
void experts_deinit(struct experts *e);
