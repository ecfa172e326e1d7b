/* SPDX-License-Identifier: MIT */

/* moe-model tokenize and detokenize: text to ids and back, whole or one JSON object a line. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cmd.h"
#include "gguf.h"
#include "num.h"
#include "tokenizer.h"
#include "utf8.h"

static const char help[] =
	"Usage: moe-model tokenize FILE [--jsonl]\n"
	"       moe-model detokenize FILE [--jsonl]\n"
	"Turn text on standard input into ids of the model's tokens, or ids into text.\n\n"
	"Without --jsonl the input is one text (or ids between blanks), taken without special "
	"tokens:\n"
	"nothing is added, control tokens in the text are plain text, and control ids give no "
	"text.\n\n"
	"With --jsonl each line is an object, and gives one:\n"
	"  tokenize    {\"text\": TEXT or \"hex\": BYTES, \"add_special\": false,\n"
	"               \"parse_special\": false} to {\"ids\": [...]}\n"
	"  detokenize  {\"ids\": [...], \"parse_special\": false} to {\"text\": TEXT}, or\n"
	"              {\"hex\": BYTES} where the bytes are no UTF-8; with parse_special control\n"
	"              tokens come out as their names\n"
	"  A line that cannot be served gives {\"error\": REASON}, and the exit status is 1.\n";

struct job {
	struct tokenizer *t;
	bool jsonl, failed;
};

static int hex_decode(const char *hex, size_t n, char *out)
{
	if (n % 2)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		const char *digits = "0123456789abcdef";
		const char *d = hex[i] ? strchr(digits, hex[i] | 32) : NULL;
		unsigned v;

		if (!d || (hex[i] < '0'))
			return -EINVAL;
		v = (unsigned)(d - digits);
		out[i / 2] = (char)(i % 2 ? (unsigned char)out[i / 2] | v : v << 4);
	}
	return 0;
}

static json_t *bytes_to_json(const char *s, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	cleanup_free_ char *hex = NULL;

	if (utf8_is_valid(s, n))
		return json_pack("{s:o}", "text", json_stringn_nocheck(s, n));
	hex = malloc(n * 2 + 1);
	if (!hex)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		hex[2 * i] = digits[(unsigned char)s[i] >> 4];
		hex[2 * i + 1] = digits[(unsigned char)s[i] & 15];
	}
	return json_pack("{s:o}", "hex", json_stringn_nocheck(hex, n * 2));
}

static json_t *json_error(const char *text)
{
	return json_pack("{s:s}", "error", text);
}

static json_t *encode_line(const struct tokenizer *t, json_t *in)
{
	json_t *text = json_object_get(in, "text"), *hex = json_object_get(in, "hex"), *ids;
	cleanup_free_ char *bytes = NULL;
	cleanup_free_ uint32_t *out = NULL;
	unsigned flags = 0;
	const char *s;
	size_t n, n_out;

	if (!json_is_string(text) == !json_is_string(hex))
		return json_error("wanted is either \"text\" or \"hex\", a string");
	s = json_string_value(json_is_string(text) ? text : hex);
	n = json_string_length(json_is_string(text) ? text : hex);
	if (json_is_string(hex)) {
		bytes = malloc(n / 2 + 1);
		if (!bytes)
			return NULL;
		if (hex_decode(s, n, bytes) < 0)
			return json_error("\"hex\" is not an even number of hexadecimal digits");
		s = bytes;
		n /= 2;
	}
	if (json_is_true(json_object_get(in, "add_special")))
		flags |= TOKENIZER_ADD_SPECIAL;
	if (json_is_true(json_object_get(in, "parse_special")))
		flags |= TOKENIZER_PARSE_SPECIAL;
	if (tokenizer_encode(t, s, n, flags, &out, &n_out) < 0)
		return json_error("out of memory");
	ids = json_array();
	for (size_t i = 0; ids && i < n_out; i++)
		(void)json_array_append_new(ids, json_integer(out[i]));
	return json_pack("{s:o}", "ids", ids);
}

struct bytes {
	char *s;
	size_t n, room;
};

static int bytes_add(struct bytes *b, const char *s, size_t n)
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

/* `first` stays true over control tokens: the blank is dropped at the start of the text. */
static int bytes_add_token(
	struct bytes *b, const struct tokenizer *t, uint64_t id, bool special, bool *first)
{
	const char *s;
	size_t n;
	int r;

	if (id > UINT32_MAX)
		return -ERANGE;
	r = tokenizer_piece(t, (uint32_t)id, *first, special, &s, &n);
	if (r < 0)
		return r;
	if (!tokenizer_is_control(t, (uint32_t)id))
		*first = false;
	return bytes_add(b, s, n);
}

