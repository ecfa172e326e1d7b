/* SPDX-License-Identifier: MIT */

/* The pieces of a request: what breaks the protocol, what refuses the request, what is taken. */

#include "submit.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "num.h"

#define VOCABULARY 100u
#define CONTEXT 8u
#define PROMPT_MAX 64u

static struct desc desc = {.vocabulary = VOCABULARY};
static const struct load load = {.desc = &desc, .context = CONTEXT};

static struct wire_submit head_of(uint32_t mode)
{
	return (struct wire_submit){.mode = mode, .top_p = 1, .max_tokens = 5};
}

static struct submit *submit_of(uint32_t mode)
{
	struct wire_submit head = head_of(mode);
	struct submit *s;

	assert_int_equal(submit_new(&s, 7, &head, NULL), 0);
	assert_int_equal(s->wire_id, 7);
	return s;
}

static int data(struct submit *s, uint32_t kind, const void *bytes, size_t n)
{
	struct wire_data head = {.kind = kind};
	struct error err = ERROR_NONE;
	int r = submit_data(s, &head, bytes, n, &load, PROMPT_MAX, &err);

	/* Whoever is only refused is told why. */
	if (r < 0 && r != -EPROTO)
		assert_true(err.text[0]);
	return r;
}

static void test_head(void **state)
{
	struct wire_submit good = head_of(WIRE_MODE_IDS), bad;
	struct submit *s;

	for (uint32_t flag = 1; flag; flag <<= 1) {
		bad = good;
		bad.flags = flag;
		if (!(flag & WIRE_SUBMIT_FLAGS)) {
			assert_int_equal(submit_new(&s, 1, &bad, NULL), -EPROTO);
		} else {
			assert_int_equal(submit_new(&s, 1, &bad, NULL), 0);
			submit_free(s);
		}
	}
	for (uint32_t mode = 0; mode < 6; ++mode) {
		bad = good;
		bad.mode = mode;
		if (mode < 1 || mode > 3) {
			assert_int_equal(submit_new(&s, 1, &bad, NULL), -EPROTO);
		} else {
			assert_int_equal(submit_new(&s, 1, &bad, NULL), 0);
			submit_free(s);
		}
	}
	bad = good, bad.reserved = 1;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EPROTO);
	bad = good, bad.reserved2[0] = 1;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EPROTO);
	bad = good, bad.reserved2[1] = UINT64_C(1) << 63;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EPROTO);
	bad = good, bad.temperature = NAN;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EINVAL);
	bad = good, bad.temperature = -1;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EINVAL);
	bad = good, bad.top_p = 0;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EINVAL);
	bad = good, bad.min_p = 2;
	assert_int_equal(submit_new(&s, 1, &bad, NULL), -EINVAL);
}

static void test_ids(void **state)
{
	const uint32_t ids[] = {1, 2, 99, 0, 5, 6, 7, 8, 9}, huge = VOCABULARY;
	struct submit *s = submit_of(WIRE_MODE_IDS);
	struct error err = ERROR_NONE;
	struct request *r;

	assert_int_equal(data(s, WIRE_DATA_IDS, ids, 3), -EPROTO);
	assert_int_equal(data(s, WIRE_DATA_TEXT, "a", 1), -EPROTO);
	assert_int_equal(data(s, WIRE_DATA_TURN, "user", 4), -EPROTO);
	assert_int_equal(data(s, 0, "", 0), -EPROTO);
	assert_int_equal(data(s, 5, "", 0), -EPROTO);
	assert_int_equal(submit_finish(s, &load, 0, &r, &err), -EINVAL);
	submit_free(s);

	s = submit_of(WIRE_MODE_IDS);
	assert_int_equal(data(s, WIRE_DATA_IDS, ids, 12), 0);
	assert_int_equal(data(s, WIRE_DATA_IDS, ids + 3, 0), 0);
	assert_int_equal(data(s, WIRE_DATA_IDS, ids + 3, 20), 0);
	assert_int_equal(data(s, WIRE_DATA_IDS, ids + 8, 4), -E2BIG);
	assert_true(submit_heap(s) >= sizeof *s + 32);
	assert_int_equal(submit_finish(s, &load, 3, &r, &err), 0);
	assert_int_equal(r->n_prompt, 8);
	assert_memory_equal(r->tokens, ids, 32);
	/* The administrator's limit is the lower one. */
	assert_int_equal(r->max_tokens, 3);
	assert_int_equal(r->wire_id, 7);
	request_free(r);
	submit_free(s);

	s = submit_of(WIRE_MODE_IDS);
	assert_int_equal(data(s, WIRE_DATA_IDS, &huge, 4), -EINVAL);
	submit_free(s);
}

