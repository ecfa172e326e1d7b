/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Where the dense weights of a description are in memory, and how they get there: read around the
 * page cache in large pieces, several in flight, straight to their place in the arena.  Once read,
 * only their packing changes.  Used by the engine's start and its steps.
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

/* Returns non-zero to stop the load with -ECANCELED. */
typedef int (*weights_progress_fn)(void *arg, uint64_t done, uint64_t all);

/* Takes room in the arena and fills it.  0 or -errno with *err. */
int weights_read(struct weights *w, const struct desc *d, const struct kernels *k,
	struct mem_arena *arena, struct io *io, const struct file *files, size_t n_files,
	weights_progress_fn progress, void *progress_arg, struct error *err);
void weights_deinit(struct weights *w);

/* Bytes of the arena beyond desc_dense_bytes() that windows and rounding take at worst. */
uint64_t weights_overhead(const struct desc *d);
