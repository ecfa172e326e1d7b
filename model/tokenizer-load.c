/* SPDX-License-Identifier: MIT */

/* The vocabulary out of the file into one blob, tables and the list of special tokens. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "num.h"
#include "tokenizer-private.h"

static const char tokens_key[] = "tokenizer.ggml.tokens";
static const char types_key[] = "tokenizer.ggml.token_type";

/* What models end a text or a turn with, whatever the file's keys say. */
static const char *const end_texts[] = {
	"<|im_end|>",
	"<|endoftext|>",
	"<|end_of_text|>",
	"<|eot_id|>",
	"<|eom_id|>",
	"<|end|>",
	"<|return|>",
	"<|call|>",
	"<end_of_turn>",
	"<EOT>",
	"</s>",
	"<｜end▁of▁sentence｜>",
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" */
static int byte_token(struct gguf_string s)
{
	int high, low;

	if (s.size != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>')
		return -1;
	high = hex_digit(s.data[3]);
	low = hex_digit(s.data[4]);
	return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static size_t store(const struct tokenizer *t, uint8_t type, struct gguf_string s, char *out)
{
	int b = byte_token(s);

	if (type == TOKEN_BYTE && b >= 0) {
		*out = (char)b;
		return 1;
	}
	if (t->model == TOKENIZER_SPM && (type == TOKEN_NORMAL || type == TOKEN_USER))
		return spm_unescape(s.data, s.size, out);
	if (t->model == TOKENIZER_BPE && (type == TOKEN_NORMAL || type == TOKEN_BYTE))
		return bpe_unspell(s.data, s.size, out);
	memcpy(out, s.data, s.size);
	return s.size;
}

static int load_types(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	const unsigned char *data;
	enum gguf_kind kind;
	uint64_t n;
	int r;

	t->types = tokenizer_alloc(t, t->n, 1);
	if (!t->types)
		return -ENOMEM;
	memset(t->types, TOKEN_NORMAL, t->n);
	r = gguf_get_array(g, types_key, &kind, &n, err);
	if (r <= 0)
		return r;
	if ((kind != GGUF_I32 && kind != GGUF_U32) || n != t->n)
		return error_set(
			err, -EBADMSG, "%s is not %u integers of 32 bits", types_key, t->n);
	data = gguf_array_data(g, types_key);
	for (uint32_t i = 0; i < t->n; i++) {
		uint32_t type;

		memcpy(&type, data + (size_t)i * 4, 4);
		if (type > TOKEN_BYTE)
			return error_set(err, -EBADMSG, "%s: token %u has the unknown type %u",
				types_key, i, type);
		t->types[i] = type ? (uint8_t)type : TOKEN_NORMAL;
	}
	return 0;
}

/*
 * What looks like <|this|> marks turns and ends: where a file calls it user-defined, a user could
 * write it.
 */
static void correct_types(struct tokenizer *t, const struct gguf *g)
{
	for (uint32_t i = 0; i < t->n; i++) {
		struct gguf_string s = gguf_array_string(g, tokens_key, i);

		if (t->types[i] == TOKEN_USER && s.size > 4 && !memcmp(s.data, "<|", 2) &&
			!memcmp(s.data + s.size - 2, "|>", 2))
			t->types[i] = TOKEN_CONTROL;
	}
}

static int load_tokens(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	uint64_t size = 0, slots = 1024;

	for (uint32_t i = 0; i < t->n; i++)
		size += gguf_array_string(g, tokens_key, i).size;
	if (size > UINT32_MAX)
		return error_set(err, -EBADMSG, "%s holds more than 4 GiB", tokens_key);
	while (slots < (uint64_t)t->n + t->n / 2)
		slots *= 2;
	t->blob = tokenizer_alloc(t, size + 1, 1);
	t->at = tokenizer_alloc(t, (uint64_t)t->n + 1, sizeof(*t->at));
	t->slots = tokenizer_alloc(t, slots, sizeof(*t->slots));
	t->ends = tokenizer_alloc(t, t->n / 8 + 1, 1);
	if (!t->blob || !t->at || !t->slots || !t->ends)
		return -ENOMEM;
	memset(t->slots, 0xff, slots * sizeof(*t->slots));
	t->slots_mask = (uint32_t)slots - 1;
	for (uint32_t i = 0; i < t->n; i++) {
		struct gguf_string s = gguf_array_string(g, tokens_key, i);
		size_t k = store(t, t->types[i], s, t->blob + t->at[i]);
		uint32_t at = (uint32_t)tokenizer_hash(t, t->blob + t->at[i], k);

		t->at[i + 1] = t->at[i] + (uint32_t)k;
		if (t->types[i] == TOKEN_NORMAL || t->types[i] == TOKEN_USER)
			t->longest = num_max(t->longest, (uint32_t)k);
		while (t->slots[at & t->slots_mask] != TOKEN_NONE)
			at++;
		t->slots[at & t->slots_mask] = i;
	}
	return 0;
}

static int compare_specials(const void *a, const void *b, void *arg)
{
	const struct tokenizer *t = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	size_t n = token_length(t, x), m = token_length(t, y);
	int r = memcmp(t->blob + t->at[x], t->blob + t->at[y], num_min(n, m));

	if (r)
		return r;
	if (n != m)
		return n < m ? -1 : 1;
	return x < y ? -1 : x > y;
}

static int load_specials(struct tokenizer *t)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->n; i++)
		n += (t->types[i] == TOKEN_CONTROL || t->types[i] == TOKEN_USER) &&
		     token_length(t, i);
	t->specials = tokenizer_alloc(t, n, sizeof(*t->specials));
	if (!t->specials)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->n; i++)
		if ((t->types[i] == TOKEN_CONTROL || t->types[i] == TOKEN_USER) &&
			token_length(t, i))
			t->specials[t->n_specials++] = i;
	qsort_r(t->specials, n, sizeof(*t->specials), compare_specials, t);
	for (uint32_t i = 0; i < n; i++)
		t->special_first[(unsigned char)t->blob[t->at[t->specials[i]]] + 1]++;
	for (unsigned b = 0; b < 256; b++)
		t->special_first[b + 1] += t->special_first[b];
	return 0;
}

