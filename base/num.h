/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Numbers from outside: checked arithmetic and strict parsing.  Checked functions return false and
 * leave *ret untouched on overflow; parsers return 0, -EINVAL (not a number) or -ERANGE.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool num_add(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*ret = r;
	return true;
}

static inline bool num_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*ret = r;
	return true;
}

/* Rounds a up to a multiple of unit, a power of two. */
static inline bool num_align(uint64_t a, uint64_t unit, uint64_t *ret)
{
	uint64_t r;

	if (__builtin_add_overflow(a, unit - 1, &r))
		return false;
	*ret = r & ~(unit - 1);
	return true;
}

/* The same for numbers that are our own and cannot overflow. */
static inline uint64_t num_align_up(uint64_t a, uint64_t unit)
{
	return (a + unit - 1) & ~(unit - 1);
}

static inline uint64_t num_align_down(uint64_t a, uint64_t unit)
{
	return a & ~(unit - 1);
}

static inline bool num_is_pow2(uint64_t a)
{
	return a && !(a & (a - 1));
}

#define num_min(a, b)                                                                              \
	({                                                                                         \
		__auto_type a_ = (a);                                                              \
		__auto_type b_ = (b);                                                              \
		a_ < b_ ? a_ : b_;                                                                 \
	})

#define num_max(a, b)                                                                              \
	({                                                                                         \
		__auto_type a_ = (a);                                                              \
		__auto_type b_ = (b);                                                              \
		a_ > b_ ? a_ : b_;                                                                 \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Decimal digits only, no sign, no blanks, whole string. */
int num_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

/* A finite decimal number (strtod's decimal forms, "C" notation, whole string). */
int num_parse_double(const char *text, double min, double max, double *ret);

/*
 * A size: digits with an optional suffix K, M, G, T (powers of 1024; an optional "iB" or "B" may
 * follow), as "512M" or "6G"; or, where `whole` is not 0, "60%" of `whole` (1 to 100).
 */
int num_parse_size(const char *text, uint64_t whole, uint64_t *ret);

/* "1.50 GiB", "512 B": three significant digits; returns buf. */
#define NUM_SIZE_TEXT_MAX 24
const char *num_format_size(uint64_t bytes, char buf[NUM_SIZE_TEXT_MAX]);
