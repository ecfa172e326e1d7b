/* SPDX-License-Identifier: MIT */

/*
 * Sentencepiece vocabularies ("llama"): characters as first symbols, joined by the score of what
 * comes out, bytes where no token fits.  The blank is stored as a blank: U+2581 of the file and of
 * the text become one.
 */

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"
#include "utf8.h"

#define SPM_TYPES (TOKEN_MASK(TOKEN_NORMAL) | TOKEN_MASK(TOKEN_USER))
#define SPM_FROZEN 0x80000000u /* of merge_symbol.id: a user-defined token, which joins nothing */

static const char spm_blank[3] = {(char)0xe2, (char)0x96, (char)0x81};

size_t spm_unescape(const char *s, size_t n, char *out)
{
	size_t size = 0;

	for (size_t at = 0; at < n;) {
		if (n - at >= 3 && !memcmp(s + at, spm_blank, 3)) {
			out[size++] = ' ';
			at += 3;
		} else {
			out[size++] = s[at++];
		}
	}
	return size;
}

int spm_load(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	static const char key[] = "tokenizer.ggml.scores";
	const unsigned char *scores;
	enum gguf_kind kind;
	uint64_t n;
	bool prefix = true;
	int r;

	r = gguf_get_array(g, key, &kind, &n, err);
	if (r < 0)
		return r;
	if (!r || kind != GGUF_F32 || n != t->n)
		return error_set(
			err, -EBADMSG, "%s is missing or is not %u numbers in float32", key, t->n);
	scores = gguf_array_data(g, key);
	t->ranks = tokenizer_alloc(t, n, sizeof(*t->ranks));
	if (!t->ranks)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->n; i++) {
		float score;
		uint32_t bits;

		memcpy(&score, scores + (size_t)i * 4, 4);
		if (isnan(score))
			return error_set(
				err, -EBADMSG, "%s: the score of token %u is not a number", key, i);
		/* Ascending order of these numbers is descending order of the scores. */
		score += 0.0f; /* -0 is 0 */
		memcpy(&bits, &score, 4);
		t->ranks[i] = bits & 0x80000000u ? bits : 0x7fffffffu - bits;
		if (t->types[i] == TOKEN_BYTE && token_length(t, i) == 1)
			t->byte_id[(unsigned char)t->blob[t->at[i]]] = i;
	}
	r = gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &prefix, err);
	if (r < 0)
		return r;
	t->space_prefix = prefix;
	t->add_bos = true;
	return 0;
}

static bool spm_pair(const struct merge *m, uint32_t a, uint32_t b, uint32_t *rank, uint32_t *id)
{
	size_t n = m->symbols[b].next - a;

	if (m->symbols[a].id != TOKEN_NONE && m->symbols[a].id & SPM_FROZEN)
		return false;
	if (m->symbols[b].id != TOKEN_NONE && m->symbols[b].id & SPM_FROZEN)
		return false;
	if (n > m->t->longest)
		return false;
	*id = tokenizer_lookup(m->t, m->text + a, n, SPM_TYPES);
	if (*id == TOKEN_NONE)
		return false;
	*rank = m->t->ranks[*id];
	return true;
}

static int push_bytes(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t id = t->byte_id[(unsigned char)s[i]];
		int r;

		/* Without byte tokens the whole character is one unknown token. */
		if (id == TOKEN_NONE)
			return t->unknown == TOKEN_NONE ? 0 : ids_push(ids, t->unknown);
		r = ids_push(ids, id);
		if (r < 0)
			return r;
	}
	return 0;
}

static void split(const struct tokenizer *t, struct merge *m)
{
	uint32_t before = MERGE_NONE;

	for (uint32_t i = 0; i < m->n;) {
		size_t size;
		uint32_t id, c;

		id = special_match(t, m->text + i, m->n - i, TOKEN_MASK(TOKEN_USER), &size);
		if (id != TOKEN_NONE) {
			id |= SPM_FROZEN;
		} else {
			size = utf8_decode(m->text + i, m->n - i, &c);
			id = tokenizer_lookup(t, m->text + i, size, SPM_TYPES);
		}
		m->symbols[i] = (struct merge_symbol){id, i + (uint32_t)size, before};
		before = i;
		i += (uint32_t)size;
	}
}

int spm_encode(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n)
{
	cleanup_free_ struct merge_symbol *symbols = NULL;
	cleanup_free_ char *text = NULL;
	struct merge m = {.t = t, .pair = spm_pair};
	int r;

	if (!n)
		return 0;
	text = malloc(n + 1);
	symbols = malloc((n + 1) * sizeof(*symbols));
	if (!text || !symbols)
		return -ENOMEM;
	text[0] = ' ';
	m.n = (uint32_t)(t->space_prefix + spm_unescape(s, n, text + t->space_prefix));
	m.text = text;
	m.symbols = symbols;
	split(t, &m);
	r = merge_run(&m);
	for (uint32_t i = 0; !r && i < m.n; i = symbols[i].next) {
		uint32_t id = symbols[i].id, size = symbols[i].next - i;

		if (id != TOKEN_NONE)
			r = ids_push(ids, id & ~SPM_FROZEN);
		else if (size == 1 && text[i] == ' ')
			r = push_bytes(t, ids, spm_blank, sizeof(spm_blank));
		else
			r = push_bytes(t, ids, text + i, size);
	}
	return r;
}
