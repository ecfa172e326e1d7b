/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A routing trace: which experts the router chose, row by row, from a CSV as `moectl trace` records
 * it.  Not trusted: what is wrong is said with the number of its line.
 */

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* A layer's turn in a step: of one token in decode, of all tokens of a chunk in prefill. */
struct trace_visit {
	uint32_t group;
	bool decode;
	bool first; /* of its step */
	uint32_t rows;
	uint64_t row; /* the first of them */
};

struct trace {
	uint32_t groups, experts; /* experts of each group */
	uint32_t k;		  /* choices of a row, at most */
	uint64_t bytes[1024];	  /* of an expert of a group; 0: not said */
	struct trace_visit *visits;
	uint64_t n_visits;
	uint32_t *choices; /* [rows][k], best first; UINT32_MAX: none */
	uint64_t n_rows;
	uint64_t steps; /* of decode */
};

/* 0 or -errno with *err. */
int trace_load(struct trace *ret, const char *path, struct error *err);
void trace_deinit(struct trace *t);
