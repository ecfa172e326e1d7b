/* SPDX-License-Identifier: MIT */

#include "num.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits at *text into *ret; moves *text past them. */
static int digits(const char **text, uint64_t *ret)
{
	uint64_t v = 0;
	const char *p = *text;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (!num_mul(v, 10, &v) || !num_add(v, (uint64_t)(*p - '0'), &v))
			return -ERANGE;
	*text = p;
	*ret = v;
	return 0;
}

int num_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v;
	int r = digits(&text, &v);

	if (r < 0)
		return r;
	if (*text)
		return -EINVAL;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int num_parse_double(const char *text, double min, double max, double *ret)
{
	char *end;
	double v;

	if (strspn(text, "0123456789+-.eE") != strlen(text) || !*text)
		return -EINVAL;
	errno = 0;
	v = strtod(text, &end);
	if (*end || end == text)
		return -EINVAL;
	if (!isfinite(v) || v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int num_parse_size(const char *text, uint64_t whole, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	const char *at;
	uint64_t v;
	int r = digits(&text, &v);

	if (r < 0)
		return r;
	if (*text == '%' && !text[1] && whole) {
		if (v < 1 || v > 100)
			return -ERANGE;
		/* whole * v may overflow; hundredths first loses less than 100 bytes. */
		*ret = whole / 100 * v;
		return 0;
	}
	at = *text ? strchr(suffixes, *text) : NULL;
	if (at) {
		if (!num_mul(v, UINT64_C(1) << (10 * (at - suffixes + 1)), &v))
			return -ERANGE;
		text++;
		if (*text == 'i' && text[1] == 'B')
			text++;
	}
	if (*text == 'B')
		text++;
	if (*text)
		return -EINVAL;
	*ret = v;
	return 0;
}

const char *num_format_size(uint64_t bytes, char buf[NUM_SIZE_TEXT_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1023.5 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	(void)snprintf(buf, NUM_SIZE_TEXT_MAX, "%.*f %s",
		u == 0 || v >= 99.95 ? 0
		: v >= 9.995	     ? 1
				     : 2,
		v, units[u]);
	return buf;
}
