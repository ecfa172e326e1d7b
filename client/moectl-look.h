/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What top shows: the differences between two statuses of the daemon, as JSON, as a line, as a
 * screen.  Pure but for the stream that is written to.
 */

#include <stdint.h>
#include <stdio.h>
#include <jansson.h>

/* Parts of the engine thread's time. */
enum look_part {
	LOOK_EXPERTS, /* gate, up, down, sum */
	LOOK_ATTENTION,
	LOOK_ROUTER, /* and looking for experts */
	LOOK_HEAD,   /* output matrix, drawing tokens */
	LOOK_WAIT,   /* for reads */
	LOOK_OTHER,
	LOOK_IDLE,
	LOOK_PARTS,
};

struct look {
	double seconds;		/* between the two */
	double decode, prefill; /* tokens a second */
	double hit_rate;	/* -1: nothing was wanted */
	double wanted;
	double disk, useful;	  /* bytes a second */
	double share[LOOK_PARTS]; /* of the engine's time; 0 where it is not known */
	double pressure; /* share of 10 s in which some task lacked memory; -1: not known */
	const json_t *now, *before; /* statuses, borrowed; before may be NULL */
};

/* of: the status as it is; before: an older one of the same daemon, or NULL. */
void look_take(struct look *l, const json_t *before, const json_t *now, double seconds);

json_t *look_json(const struct look *l);
void look_header(FILE *f);
void look_line(const struct look *l, FILE *f);
/* Lines that end with '\n' and have at most so many columns, at most `rows` of them. */
void look_screen(const struct look *l, FILE *f, unsigned columns, unsigned rows);
