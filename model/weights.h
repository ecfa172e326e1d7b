/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Where the dense weights of a description are in memory, and how they get there: first their place
 * in the arena, whose pages need not be there yet; then they are read around the page cache, in
 * large pieces, several in flight, straight to it.  Tensors that are neighbours in the file are so
 * in memory, and are read as one.  Once read, only their packing changes.  Used by the engine's
 * start and its steps.
 */

#include <stdint.h>

#include "desc.h"
#include "error.h"
#include "file.h"
#include "io.h"
#include "kernels.h"
#include "matrix.h"
#include "mem.h"

struct weights_layer {
	const float *attn_norm, *q_norm, *k_norm, *ffn_norm; /* q_norm, k_norm may be NULL */
	struct matrix q, k, v, o;
	struct matrix router;		  /* not in a dense layer */
	struct matrix expert[DESC_PARTS]; /* dense layers only */
};

struct weights {
	struct matrix embedding;
	struct matrix head;    /* where it is not the embedding */
	struct matrix *output; /* one of the two */
	const float *output_norm;
	const float *rope_factors; /* NULL where absent */
	struct weights_layer *layers;
};

struct weights_load;

/* Takes room in the arena; nothing is read or written.  0 or -errno with *err. */
int weights_place(struct weights_load **ret, const struct desc *d, struct mem_arena *arena,
	const struct file *files, size_t n_files, struct error *err);
/* NULL is fine; returns NULL. */
struct weights_load *weights_load_free(struct weights_load *o);

struct weights_callbacks {
	/* Waits until the pages of the arena up to here are there.  0 or -errno. */
	int (*await)(void *arg, const void *end);
	/* Returns non-zero to stop the load with -ECANCELED. */
	int (*progress)(void *arg, uint64_t done, uint64_t all);
	void *arg;
};

/* Fills what was placed.  0 or -errno with *err. */
int weights_read(struct weights *w, struct weights_load *o, const struct kernels *k, struct io *io,
	const struct weights_callbacks *callbacks, struct error *err);
void weights_deinit(struct weights *w);

/* Bytes of the arena beyond desc_dense_bytes() that windows and rounding take at worst. */
uint64_t weights_overhead(const struct desc *d);
