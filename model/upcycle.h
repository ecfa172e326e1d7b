/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A dense GGUF written out as a Mixture-of-Experts one: every feed-forward block of the chosen
 * layers copied to all experts, a router drawn in front of it, all else byte for byte.  Streams:
 * holds one buffer.  OUT appears whole or not at all.  One thread.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct upcycle {
	uint32_t experts, top_k;
	uint32_t seed;
	bool exact;	    /* router rows in equal groups of top_k, see desc_upcycle() */
	bool softmax_first; /* softmax over all experts, then the best, normalised; else Mixtral's
			       order */
	const bool *layers; /* [n_layers of the model], NULL: all */
	uint32_t n_layers;  /* length of `layers` */
	void (*progress)(void *arg, uint64_t done, uint64_t all); /* may be NULL */
	void *progress_arg;
	const volatile sig_atomic_t *stop; /* non-zero ends it with -ECANCELED; may be NULL */
};

struct upcycle_result {
	uint64_t size; /* of OUT */
	uint32_t layers, moe_layers;
};

/* 0, or -errno with *err; OUT is untouched then. */
int upcycle_write(struct upcycle_result *ret, const char *dense, const char *out,
	const struct upcycle *how, struct error *err);
