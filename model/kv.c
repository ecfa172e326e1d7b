/* SPDX-License-Identifier: MIT */
#include "kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "limit.h"
#include "num.h"

size_t kv_block_bytes(const struct desc *d)
{
	return (size_t)d->n_layers * d->kv_heads * 2 * KV_BLOCK * d->head_size *
	       (desc_kv_f32(d) ? 4 : 2);
}

uint32_t kv_run_end(uint32_t n_blocks, uint32_t n)
{
	uint64_t end = num_align_up((uint64_t)n, (uint64_t)KV_RUN);

	return (uint32_t)num_min(end, (uint64_t)n_blocks);
}

int kv_init(struct kv *kv, const struct desc *d, void *memory, uint32_t n_blocks, uint32_t n_here,
	kv_take_fn take, void *take_arg)
{
	*kv = (struct kv){
		.memory = memory,
		.take = take,
		.take_arg = take_arg,
		.n_here = n_here,
		.n_blocks = n_blocks,
		.n_free = n_blocks,
		.head = d->head_size,
		.kv_heads = d->kv_heads,
		.f32 = desc_kv_f32(d),
		.element = desc_kv_f32(d) ? 4 : 2,
		.block_bytes = kv_block_bytes(d),
	};
	kv->head_bytes = (size_t)KV_BLOCK * d->head_size * kv->element;
	kv->free = malloc(num_max(n_blocks, 1u) * sizeof *kv->free);
	kv->refs = calloc(num_max(n_blocks, 1u), sizeof *kv->refs);
	if (!kv->free || !kv->refs) {
		kv_deinit(kv);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_blocks; i++)
		kv->free[i] = n_blocks - 1 - i;
	return 0;
}

void kv_deinit(struct kv *kv)
{
	free(kv->free);
	free(kv->refs);
	kv->free = NULL;
	kv->refs = NULL;
}

int kv_seq_new(struct kv *kv, struct engine_seq **ret)
{
	struct engine_seq *s;

	if (kv->n_seqs >= LIMIT_SESSIONS)
		return -ENOBUFS;
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	kv->n_seqs++;
	*ret = s;
	return 0;
}

void kv_seq_free(struct kv *kv, struct engine_seq *s)
{
	kv_seq_truncate(kv, s, 0);
	free(s->blocks);
	free(s);
	kv->n_seqs--;
}

/*
 * The pages of the next n free blocks.  Those never handed out lie at the bottom of the stack, the
 * lowest on top: so what is there is always a prefix.
 */
static int take_pages(struct kv *kv, uint64_t n)
{
	uint32_t end = kv->n_here;

	for (uint64_t i = 0; i < n; i++)
		end = num_max(end, kv->free[kv->n_free - 1 - i] + 1);
	if (end == kv->n_here)
		return 0;
	end = kv_run_end(kv->n_blocks, end);
	if (kv->take(kv->take_arg, kv->memory + kv->n_here * kv->block_bytes,
		    (end - kv->n_here) * kv->block_bytes) < 0)
		return -ENOSPC;
	kv->n_here = end;
	return 0;
}

/* Room for so many block numbers. */
static int make_room(struct engine_seq *s, uint64_t need)
{
	uint32_t room = (uint32_t)num_max(need, (uint64_t)s->room * 2);
	uint32_t *blocks;

	if (need <= s->room)
		return 0;
	blocks = realloc(s->blocks, room * sizeof *blocks);
	if (!blocks)
		return -ENOMEM;
	s->blocks = blocks;
	s->room = room;
	return 0;
}

static uint32_t take_block(struct kv *kv)
{
	uint32_t block = kv->free[--kv->n_free];

	kv->refs[block] = 1;
	return block;
}

static void drop_block(struct kv *kv, uint32_t block)
{
	if (--kv->refs[block] == 0)
		kv->free[kv->n_free++] = block;
}

/* A block's bytes are those of so many heads, all layers'. */
static size_t heads_of(const struct kv *kv)
{
	return kv->block_bytes / (2 * kv->head_bytes);
}

static char *nth_head(const struct kv *kv, uint32_t block, size_t i)
{
	return kv_block_keys(kv, block, (uint32_t)(i / kv->kv_heads), (uint32_t)(i % kv->kv_heads));
}

static void own_block(struct kv *kv, struct engine_seq *s, uint32_t i)
{
	uint32_t old = s->blocks[i];

	s->blocks[i] = take_block(kv);
	for (size_t h = 0; h < heads_of(kv); h++)
		memcpy(nth_head(kv, s->blocks[i], h), nth_head(kv, old, h), 2 * kv->head_bytes);
	drop_block(kv, old);
}

