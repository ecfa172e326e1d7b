/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the float kernels and the attention of all x86 tiers share (internal to kernels/x86):
 * included after a tier's vec.h.  Static functions only.
 */

#include <math.h>
#include "exp.h"
#include "kernels.h"

/* The steps of kernels_exp() in every lane, for x up to EXP_MAX; a NaN stays a NaN. */
static inline struct vec lanes_exp_low(struct vec x)
{
	struct vec n, r, p;

	x = vec_max(vec_set(EXP_MIN), x);
	n = vec_fma(x, vec_set(EXP_LOG2E), vec_set(EXP_ROUND));
	n = vec_sub(n, vec_set(EXP_ROUND));
	r = vec_fma(n, vec_set(-EXP_LN2_HIGH), x);
	r = vec_fma(n, vec_set(-EXP_LN2_LOW), r);
	p = vec_fma(vec_set(EXP_P4), r, vec_set(EXP_P3));
	p = vec_fma(p, r, vec_set(EXP_P2));
	p = vec_fma(p, r, vec_set(EXP_P1));
	p = vec_fma(p, r, vec_set(EXP_P0));
	p = vec_add(vec_fma(p, vec_mul(r, r), r), vec_set(1.0f));
	return vec_scale(p, n);
}

static inline struct vec lanes_exp(struct vec x)
{
	return lanes_exp_low(vec_min(vec_set(EXP_MAX), x));
}

/* How floats of a type come into lanes. */
enum lanes_type {
	LANES_F32,
	LANES_F16,
	LANES_BF16,
};

static inline struct vec lanes_load(enum lanes_type type, const void *p, size_t i)
{
	switch (type) {
	case LANES_F16:
		return vec_load_f16((const uint16_t *)p + i);
	case LANES_BF16:
		return vec_load_bf16((const uint16_t *)p + i);
	case LANES_F32:
		break;
	}
	return vec_load((const float *)p + i);
}

/* n < 16 of them; the other lanes are 0 and their memory is not touched. */
static inline struct vec lanes_load_part(enum lanes_type type, const void *p, size_t i, size_t n)
{
	switch (type) {
	case LANES_F16:
		return vec_load_f16_part((const uint16_t *)p + i, n);
	case LANES_BF16:
		return vec_load_bf16_part((const uint16_t *)p + i, n);
	case LANES_F32:
		break;
	}
	return vec_load_part((const float *)p + i, n);
}
