/* SPDX-License-Identifier: MIT */

/*
 * The plain policies give up exactly what they say; the forecast learns what comes again, keeps
 * what is wanted soon, never gives up what may not go, and gives the same answers every time.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "num.h"
#include "policy.h"

#define GROUPS 4u
#define EXPERTS 8u
#define CELLS (GROUPS * EXPERTS)

static const uint32_t experts[GROUPS] = {EXPERTS, EXPERTS, EXPERTS, EXPERTS};

static bool any(void *arg, uint32_t cell)
{
	return true;
}

static bool not_marked(void *arg, uint32_t cell)
{
	return !((const bool *)arg)[cell];
}

static struct policy *make(enum policy_kind kind, uint32_t classes)
{
	struct policy *p;

	assert_int_equal(policy_new(&p, &(struct policy_config){.kind = kind,
						.groups = GROUPS,
						.classes = classes,
						.experts = experts}),
		0);
	return p;
}

static void visit(struct policy *p, uint32_t group, uint32_t a, uint32_t b)
{
	const uint32_t choices[2] = {a, b};

	policy_visit(p, &(struct forecast_visit){.stream = FORECAST_DECODE,
				.group = group,
				.choices = choices,
				.rows = 1,
				.stride = 2,
				.k = 2});
}

static void test_order(void **state)
{
	struct policy *p = make(POLICY_LRU, 1);

	assert_int_equal(policy_victim(p, 0, any, NULL), -1);
	for (uint32_t i = 0; i < 4; i++) {
		policy_touch(p, i * EXPERTS);
		policy_insert(p, i * EXPERTS, 0);
	}
	assert_int_equal(policy_victim(p, 0, any, NULL), 0);
	policy_touch(p, 0);
	assert_int_equal(policy_victim(p, 0, any, NULL), EXPERTS);
	policy_remove(p, EXPERTS);
	assert_int_equal(policy_victim(p, 0, any, NULL), 2 * EXPERTS);
	policy_insert(p, 5, 0); /* never used: goes first */
	assert_int_equal(policy_victim(p, 0, any, NULL), 5);
	/* Cells and classes that are not there change nothing. */
	policy_insert(p, CELLS, 0);
	policy_insert(p, 6, 1);
	policy_touch(p, UINT32_MAX);
	policy_remove(p, CELLS);
	visit(p, GROUPS, 0, 1);
	assert_int_equal(policy_victim(p, 0, any, NULL), 5);
	assert_int_equal(policy_victim(p, 1, any, NULL), -1);
	assert_null(policy_free(p));
	assert_null(policy_free(NULL));
	assert_int_equal(
		policy_new(&p, &(struct policy_config){.groups = 1, .experts = experts}), -EINVAL);
}

static void test_classes(void **state)
{
	for (enum policy_kind kind = 0; kind < POLICY_KINDS; kind++) {
		struct policy *p = make(kind, 3);

		policy_insert(p, 3, 0);
		policy_insert(p, 12, 2);
		policy_insert(p, 20, 2);
		policy_touch(p, 12);
		visit(p, 1, 4, 4);
		assert_int_equal(policy_victim(p, 0, any, NULL), 3);
		assert_int_equal(policy_victim(p, 1, any, NULL), -1);
		assert_int_equal(policy_victim(p, 2, any, NULL), 20);
		policy_insert(p, 20, 1); /* of another size now */
		assert_int_equal(policy_victim(p, 1, any, NULL), 20);
		assert_int_equal(policy_victim(p, 2, any, NULL), 12);
		policy_free(p);
	}
}

/* Against times and numbers of uses in arrays. */
static void check_random(enum policy_kind kind)
{
	uint64_t used[CELLS] = {0}, times[CELLS] = {0}, now = 0;
	bool in[CELLS] = {false}, marked[CELLS] = {false};
	struct policy *p = make(kind, 1);

	srand(7);
	for (unsigned n = 0; n < 20000; n++) {
		uint32_t cell = (uint32_t)rand() % CELLS;
		int64_t expected = -1;

		switch (rand() % 5) {
		case 0:
			policy_insert(p, cell, 0);
			in[cell] = true;
			break;
		case 1:
		case 2:
			policy_touch(p, cell);
			used[cell] = ++now;
			times[cell]++;
			break;
		case 3:
			policy_remove(p, cell);
			in[cell] = false;
			break;
		default:
			marked[cell] = !marked[cell];
		}
		for (uint32_t i = 0; i < CELLS; i++) {
			bool fewer = expected >= 0 && times[i] < times[expected];
			bool equal = expected >= 0 && times[i] == times[expected];

			if (!in[i] || marked[i] ||
				(used[i] == 0 && expected >= 0 && used[expected] == 0))
				continue;
			if (kind == POLICY_LRU) {
				fewer = false;
				equal = true;
			}
			if (expected < 0 || fewer || (equal && used[i] < used[expected]))
				expected = i;
		}
		if (expected >= 0 && used[expected] == 0) {
			int64_t victim = policy_victim(p, 0, not_marked, marked);

			assert_true(victim >= 0 && used[victim] == 0 && in[victim]);
			continue;
		}
		assert_int_equal(policy_victim(p, 0, not_marked, marked), expected);
	}
	policy_free(p);
}

