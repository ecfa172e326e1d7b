/* SPDX-License-Identifier: MIT */

/* Text in and out: arguments, standard input, terminals, JSON. */

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moectl.h"

#define TEXT_MAX ((size_t)16 << 20)

static char *text_copy(const char *from, size_t *ret_length)
{
	char *text = strdup(from);

	*ret_length = strlen(from);
	if (!text)
		(void)complain("out of memory");
	return text;
}

static char *stream_read(FILE *f, const char *name, size_t *ret_length)
{
	size_t room = 65536, n = 0, got;
	char *text, *larger;

	text = malloc(room + 1);
	while (text && (got = fread(text + n, 1, room - n, f)) > 0) {
		n += got;
		if (n < room)
			continue;
		larger = room < TEXT_MAX ? realloc(text, room * 2 + 1) : NULL;
		if (!larger) {
			(void)complain("%s is longer than %zu bytes", name, TEXT_MAX);
			free(text);
			return NULL;
		}
		text = larger;
		room *= 2;
	}
	if (!text || ferror(f)) {
		(void)complain("cannot read %s: %s", name, strerror(errno));
		free(text);
		return NULL;
	}
	text[n] = 0;
	*ret_length = n;
	return text;
}

char *text_read(const struct options *o, size_t *ret_length)
{
	if (o->text && strcmp(o->text, "-") != 0)
		return text_copy(o->text, ret_length);
	return stream_read(stdin, "standard input", ret_length);
}

char *source_read(const struct options *o, size_t n, size_t *ret_length)
{
	const struct source *s = &o->sources[n];
	char *text;
	FILE *f;

	if (n >= o->n_sources || strcmp(s->text, "-") == 0)
		return stream_read(stdin, "standard input", ret_length);
	if (!s->is_file)
		return text_copy(s->text, ret_length);
	f = fopen(s->text, "re");
	if (!f) {
		(void)complain("cannot read %s: %s", s->text, strerror(errno));
		return NULL;
	}
	text = stream_read(f, s->text, ret_length);
	(void)fclose(f);
	return text;
}

/* Bytes of the character at s, or 0 where it is none. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
	size_t length = s[0] < 0x80   ? 1
			: s[0] < 0xc2 ? 0
			: s[0] < 0xe0 ? 2
			: s[0] < 0xf0 ? 3
			: s[0] < 0xf5 ? 4
				      : 0;

	if (length > n)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	if (length == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)))
		return 0;
	if (length == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)))
		return 0;
	return length;
}

json_t *json_text(const char *text, size_t length)
{
	char *clean = malloc(length * 3 + 1);
	size_t n = 0, l;
	json_t *value;

	if (!clean)
		return NULL;
	for (size_t i = 0; i < length; i += l ? l : 1) {
		l = utf8_length((const unsigned char *)text + i, length - i);
		memcpy(clean + n, l ? text + i : "\xef\xbf\xbd", l ? l : 3);
		n += l ? l : 3;
	}
	value = json_stringn(clean, n);
	free(clean);
	return value;
}

int json_print(json_t *value)
{
	int k;

	if (!value)
		return complain("cannot put the answer together: out of memory");
	k = json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
	json_decref(value);
	if (k == 0)
		(void)putchar('\n');
	return output_end();
}

json_t *json_number(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

/*
 * A terminal obeys what is written to it, and a model may have been told to write anything: so
 * there control characters are shown as '?', those of two bytes (U+0080 to U+009F) too.
 */
void text_print(const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;

	if (!isatty(STDOUT_FILENO)) {
		(void)fwrite(text, 1, n, stdout);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		bool c1 = s[i] == 0xc2 && i + 1 < n && s[i + 1] < 0xa0;

		if (c1 || (s[i] < 0x20 && s[i] != '\n' && s[i] != '\t') || s[i] == 0x7f)
			(void)putchar('?');
		else
			(void)putchar(s[i]);
		i += c1;
	}
}

int output_end(void)
{
	if (ferror(stdout) || fflush(stdout) == EOF)
		return complain("cannot write to standard output: %s", strerror(errno));
	return EXIT_OK;
}
