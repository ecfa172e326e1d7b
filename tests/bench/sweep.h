/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The rate at which memory can be read in sequence, in GB/s: the best of several sweeps over
 * `size` bytes, since the neighbours of a shared machine only ever slow one down.  0 or -errno.
 */

#include <stddef.h>

int sweep_measure(const char *base, size_t size, unsigned threads, double *ret);
