/* SPDX-License-Identifier: MIT */

/* The outside of the tokenizer: life, lookups, and the cutting of special tokens out of text. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"

void *tokenizer_alloc(struct tokenizer *t, uint64_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (p)
		t->memory += n * size;
	return p;
}

uint64_t tokenizer_hash(const struct tokenizer *t, const char *s, size_t n)
{
	uint64_t h = t->seed ^ n;

	while (n) {
		uint64_t word = 0;
		size_t k = num_min(n, sizeof(word));

		memcpy(&word, s, k);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
		s += k;
		n -= k;
	}
	h *= 0xbf58476d1ce4e5b9u;
	return h ^ h >> 32;
}

uint32_t tokenizer_lookup(const struct tokenizer *t, const char *s, size_t n, unsigned types)
{
	for (uint32_t i = (uint32_t)tokenizer_hash(t, s, n);; i++) {
		uint32_t id = t->slots[i & t->slots_mask];

		if (id == TOKEN_NONE)
			return id;
		if (token_length(t, id) == n && TOKEN_MASK(t->types[id]) & types &&
			!memcmp(t->blob + t->at[id], s, n))
			return id;
	}
}

struct tokenizer *tokenizer_free(struct tokenizer *t)
{
	if (!t)
		return NULL;
	free(t->blob);
	free(t->at);
	free(t->types);
	free(t->slots);
	free(t->specials);
	free(t->ends);
	free(t->merges);
	free(t->pairs);
	free(t->ranks);
	free(t);
	return NULL;
}

int tokenizer_new(struct tokenizer **ret, const struct gguf *g, struct error *err)
{
	struct tokenizer *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->memory = sizeof(*t);
	r = tokenizer_load(t, g, err);
	if (r < 0) {
		tokenizer_free(t);
		return error_set(err, r, "cannot load the tokenizer: out of memory");
	}
	*ret = t;
	return 0;
}

uint32_t tokenizer_size(const struct tokenizer *t)
{
	return t->n;
}

size_t tokenizer_memory(const struct tokenizer *t)
{
	return t->memory;
}

uint64_t tokenizer_most_bytes(const struct tokenizer *t, uint32_t n_tokens)
{
	/* Normal form C makes a text shorter: U+1FBE U+0308 U+0301 takes 7 bytes, then 2. */
	uint64_t factor = t->pre && bpe_pre_nfc(t->pre) ? 4 : 1;

	/* U+2581 becomes a blank; a character of 4 bytes may be one unknown token. */
	if (t->model == TOKENIZER_SPM)
		factor = 4;
	return n_tokens * factor * t->longest;
}

int ids_push(struct tokenizer_ids *ids, uint32_t id)
{
	if (ids->n == ids->room) {
		size_t room = ids->room ? ids->room * 2 : 64;
		void *p = reallocarray(ids->ids, room, sizeof(*ids->ids));

		if (!p)
			return -ENOMEM;
		ids->ids = p;
		ids->room = room;
	}
	ids->ids[ids->n++] = id;
	return 0;
}

