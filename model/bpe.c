/* SPDX-License-Identifier: MIT */

/*
 * Byte-level pair encoding ("gpt2"): words from the pre-tokenizer, bytes as first symbols, joined
 * by the rank of the merge.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"
#include "unicode.h"
#include "utf8.h"

#define BPE_TYPES (TOKEN_MASK(TOKEN_NORMAL) | TOKEN_MASK(TOKEN_USER) | TOKEN_MASK(TOKEN_BYTE))

static uint32_t pair_hash(const struct tokenizer *t, uint32_t left, uint32_t right)
{
	uint64_t h = (((uint64_t)left << 32 | right) ^ t->seed) * 0x9e3779b97f4a7c15u;

	return (uint32_t)(h >> 32 ^ h >> 17);
}

static uint32_t pair_find(const struct tokenizer *t, uint32_t left, uint32_t right)
{
	if (!t->pairs)
		return TOKEN_NONE;
	for (uint32_t i = pair_hash(t, left, right);; i++) {
		uint32_t rank = t->pairs[i & t->pairs_mask];

		if (rank == TOKEN_NONE ||
			(t->merges[rank].left == left && t->merges[rank].right == right))
			return rank;
	}
}

/* The spelling of bytes in these vocabularies: printable ones as themselves, others from U+0100. */
static int unspell_char(uint32_t c)
{
	unsigned k = 0x100;

	if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff))
		return (int)c;
	if (c < 0x100 || c > 0x143)
		return -1;
	for (unsigned b = 0; b < 0x100; b++) {
		if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
			continue;
		if (c == k++)
			return (int)b;
	}
	return -1;
}

size_t bpe_unspell(const char *s, size_t n, char *out)
{
	size_t size = 0;

	for (size_t at = 0; at < n;) {
		uint32_t c;
		unsigned k = utf8_decode(s + at, n - at, &c);
		int b = unspell_char(c);

		/* Not in the alphabet: padding and the like keeps its own bytes. */
		if (b < 0) {
			memcpy(out, s, n);
			return n;
		}
		out[size++] = (char)b;
		at += k;
	}
	return size;
}

static int load_merge(
	struct tokenizer *t, uint32_t rank, struct gguf_string m, char *buf, struct error *err)
{
	struct bpe_merge *out = &t->merges[rank];
	const char *blank = m.size > 1 ? memchr(m.data + 1, ' ', m.size - 1) : NULL;
	size_t left, right;
	uint32_t i;

	if (!blank)
		return error_set(err, -EBADMSG,
			"merge %u of tokenizer.ggml.merges is not two words with a blank", rank);
	left = bpe_unspell(m.data, (size_t)(blank - m.data), buf);
	right = bpe_unspell(blank + 1, (size_t)(m.data + m.size - blank) - 1, buf + left);
	out->left = tokenizer_lookup(t, buf, left, BPE_TYPES);
	out->right = tokenizer_lookup(t, buf + left, right, BPE_TYPES);
	out->result = tokenizer_lookup(t, buf, left + right, BPE_TYPES);
	if (out->left == TOKEN_NONE || out->right == TOKEN_NONE || out->result == TOKEN_NONE)
		return error_set(err, -EBADMSG,
			"merge %u of tokenizer.ggml.merges joins or makes what is no token", rank);
	for (i = pair_hash(t, out->left, out->right);; i++) {
		uint32_t *slot = &t->pairs[i & t->pairs_mask];

		if (*slot == TOKEN_NONE) {
			*slot = rank;
			return 0;
		}
		/* Said twice: the first counts. */
		if (t->merges[*slot].left == out->left && t->merges[*slot].right == out->right)
			return 0;
	}
}

