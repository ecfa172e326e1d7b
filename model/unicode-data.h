/* SPDX-License-Identifier: MIT */
#pragma once

/* The generated tables behind unicode.h; nobody else reads them.  Constant. */

#include <stddef.h>
#include <stdint.h>

/* Runs: first code point << 8 | value, ascending, beginning at 0. */
extern const uint32_t unicode_class_runs[], unicode_order_runs[], unicode_unsafe_runs[];
extern const size_t unicode_class_runs_n, unicode_order_runs_n, unicode_unsafe_runs_n;

/* c = a b; b is 0 where c becomes a alone. */
struct unicode_pair {
	uint32_t c, a, b;
};

/* By c; and those that compose, as places in it, by (a, b). */
extern const struct unicode_pair unicode_decompose_pairs[];
extern const size_t unicode_decompose_pairs_n;
extern const uint16_t unicode_compose_order[];
extern const size_t unicode_compose_order_n;
