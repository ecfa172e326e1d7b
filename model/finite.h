/* SPDX-License-Identifier: MIT */
#pragma once

/* Whether weights as they stand in a file are numbers: floats, and the scales of blocks.  Pure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False for types whose blocks we do not know. */
bool finite_is_known(uint32_t type);

/*
 * Looks through n bytes, whole blocks of a known type.  True where all floats and scales are
 * finite; else *ret_at is the offset of the first that is not.
 */
bool finite_check(uint32_t type, const void *bytes, size_t n, size_t *ret_at);
