/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Drives an engine through texts in every way that the gates compare: alone or side by side, one
 * chunk or many, prefill of some while others decode.  Fails the test that calls where the engine
 * itself fails; a text that fails says so in its answer.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "desc.h"
#include "engine.h"
#include "plan.h"
#include "sampler.h"

#define DRIVE_STEPS_MAX 16
#define DRIVE_TEXTS_MAX 16

enum drive_cache {
	DRIVE_RESIDENT, /* a slot for every expert, filled at the start */
	DRIVE_AMPLE,	/* a slot for all but one: nothing is there before it is wanted */
	DRIVE_SMALLEST, /* two layers' top-k */
	DRIVE_ONE,	/* one slot: less than any plan gives */
};

struct drive_how {
	const char *path;
	const char *tier; /* MOED_CPU; NULL: the best */
	enum drive_cache cache;
	enum policy_kind policy;
	enum engine_prefetch prefetch;
	enum engine_io io;
	uint32_t threads;	 /* 0: 1 */
	uint32_t experts, top_k; /* of online upcycling; 0: none */
	bool bare;		 /* nothing is awaited at the start but the start */
	bool background;	 /* engine_background() between tiles */
	int (*io_new)(void *arg, struct io **ret, const int *fds, size_t n, struct error *err);
	void *io_new_arg;
};

struct drive {
	struct gguf *gguf;
	struct desc *desc;
	struct plan plan;
	struct engine *engine;
	bool background;
};

struct drive_text {
	const uint32_t *ids;
	size_t n;
	struct sampler_params sampling;
};

struct drive_answer {
	float *logits; /* [n][vocabulary] of the prompt's positions */
	uint32_t tokens[DRIVE_STEPS_MAX];
	float logprobs[DRIVE_STEPS_MAX];
	size_t n_tokens;
	size_t errors; /* callbacks */
	int code;
	char error[512];
};

void drive_start(struct drive *d, const struct drive_how *how);
void drive_stop(struct drive *d);

/*
 * Prompts, then `steps` tokens each.  together: all in the same steps, else one after another.
 * chunk: rows of a step of prefill at most, 0: as many as the plan has.
 */
void drive_run(struct drive *d, const struct drive_text *texts, size_t n, size_t steps,
	bool together, uint32_t chunk, struct drive_answer *answers);
void drive_answers_free(struct drive_answer *answers, size_t n);

/* True where all bits are equal. */
bool drive_equal(const struct drive *d, const struct drive_text *text, const struct drive_answer *a,
	const struct drive_answer *b);
