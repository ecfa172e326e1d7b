/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The memory plan: one function divides one limit, for `moed` and for `moe-model plan`.  Pure.
 * Everything counts: dense weights, keys and values, slots, scratch, vocabulary, segments, reserve;
 * the uses add up to the limit exactly.
 */

#include <stdint.h>

#include "desc.h"
#include "error.h"

enum plan_use {
	PLAN_DENSE,
	PLAN_KV,
	PLAN_SLOTS,
	PLAN_SCRATCH,	 /* activations of the two contexts, logits, read windows */
	PLAN_VOCABULARY, /* tokenizer, metadata: heap */
	PLAN_SEGMENTS,	 /* shared memory of clients */
	PLAN_RESERVE,	 /* code, page tables, stacks, kernel side of rings and sockets */
	PLAN_UNUSED,	 /* what nothing needs: the model is wholly in memory */
	PLAN_USES,
};

struct plan_input {
	const struct desc *desc;
	uint64_t limit;
	uint64_t vocabulary; /* bytes held by tokenizer and metadata */
	uint32_t context; /* positions of KV wanted in all, 0: what fits sensibly, at least 2048 */
	uint32_t live_rows; /* sessions that decode at once, 0: default */
	uint32_t bulk_rows; /* prefill chunk, 0: default for the limit */
	uint32_t threads;
	uint32_t clients; /* segments are planned for so many */
	bool daemon;	  /* false: no segments (eval) */
};

struct plan {
	uint64_t limit;
	uint64_t use[PLAN_USES];
	uint64_t arena;	  /* bytes of the arena: dense, KV, slots, scratch; a whole number of huge
			     pages */
	uint64_t floor;	  /* smallest limit that works with this input */
	uint64_t cycle;	  /* bytes of a token cycle */
	uint32_t context; /* positions of KV in all, whole blocks of 64 */
	uint32_t live_rows, bulk_rows;
	uint64_t slots;		/* experts that fit, over all size classes */
	double slots_per_layer; /* mean */
	double expected_hit;	/* share of a token's experts found in slots, were all equally
				   likely: the least that is to be expected */
	double bytes_per_token; /* expected reads of one session that decodes */
};

/*
 * plan_input.vocabulary for a file: heap of the tokenizer and of the metadata, from the size of the
 * header alone, so that a plan needs no tokenizer.
 */
uint64_t plan_vocabulary(const struct gguf *g);

/* Name of a use, as status and plan print it: "dense", "kv", ... */
const char *plan_use_name(enum plan_use use);

/* 0; -ENOMEM with *err naming the smallest limit that works (ret->floor is set then too). */
int plan_make(struct plan *ret, const struct plan_input *in, struct error *err);

/* The least limit at which p->bytes_per_token is half of p's or less; 0 where nothing is read. */
uint64_t plan_half_reads(const struct plan_input *in, const struct plan *p);