static int load_merges(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	static const char key[] = "tokenizer.ggml.merges";
	cleanup_free_ char *buf = NULL;
	enum gguf_kind kind;
	uint64_t n, size = 1024, longest = 0;
	int r;

	r = gguf_get_array(g, key, &kind, &n, err);
	if (r < 0)
		return r;
	if (!r)
		return error_set(
			err, -EBADMSG, "%s is missing: a byte-level vocabulary needs it", key);
	if (kind != GGUF_STRING)
		return error_set(err, -EBADMSG, "%s is not an array of strings", key);
	while (size < n * 2)
		size *= 2;
	for (uint64_t i = 0; i < n; i++) {
		struct gguf_string s = gguf_array_string(g, key, i);

		longest = num_max(longest, s.size);
	}
	buf = malloc(longest + 1);
	t->merges = tokenizer_alloc(t, n, sizeof(*t->merges));
	t->pairs = tokenizer_alloc(t, size, sizeof(*t->pairs));
	if (!buf || !t->merges || !t->pairs)
		return -ENOMEM;
	memset(t->pairs, 0xff, size * sizeof(*t->pairs));
	t->pairs_mask = (uint32_t)size - 1;
	t->n_merges = (uint32_t)n;
	for (uint32_t i = 0; i < n; i++) {
		r = load_merge(t, i, gguf_array_string(g, key, i), buf, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int bpe_load(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	static const char key[] = "tokenizer.ggml.pre";
	struct gguf_string name;
	int r;

	r = gguf_get_string(g, key, &name, err);
	if (r < 0)
		return r;
	if (!r)
		name = (struct gguf_string){"default", 7};
	t->pre = bpe_pre_find(name.data, name.size);
	if (!t->pre)
		return error_set(err, -ENOTSUP,
			"%s is '%.*s', which is not supported: supported are %s", key,
			(int)num_min(name.size, 64), name.data, bpe_pre_names());
	t->add_bos = bpe_pre_adds_bos(t->pre);
	for (unsigned b = 0; b < 256; b++) {
		char one = (char)b;

		t->byte_id[b] = tokenizer_lookup(t, &one, 1, BPE_TYPES);
	}
	return load_merges(t, g, err);
}

static bool bpe_pair(const struct merge *m, uint32_t a, uint32_t b, uint32_t *rank, uint32_t *id)
{
	*rank = pair_find(m->t, m->symbols[a].id, m->symbols[b].id);
	if (*rank == TOKEN_NONE)
		return false;
	*id = m->t->merges[*rank].result;
	return true;
}

struct bpe_job {
	const struct tokenizer *t;
	struct tokenizer_ids *ids;
	struct merge_symbol *room;
	size_t room_n;
};

static int bpe_word(void *arg, const char *s, size_t n)
{
	struct bpe_job *j = arg;
	const struct tokenizer *t = j->t;
	struct merge m = {.t = t, .pair = bpe_pair};
	int r;

	if (bpe_pre_whole(t->pre)) {
		uint32_t id = tokenizer_lookup(t, s, n, BPE_TYPES);

		if (id != TOKEN_NONE)
			return ids_push(j->ids, id);
	}
	if (n > j->room_n) {
		size_t room = n < 256 ? 256 : n;
		void *p = realloc(j->room, room * sizeof(*j->room));

		if (!p)
			return -ENOMEM;
		j->room = p;
		j->room_n = room;
	}
	/* A byte without a token is left out, as in the reference: what stands around it may join.
	 */
	m.symbols = j->room;
	for (size_t i = 0; i < n; i++) {
		uint32_t id = t->byte_id[(unsigned char)s[i]], k = m.n;

		if (id == TOKEN_NONE)
			continue;
		m.symbols[m.n++] = (struct merge_symbol){
			.id = id, .next = k + 1, .before = k ? k - 1 : MERGE_NONE};
	}
	r = merge_run(&m);
	for (uint32_t i = 0; !r && i < m.n; i = m.symbols[i].next)
		r = ids_push(j->ids, m.symbols[i].id);
	return r;
}

int bpe_encode(const struct tokenizer *t, struct tokenizer_ids *ids, const char *s, size_t n)
{
	struct bpe_job j = {.t = t, .ids = ids};
	cleanup_free_ char *normal = NULL;
	int r;

	if (bpe_pre_nfc(t->pre)) {
		r = unicode_nfc(s, n, &normal, &n);
		if (r < 0)
			return r;
		if (r)
			s = normal;
	}
	r = bpe_pre_run(t->pre, s, n, bpe_word, &j);
	free(j.room);
	return r;
}
