/* SPDX-License-Identifier: MIT */
#include "sampler.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "limit.h"

#define DIGIT_BITS 8u /* divides 32 in an even number of digits */
#define DIGITS (1u << DIGIT_BITS)
#define SIGN UINT32_C(0x80000000)

struct candidate {
	float logit; /* then its probability */
	uint32_t id;
};

int sampler_check(const struct sampler_params *p)
{
	/* Written so that NaN fails. */
	if (!(p->temperature >= 0.0f && p->temperature <= 100.0f))
		return -EINVAL;
	if (!(p->top_p > 0.0f && p->top_p <= 1.0f) || !(p->min_p >= 0.0f && p->min_p <= 1.0f))
		return -EINVAL;
	return 0;
}

size_t sampler_scratch(size_t n)
{
	return 2 * n * sizeof(struct candidate);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* In [0, 1), 24 bits: a function of (seed, position) only, so that a resumed session goes on. */
static float draw(uint64_t seed, uint64_t position)
{
	uint64_t key = mix(seed + UINT64_C(0x9e3779b97f4a7c15));
	uint64_t bits = mix(key + (position + 1) * UINT64_C(0x9e3779b97f4a7c15));

	return (float)(bits >> 40) * 0x1p-24f;
}

static bool is_better(const struct candidate *a, const struct candidate *b)
{
	return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* Ascending keys are descending logits; both zeros are one. */
static uint32_t key_of(const struct candidate *c)
{
	float x = c->logit + 0.0f;
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	return bits & SIGN ? bits : ~bits & ~SIGN;
}

/*
 * Best first, of candidates with ascending ids: a stable sort by digits of the key, so that a whole
 * vocabulary takes a millisecond or two.
 */
static void sort_digits(struct candidate *c, struct candidate *other, size_t n)
{
	for (unsigned shift = 0; shift < 32; shift += DIGIT_BITS) {
		struct candidate *t = c;
		size_t at[DIGITS] = {0}, sum = 0;

		for (size_t i = 0; i < n; i++)
			at[key_of(&c[i]) >> shift & (DIGITS - 1)]++;
		for (size_t i = 0; i < DIGITS; i++) {
			size_t here = at[i];

			at[i] = sum;
			sum += here;
		}
		for (size_t i = 0; i < n; i++)
			other[at[key_of(&c[i]) >> shift & (DIGITS - 1)]++] = c[i];
		c = other;
		other = t;
	}
}

static int compare(const void *a, const void *b)
{
	return is_better(a, b) ? -1 : 1;
}

/* Moves the k best to the front, in no order: quickselect over a total order. */
static void select_best(struct candidate *c, size_t n, size_t k)
{
	size_t lo = 0, hi = n;

	while (hi - lo > 1 && k > lo && k < hi) {
		/* Never the last one, so that both halves are smaller. */
		struct candidate pivot = c[lo + (hi - lo - 1) / 2];
		size_t i = lo, j = hi - 1;

		for (;;) {
			struct candidate t;

			while (is_better(&c[i], &pivot))
				i++;
			while (is_better(&pivot, &c[j]))
				j--;
			if (i >= j)
				break;
			t = c[i];
			c[i++] = c[j];
			c[j--] = t;
		}
		/* [lo, j] holds none worse than any of (j, hi). */
		if (k <= j + 1)
			hi = j + 1;
		else
			lo = j + 1;
	}
}

#define LANES 8u
#define STRETCH 1024u /* a multiple of LANES */

/* Of a multiple of LANES numbers; side by side, since one comparison does not wait for another. */
static float max_of(const float *x, size_t n)
{
	float max[LANES];

	memcpy(max, x, sizeof max);
	for (size_t i = LANES; i < n; i += LANES) {
		for (size_t j = 0; j < LANES; j++)
			max[j] = x[i + j] > max[j] ? x[i + j] : max[j];
	}
	for (size_t j = 1; j < LANES; j++)
		max[0] = max[j] > max[0] ? max[j] : max[0];
	return max[0];
}

/* The first of the greatest: only stretches that have a greater one are looked through for it. */
static uint32_t argmax(const float *logits, size_t n)
{
	size_t best = 0, at = 0;

	for (; at + STRETCH <= n; at += STRETCH) {
		float max = max_of(logits + at, STRETCH);
		size_t i = at;

		if (at > 0 && !(max > logits[best]))
			continue;
		while (logits[i] != max)
			i++;
		best = i;
	}
	for (; at < n; at++) {
		if (logits[at] > logits[best])
			best = at;
	}
	return (uint32_t)best;
}

/* The sorted candidates that top-p and min-p leave; c[i].logit becomes a weight.  Their sum too. */
static size_t cut(const struct sampler_params *p, struct candidate *c, size_t n, float *ret_sum)
{
	float best = c[0].logit, all = 0.0f, sum = 0.0f;
	size_t m;

	for (size_t i = 0; i < n; i++) {
		c[i].logit = kernels_exp((c[i].logit - best) / p->temperature);
		all += c[i].logit;
	}
	for (m = 0; m < n; m++) {
		if (m > 0 && (sum >= p->top_p * all || c[m].logit < p->min_p))
			break;
		sum += c[m].logit;
	}
	*ret_sum = sum;
	return m;
}

/*
 * Weights are added best first, from 1 on, so that one below half a unit in the last place of 1, as
 * exp(-17.4) is, changes no sum and is never picked: a peaked vocabulary is mostly not sorted.
 */
#define NEGLIGIBLE 19.0f

static uint32_t sample(const struct sampler_params *p, const float *logits, size_t n,
	uint64_t position, struct candidate *c)
{
	float least = logits[argmax(logits, n)] - NEGLIGIBLE * p->temperature, sum, at, upto = 0.0f;
	size_t m = 0, k;

	for (size_t i = 0; i < n; i++) {
		c[m] = (struct candidate){.logit = logits[i], .id = (uint32_t)i};
		m += logits[i] >= least;
	}
	n = m;
	k = p->top_k && p->top_k < n ? p->top_k : n;
	if (k < n) {
		select_best(c, n, k);
		qsort(c, k, sizeof *c, compare);
	} else
		sort_digits(c, c + n, n);
	m = cut(p, c, k, &sum);
	at = draw(p->seed, position) * sum;
	for (size_t i = 0; i < m; i++) {
		upto += c[i].logit;
		if (at < upto)
			return c[i].id;
	}
	return c[m - 1].id;
}

int sampler_logprob(const struct kernels *k, const float *logits, size_t n, uint32_t id, float *ret)
{
	float max, sum;

	if (id >= n)
		return -ERANGE;
	if (!k->is_finite(logits, n))
		return -EDOM;
	k->sum_exp(logits, n, &max, &sum);
	*ret = (logits[id] - max) - kernels_log(sum);
	return 0;
}

int sampler_pick(const struct sampler_params *p, const struct kernels *k, const float *logits,
	size_t n, uint64_t position, void *scratch, uint32_t *ret_id, float *ret_logprob)
{
	uint32_t id;
	int r;

	if (n == 0 || n > LIMIT_VOCABULARY)
		return -EINVAL;
	r = sampler_check(p);
	if (r < 0)
		return r;
	if (!k->is_finite(logits, n))
		return -EDOM;
	id = p->temperature > 0.0f ? sample(p, logits, n, position, scratch) : argmax(logits, n);
	if (ret_logprob) {
		r = sampler_logprob(k, logits, n, id, ret_logprob);
		if (r < 0)
			return r;
	}
	*ret_id = id;
	return 0;
}
