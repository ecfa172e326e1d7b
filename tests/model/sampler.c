/* SPDX-License-Identifier: MIT */

/* The sampler: order, cuts, seeds, hostile parameters; every pick beside one by another way. */

#include "sampler.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels.h"

#define N 1000
#define LONG 4200

static const struct kernels *kernels;
static float logits[LONG];
static uint32_t ranks[LONG]; /* ids, best first */

static uint32_t random_of(uint32_t *x)
{
	*x = *x * 1664525 + 1013904223;
	return *x >> 8;
}

static int by_logit(const void *a, const void *b)
{
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;

	if (logits[i] != logits[j])
		return logits[i] > logits[j] ? -1 : 1;
	return i < j ? -1 : i > j;
}

/* Few distinct values, so that there are ties; both zeros among them. */
static void fill(size_t n, uint32_t seed, uint32_t values)
{
	for (size_t i = 0; i < n; i++) {
		logits[i] = (float)(random_of(&seed) % values) * 0.25f - 4.0f;
		if (logits[i] == 0.0f && random_of(&seed) % 2)
			logits[i] = -0.0f;
		ranks[i] = (uint32_t)i;
	}
	qsort(ranks, n, sizeof *ranks, by_logit);
}

static uint32_t pick(const struct sampler_params *p, size_t n, uint64_t position)
{
	void *scratch = malloc(sampler_scratch(n));
	float logprob;
	uint32_t id = UINT32_MAX;

	assert_non_null(scratch);
	assert_int_equal(sampler_check(p), 0);
	assert_int_equal(sampler_pick(p, kernels, logits, n, position, scratch, &id, &logprob), 0);
	free(scratch);
	assert_true(id < n && logprob <= 0.0f);
	return id;
}

static size_t rank_of(uint32_t id)
{
	size_t i = 0;

	while (ranks[i] != id)
		i++;
	return i;
}

static void test_best(void **state)
{
	(void)state;
	for (uint32_t seed = 0; seed < 50; seed++) {
		struct sampler_params p = SAMPLER_DEFAULT;
		size_t n = 1 + seed * 7;

		fill(n, seed, 5);
		assert_int_equal(pick(&p, n, seed), ranks[0]);
		p.temperature = 1.0f;
		p.top_k = 1;
		assert_int_equal(pick(&p, n, seed), ranks[0]);
		p.top_k = 0;
		p.top_p = 1e-6f;
		assert_int_equal(pick(&p, n, seed), ranks[0]);
		p.top_p = 1.0f;
		p.min_p = 1.0f;
		assert_true(logits[pick(&p, n, seed)] == logits[ranks[0]]);
	}
}

/* Longer than what is looked through at once, and around multiples of it: ties take the first. */
static void test_best_long(void **state)
{
	(void)state;
	for (size_t n = 1000; n <= LONG; n += n % 1024 < 3 || n % 1024 > 1020 ? 1 : 97) {
		for (uint32_t values = 1; values < 100000; values *= 9) {
			fill(n, (uint32_t)n, values);
			assert_int_equal(pick(&SAMPLER_DEFAULT, n, 0), ranks[0]);
		}
	}
}

/* Every length and every k, of values with many ties: the k best are those of a sort. */
static void test_top_k(void **state)
{
	(void)state;
	for (uint32_t n = 1; n < 40; n++) {
		for (uint32_t k = 1; k <= n + 1; k++) {
			struct sampler_params p = {.temperature = 50.0f, .top_k = k, .top_p = 1.0f};

			fill(n, n * 41 + k, 2 + n % 9);
			for (p.seed = 0; p.seed < 8; p.seed++)
				assert_true(rank_of(pick(&p, n, k)) < k);
		}
	}
}

/* Beside a sum in double over the sorted candidates: they differ where the draw hits an edge. */
static void test_way(void **state)
{
	unsigned differ = 0, count = 0;

	(void)state;
	for (uint32_t seed = 0; seed < 400; seed++) {
		struct sampler_params p = {.temperature = 0.3f + (float)(seed % 7) * 0.2f,
			.top_k = seed % 3 ? 0 : 30,
			.top_p = seed % 2 ? 0.8f : 1.0f,
			.min_p = seed % 5 ? 0.0f : 0.02f,
			.seed = seed};
		struct sampler_params wide = p;
		double all = 0, sum = 0;
		size_t k = p.top_k ? p.top_k : N, m = 0;

		fill(N, seed, 1000);
		for (size_t i = 0; i < k; i++)
			all += exp((double)(logits[ranks[i]] - logits[ranks[0]]) /
				   (double)p.temperature);
		for (; m < k && (m == 0 || sum < (double)p.top_p * all); m++) {
			double w = exp((double)(logits[ranks[m]] - logits[ranks[0]]) /
				       (double)p.temperature);

			if (w < (double)p.min_p)
				break;
			sum += w;
		}
		assert_true(rank_of(pick(&p, N, seed)) < m + 1);
		/* The cut is all that top-k as large as the vocabulary changes. */
		if (!wide.top_k) {
			wide.top_k = N;
			differ += pick(&wide, N, seed) != pick(&p, N, seed);
			count++;
		}
	}
	assert_true(count > 100);
	assert_int_equal(differ, 0);
}