static void test_random(void **state)
{
	check_random(POLICY_LRU);
	check_random(POLICY_LFU);
}

/* Of two experts, the one that each token wants outlives the one that was wanted last. */
static void test_learns(void **state)
{
	struct policy *p = make(POLICY_FORECAST, 1);

	for (uint32_t t = 0; t < 30; t++)
		for (uint32_t g = 0; g < GROUPS; g++)
			visit(p, g, 1, t == 29 ? 7 : 2 + t % 2);
	policy_insert(p, 1, 0);
	policy_insert(p, 7, 0);
	policy_insert(p, 6, 0);
	assert_int_equal(policy_victim(p, 0, any, NULL), 6); /* never wanted */
	policy_remove(p, 6);
	assert_int_equal(policy_victim(p, 0, any, NULL), 7);
	policy_free(p);
}

/* Expert 5 follows 4, again and again: it is kept when 4 was there, and given up when it was not.
 */
static void test_follows(void **state)
{
	struct policy *p = make(POLICY_FORECAST, 1);

	for (uint32_t t = 0; t < 120; t++)
		for (uint32_t g = 0; g < GROUPS; g++)
			visit(p, g, t % 3, t % 3 + 3);
	/* The last token wanted 2 and 5: now 0 and 3 are due, then 1 and 4. */
	for (uint32_t x = 0; x < 6; x++)
		policy_insert(p, 3 * EXPERTS + x, 0);
	for (uint32_t i = 0; i < 2; i++) {
		int64_t victim = policy_victim(p, 0, any, NULL);

		assert_true(victim == 3 * EXPERTS + 2 || victim == 3 * EXPERTS + 5);
		policy_remove(p, (uint32_t)victim);
	}
	for (uint32_t i = 0; i < 2; i++) {
		int64_t victim = policy_victim(p, 0, any, NULL);

		assert_true(victim == 3 * EXPERTS + 1 || victim == 3 * EXPERTS + 4);
		policy_remove(p, (uint32_t)victim);
	}
	policy_free(p);
}

/*
 * Sixty sessions at once, more choices than are kept: the experts with high numbers count as much
 * as those with low ones.
 */
static void test_many_rows(void **state)
{
	static const uint32_t many[1] = {128};
	uint32_t choices[60];
	struct policy *p;
	unsigned low = 0;

	assert_int_equal(
		policy_new(&p, &(struct policy_config){.groups = 1, .classes = 1, .experts = many}),
		0);
	for (uint32_t t = 0; t < 40; t++) {
		for (uint32_t i = 0; i < 60; i++)
			choices[i] = 2 * i + 4; /* the even ones but for four */
		policy_visit(p, &(struct forecast_visit){.stream = FORECAST_DECODE,
					.choices = choices,
					.rows = 60,
					.stride = 1,
					.k = 1});
	}
	for (uint32_t x = 0; x < 128; x += 2)
		policy_insert(p, x, 0);
	for (unsigned i = 0; i < 34; i++) {
		int64_t victim = policy_victim(p, 0, any, NULL);

		if (i < 4)
			assert_true(victim < 4 || victim > 122);
		else
			low += victim < 64;
		policy_remove(p, (uint32_t)victim);
	}
	assert_in_range(low, 8, 22);
	policy_free(p);
}

/* Equal otherwise: the layer that comes last goes first. */
static void test_distance(void **state)
{
	struct policy *p = make(POLICY_FORECAST, 1);

	for (uint32_t t = 0; t < 10; t++)
		for (uint32_t g = 0; g < GROUPS; g++)
			visit(p, g, 1, 2);
	visit(p, 0, 1, 2);
	visit(p, 1, 1, 2);
	for (uint32_t g = 0; g < GROUPS; g++)
		policy_insert(p, g * EXPERTS + 1, 0);
	assert_int_equal(policy_victim(p, 0, any, NULL), 1 * EXPERTS + 1);
	policy_remove(p, 1 * EXPERTS + 1);
	assert_int_equal(policy_victim(p, 0, any, NULL), 0 * EXPERTS + 1);
	policy_remove(p, 0 * EXPERTS + 1);
	assert_int_equal(policy_victim(p, 0, any, NULL), 3 * EXPERTS + 1);
	policy_free(p);
}

