/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A case of tests/data/model: a model file, prompts, and what the family's reference implementation
 * answers.  Fails the test that calls where the files are not what they should be.
 */

#include <stddef.h>
#include <stdint.h>

struct case_prompt {
	uint32_t *ids;
	size_t n;
	const float *logits; /* [n][vocabulary] */
	double *margin;	     /* [n] smallest lead of the last chosen expert, over all layers */
	uint32_t *greedy;    /* [n_greedy] */
	double *greedy_margin;
	double *greedy_router; /* margin at the position that gives each token */
	size_t n_greedy;
};

struct engine_case {
	char path[512];
	const char *name;
	size_t vocabulary, n_prompts, rows;
	struct case_prompt *prompts;
	float *logits;
	double deviation;   /* of the logits */
	double router_safe; /* closer decisions may flip by rounding of activations */
};

void engine_case_load(struct engine_case *c, const char *name);
void engine_case_free(struct engine_case *c);
