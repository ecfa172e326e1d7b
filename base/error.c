/* SPDX-License-Identifier: MIT */

#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 3, 0))) static int set(
	struct error *err, int code, const char *format, va_list args)
{
	if (!err || err->code)
		return code;
	err->code = code;
	(void)vsnprintf(err->text, sizeof err->text, format, args);
	return code;
}

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)set(err, code, format, args);
	va_end(args);
	return code;
}

int error_errno(struct error *err, int code, const char *format, ...)
{
	va_list args;
	size_t used;

	if (!err || err->code)
		return code;
	va_start(args, format);
	(void)set(err, code, format, args);
	va_end(args);
	used = strlen(err->text);
	(void)snprintf(
		err->text + used, sizeof err->text - used, ": %s", strerrordesc_np(abs(code)));
	return code;
}

void error_prefix(struct error *err, const char *format, ...)
{
	char old[ERROR_TEXT_MAX];
	va_list args;
	size_t used;

	if (!err || !err->code)
		return;
	memcpy(old, err->text, sizeof old);
	va_start(args, format);
	(void)vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	used = strlen(err->text);
	(void)snprintf(err->text + used, sizeof err->text - used, ": %.*s",
		(int)(sizeof err->text - used), old);
}

const char *error_text(const struct error *err, int code)
{
	const char *text;

	if (err && err->code && err->text[0])
		return err->text;
	text = strerrordesc_np(abs(code));
	return text ? text : "unknown error";
}

const char *error_name(int code)
{
	const char *name = strerrorname_np(abs(code));

	return name ? name : "E?";
}
