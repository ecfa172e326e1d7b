/* SPDX-License-Identifier: MIT */

/*
 * Any bytes as a model file: parsed, asked for every key, described, planned.  The first four bytes
 * say how much longer than the input the file claims to be, so that tensors may lie past what is
 * here.  Built as a libFuzzer program, and with replay.c as a test over the corpus.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "desc.h"
#include "gguf.h"
#include "plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void ask(const struct gguf *g)
{
	for (uint64_t i = 0; i < gguf_n_keys(g); i++) {
		struct gguf_string s = {"", 0};
		enum gguf_kind kind, element;
		const char *key = gguf_key(g, i, &kind);
		uint64_t count = 0, u;
		size_t size;
		float f;
		bool b;

		(void)gguf_get_u64(g, key, &u, NULL);
		(void)gguf_get_f32(g, key, &f, NULL);
		(void)gguf_get_bool(g, key, &b, NULL);
		(void)gguf_get_string(g, key, &s, NULL);
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