int kv_seq_share(struct kv *kv, struct engine_seq *s, const struct engine_seq *from, uint32_t n)
{
	uint32_t blocks = n / KV_BLOCK + (n % KV_BLOCK != 0);

	if (make_room(s, blocks) < 0)
		return -ENOMEM;
	for (; s->n_blocks < blocks; s->n_blocks++) {
		s->blocks[s->n_blocks] = from->blocks[s->n_blocks];
		kv->refs[s->blocks[s->n_blocks]]++;
	}
	s->length = n;
	return 0;
}

int kv_seq_reserve(struct kv *kv, struct engine_seq *s, uint32_t n)
{
	uint64_t need = ((uint64_t)s->length + n + KV_BLOCK - 1) / KV_BLOCK, take = 0;
	uint32_t last = s->length / KV_BLOCK;
	/* Written next, and others' too. */
	bool own = n && s->length % KV_BLOCK && kv->refs[s->blocks[last]] > 1;

	if (need > s->n_blocks)
		take = need - s->n_blocks;
	take += own;
	if (need > kv->n_blocks || take > kv->n_free)
		return -ENOSPC;
	if (make_room(s, need) < 0)
		return -ENOMEM;
	if (take && take_pages(kv, take) < 0)
		return -ENOSPC;
	if (own)
		own_block(kv, s, last);
	while (s->n_blocks < need)
		s->blocks[s->n_blocks++] = take_block(kv);
	return 0;
}

void kv_seq_truncate(struct kv *kv, struct engine_seq *s, uint32_t n)
{
	uint32_t keep = n / KV_BLOCK + (n % KV_BLOCK != 0);

	if (n < s->length)
		s->length = n;
	while (s->n_blocks > keep)
		drop_block(kv, s->blocks[--s->n_blocks]);
}

/* A window [begin, end) of the bytes of one head, in a buffer. */
struct window {
	char *bytes;
	size_t begin, end;
};

static void zero(const struct window *w, size_t from, size_t to)
{
	from = num_max(from, w->begin);
	to = num_min(to, w->end);
	if (from < to)
		memset(w->bytes + (from - w->begin), 0, to - from);
}

/* Positions from `used` on: they may hold what another user's sequence left there. */
static void zero_unused(const struct kv *kv, const struct window *w, uint32_t used)
{
	size_t lanes = kernels_attention_key(kv->head, 0, 1), element = kv->element;
	size_t whole = num_align_up(used, lanes);

	for (size_t i = 0; whole > used && i < kv->head; i++) {
		size_t at = kernels_attention_key(kv->head, used, i) * element;

		zero(w, at, at + (whole - used) * element);
	}
	zero(w, whole * kv->head * element, kv->head_bytes);
	zero(w, kv->head_bytes + (size_t)used * kv->head * element, 2 * kv->head_bytes);
}

/* The piece of one head that holds byte `at`; its length, at most `size`. */
static size_t find_piece(const struct kv *kv, const struct engine_seq *s, uint64_t at, size_t size,
	char **ret, uint32_t *ret_block, size_t *ret_begin)
{
	size_t inside = at % kv->block_bytes, unit = 2 * kv->head_bytes;

	*ret_block = (uint32_t)(at / kv->block_bytes);
	*ret_begin = inside % unit;
	*ret = nth_head(kv, s->blocks[*ret_block], inside / unit) + *ret_begin;
	return num_min(size, unit - *ret_begin);
}

void kv_seq_read(const struct kv *kv, const struct engine_seq *s, uint32_t n, uint64_t at, void *to,
	size_t size)
{
	char *out = to;

	while (size > 0) {
		char *piece;
		uint32_t block;
		size_t begin, k = find_piece(kv, s, at, size, &piece, &block, &begin);
		struct window w = {out, begin, begin + k};

		memcpy(out, piece, k);
		if (n < (block + 1) * KV_BLOCK)
			zero_unused(kv, &w, n % KV_BLOCK);
		out += k;
		at += k;
		size -= k;
	}
}

void kv_seq_write(
	struct kv *kv, const struct engine_seq *s, uint64_t at, const void *from, size_t size)
{
	const char *in = from;

	while (size > 0) {
		char *piece;
		uint32_t block;
		size_t begin, k = find_piece(kv, s, at, size, &piece, &block, &begin);

		memcpy(piece, in, k);
		in += k;
		at += k;
		size -= k;
	}
}
