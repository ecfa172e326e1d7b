/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What trace and experts share: the shape of the daemon's model, and the choices of its routers
 * for a text, token by token.  Exit statuses; messages go to stderr.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "moectl.h"

struct shape {
	char name[256], arch[64]; /* the file's name; without blanks */
	uint32_t layers, experts, top_k, moe_layers;
	uint64_t *expert_bytes; /* [layers], 0: no experts there */
};

/* From the status.  EXIT_OK, or why not is said; a model without experts is refused. */
int shape_get(struct moe *m, struct shape *ret);
void shape_deinit(struct shape *s);

/* What a layer chose for a token; turn and position tell tokens apart. */
struct choice {
	float weight;
	uint16_t expert;
	uint8_t resident;
};

struct token {
	struct token *next;
	uint32_t turn, position;
	bool decode;
	uint32_t layers;	 /* that have come */
	struct choice choices[]; /* [layers][top_k] */
};

/* Puts tokens together, whose layers come interleaved with those of others. */
struct tokens {
	const struct shape *shape;
	/* Called with each that is complete; not 0 ends tokens_add() with that. */
	int (*done)(void *arg, const struct token *t);
	void *arg;
	struct token *buckets[1024], *unused;
};

/* 0, what done() said, or an exit status. */
int tokens_add(struct tokens *t, const struct moe_event *e);
void tokens_deinit(struct tokens *t);

/* Lets the daemon compute with the request and collects its routes.  An exit status. */
int routes_get(struct moe *m, const struct moe_request *r, struct tokens *t);
