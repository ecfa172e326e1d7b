/* SPDX-License-Identifier: MIT */
#include "fake-engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include <cmocka.h>

#include "tokenizer.h"

struct engine_seq {
	uint32_t length, reserved;
	uint32_t tokens[2 * FAKE_CONTEXT];
};

uint32_t fake_next(const uint32_t *tokens, uint32_t n)
{
	uint32_t h = 2166136261u;

	for (uint32_t i = 0; i < n; ++i)
		h = (h ^ tokens[i]) * 16777619u;
	/* The last ids are kept for tests. */
	return (h >> 8) % (FAKE_VOCABULARY - 4);
}

int engine_seq_new(struct engine *e, struct engine_seq **ret)
{
	if (e->seqs == e->seqs_max)
		return -ENOBUFS;
	*ret = calloc(1, sizeof **ret);
	assert_non_null(*ret);
	++e->seqs;
	return 0;
}

struct engine_seq *engine_seq_free(struct engine *e, struct engine_seq *s)
{
	if (s) {
		e->free += s->reserved;
		--e->seqs;
	}
	free(s);
	return NULL;
}

uint32_t engine_seq_length(const struct engine_seq *s)
{
	return s->length;
}

static bool is_under_way(struct engine *e, const struct engine_seq *s)
{
	for (int c = 0; c < ENGINE_CONTEXTS; ++c)
		for (size_t i = 0; e->context[c].running && i < e->context[c].n; ++i)
			if (e->context[c].rows[i].seq == s)
				return true;
	return false;
}

int engine_seq_share(
	struct engine *e, struct engine_seq *s, const struct engine_seq *from, uint32_t n)
{
	assert_false(is_under_way(e, s));
	assert_true(n <= from->length);
	engine_seq_truncate(e, s, 0);
	/* Nothing is shared here: as if there were room for a copy, or none. */
	if (engine_seq_reserve(e, s, n) < 0)
		return -ENOMEM;
	memcpy(s->tokens, from->tokens, n * sizeof *s->tokens);
	s->length = n;
	++e->shared;
	return 0;
}

uint64_t engine_seq_block_bytes(const struct engine *e)
{
	return ENGINE_BLOCK * sizeof(uint32_t);
}

void engine_seq_read(const struct engine *e, const struct engine_seq *s, uint32_t n, uint64_t at,
	void *to, size_t size)
{
	assert_true(n <= s->length);
	memcpy(to, (const char *)s->tokens + at, size);
}

void engine_seq_write(
	struct engine *e, const struct engine_seq *s, uint64_t at, const void *from, size_t size)
{
	assert_true(at + size <= sizeof s->tokens);
	memcpy((char *)(uintptr_t)s->tokens + at, from, size);
}

void engine_seq_written(struct engine *e, struct engine_seq *s, uint32_t n)
{
	assert_int_equal(s->length, 0);
	assert_true(n <= s->reserved);
	s->length = n;
}

uint64_t engine_identity(const struct engine *e)
{
	return e->identity;
}

void engine_kv(const struct engine *e, uint32_t *ret_free, uint32_t *ret_all)
{
	*ret_free = e->free;
	*ret_all = e->all;
}

void engine_seq_truncate(struct engine *e, struct engine_seq *s, uint32_t n)
{
	assert_false(is_under_way(e, s));
	assert_true(n <= s->length);
	s->length = n;
	e->free += s->reserved - n;
	s->reserved = n;
}

int engine_seq_reserve(struct engine *e, struct engine_seq *s, uint32_t n)
{
	uint32_t more = s->length + n > s->reserved ? s->length + n - s->reserved : 0;

	if (more > e->free)
		return -ENOSPC;
	e->free -= more;
	s->reserved += more;
	return 0;
}

int engine_begin(struct engine *e, enum engine_context c, const struct engine_row *rows, size_t n,
	const struct engine_callbacks *callbacks)
{
	assert_false(e->context[c].running);
	assert_in_range(n, 1, e->rows_most[c]);
	for (size_t i = 0; i < n; ++i) {
		struct engine_seq *s = rows[i].seq;

		/* One context at a time, and in the live one a row each. */
		assert_false(is_under_way(e, s));
		for (size_t j = 0; c == ENGINE_LIVE && j < i; ++j)
			assert_ptr_not_equal(rows[j].seq, s);
		assert_true(s->length < s->reserved);
		e->context[c].at[i] = s->length;
		s->tokens[s->length++] = rows[i].token;
		e->context[c].rows[i] = rows[i];
	}
	e->context[c].n = n;
	e->context[c].tile = 0;
	e->context[c].callbacks = *callbacks;
	e->context[c].running = true;
	++e->steps[c];
	return 0;
}

static void row_route(struct engine *e, enum engine_context c, const struct engine_row *row)
{
	uint32_t experts[2] = {row->token % FAKE_EXPERTS, (row->token + 1) % FAKE_EXPERTS};
	const float weights[2] = {0.75f, 0.25f};

	for (uint32_t l = 0; l < FAKE_LAYERS; ++l)
		e->context[c].callbacks.on_route(row->arg, l, experts, weights, 2);
}

static void row_end(struct engine *e, enum engine_context c, size_t i)
{
	const struct engine_row row = e->context[c].rows[i];
	float logits[FAKE_VOCABULARY] = {0};

	if (!row.seq)
		return;
	if (row.want & ENGINE_WANT_ROUTES)
		row_route(e, c, &row);
	if (e->fail_token && row.token == e->fail_token) {
		e->context[c].callbacks.on_error(row.arg, -EIO, "an expert cannot be read");
		return;
	}
	if (!(row.want & ENGINE_WANT_LOGITS))
		return;
	logits[fake_next(row.seq->tokens, e->context[c].at[i] + 1)] = 9;
	e->context[c].callbacks.on_logits(row.arg, logits);
}

int engine_advance(struct engine *e, enum engine_context c)
{
	if (!e->context[c].running)
		return ENGINE_IDLE;
	if (++e->context[c].tile < e->tiles[c])
		return ENGINE_MORE;
	for (size_t i = 0; i < e->context[c].n; ++i)
		row_end(e, c, i);
	e->context[c].running = false;
	return ENGINE_IDLE;
}

void engine_drop(struct engine *e, struct engine_seq *s)
{
	for (int c = 0; c < ENGINE_CONTEXTS; ++c)
		for (size_t i = 0; i < e->context[c].n; ++i)
			if (e->context[c].rows[i].seq == s)
				e->context[c].rows[i].seq = NULL;
}

void engine_stats(const struct engine *e, struct engine_stats *ret)
{
	*ret = (struct engine_stats){.steps_live = e->steps[ENGINE_LIVE]};
}

bool engine_expert_is_here(const struct engine *e, uint32_t layer, uint32_t expert)
{
	return layer % 2;
}

const struct kernels *engine_kernels(const struct engine *e)
{
	return kernels_get(KERNELS_SCALAR);
}

int tokenizer_piece(const struct tokenizer *t, uint32_t id, bool first, bool special,
	const char **ret, size_t *ret_n)
{
	static char letters[FAKE_VOCABULARY];

	letters[id] = (char)(' ' + id);
	*ret = &letters[id];
	*ret_n = 1;
	return 0;
}

bool tokenizer_is_end(const struct tokenizer *t, uint32_t id)
{
	return id == FAKE_VOCABULARY - 1;
}
