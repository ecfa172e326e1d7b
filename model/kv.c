/* SPDX-License-Identifier: MIT */
#include "kv.h"

#include <errno.h>
#include <stdlib.h>

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
	if (!kv->free)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_blocks; i++)
		kv->free[i] = n_blocks - 1 - i;
	return 0;
}

void kv_deinit(struct kv *kv)
{
	free(kv->free);
	kv->free = NULL;
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

int kv_seq_reserve(struct kv *kv, struct engine_seq *s, uint32_t n)
{
	uint64_t need = ((uint64_t)s->length + n + KV_BLOCK - 1) / KV_BLOCK;

	if (need > kv->n_blocks || (need > s->n_blocks && need - s->n_blocks > kv->n_free))
		return -ENOSPC;
	if (need > s->room) {
		uint32_t room = (uint32_t)num_max(need, (uint64_t)s->room * 2);
		uint32_t *blocks = realloc(s->blocks, room * sizeof *blocks);

		if (!blocks)
			return -ENOMEM;
		s->blocks = blocks;
		s->room = room;
	}
	if (need > s->n_blocks && take_pages(kv, need - s->n_blocks) < 0)
		return -ENOSPC;
	while (s->n_blocks < need)
		s->blocks[s->n_blocks++] = kv->free[--kv->n_free];
	return 0;
}

void kv_seq_truncate(struct kv *kv, struct engine_seq *s, uint32_t n)
{
	uint32_t keep = n / KV_BLOCK + (n % KV_BLOCK != 0);

	if (n < s->length)
		s->length = n;
	while (s->n_blocks > keep)
		kv->free[kv->n_free++] = s->blocks[--s->n_blocks];
}
