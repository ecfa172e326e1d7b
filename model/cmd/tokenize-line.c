/* SPDX-License-Identifier: MIT */
#include "tokenize-line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "num.h"
#include "utf8.h"

int tokenize_bytes_add(struct tokenize_bytes *b, const char *s, size_t n)
{
	if (b->room - b->n < n) {
		size_t room = num_max(b->room * 2, b->n + n + 256);
		void *p = realloc(b->s, room);

		if (!p)
			return -ENOMEM;
		b->s = p;
		b->room = room;
	}
	if (n)
		memcpy(b->s + b->n, s, n);
	b->n += n;
	return 0;
}

int tokenize_bytes_add_id(struct tokenize_bytes *b, const struct tokenizer *t, uint32_t id,
	bool skip_special, bool *first)
{
	const char *s;
	size_t n;
	int r = tokenizer_piece(t, id, *first, !skip_special, &s, &n);

	if (r < 0)
		return r;
	*first = tokenizer_is_control(t, id);
	return tokenize_bytes_add(b, s, n);
}

static json_t *parse(const char *line, size_t n, struct error *err)
{
	json_error_t why;
	json_t *in = json_loadb(line, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);

	if (!in) {
		/* The rest of its sentence quotes the line, which may hold anything. */
		const char *end = strstr(why.text, " near ");

		error_set(err, -EINVAL, "not JSON: %.*s, at byte %d",
			(int)(end ? end - why.text : (ptrdiff_t)strlen(why.text)), why.text,
			why.position);
		return NULL;
	}
	if (!json_is_object(in)) {
		error_set(err, -EINVAL, "not a JSON object");
		json_decref(in);
		return NULL;
	}
	return in;
}

/* An absent flag, or null, is false. */
static int parse_flag(json_t *in, const char *key, bool *ret, struct error *err)
{
	json_t *v = json_object_get(in, key);

	if (v && !json_is_null(v) && !json_is_boolean(v))
		return error_set(err, -EINVAL, "\"%s\" is neither true nor false", key);
	*ret = json_is_true(v);
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n hexadecimal digits to n / 2 bytes. */
static int hex_decode(const char *hex, size_t n, char *out)
{
	if (n % 2)
		return -EINVAL;
	for (size_t i = 0; i < n; i += 2) {
		int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		out[i / 2] = (char)(high * 16 + low);
	}
	return 0;
}

/* The bytes that the line is about: *ret points into the object or to *room, which is freed. */
static int parse_text(json_t *in, const char **ret, size_t *ret_n, char **room, struct error *err)
{
	json_t *text = json_object_get(in, "text"), *hex = json_object_get(in, "hex"), *v;

	text = json_is_null(text) ? NULL : text;
	hex = json_is_null(hex) ? NULL : hex;
	v = text ? text : hex;
	if (!text == !hex)
		return error_set(err, -EINVAL,
			text ? "both \"text\" and \"hex\" are given: one of them is wanted"
			     : "neither \"text\" nor \"hex\" is given");
	if (!json_is_string(v))
		return error_set(err, -EINVAL, "\"%s\" is not a string", text ? "text" : "hex");
	*ret = json_string_value(v);
	*ret_n = json_string_length(v);
	if (text)
		return 0;
	*room = malloc(*ret_n / 2 + 1);
	if (!*room)
		return error_set(err, -ENOMEM, "out of memory");
	if (hex_decode(*ret, *ret_n, *room) < 0)
		return error_set(
			err, -EINVAL, "\"hex\" is not an even number of hexadecimal digits");
	*ret = *room;
	*ret_n /= 2;
	return 0;
}

static json_t *ids_to_json(const uint32_t *ids, size_t n, struct error *err)
{
	cleanup_(json_decrefp) json_t *list = json_array();
	json_t *out;

	for (size_t i = 0; list && i < n; i++)
		if (json_array_append_new(list, json_integer(ids[i])) < 0)
			list = (json_decref(list), NULL);
	out = list ? json_pack("{s:O}", "ids", list) : NULL;
	if (!out)
		error_set(err, -ENOMEM, "out of memory");
	return out;
}

json_t *tokenize_line(const struct tokenizer *t, const char *line, size_t n, struct error *err)
{
	cleanup_(json_decrefp) json_t *in = parse(line, n, err);
	cleanup_free_ char *room = NULL;
	cleanup_free_ uint32_t *ids = NULL;
	bool add = false, special = false;
	const char *s = NULL;
	size_t size = 0, n_ids = 0;
	int r;

	if (!in || parse_flag(in, "add_special", &add, err) < 0 ||
		parse_flag(in, "parse_special", &special, err) < 0 ||
		parse_text(in, &s, &size, &room, err) < 0)
		return NULL;
	r = tokenizer_encode(t, s, size,
		(add ? TOKENIZER_ADD_SPECIAL : 0u) | (special ? TOKENIZER_PARSE_SPECIAL : 0u), &ids,
		&n_ids);
	if (r < 0) {
		error_set(err, r, "cannot tokenize %zu bytes: %s", size, error_text(NULL, r));
		return NULL;
	}
	return ids_to_json(ids, n_ids, err);
}

static json_t *bytes_to_json(const struct tokenize_bytes *b, struct error *err)
{
	static const char digits[] = "0123456789abcdef";
	const char *s = b->n ? b->s : "";
	cleanup_free_ char *hex = NULL;
	json_t *out = NULL;

	if (utf8_is_valid(s, b->n)) {
		out = json_pack("{s:o}", "text", json_stringn_nocheck(s, b->n));
	} else if ((hex = malloc(b->n * 2))) {
		for (size_t i = 0; i < b->n; i++) {
			hex[2 * i] = digits[(unsigned char)s[i] >> 4];
			hex[2 * i + 1] = digits[(unsigned char)s[i] & 15];
		}
		out = json_pack("{s:o}", "hex", json_stringn_nocheck(hex, b->n * 2));
	}
	if (!out)
		error_set(err, -ENOMEM, "out of memory");
	return out;
}

json_t *detokenize_line(const struct tokenizer *t, const char *line, size_t n, struct error *err)
{
	cleanup_(json_decrefp) json_t *in = parse(line, n, err);
	json_t *ids = json_object_get(in, "ids"), *one, *out = NULL;
	struct tokenize_bytes b = {0};
	bool skip = false, first = true;
	size_t i;
	int r = 0;

	if (!in || parse_flag(in, "skip_special", &skip, err) < 0)
		return NULL;
	if (!json_is_array(ids)) {
		error_set(err, -EINVAL, ids ? "\"ids\" is not an array" : "no \"ids\" are given");
		return NULL;
	}
	json_array_foreach(ids, i, one)
	{
		json_int_t id = json_integer_value(one);

		if (!json_is_integer(one))
			r = error_set(err, -EINVAL, "\"ids\"[%zu] is not a whole number", i);
		else if (id < 0 || id >= tokenizer_size(t))
			r = error_set(err, -EINVAL,
				"\"ids\"[%zu] is %" JSON_INTEGER_FORMAT
				", outside the vocabulary of %" PRIu32 " tokens",
				i, id, tokenizer_size(t));
		else
			r = tokenize_bytes_add_id(&b, t, (uint32_t)id, skip, &first);
		if (r < 0)
			break;
	}
	if (r < 0)
		error_set(err, r, "out of memory");
	else
		out = bytes_to_json(&b, err);
	free(b.s);
	return out;
}
