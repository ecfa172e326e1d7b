/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How likely is each expert to be wanted when its layer comes next?  Learned from what the router
 * chose so far, and from nothing else: no I/O, no clock, no chance, so that a replay of the same
 * choices forecasts the same.  The policy asks; one thread.
 *
 * A forecast is a logistic regression on a handful of features of a (group, expert): how often it
 * was wanted, over three spans; how long ago the last time was; and what followed the past tokens
 * that resemble this one.  For the last, the choices of the past tokens are kept; while a token
 * goes through the layers, each past token is scored by how many of its choices it shares, those of
 * the last layers most, and the experts that were wanted one token later get its weight.  The
 * weights of the features begin as fitted to recorded traces, and are fitted on while decoding.
 *
 * Costs, for E experts of a layer and k choices: about 8 * E + 2 * FORECAST_TOKENS * k operations
 * when a layer is visited.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limit.h"

struct forecast;

/* Past tokens that the present one is compared with. */
#define FORECAST_TOKENS 128u
/* Choices of a token, or of those that are decoded together, that are kept for each layer. */
#define FORECAST_CHOICES 32u
/* Rows of a step that count; of more, the last. */
#define FORECAST_ROWS 64u
/* The same where others decode meanwhile: what is read in passing must not erase what they do. */
#define FORECAST_ROWS_ASIDE 4u

enum forecast_stream {
	FORECAST_DECODE,  /* the rows of a step are sessions, one token each */
	FORECAST_PREFILL, /* the rows of a step are the tokens of prompts, in order */
	FORECAST_STREAMS,
};

/* What the router chose for the rows of a step in one layer. */
struct forecast_visit {
	enum forecast_stream stream;
	uint32_t group;
	const uint32_t *choices; /* [rows][stride], k of each row */
	uint32_t rows, stride, k;
	bool aside; /* the rows of a prompt, while others decode */
};

/* 0 or -ENOMEM. */
int forecast_new(struct forecast **ret, uint32_t groups, const uint32_t *experts);
struct forecast *forecast_free(struct forecast *f);

/*
 * A layer's choices are known.  A new step of a stream begins where the group does not ascend.
 * Choices beyond the experts of the group are ignored.
 */
void forecast_visit(struct forecast *f, const struct forecast_visit *v);

/*
 * The logarithms of the probabilities, [group's first cell + expert]; those of a group change with
 * its visits.
 */
const float *forecast_scores(const struct forecast *f);

/*
 * What was learned, without the tokens themselves, as bytes: for a later run over the same groups.
 * forecast_set(): 0, or -EINVAL where the bytes are not what forecast_get() gives for these groups;
 * then nothing changed.
 */
size_t forecast_state_size(const struct forecast *f);
void forecast_get(const struct forecast *f, void *ret);
int forecast_set(struct forecast *f, const void *bytes, size_t n);
