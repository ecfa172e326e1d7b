/* SPDX-License-Identifier: MIT */

/* moe-model tokenize and detokenize: text to ids and back, whole or one JSON object a line. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cmd.h"
#include "gguf.h"
#include "num.h"
#include "tokenize-line.h"
#include "tokenizer.h"

static const char help_tokenize[] =
	"Usage: moe-model tokenize FILE [--jsonl]\n"
	"Turn text on standard input into ids of the model's tokens.\n\n"
	"Without --jsonl all of the input is one text, any bytes; out comes one line of ids.  "
	"Nothing\n"
	"is added to them, and control tokens in the text are plain text.\n\n"
	"With --jsonl each line of the input is an object, and gives one:\n"
	"  {\"text\": TEXT, \"add_special\": BOOL, \"parse_special\": BOOL}  to  {\"ids\": [ID, "
	"...]}\n"
	"  text           the text; instead of it \"hex\", for bytes that are no UTF-8\n"
	"  add_special    begin (and end) the ids as the file says; default false\n"
	"  parse_special  control tokens in the text become their ids; default false\n"
	"A line that cannot be served gives {\"error\": REASON}; empty lines give nothing.\n\n"
	"Options:\n"
	"  --jsonl    one object a line\n"
	"  --help     show this and exit\n\n"
	"Exit status: 0 success, 1 failure (of any line), 2 wrong usage.\n";

static const char help_detokenize[] =
	"Usage: moe-model detokenize FILE [--jsonl]\n"
	"Turn ids of the model's tokens on standard input into text.\n\n"
	"Without --jsonl the input is ids with blanks, newlines or commas between them; out come "
	"the\n"
	"bytes of their text and nothing else.\n\n"
	"With --jsonl each line of the input is an object, and gives one:\n"
	"  {\"ids\": [ID, ...], \"skip_special\": BOOL}  to  {\"text\": TEXT}, or {\"hex\": BYTES} "
	"where the\n"
	"  bytes are no UTF-8\n"
	"  skip_special   control tokens give no text; default false\n"
	"A line that cannot be served gives {\"error\": REASON}; empty lines give nothing.\n\n"
	"Options:\n"
	"  --jsonl    one object a line\n"
	"  --help     show this and exit\n\n"
	"Exit status: 0 success, 1 failure (of any line), 2 wrong usage.\n";

typedef json_t *(*line_fn)(
	const struct tokenizer *t, const char *line, size_t n, struct error *err);

struct job {
	const char *verb;
	struct tokenizer *t;
	bool failed;
};

/* Says why; everything after it is skipped. */
static int input_failed(struct job *j)
{
	j->failed = true;
	(void)cmd_failed(j->verb, "cannot read standard input: %m");
	return 1;
}

static int run_line(struct job *j, line_fn serve, const char *line, size_t n, uint64_t number)
{
	struct error err = ERROR_NONE;
	json_t *out = serve(j->t, line, n, &err);

	if (!out) {
		error_prefix(&err, "line %llu", (unsigned long long)number);
		j->failed = true;
		(void)cmd_failed(j->verb, "%s", err.text);
		out = json_pack("{s:s}", "error", err.text);
	}
	if (!out)
		return -ENOMEM;
	/* ASCII: many readers take U+0085 and U+2028 for the end of a line. */
	(void)json_dumpf(out, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	(void)putchar('\n');
	json_decref(out);
	/* Whoever asks line by line waits for the answer. */
	return fflush(stdout) == 0 ? 0 : -errno;
}

static int run_lines(struct job *j, line_fn serve)
{
	cleanup_free_ char *line = NULL;
	uint64_t number = 0;
	size_t room = 0;
	ssize_t n;
	int r = 0;

	while (!r && (n = getline(&line, &room, stdin)) >= 0) {
		number++;
		while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
			n--;
		if (n)
			r = run_line(j, serve, line, (size_t)n, number);
	}
	if (r)
		return r;
	/* getline() also ends where there is no memory for a line. */
	return feof(stdin) ? 0 : ferror(stdin) ? input_failed(j) : -ENOMEM;
}

static int read_all(struct job *j, struct tokenize_bytes *b)
{
	char buf[65536];
	size_t n;

	while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0)
		if (tokenize_bytes_add(b, buf, n) < 0)
			return -ENOMEM;
	return ferror(stdin) ? input_failed(j) : 0;
}

static int encode_all(struct job *j)
{
	cleanup_free_ uint32_t *ids = NULL;
	struct tokenize_bytes b = {0};
	size_t n = 0;
	int r = read_all(j, &b);

	if (!r)
		r = tokenizer_encode(j->t, b.n ? b.s : "", b.n, 0, &ids, &n);
	for (size_t i = 0; !r && i < n; i++)
		(void)printf("%s%u", i ? " " : "", ids[i]);
	if (!r)
		(void)putchar('\n');
	free(b.s);
	return r;
}

static int decode_words(struct job *j, char *words, struct tokenize_bytes *out)
{
	static const char between[] = " \t\r\n,";
	bool first = true;
	char *save = NULL;

	for (char *word = strtok_r(words, between, &save); word;
		word = strtok_r(NULL, between, &save)) {
		uint64_t id;
		int r;

		if (num_parse_u64(word, 0, tokenizer_size(j->t) - 1, &id) < 0) {
			j->failed = true;
			(void)cmd_failed(j->verb,
				"'%.64s' is no id of this vocabulary: wanted are numbers from 0 to "
				"%u",
				word, tokenizer_size(j->t) - 1);
			return 0;
		}
		r = tokenize_bytes_add_id(out, j->t, (uint32_t)id, false, &first);
		if (r < 0)
			return r;
	}
	return 0;
}

static int decode_all(struct job *j)
{
	struct tokenize_bytes in = {0}, out = {0};
	int r = read_all(j, &in);

	if (!r && in.n && memchr(in.s, '\0', in.n)) {
		j->failed = true;
		(void)cmd_failed(j->verb, "the input holds a NUL byte: wanted are ids as text");
	} else {
		if (!r)
			r = tokenize_bytes_add(&in, "", 1);
		if (!r)
			r = decode_words(j, in.s, &out);
		if (!r && !j->failed)
			(void)fwrite(out.n ? out.s : "", 1, out.n, stdout);
	}
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
	struct job j = {.verb = argv[0]};
	const char *path = NULL;
	bool jsonl = false;
	int r;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			(void)fputs(decode ? help_detokenize : help_tokenize, stdout);
			return CMD_OK;
		}
		if (!strcmp(argv[i], "--jsonl"))
			jsonl = true;
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
	if (jsonl)
		r = run_lines(&j, decode ? detokenize_line : tokenize_line);
	else
		r = decode ? decode_all(&j) : encode_all(&j);
	tokenizer_free(j.t);
	if (r == -E2BIG)
		return cmd_failed(argv[0], "the text is longer than 2 GiB");
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
