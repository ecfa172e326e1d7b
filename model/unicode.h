/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the tokenizers need to know of Unicode: classes of characters, and normal form C.  Tables
 * are made by tests/tools/unicode-tables.py.  Constant data: any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unicode_class {
	UNICODE_LETTER = 1 << 0, /* \p{L} */
	UNICODE_NUMBER = 1 << 1, /* \p{N} */
	UNICODE_SPACE = 1 << 2,	 /* White_Space */
	UNICODE_UPPER = 1 << 3,	 /* Lu, Lt */
	UNICODE_LOWER = 1 << 4,	 /* Ll */
	UNICODE_MARK = 1 << 5,	 /* \p{M} */
	UNICODE_PUNCT = 1 << 6,	 /* \p{P} */
	UNICODE_SYMBOL = 1 << 7, /* \p{S} */
};

/* 0 for everything else and for numbers beyond the last code point. */
uint8_t unicode_class(uint32_t c);

/*
 * Normal form C of the text.  0: it is in that form already, nothing is returned; 1: *ret is a new
 * heap array; -ENOMEM.  Bytes that are no UTF-8 stay as they are.
 */
int unicode_nfc(const char *text, size_t n, char **ret, size_t *ret_n);
