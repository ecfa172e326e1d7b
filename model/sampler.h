/* SPDX-License-Identifier: MIT */
#pragma once

/* Sampling (NUMERICS rule 6): a pure function of logits, parameters, seed and position. */

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

struct sampler_params {
	float temperature; /* 0: the best logit, ties to the lower id */
	uint32_t top_k;    /* 0: all */
	float top_p;       /* 1: all */
	float min_p;       /* 0: all */
	uint64_t seed;
};

#define SAMPLER_DEFAULT ((struct sampler_params){ .temperature = 0.0f, .top_p = 1.0f })

/* 0, or -EINVAL where a parameter is out of range (NaN included). */
int sampler_check(const struct sampler_params *p);

/* Bytes of scratch for a vocabulary of n. */
size_t sampler_scratch(size_t n);

/*
 * Picks from logits[n] (not changed) for the token at `position`.  ret_logprob: natural logarithm of
 * the probability of the picked id under the unmodified logits (temperature 1, all candidates); NULL
 * where nobody wants it: it costs more than the likeliest token.
 * -EDOM where a logit is not finite.
 */
int sampler_pick(const struct sampler_params *p, const struct kernels *k, const float *logits,
	size_t n, uint64_t position, void *scratch, uint32_t *ret_id, float *ret_logprob);

/* The log-probability of a given id; -EDOM as above. */
int sampler_logprob(const struct kernels *k, const float *logits, size_t n, uint32_t id,
	float *ret);
