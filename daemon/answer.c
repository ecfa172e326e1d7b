/* SPDX-License-Identifier: MIT */
#include "answer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

/* What utf8_stream_push() may write beyond its input. */
#define ANSWER_UTF8_EXTRA 16u

void answer_init(struct answer *a, const struct answer_stop *stops, size_t n_stops)
{
	*a = (struct answer){.stops = stops, .n_stops = n_stops};
}

void answer_deinit(struct answer *a)
{
	free(a->text);
	*a = (struct answer){0};
}

static int answer_grow(struct answer *a, size_t n)
{
	uint64_t need;
	char *text;

	/* A broken byte becomes three. */
	if (!num_mul(n, 3, &need) || !num_add(need, a->n + ANSWER_UTF8_EXTRA, &need))
		return -ENOMEM;
	if (need <= a->room)
		return 0;
	need = num_max(need, (uint64_t)512);
	text = realloc(a->text, need);
	if (!text)
		return -ENOMEM;
	a->text = text;
	a->room = need;
	return 0;
}

/* Where the first complete stop string begins, or n. */
static size_t answer_find_stop(const struct answer *a)
{
	for (size_t at = a->ready; at < a->n; ++at)
		for (size_t i = 0; i < a->n_stops; ++i)
			if (a->stops[i].size <= a->n - at &&
				!memcmp(a->text + at, a->stops[i].text, a->stops[i].size))
				return at;
	return a->n;
}

/* Where the longest end that could still become a stop string begins, or n. */
static size_t answer_find_hold(const struct answer *a)
{
	for (size_t at = a->ready; at < a->n; ++at)
		for (size_t i = 0; i < a->n_stops; ++i)
			if (a->stops[i].size > a->n - at &&
				!memcmp(a->text + at, a->stops[i].text, a->n - at))
				return at;
	return a->n;
}

static int answer_add(struct answer *a, const char *bytes, size_t n, bool last)
{
	size_t stop;
	int r;

	r = answer_grow(a, n);
	if (r < 0)
		return r;
	a->n += utf8_stream_push(&a->utf8, bytes, n, last, a->text + a->n);
	stop = answer_find_stop(a);
	if (stop < a->n) {
		a->ready = a->n = stop;
		return 1;
	}
	a->ready = last ? a->n : answer_find_hold(a);
	return 0;
}

int answer_push(struct answer *a, const char *bytes, size_t n)
{
	return answer_add(a, bytes, n, false);
}

int answer_flush(struct answer *a)
{
	int r = answer_add(a, "", 0, true);

	return r < 0 ? r : 0;
}

void answer_take(struct answer *a, size_t n)
{
	n = num_min(n, a->ready);
	/* Nothing was pushed yet: there is no buffer to move. */
	if (!n)
		return;
	memmove(a->text, a->text + n, a->n - n);
	a->n -= n;
	a->ready -= n;
}