/* The first of specials[low, high) whose byte `at` is not below c; shorter ones come first. */
static uint32_t special_bound(
	const struct tokenizer *t, uint32_t low, uint32_t high, size_t at, unsigned c)
{
	while (low < high) {
		uint32_t middle = low + (high - low) / 2, id = t->specials[middle];

		if (token_length(t, id) <= at || (unsigned char)t->blob[t->at[id] + at] < c)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint32_t special_match(
	const struct tokenizer *t, const char *s, size_t n, unsigned types, size_t *ret_n)
{
	uint32_t low = t->special_first[(unsigned char)s[0]];
	uint32_t high = t->special_first[(unsigned char)s[0] + 1], found = TOKEN_NONE;

	for (size_t k = 1; low < high; k++) {
		/* Those of exactly k bytes stand in front; the smallest id of the types counts. */
		for (bool taken = false; low < high && token_length(t, t->specials[low]) == k;
			low++) {
			if (taken || !(TOKEN_MASK(t->types[t->specials[low]]) & types))
				continue;
			found = t->specials[low];
			*ret_n = k;
			taken = true;
		}
		if (k == n)
			break;
		low = special_bound(t, low, high, k, (unsigned char)s[k]);
		high = special_bound(t, low, high, k, (unsigned char)s[k] + 1);
	}
	return found;
}

static int plain(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n)
{
	if (!n)
		return 0;
	return t->model == TOKENIZER_BPE ? bpe_encode(t, ids, s, n) : spm_encode(t, ids, s, n);
}

int tokenizer_append(const struct tokenizer *t, struct tokenizer_ids *ids, const char *text,
	size_t n, unsigned flags)
{
	unsigned types = flags & TOKENIZER_PARSE_SPECIAL ? TOKEN_MASK(TOKEN_CONTROL) : 0;
	size_t begin = 0, size, count = ids->n;
	int r = 0;

	/* Positions are numbers of 31 bits; sentencepiece adds a blank. */
	if (n >= INT32_MAX - 1)
		return -E2BIG;
	/* Sentencepiece finds its user-defined tokens itself, under the blank that it adds. */
	if (t->model == TOKENIZER_BPE)
		types |= TOKEN_MASK(TOKEN_USER);
	if (flags & TOKENIZER_ADD_SPECIAL && t->add_bos && t->bos != TOKEN_NONE)
		r = ids_push(ids, t->bos);
	for (size_t at = 0; !r && at < n && types;) {
		uint32_t id = special_match(t, text + at, n - at, types, &size);

		if (id == TOKEN_NONE) {
			at++;
			continue;
		}
		r = plain(t, ids, text + begin, at - begin);
		if (!r)
			r = ids_push(ids, id);
		at += size;
		begin = at;
	}
	if (!r)
		r = plain(t, ids, text + begin, n - begin);
	if (!r && flags & TOKENIZER_ADD_SPECIAL && t->add_eos && t->eos != TOKEN_NONE)
		r = ids_push(ids, t->eos);
	if (r < 0)
		ids->n = count;
	return r;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
	uint32_t **ret, size_t *ret_n)
{
	struct tokenizer_ids ids = {0};
	int r = tokenizer_append(t, &ids, text, n, flags);

	if (!r && !ids.ids) {
		ids.ids = malloc(sizeof(*ids.ids));
		r = ids.ids ? 0 : -ENOMEM;
	}
	if (r < 0) {
		free(ids.ids);
		return r;
	}
	*ret = ids.ids;
	*ret_n = ids.n;
	return 0;
}

int tokenizer_piece(const struct tokenizer *t, uint32_t id, bool first, bool special,
	const char **ret, size_t *ret_n)
{
	const char *s;
	size_t n;

	if (id >= t->n)
		return -ERANGE;
	s = t->blob + t->at[id];
	n = token_length(t, id);
	if (!special && (t->types[id] == TOKEN_CONTROL || t->types[id] == TOKEN_UNKNOWN))
		n = 0;
	if (first && t->space_prefix && n && *s == ' ') {
		s++;
		n--;
	}
	*ret = s;
	*ret_n = n;
	return 0;
}

bool tokenizer_is_end(const struct tokenizer *t, uint32_t id)
{
	return id < t->n && t->ends[id / 8] >> id % 8 & 1;
}

bool tokenizer_is_control(const struct tokenizer *t, uint32_t id)
{
	return id < t->n && t->types[id] == TOKEN_CONTROL;
}

int tokenizer_bos(const struct tokenizer *t, uint32_t *ret)
{
	if (t->bos == TOKEN_NONE)
		return 0;
	*ret = t->bos;
	return 1;
}

int tokenizer_find(const struct tokenizer *t, const char *token, uint32_t *ret)
{
	uint32_t id = tokenizer_lookup(t, token, strlen(token), TOKEN_ALL);

	if (id == TOKEN_NONE)
		return 0;
	*ret = id;
	return 1;
}
