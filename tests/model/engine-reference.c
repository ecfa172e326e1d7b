/* SPDX-License-Identifier: MIT */

/* What the engine answers beside what the families' reference implementations answer. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine-case.h"
#include "engine-drive.h"

#define F32_ERROR 1e-4
/* Of 8-bit activations, at logits of a deviation of 2. */
#define MEAN_ERROR 0.02
#define SETTLED_ERROR 0.25
#define SAFE_LEAD 0.3 /* deviations */

static size_t tokens_compared;

struct sums {
	double worst, sum;
	size_t n, settled, rows, tokens;
};

/* Rows up to the first whose routing is near a tie. */
static void compare_logits(const struct engine_case *c, const struct case_prompt *p,
	const struct drive_answer *a, bool exact, struct sums *s)
{
	bool settled = true;

	s->rows += p->n;
	for (size_t i = 0; i < p->n && settled; i++) {
		settled = p->margin[i] >= (exact ? F32_ERROR : c->router_safe);
		for (size_t j = 0; j < c->vocabulary && settled; j++) {
			size_t at = i * c->vocabulary + j;
			double e = fabs((double)a->logits[at] - (double)p->logits[at]);

			s->worst = fmax(s->worst, e);
			s->sum += e;
			s->n++;
		}
		s->settled += settled;
	}
	/* Greedy tokens hang on all rows before. */
	for (size_t i = 0; i < a->n_tokens && settled; i++) {
		if (p->greedy_router[i] < (exact ? F32_ERROR : c->router_safe) ||
			p->greedy_margin[i] < (exact ? F32_ERROR : SAFE_LEAD * c->deviation))
			break;
		assert_int_equal(a->tokens[i], p->greedy[i]);
		s->tokens++;
	}
}

static void check_case(const char *name)
{
	struct drive_answer answers[DRIVE_TEXTS_MAX];
	struct drive_text texts[DRIVE_TEXTS_MAX];
	bool exact = strstr(name, "f32") != NULL;
	struct engine_case c;
	struct sums s = {0};
	struct drive d;

	engine_case_load(&c, name);
	assert_true(c.n_prompts <= DRIVE_TEXTS_MAX);
	for (size_t i = 0; i < c.n_prompts; i++)
		texts[i] = (struct drive_text){c.prompts[i].ids, c.prompts[i].n, SAMPLER_DEFAULT};
	drive_start(&d, &(struct drive_how){.path = c.path, .threads = 2});
	assert_int_equal(d.desc->vocabulary, c.vocabulary);
	drive_run(&d, texts, c.n_prompts, 8, true, 0, answers);
	for (size_t i = 0; i < c.n_prompts; i++) {
		assert_int_equal(answers[i].code, 0);
		compare_logits(&c, &c.prompts[i], &answers[i], exact, &s);
	}
	drive_stop(&d);
	drive_answers_free(answers, c.n_prompts);
	print_message("%s: largest error %.2g, mean %.2g, deviation %.2g; %zu of %zu rows settled; "
		      "%zu tokens compared\n",
		name, s.worst, s.sum / (double)s.n, c.deviation, s.settled, s.rows, s.tokens);
	assert_true(s.settled > s.rows / 2);
	assert_true(s.worst < (exact ? F32_ERROR : SETTLED_ERROR * c.deviation / 2));
	assert_true(s.sum / (double)s.n < (exact ? F32_ERROR : MEAN_ERROR * c.deviation));
	tokens_compared += s.tokens;
	engine_case_free(&c);
}

static void test_llama(void **state)
{
	(void)state;
	check_case("llama-q8_0");
}

static void test_mixtral(void **state)
{
	(void)state;
	check_case("mixtral-f32");
}

static void test_olmoe(void **state)
{
	(void)state;
	check_case("olmoe-q5_0");
}

static void test_qwen3moe(void **state)
{
	(void)state;
	check_case("qwen3moe-q4_k");
}

static void test_yarn(void **state)
{
	(void)state;
	check_case("qwen3moe-yarn-f32");
}

/* The margins are not so small everywhere that nothing was compared. */
static void test_tokens(void **state)
{
	(void)state;
	assert_true(tokens_compared > 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_llama),
		cmocka_unit_test(test_mixtral),
		cmocka_unit_test(test_olmoe),
		cmocka_unit_test(test_qwen3moe),
		cmocka_unit_test(test_yarn),
		cmocka_unit_test(test_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
