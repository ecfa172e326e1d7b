/* SPDX-License-Identifier: MIT */

/* Lookups in the generated tables, and normal form C (Unicode Standard Annex 15). */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"
#include "unicode-data.h"
#include "unicode.h"
#include "utf8.h"

#define HANGUL_S 0xac00u
#define HANGUL_L 0x1100u
#define HANGUL_V 0x1161u
#define HANGUL_T 0x11a7u
#define HANGUL_LS 19u
#define HANGUL_VS 21u
#define HANGUL_TS 28u

static uint8_t run_value(const uint32_t *runs, size_t n, uint32_t c)
{
	size_t low = 0, high = n;

	if (c >= UTF8_BROKEN)
		return 0;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (runs[middle] >> 8 <= c)
			low = middle;
		else
			high = middle;
	}
	return runs[low] & 0xff;
}

uint8_t unicode_class(uint32_t c)
{
	if ((c | 32) - 'a' < 26)
		return UNICODE_LETTER | (c & 32 ? UNICODE_LOWER : UNICODE_UPPER);
	if (c == ' ')
		return UNICODE_SPACE;
	return run_value(unicode_class_runs, unicode_class_runs_n, c);
}

static uint8_t order(uint32_t c)
{
	return c < 0x300 ? 0 : run_value(unicode_order_runs, unicode_order_runs_n, c);
}

static const struct unicode_pair *find_decomposition(uint32_t c)
{
	size_t low = 0, high = unicode_decompose_pairs_n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (unicode_decompose_pairs[middle].c < c)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == unicode_decompose_pairs_n || unicode_decompose_pairs[low].c != c)
		return NULL;
	return &unicode_decompose_pairs[low];
}

static uint32_t compose(uint32_t a, uint32_t b)
{
	size_t low = 0, high = unicode_compose_order_n;
	const struct unicode_pair *p;

	if (a - HANGUL_L < HANGUL_LS && b - HANGUL_V < HANGUL_VS)
		return HANGUL_S + ((a - HANGUL_L) * HANGUL_VS + (b - HANGUL_V)) * HANGUL_TS;
	if (a - HANGUL_S < HANGUL_LS * HANGUL_VS * HANGUL_TS && (a - HANGUL_S) % HANGUL_TS == 0 &&
		b - HANGUL_T - 1 < HANGUL_TS - 1)
		return a + b - HANGUL_T;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		p = &unicode_decompose_pairs[unicode_compose_order[middle]];
		if (p->a < a || (p->a == a && p->b < b))
			low = middle + 1;
		else
			high = middle;
	}
	if (low == unicode_compose_order_n)
		return 0;
	p = &unicode_decompose_pairs[unicode_compose_order[low]];
	return p->a == a && p->b == b ? p->c : 0;
}

/* At most 4 code points come of one; every pair holds its rest in b and goes on in a. */
static size_t decompose(uint32_t c, uint32_t *out)
{
	uint32_t back[4];
	size_t n = 0, k = 0;

	if (c - HANGUL_S < HANGUL_LS * HANGUL_VS * HANGUL_TS) {
		uint32_t s = c - HANGUL_S;

		out[0] = HANGUL_L + s / (HANGUL_VS * HANGUL_TS);
		out[1] = HANGUL_V + s / HANGUL_TS % HANGUL_VS;
		out[2] = HANGUL_T + s % HANGUL_TS;
		return s % HANGUL_TS ? 3 : 2;
	}
	for (;;) {
		const struct unicode_pair *p = c < 0xc0 ? NULL : find_decomposition(c);

		if (!p || k == ARRAY_SIZE(back))
			break;
		if (p->b)
			back[k++] = p->b;
		c = p->a;
	}
	out[n++] = c;
	while (k) {
		/* The second halves of a few characters come apart once more (U+0344 for one). */
		const struct unicode_pair *p = find_decomposition(back[--k]);

		if (p && n + k + 2 <= 4) {
			out[n++] = p->a;
			if (p->b)
				out[n++] = p->b;
		} else {
			out[n++] = back[k];
		}
	}
	return n;
}

