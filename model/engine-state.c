/* SPDX-License-Identifier: MIT */

/* Sequences as bytes, for state files, and what such bytes depend on. */

#include "engine-internal.h"

#include <string.h>

#include "config.h"

/* Version of docs/NUMERICS.md. */
#define NUMERICS 1u

int engine_seq_share(
	struct engine *e, struct engine_seq *s, const struct engine_seq *from, uint32_t n)
{
	kv_seq_truncate(&e->kv, s, 0);
	return kv_seq_share(&e->kv, s, from, n);
}

uint64_t engine_seq_block_bytes(const struct engine *e)
{
	return e->kv.block_bytes;
}

void engine_seq_read(const struct engine *e, const struct engine_seq *s, uint32_t n, uint64_t at,
	void *to, size_t size)
{
	kv_seq_read(&e->kv, s, n, at, to, size);
}

void engine_seq_write(
	struct engine *e, const struct engine_seq *s, uint64_t at, const void *from, size_t size)
{
	kv_seq_write(&e->kv, s, at, from, size);
}

void engine_seq_written(struct engine *e, struct engine_seq *s, uint32_t n)
{
	s->length = n;
}

/* FNV-1a. */
static void mix(uint64_t *hash, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	while (n-- > 0)
		*hash = (*hash ^ *p++) * UINT64_C(0x100000001b3);
}

#define MIX(hash, value) mix((hash), &(value), sizeof(value))

uint64_t engine_identity(const struct engine *e)
{
	static const char version[] = MOED_VERSION;
	const uint32_t numbers[] = {NUMERICS, KV_BLOCK, e->kv.f32};
	const struct desc *d = e->desc;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	mix(&hash, version, sizeof version);
	mix(&hash, numbers, sizeof numbers);
	/* The files: all that is in their headers follows from them. */
	for (uint32_t i = 0; i < e->n_files; i++) {
		MIX(&hash, e->files[i].size);
		MIX(&hash, e->files[i].inode);
		MIX(&hash, e->files[i].mtime_ns);
	}
	mix(&hash, d->arch, strnlen(d->arch, sizeof d->arch));
	MIX(&hash, d->n_layers);
	MIX(&hash, d->hidden);
	MIX(&hash, d->vocabulary);
	MIX(&hash, d->heads);
	MIX(&hash, d->kv_heads);
	MIX(&hash, d->head_size);
	MIX(&hash, d->rope_base);
	/* The configuration: what it makes of a dense model. */
	MIX(&hash, d->experts);
	MIX(&hash, d->top_k);
	MIX(&hash, d->upcycled);
	MIX(&hash, d->router_seed);
	MIX(&hash, d->router_exact);
	return hash;
}
