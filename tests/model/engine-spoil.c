/* SPDX-License-Identifier: MIT */
#include "engine-spoil.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct spoiled {
	struct io io;
	struct io *under;
	struct spoil *spoil;
	struct io_read reads[SPOIL_READS]; /* in flight; length 0: free */
};

static int spoiled_submit(struct io *io, const struct io_read *reads, size_t n)
{
	struct spoiled *s = (struct spoiled *)io;
	int taken = s->under->ops->submit(s->under, reads, n);

	for (int i = 0; i < taken; i++) {
		size_t at = 0;

		while (s->reads[at].length)
			at++;
		s->reads[at] = reads[i];
	}
	return taken;
}

static void change(struct spoiled *s, struct io_result *r)
{
	struct spoil *p = s->spoil;
	struct io_read read;
	size_t at = 0;

	while (s->reads[at].length == 0 || s->reads[at].tag != r->tag)
		at++;
	read = s->reads[at];
	s->reads[at].length = 0;
	if (read.offset < p->to && read.offset + read.length > p->from) {
		p->hits++;
		r->res = p->res;
		/* Nothing of it may be believed. */
		memset(read.buffer, 0xee, read.length);
	} else if (p->rough && r->res > 0 && p->turn++ % 3) {
		if (p->turn % 2 && read.length > 512) {
			p->shorts++;
			memset((char *)read.buffer + 512, 0xee, read.length - 512);
			r->res = 512;
		} else {
			p->agains++;
			memset(read.buffer, 0xee, read.length);
			r->res = p->agains % 2 ? -EAGAIN : -EINTR;
		}
	}
}

static int spoiled_reap(struct io *io, struct io_result *results, size_t max, uint64_t timeout_ns)
{
	struct spoiled *s = (struct spoiled *)io;
	int n;

	if (s->spoil->broken)
		return s->spoil->broken;
	n = s->under->ops->reap(s->under, results, max, timeout_ns);
	for (int i = 0; i < n; i++)
		change(s, &results[i]);
	return n;
}

static size_t spoiled_depth(const struct io *io)
{
	const struct io *under = ((const struct spoiled *)io)->under;
	size_t n = under->ops->depth(under);

	return n < SPOIL_READS ? n : SPOIL_READS;
}

static bool spoiled_ready(const struct io *io)
{
	const struct spoiled *s = (const struct spoiled *)io;

	return s->under->ops->ready(s->under);
}

static void spoiled_free(struct io *io)
{
	struct spoiled *s = (struct spoiled *)io;

	s->under->ops->free(s->under);
	free(s);
}

int spoil_io_new(void *arg, struct io **ret, const int *fds, size_t n, struct error *err)
{
	static const struct io_ops ops = {
		.name = "spoiled",
		.submit = spoiled_submit,
		.reap = spoiled_reap,
		.ready = spoiled_ready,
		.depth = spoiled_depth,
		.free = spoiled_free,
	};
	struct spoiled *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->io.ops = &ops;
	s->spoil = arg;
	r = io_pool_new(&s->under, fds, n, 3, err);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = &s->io;
	return 0;
}
