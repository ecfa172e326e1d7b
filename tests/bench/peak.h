/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the CPU's multipliers can do at most: loops of nothing but products, for each instruction
 * set that the processor has and the system allows.  Used by limits.c and bench-kernels; any
 * machine.
 */

#include <stdbool.h>
#include <stddef.h>

/* Bytes of weights that each thread's loops read: more than a first cache, less than a second. */
#define PEAK_WEIGHTS ((size_t)256 << 10)

struct peak_loop {
	const char *tier; /* "avx2", "avxvnni", "avx512vnni", "amx", "avx512"; "dotprod", "i8mm",
			     "neon" */
	const char *name; /* where the operands are: "registers", "l2_4_columns", ... */
	bool (*usable)(void);
	/* One pass; `weights` are PEAK_WEIGHTS bytes, aligned to a page, of this thread's own. */
	void (*run)(const void *weights);
	double operations; /* of a pass: products of int8, or floating-point operations */
};

/* All loops, usable or not, those of a tier together.  Sets *ret_n. */
const struct peak_loop *peak_int8(size_t *ret_n);
const struct peak_loop *peak_f32(size_t *ret_n);

/*
 * Thousand million operations a second of `threads` threads together, the best of several tries, as
 * neighbours only slow one down.  weights: threads * PEAK_WEIGHTS bytes.  0 or -errno.
 */
int peak_measure(const struct peak_loop *loop, const void *weights, unsigned threads, double *ret);

/* The same of the loop of one thread with its operands in registers, of `n`; 0: it is not here. */
double peak_registers(
	const struct peak_loop *loops, size_t n, const char *tier, const void *weights);
