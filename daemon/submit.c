/* SPDX-License-Identifier: MIT */
#include "submit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "limit.h"
#include "num.h"

int submit_new(
	struct submit **ret, uint64_t wire_id, const struct wire_submit *head, struct error *err)
{
	struct submit *s;
	struct sampler_params params = {.temperature = head->temperature,
		.top_k = head->top_k,
		.top_p = head->top_p,
		.min_p = head->min_p,
		.seed = head->seed};

	if (head->reserved || head->reserved2[0] || head->reserved2[1] ||
		head->flags & ~WIRE_SUBMIT_FLAGS || head->mode < WIRE_MODE_TEXT ||
		head->mode > WIRE_MODE_IDS)
		return -EPROTO;
	if (sampler_check(&params) < 0)
		return error_set(err, -EINVAL, "the sampling parameters are out of range");
	s = calloc(1, sizeof *s);
	if (!s)
		return error_errno(err, -ENOMEM, "no memory for the request");
	s->wire_id = wire_id;
	s->head = *head;
	list_init(&s->link);
	*ret = s;
	return 0;
}

uint64_t submit_heap(const struct submit *s)
{
	return sizeof *s + s->room_text + s->room_ids;
}

struct submit *submit_free(struct submit *s)
{
	if (!s)
		return NULL;
	list_remove(&s->link);
	for (size_t i = 0; i < s->n_stops; ++i)
		free(s->stops[i]);
	free(s->text);
	free(s->ids);
	free(s);
	return NULL;
}

/* Room for n more bytes in a growing buffer; doubling, so that many pieces cost little. */
static int submit_grow(void **buffer, size_t *room, size_t used, size_t n)
{
	size_t want = num_max(used + n, *room + *room / 2);
	void *p;

	if (used + n <= *room)
		return 0;
	p = realloc(*buffer, want);
	if (!p)
		return -ENOMEM;
	*buffer = p;
	*room = want;
	return 0;
}

static int submit_text(struct submit *s, const void *bytes, size_t n, const struct load *load,
	uint64_t most, struct error *err)
{
	if (s->head.mode == WIRE_MODE_IDS || (s->head.mode == WIRE_MODE_CHAT && !s->n_turns))
		return -EPROTO;
	if (n > most - num_min((uint64_t)s->n_text, most))
		return error_set(err, -E2BIG,
			"the prompt is longer than %llu bytes: the context is %u tokens",
			(unsigned long long)most, load->context);
	if (submit_grow((void **)&s->text, &s->room_text, s->n_text, n) < 0)
		return error_errno(err, -ENOMEM, "no memory for the prompt");
	if (n)
		memcpy(s->text + s->n_text, bytes, n);
	s->n_text += n;
	return 0;
}

static int submit_ids(
	struct submit *s, const void *bytes, size_t n, const struct load *load, struct error *err)
{
	size_t count = n / sizeof(uint32_t);

	if (s->head.mode != WIRE_MODE_IDS || n % sizeof(uint32_t))
		return -EPROTO;
	if (count > load->context - num_min(s->n_ids, (size_t)load->context))
		return error_set(err, -E2BIG, "the prompt is longer than the context of %u tokens",
			load->context);
	if (submit_grow((void **)&s->ids, &s->room_ids, s->n_ids * sizeof *s->ids, n) < 0)
		return error_errno(err, -ENOMEM, "no memory for the prompt");
	if (n)
		memcpy(s->ids + s->n_ids, bytes, n);
	for (size_t i = s->n_ids; i < s->n_ids + count; ++i)
		if (s->ids[i] >= load->desc->vocabulary)
			return error_set(err, -EINVAL, "the id %u is none of the vocabulary of %u",
				s->ids[i], load->desc->vocabulary);
	s->n_ids += count;
	return 0;
}

static int submit_turn(struct submit *s, const void *bytes, size_t n, struct error *err)
{
	static const char *const roles[] = {"system", "user", "assistant"};

	if (s->head.mode != WIRE_MODE_CHAT)
		return -EPROTO;
	if (s->n_turns == LIMIT_TURNS)
		return error_set(
			err, -E2BIG, "the conversation has more than %u turns", LIMIT_TURNS);
	for (size_t i = 0; i < ARRAY_SIZE(roles); ++i) {
		if (strlen(roles[i]) != n || memcmp(roles[i], bytes, n))
			continue;
		memcpy(s->turns[s->n_turns].role, bytes, n);
		s->turns[s->n_turns].role[n] = 0;
		s->turns[s->n_turns++].begin = s->n_text;
		return 0;
	}
	return error_set(err, -EINVAL, "a turn is of 'system', 'user' or 'assistant'");
}

