/* SPDX-License-Identifier: MIT */

/* The header of a file, read in a window that grows until the parser has seen all of it. */

#include "gguf-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "num.h"

#define FIRST_WINDOW ((uint64_t)1 << 20)

static int parse_growing(const struct file *f, struct gguf **ret, struct error *err)
{
	uint64_t largest = num_min(f->size, LIMIT_GGUF_HEADER);
	uint64_t window = num_min(FIRST_WINDOW, largest), have = 0;
	uint8_t *header = NULL;

	for (;;) {
		uint8_t *larger = realloc(header, num_max(window, (uint64_t)1));
		int r = larger ? 0 : -ENOMEM;

		if (larger)
			header = larger;
		if (!r && window > have)
			r = file_read(f, have, header + have, window - have, err);
		if (r < 0) {
			free(header);
			return r;
		}
		have = window;
		r = gguf_parse_owned(ret, header, have, f->size, err);
		if (r != GGUF_MORE)
			return r;
		window = num_min(window * 4, largest);
	}
}

int gguf_open(struct gguf **ret, const char *path, struct error *err)
{
	struct file f = {.fd = -1};
	struct gguf *g = NULL;
	int r = file_open(&f, path, err);

	if (r < 0)
		return r;
	r = parse_growing(&f, &g, err);
	file_close(&f);
	if (r < 0) {
		(void)error_errno(err, r, "cannot read the header");
		error_prefix(err, "model '%s'", path);
		return r;
	}
	g->path = strdup(path);
	if (!g->path) {
		gguf_free(g);
		return error_errno(err, -ENOMEM, "cannot open '%s'", path);
	}
	*ret = g;
	return 0;
}
