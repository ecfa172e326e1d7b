/* SPDX-License-Identifier: MIT */
#pragma once

/* Whether weights as they stand in a file are numbers: floats, and the scales of blocks.  Pure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False for types whose blocks we do not know. */
bool finite_is_known(uint32_t type);

/*
 * Looks through n bytes, whole blocks of a known type, from the byte *at on.  True where all floats
 * and scales there are finite; else *at is the offset of the first that is not, and one more is
 * where to look for the next.
 */
bool finite_check(uint32_t type, const void *bytes, size_t n, size_t *at);