static void test_seed(void **state)
{
	struct sampler_params p = {.temperature = 1.0f, .top_p = 1.0f, .seed = 3};
	unsigned same_seed = 0, other_position = 0, other_seed = 0;

	(void)state;
	fill(N, 1, 8);
	for (uint64_t i = 0; i < 50; i++) {
		struct sampler_params q = p;
		uint32_t id = pick(&p, N, i);

		q.seed = 4;
		same_seed += pick(&p, N, i) == id;
		other_position += pick(&p, N, i + 1000) == id;
		other_seed += pick(&q, N, i) == id;
	}
	assert_int_equal(same_seed, 50);
	assert_true(other_position < 10 && other_seed < 10);
}

/* Shares of 4000 draws beside the probabilities: four deviations. */
static void test_shares(void **state)
{
	struct sampler_params p = {.temperature = 2.0f, .top_p = 1.0f, .seed = 9};
	unsigned counts[6] = {0};
	double all = 0;

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		logits[i] = (float)i * 0.5f;
		all += exp((double)logits[i] / 2);
	}
	for (uint64_t i = 0; i < 4000; i++)
		counts[pick(&p, 6, i)]++;
	for (size_t i = 0; i < 6; i++) {
		double share = exp((double)logits[i] / 2) / all;

		assert_true(fabs(counts[i] - 4000 * share) < 4 * sqrt(4000 * share));
	}
}

/* What weighs nothing beside the best changes no draw, whether it is looked at or not. */
static void test_negligible(void **state)
{
	static const float gaps[] = {17.5f, 18.9f, 19.1f, 40.0f};

	(void)state;
	fill(N, 100, 4);
	for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++)
		for (uint64_t i = 0; i < 400; i++) {
			struct sampler_params p = {.temperature = 0.5f + (float)(i % 4),
				.top_p = i % 3 ? 1.0f : 0.99f,
				.top_k = i % 5 ? 0 : 150,
				.seed = g};
			float best = logits[0];
			uint32_t alone;

			for (size_t k = 1; k < 100; k++)
				best = fmaxf(best, logits[k]);
			for (size_t k = 100; k < N; k++)
				logits[k] = best - gaps[g] * p.temperature;
			alone = pick(&p, 100, i);
			assert_int_equal(pick(&p, N, i), alone);
		}
}

static void test_logprob(void **state)
{
	double sum = 0;

	(void)state;
	fill(N, 5, 30);
	for (uint32_t i = 0; i < N; i++) {
		float x;

		assert_int_equal(sampler_logprob(kernels, logits, N, i, &x), 0);
		sum += exp((double)x);
	}
	assert_true(fabs(sum - 1) < 1e-4);
	assert_int_equal(sampler_logprob(kernels, logits, N, N, &(float){0}), -ERANGE);
}

static void test_hostile(void **state)
{
	static const struct sampler_params bad[] = {
		{.temperature = -1.0f, .top_p = 1.0f},
		{.temperature = NAN, .top_p = 1.0f},
		{.temperature = INFINITY, .top_p = 1.0f},
		{.temperature = 101.0f, .top_p = 1.0f},
		{.top_p = 0.0f},
		{.top_p = 1.5f},
		{.top_p = NAN},
		{.top_p = 1.0f, .min_p = -0.1f},
		{.top_p = 1.0f, .min_p = 1.1f},
		{.top_p = 1.0f, .min_p = NAN},
	};
	struct sampler_params p = {.temperature = 1e-30f, .top_p = 1.0f};
	uint32_t id = 77;

	(void)state;
	fill(N, 2, 9);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(sampler_check(&bad[i]), -EINVAL);
		assert_int_equal(
			sampler_pick(&bad[i], kernels, logits, N, 0, NULL, &id, NULL), -EINVAL);
	}
	/* Differences that overflow when divided. */
	assert_true(logits[pick(&p, N, 0)] == logits[ranks[0]]);
	logits[500] = NAN;
	assert_int_equal(
		sampler_pick(&SAMPLER_DEFAULT, kernels, logits, N, 0, NULL, &id, NULL), -EDOM);
	logits[500] = INFINITY;
	assert_int_equal(
		sampler_pick(&SAMPLER_DEFAULT, kernels, logits, N, 0, NULL, &id, NULL), -EDOM);
	assert_int_equal(
		sampler_pick(&SAMPLER_DEFAULT, kernels, logits, 0, 0, NULL, &id, NULL), -EINVAL);
	assert_int_equal(id, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_best),
		cmocka_unit_test(test_best_long),
		cmocka_unit_test(test_top_k),
		cmocka_unit_test(test_way),
		cmocka_unit_test(test_seed),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_negligible),
		cmocka_unit_test(test_logprob),
		cmocka_unit_test(test_hostile),
	};

	if (kernels_init(&kernels) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