/* Whatever is chosen, in whatever order: a victim is there and may go; twice the same victims. */
static void test_anything(void **state)
{
	struct policy *p[2] = {make(POLICY_FORECAST, 2), make(POLICY_FORECAST, 2)};
	bool in[CELLS] = {false}, marked[CELLS] = {false};
	uint32_t choices[80 * 3], class[CELLS] = {0};

	srand(9);
	for (unsigned n = 0; n < 4000; n++) {
		uint32_t cell = (uint32_t)rand() % CELLS;
		struct forecast_visit v = {.stream = (enum forecast_stream)(rand() % 2),
			.group = (uint32_t)rand() % GROUPS,
			.choices = choices,
			.rows = (uint32_t)rand() % (rand() % 4 ? 4 : 80),
			.stride = 3,
			.k = (uint32_t)rand() % 4,
			.aside = rand() % 2};
		int64_t victim[2];

		for (uint32_t i = 0; i < ARRAY_SIZE(choices); i++)
			choices[i] = rand() % 10 ? (uint32_t)rand() % (EXPERTS + 2) : UINT32_MAX;
		marked[(uint32_t)rand() % CELLS] = rand() % 2;
		for (unsigned i = 0; i < 2; i++) {
			policy_visit(p[i], &v);
			if (in[cell])
				policy_remove(p[i], cell);
			else
				policy_insert(p[i], cell, n % 2);
		}
		class[cell] = n % 2;
		in[cell] = !in[cell];
		for (uint32_t c = 0; c < 2; c++) {
			bool some = false;

			for (unsigned i = 0; i < 2; i++)
				victim[i] = policy_victim(p[i], c, not_marked, marked);
			assert_int_equal(victim[0], victim[1]);
			for (uint32_t i = 0; i < CELLS; i++)
				some |= in[i] && !marked[i] && class[i] == c;
			assert_int_equal(some, victim[0] >= 0);
			if (some)
				assert_true(in[victim[0]] && !marked[victim[0]] &&
					    class[victim[0]] == c);
		}
	}
	policy_free(p[0]);
	policy_free(p[1]);
}

/* What was learned goes over a restart; what is damaged does not. */
static void test_state(void **state)
{
	struct policy *p = make(POLICY_FORECAST, 1), *q = make(POLICY_FORECAST, 1), *lru;
	size_t n = policy_state_size(p), bits = (CELLS + 7) / 8;
	unsigned char *bytes = malloc(n), *again = malloc(n);
	float bad = 2.0f;

	assert_non_null(bytes);
	assert_non_null(again);
	for (uint32_t t = 0; t < 50; t++)
		for (uint32_t g = 0; g < GROUPS; g++)
			visit(p, g, 1, 2 + t % 5);
	policy_insert(p, 1, 0);
	policy_insert(p, 9, 0);
	policy_get(p, bytes);
	assert_int_equal(policy_set(q, bytes, n), 0);
	for (uint32_t i = 0; i < CELLS; i++)
		assert_int_equal(policy_was_in(q, i), i == 1 || i == 9);
	assert_false(policy_was_in(q, CELLS));
	policy_insert(q, 1, 0);
	policy_insert(q, 9, 0);
	policy_get(q, again);
	assert_memory_equal(bytes, again, n);
	/* It is used: 7 was never wanted, 1 always. */
	policy_insert(q, 7, 0);
	assert_int_equal(policy_victim(q, 0, any, NULL), 7);

	assert_int_equal(policy_set(q, bytes, n - 1), -EINVAL);
	bytes[0] ^= 1; /* groups */
	assert_int_equal(policy_set(q, bytes, n), -EINVAL);
	bytes[0] ^= 1;
	memcpy(bytes + n - bits - 2 * sizeof bad, &bad, sizeof bad); /* a frequency */
	assert_int_equal(policy_set(q, bytes, n), -EINVAL);
	memset(bytes, 0xff, n);
	assert_int_equal(policy_set(q, bytes, n), -EINVAL);
	policy_get(q, bytes);
	assert_memory_equal(bytes, again, n - bits); /* nothing changed */

	lru = make(POLICY_LRU, 1);
	assert_int_equal(policy_state_size(lru), bits);
	assert_int_equal(policy_set(lru, bytes + n - bits, bits), 0);
	assert_true(policy_was_in(lru, 1) && !policy_was_in(lru, 2));
	policy_free(lru);
	policy_free(p);
	policy_free(q);
	free(bytes);
	free(again);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_learns),
		cmocka_unit_test(test_follows),
		cmocka_unit_test(test_many_rows),
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_anything),
		cmocka_unit_test(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