/* Stable sort of marks by their order: counting, so that a million marks take linear time. */
static void sort_marks(uint32_t *c, size_t n, uint32_t *spare)
{
	size_t count[257] = {0};

	if (n < 32) {
		for (size_t i = 1; i < n; i++) {
			uint32_t moved = c[i];
			size_t j = i;

			for (; j && order(c[j - 1]) > order(moved); j--)
				c[j] = c[j - 1];
			c[j] = moved;
		}
		return;
	}
	for (size_t i = 0; i < n; i++)
		count[order(c[i]) + 1]++;
	for (size_t i = 1; i < ARRAY_SIZE(count); i++)
		count[i] += count[i - 1];
	for (size_t i = 0; i < n; i++)
		spare[count[order(c[i])]++] = c[i];
	memcpy(c, spare, n * sizeof(*c));
}

static size_t compose_all(uint32_t *c, size_t n)
{
	size_t out = 0, starter = SIZE_MAX;
	uint8_t last = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t o = order(c[i]);
		uint32_t joined = 0;

		/* Blocked where something of the same or a higher order stands between. */
		if (starter != SIZE_MAX && (out == starter + 1 || (last && last < o)))
			joined = compose(c[starter], c[i]);
		if (joined) {
			c[starter] = joined;
			continue;
		}
		if (!o)
			starter = out;
		last = o;
		c[out++] = c[i];
	}
	return out;
}

struct growing {
	char *s;
	size_t n, room;
};

static int growing_reserve(struct growing *g, size_t n)
{
	size_t room = num_max(g->room * 2, g->n + n + 64);
	void *p;

	if (g->room - g->n >= n)
		return 0;
	p = realloc(g->s, room);
	if (!p)
		return -ENOMEM;
	g->s = p;
	g->room = room;
	return 0;
}

static int growing_add(struct growing *g, const char *s, size_t n)
{
	int r = growing_reserve(g, n);

	if (!r && n) {
		memcpy(g->s + g->n, s, n);
		g->n += n;
	}
	return r;
}

/*
 * The end of the characters that may change together: before the next one that no character before
 * it reaches.  *ret_clean: they are in normal form as they are.
 */
static size_t nfc_end(const char *text, size_t at, size_t n, bool *ret_clean)
{
	uint8_t last = 0;
	bool clean = true;

	for (bool first = true; at < n; first = false) {
		uint32_t c;
		unsigned k = utf8_decode(text + at, n - at, &c);
		uint8_t o = order(c);
		bool safe = c < 0x300 || !run_value(unicode_unsafe_runs, unicode_unsafe_runs_n, c);

		if (!first && !o && safe)
			break;
		clean &= safe && !(o && o < last);
		last = o;
		at += k;
	}
	*ret_clean = clean;
	return at;
}

/* Appends the normal form of such characters. */
static int nfc_add(struct growing *g, const char *text, size_t n)
{
	cleanup_free_ uint32_t *c = NULL, *spare = NULL;
	uint32_t one, few[4];
	size_t k = 0;
	int r;

	for (size_t at = 0; at < n;) {
		at += utf8_decode(text + at, n - at, &one);
		k += decompose(one, few);
	}
	c = reallocarray(NULL, k, sizeof(*c));
	spare = reallocarray(NULL, k, sizeof(*c));
	if (!c || !spare)
		return -ENOMEM;
	k = 0;
	for (size_t at = 0; at < n;) {
		at += utf8_decode(text + at, n - at, &one);
		k += decompose(one, c + k);
	}
	for (size_t i = 0; i < k;) {
		size_t begin = i++;

		if (!order(c[begin]))
			continue;
		while (i < k && order(c[i]))
			i++;
		sort_marks(c + begin, i - begin, spare);
	}
	k = compose_all(c, k);
	r = growing_reserve(g, 4 * k);
	for (size_t i = 0; !r && i < k; i++)
		g->n += utf8_encode(c[i], g->s + g->n);
	return r;
}

int unicode_nfc(const char *text, size_t n, char **ret, size_t *ret_n)
{
	struct growing g = {0};
	size_t copied = 0, end;
	int r = 0;

	for (size_t at = 0; !r && at < n; at = end) {
		bool clean;

		end = nfc_end(text, at, n, &clean);
		if (clean)
			continue;
		r = growing_add(&g, text + copied, at - copied);
		if (!r)
			r = nfc_add(&g, text + at, end - at);
		copied = end;
	}
	if (!r && !copied)
		return 0;
	if (!r)
		r = growing_add(&g, text + copied, n - copied);
	if (r < 0) {
		free(g.s);
		return r;
	}
	*ret = g.s;
	*ret_n = g.n;
	return 1;
}
