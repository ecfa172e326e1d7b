/* SPDX-License-Identifier: MIT */
#pragma once

/* What the files of the forecast share: its state.  Nobody else includes it. */

#include <stdbool.h>
#include <stdint.h>

#include "forecast.h"

enum feature {
	FEATURE_SHORT, /* logarithms of frequencies, as multiples of the layer's mean */
	FEATURE_MIDDLE,
	FEATURE_LONG,
	FEATURE_FOLLOWS, /* the same, among what followed similar tokens */
	FEATURE_AGE,	 /* logarithm of the visits since, as a multiple of the mean distance */
	FEATURE_ONE,
	FEATURES,
};

enum span {
	SPAN_SHORT,
	SPAN_MIDDLE,
	SPAN_LONG,
	SPANS,
};
struct group {
	uint32_t first, experts;
	uint32_t visits; /* so many, one for each row of a prompt */
	float mean;	 /* share of the experts that a visit wants */
};

/* What a token wanted in one layer. */
struct token {
	uint16_t n, choices[FORECAST_CHOICES];
};

struct stream {
	bool begun;
	uint32_t group; /* visited last */
	uint64_t first; /* token of its present step, */
	uint32_t rows;	/* of so many */
	/* Of its last token to each past one, by their place among the tokens. */
	float likeness[FORECAST_TOKENS];
};

struct forecast {
	uint32_t n_groups, n_cells;
	struct group *groups;
	uint32_t *last;		     /* [cells] the visit that wanted it last, 1 or more; 0: none */
	float *often;		     /* [cells][SPANS] */
	float *features;	     /* [cells][FEATURES] */
	float *chances, *scores;     /* [cells] */
	float *follows, *later;	     /* [largest group] of the group that is visited */
	uint8_t *wanted;	     /* the same */
	struct token *tokens;	     /* [FORECAST_TOKENS][n_groups] */
	uint64_t n_tokens;	     /* that ever were */
	enum forecast_stream newest; /* began a step last */
	struct stream streams[FORECAST_STREAMS];
	double weights[FEATURES], curvature[FEATURES][FEATURES], slope[FEATURES];
};

/* The scores of a group from what is known; f->follows and f->later are of that group, or empty. */
void forecast_rescore(struct forecast *f, const struct group *g);
