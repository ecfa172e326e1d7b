/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * An engine without a model, for the scheduler: the next token is a hash of all tokens before, so
 * that whatever is lost, doubled or mixed up changes the answer.  Checks how it is called.
 */

#include "engine.h"

#define FAKE_VOCABULARY 64u
#define FAKE_CONTEXT 512u
#define FAKE_LAYERS 2u
#define FAKE_EXPERTS 8u

struct engine {
	uint32_t free, all;		 /* positions of the pool */
	uint32_t tiles[ENGINE_CONTEXTS]; /* of a step */
	uint32_t seqs, seqs_max;
	uint32_t fail_token; /* rows of it cannot be computed; 0: none */
	uint32_t shared;     /* calls of engine_seq_share() */
	uint64_t identity;
	uint32_t rows_most[ENGINE_CONTEXTS];
	uint64_t steps[ENGINE_CONTEXTS];
	struct {
		bool running;
		uint32_t tile;
		size_t n;
		struct engine_row rows[1024];
		uint32_t at[1024];
		struct engine_callbacks callbacks;
	} context[ENGINE_CONTEXTS];
};

/* The token after these. */
uint32_t fake_next(const uint32_t *tokens, uint32_t n);