static json_t *decode_line(const struct tokenizer *t, json_t *in)
{
	json_t *ids = json_object_get(in, "ids"), *one, *out;
	bool special = json_is_true(json_object_get(in, "parse_special")), first = true;
	struct bytes b = {0};
	size_t i;

	if (!json_is_array(ids))
		return json_error("wanted is \"ids\", an array");
	json_array_foreach(ids, i, one)
	{
		int r = -ERANGE;

		if (json_is_integer(one) && json_integer_value(one) >= 0)
			r = bytes_add_token(
				&b, t, (uint64_t)json_integer_value(one), special, &first);
		if (r < 0) {
			free(b.s);
			return json_error(
				r == -ERANGE ? "an id is not in the vocabulary" : "out of memory");
		}
	}
	out = bytes_to_json(b.n ? b.s : "", b.n);
	free(b.s);
	return out;
}

static int run_lines(struct job *j, json_t *(*serve)(const struct tokenizer *t, json_t *in))
{
	cleanup_free_ char *line = NULL;
	size_t room = 0;
	ssize_t n;

	while ((n = getline(&line, &room, stdin)) >= 0) {
		json_error_t why;
		json_t *in, *out;

		if (n && line[n - 1] == '\n')
			n--;
		if (!n)
			continue;
		in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, &why);
		out = in && json_is_object(in) ? serve(j->t, in)
					       : json_error(in ? "not a JSON object" : why.text);
		json_decref(in);
		if (!out)
			return -ENOMEM;
		j->failed |= json_object_get(out, "error") != NULL;
		(void)json_dumpf(out, stdout, JSON_COMPACT);
		(void)putchar('\n');
		(void)fflush(stdout);
		json_decref(out);
	}
	return ferror(stdin) ? -EIO : 0;
}

static int read_all(struct bytes *b)
{
	char buf[65536];
	size_t n;

	while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0)
		if (bytes_add(b, buf, n) < 0)
			return -ENOMEM;
	return ferror(stdin) ? -EIO : 0;
}

static int encode_all(struct job *j)
{
	cleanup_free_ uint32_t *ids = NULL;
	struct bytes b = {0};
	size_t n;
	int r = read_all(&b);

	if (!r)
		r = tokenizer_encode(j->t, b.n ? b.s : "", b.n, 0, &ids, &n);
	for (size_t i = 0; !r && i < n; i++)
		(void)printf("%s%u", i ? " " : "", ids[i]);
	if (!r)
		(void)putchar('\n');
	free(b.s);
	return r;
}

static int decode_all(struct job *j)
{
	struct bytes in = {0}, out = {0};
	bool first = true;
	char *save, *word;
	int r = read_all(&in);

	if (!r)
		r = bytes_add(&in, "", 1);
	word = r ? NULL : strtok_r(in.s, " \t\r\n,", &save);
	for (; word && !r; word = strtok_r(NULL, " \t\r\n,", &save)) {
		uint64_t id;

		r = num_parse_u64(word, 0, UINT32_MAX, &id);
		if (!r)
			r = bytes_add_token(&out, j->t, id, false, &first);
	}
	if (!r)
		(void)fwrite(out.s, 1, out.n, stdout);
	free(in.s);
	free(out.s);
	return r;
}

static int open_tokenizer(const char *path, struct tokenizer **ret, struct error *err)
{
	struct gguf *g;
	int r = gguf_open(&g, path, err);

	if (r < 0)
		return r;
	r = tokenizer_new(ret, g, err);
	gguf_free(g);
	error_prefix(err, "%s", path);
	return r;
}

static int run(int argc, char **argv, bool decode)
{
	struct error err = ERROR_NONE;
	const char *path = NULL;
	struct job j = {0};
	int r;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			(void)fputs(help, stdout);
			return CMD_OK;
		}
		if (!strcmp(argv[i], "--jsonl"))
			j.jsonl = true;
		else if (argv[i][0] == '-' || path)
			return cmd_usage(argv[0], "unexpected argument '%s'", argv[i]);
		else
			path = argv[i];
	}
	if (!path)
		return cmd_usage(argv[0], "no FILE given");
	r = open_tokenizer(path, &j.t, &err);
	if (r < 0)
		return cmd_failed(argv[0], "%s", error_text(&err, r));
	if (j.jsonl)
		r = run_lines(&j, decode ? decode_line : encode_line);
	else
		r = decode ? decode_all(&j) : encode_all(&j);
	tokenizer_free(j.t);
	if (r == -ERANGE || r == -EINVAL)
		return cmd_failed(argv[0], "the input is not a list of ids of the vocabulary");
	if (r < 0)
		return cmd_failed(argv[0], "%s", error_text(NULL, r));
	return j.failed ? CMD_FAILED : CMD_OK;
}

int cmd_tokenize(int argc, char **argv)
{
	return run(argc, argv, false);
}

int cmd_detokenize(int argc, char **argv)
{
	return run(argc, argv, true);
}
