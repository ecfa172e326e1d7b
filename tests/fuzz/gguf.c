/* SPDX-License-Identifier: MIT */

/*
 * Any bytes as a model file: parsed, asked for every key, described, planned, its vocabulary loaded
 * and used.  The first four bytes say how much longer than the input the file claims to be, so that
 * tensors may lie past what is here.  Built as a libFuzzer program, and with replay.c as a test
 * over the corpus.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "desc.h"
#include "gguf.h"
#include "plan.h"
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void ask(const struct gguf *g)
{
	for (uint64_t i = 0; i < gguf_n_keys(g); i++) {
		struct gguf_string s = {"", 0};
		enum gguf_kind kind, element;
		const char *key = gguf_key(g, i, &kind);
		uint64_t count = 0, u;
		char shown[32];
		size_t size;
		float f;
		bool b;

		(void)gguf_get_u64(g, key, &u, NULL);
		(void)gguf_get_f32(g, key, &f, NULL);
		(void)gguf_get_bool(g, key, &b, NULL);
		if (gguf_get_string(g, key, &s, NULL) == 1)
			(void)gguf_text(s, shown, sizeof shown);
		(void)gguf_key_bytes(g, i, &size);
		if (gguf_get_array(g, key, &element, &count, NULL) != 1)
			continue;
		for (uint64_t k = 0; k < count && element == GGUF_STRING; k++) {
			s = gguf_array_string(g, key, k);
			/* Touches the last byte: the sanitizer tells where it lies outside. */
			if (s.size && s.data[s.size - 1] == 'x')
				u = k;
		}
	}
}

/* The vocabulary, on a text that has something of everything. */
static void speak(const struct gguf *g)
{
	static const char words[] = "Hello, w\xc3\xb6rld <|im_start|> 123\n\xff";
	struct tokenizer *t = NULL;
	struct chat *c = NULL;
	uint32_t *ids = NULL;
	size_t n = 0;

	if (tokenizer_new(&t, g, NULL) < 0)
		return;
	if (tokenizer_encode(t, words, sizeof words - 1,
		    TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids, &n) == 0) {
		for (size_t i = 0; i < n; i++) {
			const char *piece;
			size_t size;

			(void)tokenizer_piece(t, ids[i], i == 0, true, &piece, &size);
		}
		free(ids);
	}
	(void)chat_new(&c, g, t, NULL);
	chat_free(c);
	tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct gguf *g = NULL;
	struct desc *d = NULL;
	uint32_t more;

	if (n < sizeof more)
		return 0;
	memcpy(&more, bytes, sizeof more);
	bytes += sizeof more;
	n -= sizeof more;
	if (gguf_parse(&g, bytes, n, n + (uint64_t)more, NULL) < 0)
		return 0;
	ask(g);
	speak(g);
	if (desc_new(&d, g, NULL) == 0) {
		struct plan_input in = {.desc = d,
			.limit = (uint64_t)1 << 30,
			.vocabulary = plan_vocabulary(g),
			.threads = 2,
			.clients = 4,
			.daemon = true};
		struct plan p;

		(void)plan_make(&p, &in, NULL);
		if (!d->experts)
			(void)desc_upcycle(d, 4, 2, more, true, NULL);
	}
	desc_free(d);
	gguf_free(g);
	return 0;
}
