/* SPDX-License-Identifier: MIT */

/*
 * Any bytes as a text, a conversation, a chat template or a line of JSON, under each of the small
 * vocabularies of tests/data.  The first byte says which of these, the second under what.  What
 * goes in must come out again; control tokens must not.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat-private.h"
#include "cleanup.h"
#include "gguf.h"
#include "num.h"
#include "tokenize-line.h"
#include "tokenizer.h"
#include "unicode.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define TURNS 8

static const char *const vocabularies[] = {"spm", "smollm", "gpt-2", "qwen2", "llama-bpe", "qwen35",
	"tekken", "gpt-4o", "deepseek-v3"};
static const char *const templates[] = {"chatml-tiny", "smollm2", "qwen2.5", "qwen3", "thinking",
	"mistral-7b", "mixtral-8x7b", "mixtral-8x22b", "mixtral-strip", "mistral-joined"};

static struct tokenizer *tokenizers[ARRAY_SIZE(vocabularies)];
static struct chat *chats[ARRAY_SIZE(templates)];

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			(void)fprintf(stderr, "line %d: %s\n", __LINE__, #what);                   \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* A file that holds nothing but this template. */
static void load_template(size_t i, const struct tokenizer *t)
{
	static const char key[] = "tokenizer.chat_template";
	static uint8_t bytes[65536];
	const uint64_t counts[2] = {0, 1}, n_key = sizeof(key) - 1;
	const uint32_t version = 3, string = GGUF_STRING;
	struct gguf *g = NULL;
	uint64_t n;
	char path[4096];
	FILE *f;

	(void)snprintf(path, sizeof(path), DATA_DIR "/templates/%s.jinja", templates[i]);
	f = fopen(path, "r");
	CHECK(f);
	n = fread(bytes + 67, 1, sizeof(bytes) - 67, f);
	(void)fclose(f);
	memcpy(bytes, "GGUF", 4);
	memcpy(bytes + 4, &version, 4);
	memcpy(bytes + 8, counts, 16);
	memcpy(bytes + 24, &n_key, 8);
	memcpy(bytes + 32, key, n_key);
	memcpy(bytes + 55, &string, 4);
	memcpy(bytes + 59, &n, 8);
	CHECK(gguf_parse(&g, bytes, 67 + n, 67 + n, NULL) == 0);
	CHECK(chat_new(&chats[i], g, t, NULL) == 0);
	CHECK(strcmp(chat_name(chats[i]), "unsupported") != 0);
	gguf_free(g);
}

static void load(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(vocabularies); i++) {
		struct gguf *g = NULL;
		char path[4096];

		(void)snprintf(path, sizeof(path), DATA_DIR "/%s.gguf", vocabularies[i]);
		CHECK(gguf_open(&g, path, NULL) == 0);
		CHECK(tokenizer_new(&tokenizers[i], g, NULL) == 0);
		gguf_free(g);
	}
	for (size_t i = 0; i < ARRAY_SIZE(templates); i++)
		load_template(i, tokenizers[*templates[i] != 'm']);
}

static bool is_spm(const struct tokenizer *t)
{
	return t == tokenizers[0];
}

static void fuzz_text(const struct tokenizer *t, unsigned flags, const char *s, size_t n)
{
	cleanup_free_ uint32_t *ids = NULL;
	struct tokenize_bytes out = {0};
	bool first = true;
	size_t n_ids = 0;

	CHECK(tokenizer_encode(t, s, n, flags, &ids, &n_ids) == 0);
	for (size_t i = 0; i < n_ids; i++) {
		CHECK(ids[i] < tokenizer_size(t));
		if (!flags)
			CHECK(!tokenizer_is_control(t, ids[i]));
		CHECK(tokenize_bytes_add_id(&out, t, ids[i], false, &first) == 0);
	}
	/* What adds to the text, or sees another form of it, does not give it back. */
	if (!(flags & TOKENIZER_ADD_SPECIAL) && !(t->pre && bpe_pre_nfc(t->pre)) &&
		!(is_spm(t) && memmem(s, n, "\xe2\x96\x81", 3)))
		CHECK(out.n == n && (!n || !memcmp(out.s, s, n)));
	free(out.s);
}

static size_t count_control(const struct tokenizer *t, const struct tokenizer_ids *ids)
{
	size_t n = 0;

	for (size_t i = 0; i < ids->n; i++)
		n += tokenizer_is_control(t, ids->ids[i]);
	return n;
}

