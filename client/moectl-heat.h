/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A map of layers x experts: what is counted, how even it is, and how it is drawn.  Pure but for
 * the stream that is drawn to.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <jansson.h>

struct heat {
	uint32_t rows, experts, top_k; /* rows: layers that have experts */
	uint32_t *layers;	       /* [rows] */
	uint64_t *uses;		       /* [rows][experts] */
	double *weights;
	uint8_t *resident; /* NULL: not known */
	uint64_t tokens;
	char title[320];
};

/* Squared coefficients of variation, variance / mean^2 (Shazeer 2017); 0 where nothing is used. */
struct evenness {
	double load, importance; /* of uses, of sums of router weights */
	uint32_t used, resident; /* experts */
};

/* -ENOMEM or 0. */
int heat_init(struct heat *h, uint32_t rows, uint32_t experts, uint32_t top_k);
void heat_deinit(struct heat *h);
/* Of `rows` rows from `row` on, taken as one. */
void heat_evenness(const struct heat *h, uint32_t row, uint32_t rows, struct evenness *ret);

/* What two maps of one shape share, from 0 to 1, of rows taken together. */
struct overlap {
	double jaccard;	 /* of the sets of experts used */
	double weighted; /* sum of the lesser by sum of the greater shares of the router weights */
};
void heat_overlap(const struct heat *a, const struct heat *b, uint32_t row, uint32_t rows,
	struct overlap *ret);

/* The map as JSON; NULL: out of memory. */
json_t *heat_json(const struct heat *h, const uint64_t *expert_bytes);
json_t *overlap_json(const struct heat *a, const struct heat *b);

/* In so many columns; colours, or characters. */
void heat_print(const struct heat *h, FILE *f, unsigned columns, bool colours);
void overlap_print(const struct heat *a, const struct heat *b, FILE *f);
/* b: NULL, or the second of two. */
void heat_svg(const struct heat *a, const struct heat *b, FILE *f);
