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

/* No token that may be found in a text has a blank after anything else. */
static bool words_apart(const struct tokenizer *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		const char *s = t->blob + t->at[i];

		if (!(TOKEN_MASK(t->types[i]) & SPM_TYPES))
			continue;
		for (size_t k = 1; k < token_length(t, i); k++)
			if (s[k] == ' ' && s[k - 1] != ' ')
				return false;
	}
	return true;
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
	t->words_apart = words_apart(t);
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
		m->symbols[i] = (struct merge_symbol){
			.id = id, .next = i + (uint32_t)size, .before = before};
		before = i;
		i += (uint32_t)size;
	}
}

/* One word, or the whole text where words may join. */
static int encode_word(struct merge *m, struct tokenizer_ids *ids)
{
	const struct tokenizer *t = m->t;
	int r;

	split(t, m);
	r = merge_run(m);
	for (uint32_t i = 0; !r && i < m->n; i = m->symbols[i].next) {
		uint32_t id = m->symbols[i].id, size = m->symbols[i].next - i;

		if (id != TOKEN_NONE)
			r = ids_push(ids, id & ~SPM_FROZEN);
		else if (size == 1 && m->text[i] == ' ')
			r = push_bytes(t, ids, spm_blank, sizeof(spm_blank));
		else
			r = push_bytes(t, ids, m->text + i, size);
	}
	return r;
}

/* Where the next word begins: no token goes on past a blank, so none joins two words. */
static size_t word_end(const struct tokenizer *t, const char *s, size_t at, size_t n)
{
	if (!t->words_apart)
		return n;
	for (at++; at < n; at++)
		if (s[at] == ' ' && s[at - 1] != ' ')
			break;
	return at;
}

int spm_encode(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n)
{
	cleanup_free_ struct merge_symbol *symbols = NULL;
	cleanup_free_ char *text = NULL;
	size_t room = 0, end;
	int r = 0;

	if (!n)
		return 0;
	text = malloc(n + 1);
	if (!text)
		return -ENOMEM;
	text[0] = ' ';
	n = t->space_prefix + spm_unescape(s, n, text + t->space_prefix);
	for (size_t at = 0; !r && at < n; at = end) {
		struct merge m = {.t = t, .text = text + at, .pair = spm_pair};

		end = word_end(t, text, at, n);
		m.n = (uint32_t)(end - at);
		if (m.n > room) {
			void *p;

			room = num_max(m.n, 256u);
			p = reallocarray(symbols, room, sizeof(*symbols));
			if (!p)
				return -ENOMEM;
			symbols = p;
		}
		m.symbols = symbols;
		r = encode_word(&m, ids);
	}
	return r;
}