/* An id that the file names: absent ones stay as they are. */
static int load_id(const struct gguf *g, const struct tokenizer *t, const char *key, uint32_t *ret,
	struct error *err)
{
	uint32_t id;
	int r = gguf_get_u32(g, key, &id, err);

	if (r <= 0)
		return r;
	if (id >= t->n)
		return error_set(err, -EBADMSG, "%s is %u, outside the vocabulary of %u tokens",
			key, id, t->n);
	*ret = id;
	return 0;
}

static void mark_end(struct tokenizer *t, uint32_t id)
{
	if (id != TOKEN_NONE)
		t->ends[id / 8] |= (uint8_t)(1u << id % 8);
}

static int load_keys(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	static const char *const ends[] = {"tokenizer.ggml.eot_token_id",
		"tokenizer.ggml.eom_token_id", "tokenizer.ggml.eog_token_id"};
	int r;

	if ((r = load_id(g, t, "tokenizer.ggml.bos_token_id", &t->bos, err)) < 0 ||
		(r = load_id(g, t, "tokenizer.ggml.eos_token_id", &t->eos, err)) < 0 ||
		(r = load_id(g, t, "tokenizer.ggml.unknown_token_id", &t->unknown, err)) < 0 ||
		(r = gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, err)) < 0 ||
		(r = gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos, err)) < 0)
		return r;
	mark_end(t, t->eos);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		uint32_t id = TOKEN_NONE;

		r = load_id(g, t, ends[i], &id, err);
		if (r < 0)
			return r;
		mark_end(t, id);
	}
	for (size_t i = 0; i < ARRAY_SIZE(end_texts); i++)
		mark_end(t, tokenizer_lookup(t, end_texts[i], strlen(end_texts[i]),
				    TOKEN_MASK(TOKEN_CONTROL)));
	return 0;
}

/* Sentencepiece models have these ids where the file is silent. */
static void default_ids(struct tokenizer *t)
{
	if (t->model != TOKENIZER_SPM || t->n < 3)
		return;
	if (t->types[0] == TOKEN_UNKNOWN)
		t->unknown = 0;
	if (t->types[1] == TOKEN_CONTROL)
		t->bos = 1;
	if (t->types[2] == TOKEN_CONTROL)
		t->eos = 2;
}

int tokenizer_load(struct tokenizer *t, const struct gguf *g, struct error *err)
{
	struct gguf_string model;
	enum gguf_kind kind;
	uint64_t n;
	int r;

	r = gguf_get_string(g, "tokenizer.ggml.model", &model, err);
	if (r < 0)
		return r;
	if (!r)
		return error_set(err, -EBADMSG,
			"tokenizer.ggml.model is missing: the file has no tokenizer");
	if (model.size == 4 && !memcmp(model.data, "gpt2", 4))
		t->model = TOKENIZER_BPE;
	else if (model.size == 5 && !memcmp(model.data, "llama", 5))
		t->model = TOKENIZER_SPM;
	else
		return error_set(err, -ENOTSUP,
			"tokenizer.ggml.model is '%.*s', which is not supported: supported are "
			"gpt2, llama",
			(int)num_min(model.size, 64), model.data);
	r = gguf_get_array(g, tokens_key, &kind, &n, err);
	if (r < 0)
		return r;
	if (!r || kind != GGUF_STRING || !n || n > LIMIT_VOCABULARY)
		return error_set(err, -EBADMSG, "%s is missing, empty or too long", tokens_key);
	t->n = (uint32_t)n;
	t->bos = t->eos = t->unknown = TOKEN_NONE;
	memset(t->byte_id, 0xff, sizeof(t->byte_id));
	if (getrandom(&t->seed, sizeof(t->seed), GRND_NONBLOCK) < 0)
		t->seed = (uint64_t)(uintptr_t)t;
	r = load_types(t, g, err);
	if (r < 0)
		return r;
	correct_types(t, g);
	if ((r = load_tokens(t, g, err)) < 0 || (r = load_specials(t)) < 0)
		return r;
	default_ids(t);
	r = t->model == TOKENIZER_BPE ? bpe_load(t, g, err) : spm_load(t, g, err);
	return r < 0 ? r : load_keys(t, g, err);
}
