/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of kernels draw their operands from, and how they compare. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#define SPAN ((size_t)1 << 20)

extern const struct kernels *ref;  /* the scalar tier */
extern const struct kernels *tier; /* the one under test */
extern uint64_t state;		   /* of draw(); never 0 */

uint64_t draw(void);
/* Between -2 and 2. */
float draw_float(void);
float as_float(uint32_t u);

/* True; where TEST_SHARE is a number, as under emulation, for one case in so many. */
bool chosen(void);

/* SPAN bytes that end at a page nobody may read; munmap() SPAN + 4096. */
uint8_t *guarded(void);

/* Fails unless they have the same bits, or both are NaN: signs and payloads are not defined. */
void same(const float *a, const float *b, size_t n, const char *what);

/*
 * Random but finite; random bits; all bits set (factors are NaN); nothing; and the codes of largest
 * magnitude, with finite factors, against activations of the largest: where a step would saturate.
 */
enum fill { FILL_TAME, FILL_WILD, FILL_ONES, FILL_ZERO, FILL_HIGH, FILL_LOW, FILL_MAX };

void fill_weights(const struct kernels_format *f, uint8_t *w, size_t bytes, enum fill fill);
void fill_floats(float *x, size_t n, enum fill fill);
