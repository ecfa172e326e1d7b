/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What is known before the engine starts: the model's header, description, tokenizer and template,
 * the memory limit and the plan.  Made once, by the main thread; immutable afterwards, so that loop
 * and engine may both read it.
 */

#include <stdint.h>
#include <stdio.h>

#include "chat.h"
#include "configuration.h"
#include "desc.h"
#include "error.h"
#include "gguf.h"
#include "memory-limit.h"
#include "plan.h"
#include "tokenizer.h"

struct load {
	struct gguf *gguf;
	struct desc *desc;
	struct tokenizer *tokenizer;
	struct chat *chat;
	struct memory_limit limit;
	struct plan plan;
	uint64_t half_reads; /* the limit at which half as much is read per token; 0: nothing is */
	uint32_t threads;
	uint32_t context; /* positions of one session */
	char limit_text[640];
};

/* 0 or -errno with *err. */
int load_init(struct load *l, const struct config *c, struct error *err);
void load_deinit(struct load *l);

/* The plan for people. */
void load_print(const struct load *l, FILE *f);
