/* SPDX-License-Identifier: MIT */
#pragma once

/* UTF-8, one character at a time, over bytes that may be anything.  Pure functions. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* utf8_decode() gives UTF8_BROKEN + byte for a byte that begins no character. */
#define UTF8_BROKEN 0x110000u

/* Decodes the first character of n > 0 bytes and returns its length; 1 for a broken byte. */
unsigned utf8_decode(const char *s, size_t n, uint32_t *ret);

/* Writes at most 4 bytes; UTF8_BROKEN + byte is written as that byte. */
unsigned utf8_encode(uint32_t c, char *out);

bool utf8_is_valid(const char *s, size_t n);
