/* SPDX-License-Identifier: MIT */

/* UTF-8 without overlong forms and surrogates; the stream of tokenizer.h. */

#include <string.h>

#include "tokenizer.h"
#include "utf8.h"

/*
 * Length of the character that begins with these bytes, or, negative, the length of its broken part
 * (the maximal subpart of the Unicode Standard, 3.9); 0 where more bytes are needed.
 */
static int measure(const unsigned char *s, size_t n)
{
	unsigned char low = 0x80, high = 0xbf;
	unsigned want;

	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return -1;
	want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	for (unsigned i = 1; i < want; i++) {
		if (i == n)
			return 0;
		if (s[i] < low || s[i] > high)
			return -(int)i;
		low = 0x80;
		high = 0xbf;
	}
	return (int)want;
}

unsigned utf8_decode(const char *text, size_t n, uint32_t *ret)
{
	const unsigned char *s = (const unsigned char *)text;
	int k = measure(s, n);

	switch (k) {
	case 1:
		*ret = s[0];
		return 1;
	case 2:
		*ret = (uint32_t)(s[0] & 31) << 6 | (s[1] & 63);
		return 2;
	case 3:
		*ret = (uint32_t)(s[0] & 15) << 12 | (uint32_t)(s[1] & 63) << 6 | (s[2] & 63);
		return 3;
	case 4:
		*ret = (uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 |
		       (uint32_t)(s[2] & 63) << 6 | (s[3] & 63);
		return 4;
	default:
		*ret = UTF8_BROKEN + s[0];
		return 1;
	}
}

unsigned utf8_encode(uint32_t c, char *out)
{
	if (c < 0x80 || c >= UTF8_BROKEN) {
		out[0] = (char)(c < 0x80 ? c : c - UTF8_BROKEN);
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 63));
		out[2] = (char)(0x80 | (c & 63));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 63));
	out[2] = (char)(0x80 | (c >> 6 & 63));
	out[3] = (char)(0x80 | (c & 63));
	return 4;
}

bool utf8_is_valid(const char *s, size_t n)
{
	for (size_t at = 0; at < n;) {
		uint32_t c;

		at += utf8_decode(s + at, n - at, &c);
		if (c >= UTF8_BROKEN)
			return false;
	}
	return true;
}

size_t utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t n, bool last, char *out)
{
	size_t size = 0;

	for (size_t at = 0;; at++) {
		bool end = last && at == n;

		while (s->n) {
			int k = measure(s->held, s->n);
			unsigned used = k ? (unsigned)(k < 0 ? -k : k) : s->n;

			if (!k && !end)
				break;
			if (k > 0)
				memcpy(out + size, s->held, used);
			size += k > 0 ? used : utf8_encode(0xfffd, out + size);
			s->n -= used;
			/* What broke a character begins the next one. */
			memmove(s->held, s->held + used, s->n);
		}
		if (at == n)
			return size;
		s->held[s->n++] = (unsigned char)bytes[at];
	}
}
