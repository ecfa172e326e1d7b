/* SPDX-License-Identifier: MIT */

/* moe-model check: reads all of a file and names what is wrong with it. */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "desc.h"
#include "file.h"
#include "finite.h"
#include "gguf.h"
#include "kernels.h"
#include "num.h"
#include "tokenizer.h"

#define VERB "check"
#define FAULTS_SHOWN 100u
#define FAULTS_OF_TENSOR 5u /* shown of one tensor; all are counted */

static const char text[] =
	"Usage: moe-model check FILE\n"
	"Read all of a GGUF file: every bound, offset, shape and type, and NaN or infinity in "
	"floats\n"
	"and in the scales of blocks, and the vocabulary.  Names the tensor and the offset in the "
	"file\nof each fault.\n\n"
	"  --help   show this and exit\n\n"
	"Exit status: 0 no faults, 1 faults or not readable, 2 wrong usage.\n";

struct check {
	const struct gguf *g;
	struct file *files; /* all of the model's */
	uint8_t *buffer;
	uint64_t done, all, faults, shown, unknown;
};

/* At most this many bytes at once, whole blocks. */
#define BUFFER ((size_t)4 << 20)

/* What is wrong where in a tensor; `k` of its faults were before. */
static void fault(
	struct check *c, const struct gguf_tensor *t, uint64_t offset, const char *what, uint64_t k)
{
	if (++c->faults > FAULTS_SHOWN || k >= FAULTS_OF_TENSOR)
		return;
	c->shown++;
	cmd_progress_end();
	(void)printf("%s: offset %" PRIu64 ": %s\n", t->name, offset, what);
}

/* All faults of a tensor.  0 or -errno. */
static int check_tensor(struct check *c, const struct gguf_tensor *t, struct error *err)
{
	const struct kernels_format *f = kernels_format(t->type);
	size_t most = f ? BUFFER / f->bytes * f->bytes : 0;
	uint64_t found = 0;

	if (!f || !finite_is_known(t->type)) {
		c->unknown++;
		return 0;
	}
	for (uint64_t at = 0; at < t->size;) {
		size_t n = num_min(t->size - at, (uint64_t)most), bad = 0;
		int r = file_read(&c->files[t->file], t->offset + at, c->buffer, n, err);

		if (r < 0)
			return r;
		for (; !finite_check(t->type, c->buffer, n, &bad); bad++)
			fault(c, t, t->offset + at + bad,
				f->block > 1 ? "the scale of a block is not finite"
					     : "the number is not finite",
				found++);
		at += n;
		c->done += n;
		cmd_progress("checking", c->done, c->all);
	}
	if (found > FAULTS_OF_TENSOR && c->shown < FAULTS_SHOWN)
		(void)printf("%s: %" PRIu64 " such faults in all\n", t->name, found);
	return 0;
}

static int check_all(struct check *c, struct error *err)
{
	int r = 0;

	for (uint64_t i = 0; i < gguf_n_tensors(c->g); i++)
		c->all += gguf_tensor(c->g, i)->size;
	for (uint64_t i = 0; !r && i < gguf_n_tensors(c->g); i++)
		r = check_tensor(c, gguf_tensor(c->g, i), err);
	cmd_progress_end();
	for (uint32_t i = 0; !r && i < gguf_n_files(c->g); i++)
		r = file_check(&c->files[i]);
	return r < 0 ? error_errno(err, r, "cannot read '%s'", gguf_path(c->g)) : 0;
}

/* What contradicts itself is a fault; what we merely do not support is none. */
static void judge(struct check *c, int r, const struct error *err)
{
	if (r == 0)
		return;
	if (r != -ENOTSUP) {
		c->faults++;
		c->shown++;
	}
	(void)printf(
		"%s%s\n", r == -ENOTSUP ? "note: cannot be run here: " : "", error_text(err, r));
}

/* Shapes against keys, and the vocabulary. */
static void check_meaning(struct check *c)
{
	struct error err = ERROR_NONE;
	struct tokenizer *t = NULL;
	struct desc *d = NULL;
	struct gguf_string s;

	judge(c, desc_new(&d, c->g, &err), &err);
	desc_free(d);
	if (gguf_get_string(c->g, "tokenizer.ggml.model", &s, NULL) == 0) {
		(void)printf("note: the file has no tokenizer\n");
		return;
	}
	err = ERROR_NONE;
	judge(c, tokenizer_new(&t, c->g, &err), &err);
	tokenizer_free(t);
}

static int check(const char *path)
{
	struct check c = {0};
	struct error err = ERROR_NONE;
	struct gguf *g = NULL;
	char size[NUM_SIZE_TEXT_MAX];
	int r = gguf_open(&g, path, &err);

	if (!r)
		r = gguf_files_open(&c.files, g, &err);
	c.g = g;
	c.buffer = r ? NULL : malloc(BUFFER);
	if (!r && !c.buffer)
		r = -ENOMEM;
	if (!r) {
		check_meaning(&c);
		r = check_all(&c, &err);
	}
	if (!r && c.unknown)
		(void)printf("note: %" PRIu64
			     " tensor%s of types whose numbers are not known here: "
			     "not checked\n",
			c.unknown, c.unknown == 1 ? "" : "s");
	if (!r && c.faults > FAULTS_SHOWN)
		(void)printf("only the first faults are shown\n");
	if (!r)
		(void)printf("%s: %" PRIu64 " tensors, %s: %" PRIu64 " fault%s\n", path,
			gguf_n_tensors(g), num_format_size(gguf_file_size(g), size), c.faults,
			c.faults == 1 ? "" : "s");
	free(c.buffer);
	if (g)
		gguf_files_close(c.files, gguf_n_files(g));
	gguf_free(g);
	if (r < 0)
		return cmd_failed(VERB, "%s", error_text(&err, r));
	return c.faults ? CMD_FAILED : CMD_OK;
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option != 'h')
			return cmd_bad_option(VERB, option, argv);
		(void)fputs(text, stdout);
		return CMD_OK;
	}
	if (argc - optind != 1)
		return cmd_usage(VERB, "expected is one FILE");
	return check(argv[optind]);
}
