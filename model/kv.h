/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Keys and values: a pool of blocks of KV_BLOCK positions, taken at start-up, and the sequences
 * that hold them.  A block covers all layers and heads.  In each KV_RUN blocks, layer by layer and
 * head by head, lie those of the blocks one after the other: the keys, as kernels_attention_key()
 * says, and then the values [64][head], in f16 or f32.  So what one head reads of a sequence whose
 * blocks were handed out in a row are runs of memory, which is read a quarter faster than single
 * pieces of 32 KiB.  Block i of a sequence holds the positions from i * 64 on (NUMERICS rule 3).
 * One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "desc.h"

#define KV_BLOCK 64u
#define KV_RUN 8u /* blocks whose pages are taken together */

struct engine_seq {
	uint32_t length;   /* positions held, rows under way included */
	uint32_t n_blocks; /* taken */
	uint32_t room;	   /* of blocks[] */
	uint32_t *blocks;
	unsigned busy; /* rows under way */
};

/*
 * Sequences with a common prefix share its blocks.  A block that others hold too is never written
 * at positions that they hold; who wants to write in one takes a copy first (kv_seq_reserve()).
 */

/* Makes sure that the pages of [p, p + n) are there.  0 or -errno. */
typedef int (*kv_take_fn)(void *arg, void *p, size_t n);

struct kv {
	char *memory;
	kv_take_fn take;
	void *take_arg;
	uint32_t n_here;   /* blocks whose pages are there: those below */
	size_t head_bytes; /* keys of one head in one block */
	size_t block_bytes;
	size_t element; /* 2 or 4 */
	uint32_t n_blocks, n_free, n_seqs, head, kv_heads;
	uint32_t *free; /* stack */
	uint16_t *refs; /* sequences that hold each block */
	bool f32;
};

/* Blocks that are there when the first n are: whole runs. */
uint32_t kv_run_end(uint32_t n_blocks, uint32_t n);

/* Bytes of one block. */
size_t kv_block_bytes(const struct desc *d);

/*
 * memory holds n_blocks blocks, the pages of the first n_here are there; the others' are taken when
 * they are handed out first.  0 or -ENOMEM.
 */
int kv_init(struct kv *kv, const struct desc *d, void *memory, uint32_t n_blocks, uint32_t n_here,
	kv_take_fn take, void *take_arg);
void kv_deinit(struct kv *kv);

/* -ENOBUFS where LIMIT_SESSIONS are open, -ENOMEM. */
int kv_seq_new(struct kv *kv, struct engine_seq **ret);
void kv_seq_free(struct kv *kv, struct engine_seq *s);
/*
 * An empty sequence without blocks holds the first n positions of another, n at most what that one
 * holds and nobody computes any more.  0 or -ENOMEM.
 */
int kv_seq_share(struct kv *kv, struct engine_seq *s, const struct engine_seq *from, uint32_t n);
/*
 * Blocks for n more positions: 0, or -ENOSPC, also where the system has no memory for them, or
 * -ENOMEM; nothing is taken then.
 */
int kv_seq_reserve(struct kv *kv, struct engine_seq *s, uint32_t n);
void kv_seq_truncate(struct kv *kv, struct engine_seq *s, uint32_t n);

/*
 * The keys and values of the first n positions as bytes, whole blocks of kv->block_bytes, in an
 * order that does not depend on where the blocks lie: block by block, layer by layer, head by head,
 * keys and then values.  What is read of positions from n on is zero.  [at, at + size) of them to
 * or from a buffer; any thread, while nobody else changes the sequence or writes in its blocks.
 */
void kv_seq_read(const struct kv *kv, const struct engine_seq *s, uint32_t n, uint64_t at, void *to,
	size_t size);
void kv_seq_write(
	struct kv *kv, const struct engine_seq *s, uint64_t at, const void *from, size_t size);

/* First key of a head in a block; values follow at + kv->head_bytes. */
static inline char *kv_block_keys(
	const struct kv *kv, uint32_t block, uint32_t layer, uint32_t head)
{
	uint32_t first = block / KV_RUN * KV_RUN;
	size_t run = kv->n_blocks - first < KV_RUN ? kv->n_blocks - first : KV_RUN;
	size_t at = ((size_t)layer * kv->kv_heads + head) * run + (block - first);

	return kv->memory + first * kv->block_bytes + at * 2 * kv->head_bytes;
}

/* The same in the i-th block of a sequence. */
static inline void *kv_keys(
	const struct kv *kv, const struct engine_seq *s, uint32_t i, uint32_t layer, uint32_t head)
{
	return kv_block_keys(kv, s->blocks[i], layer, head);
}