static void test_text(void **state)
{
	char text[PROMPT_MAX + 1] = {0};
	struct submit *s = submit_of(WIRE_MODE_TEXT);

	assert_int_equal(data(s, WIRE_DATA_IDS, "abcd", 4), -EPROTO);
	assert_int_equal(data(s, WIRE_DATA_TURN, "user", 4), -EPROTO);
	assert_int_equal(data(s, WIRE_DATA_TEXT, text, PROMPT_MAX + 1), -E2BIG);
	assert_int_equal(data(s, WIRE_DATA_TEXT, text, PROMPT_MAX - 1), 0);
	assert_int_equal(data(s, WIRE_DATA_TEXT, text, 1), 0);
	assert_int_equal(data(s, WIRE_DATA_TEXT, text, 0), 0);
	assert_int_equal(data(s, WIRE_DATA_TEXT, text, 1), -E2BIG);
	submit_free(s);
}

static void test_turns(void **state)
{
	struct submit *s = submit_of(WIRE_MODE_CHAT);

	/* Text belongs to a turn. */
	assert_int_equal(data(s, WIRE_DATA_TEXT, "a", 1), -EPROTO);
	assert_int_equal(data(s, WIRE_DATA_TURN, "root", 4), -EINVAL);
	assert_int_equal(data(s, WIRE_DATA_TURN, "user\0", 5), -EINVAL);
	assert_int_equal(data(s, WIRE_DATA_TURN, "", 0), -EINVAL);
	assert_int_equal(data(s, WIRE_DATA_TURN, "system", 6), 0);
	assert_int_equal(data(s, WIRE_DATA_TEXT, "ab", 2), 0);
	assert_int_equal(data(s, WIRE_DATA_TURN, "user", 4), 0);
	assert_int_equal(data(s, WIRE_DATA_TEXT, "c", 1), 0);
	assert_int_equal(s->n_turns, 2);
	assert_int_equal(s->turns[1].begin, 2);
	for (size_t i = 2; i < LIMIT_TURNS; ++i)
		assert_int_equal(data(s, WIRE_DATA_TURN, "assistant", 9), 0);
	assert_int_equal(data(s, WIRE_DATA_TURN, "user", 4), -E2BIG);
	submit_free(s);
}

static void test_stops(void **state)
{
	char stop[LIMIT_STOP_LENGTH + 1] = {1};
	struct submit *s = submit_of(WIRE_MODE_IDS);
	struct error err = ERROR_NONE;
	const uint32_t id = 1;
	struct request *r;

	assert_int_equal(data(s, WIRE_DATA_STOP, "", 0), -EINVAL);
	assert_int_equal(data(s, WIRE_DATA_STOP, stop, sizeof stop), -EINVAL);
	for (size_t i = 0; i < LIMIT_STOPS; ++i)
		assert_int_equal(data(s, WIRE_DATA_STOP, stop, LIMIT_STOP_LENGTH), 0);
	assert_int_equal(data(s, WIRE_DATA_STOP, stop, 1), -E2BIG);
	assert_int_equal(data(s, WIRE_DATA_IDS, &id, 4), 0);
	/* They go over to the request, and are freed once. */
	assert_int_equal(submit_finish(s, &load, 0, &r, &err), 0);
	submit_free(s);
	assert_int_equal(r->n_stops, LIMIT_STOPS);
	assert_int_equal(r->max_tokens, 5);
	request_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