static int submit_stop(struct submit *s, const void *bytes, size_t n, struct error *err)
{
	if (!n || n > LIMIT_STOP_LENGTH)
		return error_set(
			err, -EINVAL, "a stop string has 1 to %u bytes", LIMIT_STOP_LENGTH);
	if (s->n_stops == LIMIT_STOPS)
		return error_set(err, -E2BIG, "there are more than %u stop strings", LIMIT_STOPS);
	s->stops[s->n_stops] = malloc(n);
	if (!s->stops[s->n_stops])
		return error_errno(err, -ENOMEM, "no memory for a stop string");
	memcpy(s->stops[s->n_stops], bytes, n);
	s->stop_sizes[s->n_stops++] = n;
	return 0;
}

int submit_data(struct submit *s, const struct wire_data *head, const void *bytes, size_t n,
	const struct load *load, uint64_t prompt_max, struct error *err)
{
	if (head->reserved)
		return -EPROTO;
	switch (head->kind) {
	case WIRE_DATA_TURN:
		return submit_turn(s, bytes, n, err);
	case WIRE_DATA_TEXT:
		return submit_text(s, bytes, n, load, prompt_max, err);
	case WIRE_DATA_IDS:
		return submit_ids(s, bytes, n, load, err);
	case WIRE_DATA_STOP:
		return submit_stop(s, bytes, n, err);
	default:
		return -EPROTO;
	}
}

static int submit_tokenize(
	struct submit *s, const struct load *load, struct tokenizer_ids *ids, struct error *err)
{
	struct chat_turn *turns;
	int r;

	if (s->head.mode == WIRE_MODE_IDS) {
		*ids = (struct tokenizer_ids){.ids = s->ids, .n = s->n_ids};
		s->ids = NULL;
		return 0;
	}
	if (s->head.mode == WIRE_MODE_TEXT)
		return tokenizer_append(load->tokenizer, ids, s->text ? s->text : "", s->n_text,
			TOKENIZER_ADD_SPECIAL);
	turns = calloc(num_max(s->n_turns, (size_t)1), sizeof *turns);
	if (!turns)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_turns; ++i) {
		size_t end = i + 1 < s->n_turns ? s->turns[i + 1].begin : s->n_text;

		turns[i] = (struct chat_turn){.role = s->turns[i].role,
			.text = s->text ? s->text + s->turns[i].begin : "",
			.size = end - s->turns[i].begin};
	}
	r = chat_render(load->chat, turns, s->n_turns, ids, err);
	free(turns);
	return r;
}

static struct request *submit_request(struct submit *s, const struct load *load)
{
	static const uint32_t flags[][2] = {
		{WIRE_SUBMIT_LOGPROBS, REQUEST_LOGPROBS},
		{WIRE_SUBMIT_LOGITS, REQUEST_LOGITS},
		{WIRE_SUBMIT_SCORE, REQUEST_SCORE},
		{WIRE_SUBMIT_IGNORE_EOS, REQUEST_IGNORE_END},
		{WIRE_SUBMIT_ROUTES, REQUEST_ROUTES},
	};
	uint32_t wanted = 0;
	struct request *r;

	for (size_t i = 0; i < ARRAY_SIZE(flags); ++i)
		if (s->head.flags & flags[i][0])
			wanted |= flags[i][1];
	r = request_new(wanted, load->desc->vocabulary);
	if (!r)
		return NULL;
	r->sampling = (struct sampler_params){.temperature = s->head.temperature,
		.top_k = s->head.top_k,
		.top_p = s->head.top_p,
		.min_p = s->head.min_p,
		.seed = s->head.seed};
	for (size_t i = 0; i < s->n_stops; ++i)
		r->stops[i] = (struct answer_stop){s->stops[i], s->stop_sizes[i]};
	r->n_stops = (uint32_t)s->n_stops;
	s->n_stops = 0;
	r->wire_id = s->wire_id;
	r->submit_ns = clock_now();
	return r;
}

int submit_finish(struct submit *s, const struct load *load, uint64_t max_tokens,
	struct request **ret, struct error *err)
{
	struct tokenizer_ids ids = {0};
	struct request *r;
	int k = submit_tokenize(s, load, &ids, err);

	if (k >= 0 && !ids.n)
		k = error_set(err, -EINVAL, "the prompt is empty");
	if (k >= 0 && ids.n > load->context)
		k = error_set(err, -E2BIG,
			"the prompt has %zu tokens, the context %u: shorten it, or raise "
			"memory.limit or context",
			ids.n, load->context);
	if (k < 0) {
		free(ids.ids);
		return error_errno(err, k, "cannot take the prompt");
	}
	r = submit_request(s, load);
	if (!r) {
		free(ids.ids);
		return error_errno(err, -ENOMEM, "no memory for the request");
	}
	r->tokens = ids.ids;
	r->n_prompt = (uint32_t)ids.n;
	r->max_tokens = s->head.max_tokens;
	if (max_tokens && (!r->max_tokens || r->max_tokens > max_tokens))
		r->max_tokens = (uint32_t)max_tokens;
	*ret = r;
	return 0;
}