/* Marks in the texts of turns are text: spoiling them changes no control token. */
static void fuzz_chat(size_t which, const char *s, size_t n)
{
	static const char *const roles[] = {"user", "assistant", "system", "tool", "critic"};
	const struct tokenizer *t = tokenizers[*templates[which] != 'm'];
	cleanup_free_ char *copy = malloc(n + 1);
	struct tokenizer_ids ids = {0}, other = {0};
	struct chat_turn turns[TURNS] = {0};
	struct error err = ERROR_NONE;
	size_t k = 0;
	int r;

	CHECK(copy);
	memcpy(copy, s, n);
	for (size_t at = 0; at < n && k < TURNS; k++) {
		const char *end = memchr(copy + at + 1, '\0', n - at - 1);
		size_t size = end ? (size_t)(end - copy) - at - 1 : n - at - 1;

		turns[k] = (struct chat_turn){
			roles[(unsigned char)copy[at] % ARRAY_SIZE(roles)], copy + at + 1, size};
		at += size + 2;
	}
	r = chat_render(chats[which], turns, k, &ids, &err);
	CHECK(r == 0 || (r == -EINVAL && *err.text && !ids.n));
	for (size_t i = 0; i + 1 < n; i++)
		if (copy[i] == '<' &&
			(copy[i + 1] == '|' || copy[i + 1] == 's' ||
				(copy[i + 1] == '/' && i + 2 < n && copy[i + 2] == 's')))
			copy[i] = '(';
	CHECK(chat_render(chats[which], turns, k, &other, NULL) == r);
	CHECK(count_control(t, &ids) == count_control(t, &other));
	free(ids.ids);
	free(other.ids);
}

static void fuzz_template(const char *s, size_t n)
{
	struct chat_canon canon = {0};

	(void)chat_canon(&canon, s, n);
	free(canon.system);
}

static void fuzz_line(const struct tokenizer *t, const char *s, size_t n)
{
	struct error err = ERROR_NONE;
	json_t *out = tokenize_line(t, s, n, &err);

	CHECK(out || *err.text);
	json_decref(out);
	err = ERROR_NONE;
	out = detokenize_line(t, s, n, &err);
	CHECK(out || *err.text);
	json_decref(out);
}

/* Normal form is a fixed point; a stream gives whole characters, however it is cut. */
static void fuzz_unicode(unsigned step, const char *s, size_t n)
{
	cleanup_free_ char *normal = NULL, *again = NULL, *whole = malloc(3 * (n + 3)),
			   *parts = malloc(6 * (n + 3));
	struct utf8_stream stream = {0};
	size_t size = 0, size_again = 0, n_whole, n_parts = 0;

	CHECK(whole && parts);
	if (unicode_nfc(s, n, &normal, &size) == 1 &&
		unicode_nfc(normal, size, &again, &size_again) == 1)
		CHECK(size == size_again && !memcmp(normal, again, size));
	n_whole = utf8_stream_push(&stream, s, n, true, whole);
	CHECK(utf8_is_valid(whole, n_whole));
	stream = (struct utf8_stream){0};
	for (size_t at = 0; at < n; at += step + 1)
		n_parts += utf8_stream_push(
			&stream, s + at, num_min(n - at, (size_t)step + 1), false, parts + n_parts);
	n_parts += utf8_stream_push(&stream, NULL, 0, true, parts + n_parts);
	CHECK(n_parts == n_whole && !memcmp(whole, parts, n_whole));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	const struct tokenizer *t;
	const char *s;

	if (!*tokenizers)
		load();
	if (n < 2)
		return 0;
	s = (const char *)bytes + 2;
	n -= 2;
	t = tokenizers[bytes[1] / 4 % ARRAY_SIZE(vocabularies)];
	switch (bytes[0] % 8) {
	case 0:
	case 1:
	case 2:
		fuzz_text(t, bytes[1] % 4, s, n);
		break;
	case 3:
	case 4:
		fuzz_chat(bytes[1] % ARRAY_SIZE(templates), s, n);
		break;
	case 5:
		fuzz_template(s, n);
		break;
	case 6:
		fuzz_line(t, s, n);
		break;
	default:
		fuzz_unicode(bytes[1] % 8, s, n);
	}
	return 0;
}
