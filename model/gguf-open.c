/* SPDX-License-Identifier: MIT */

/*
 * The header of a file, read in a window that grows until the parser has seen all of it; and of all
 * files of a model that comes in parts, as one.
 *
 * The parts of gguf-split are called PREFIX-00001-of-0000N.gguf and so on; the first has the keys,
 * all have split.no, split.count and some of the tensors.
 */

#include "gguf-private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "num.h"

#define FIRST_WINDOW ((uint64_t)1 << 20)
#define SUFFIX "-00001-of-00001.gguf"
#define SUFFIX_SIZE (sizeof SUFFIX - 1)
#define LOOKS_MAX 99999u /* parts that a name can count */

static int parse_growing(const struct file *f, struct gguf **ret, struct error *err)
{
	uint64_t largest = num_min(f->size, LIMIT_GGUF_HEADER);
	uint64_t window = num_min(FIRST_WINDOW, largest), have = 0;
	uint8_t *header = NULL;

	for (;;) {
		uint8_t *larger = realloc(header, num_max(window, (uint64_t)1));
		int r = larger ? 0 : -ENOMEM;

		if (larger)
			header = larger;
		if (!r && window > have)
			r = file_read(f, have, header + have, window - have, err);
		if (r < 0) {
			free(header);
			return r;
		}
		have = window;
		r = gguf_parse_owned(ret, header, have, f->size, err);
		if (r != GGUF_MORE)
			return r;
		window = num_min(window * 4, largest);
	}
}

static int open_one(struct gguf **ret, const char *path, struct error *err)
{
	struct file f = {.fd = -1};
	struct gguf *g = NULL;
	int r = file_open(&f, path, err);

	if (r < 0)
		return r;
	r = parse_growing(&f, &g, err);
	file_close(&f);
	if (r < 0) {
		(void)error_errno(err, r, "cannot read the header");
		error_prefix(err, "model '%s'", path);
		return r;
	}
	g->paths[0] = strdup(path);
	if (!g->paths[0]) {
		gguf_free(g);
		return error_errno(err, -ENOMEM, "cannot open '%s'", path);
	}
	*ret = g;
	return 0;
}

/* Which part of how many; 0 of 1 where the keys are absent. */
static int split_of(
	const struct gguf *g, uint32_t *ret_number, uint32_t *ret_count, struct error *err)
{
	uint32_t number = 0, count = 1;

	if (gguf_get_u32(g, "split.count", &count, err) < 0 ||
		gguf_get_u32(g, "split.no", &number, err) < 0)
		return -EBADMSG;
	/* Tools write a count of 0 for a whole one. */
	count = num_max(count, 1u);
	if (number >= count)
		return error_set(err, -EBADMSG,
			"key 'split.no' is %" PRIu32 ", of %" PRIu32 " parts (split.count)", number,
			count);
	*ret_number = number;
	*ret_count = count;
	return 0;
}

/* The name of part `number` beside `path`, which is that of part 0; NULL without memory. */
static char *part_path(const char *path, uint32_t number, uint32_t count)
{
	int n = (int)(strlen(path) - SUFFIX_SIZE);
	char *name;

	if (asprintf(&name, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", n, path, number + 1,
		    count) < 0)
		return NULL;
	return name;
}

/* Whether a path is named as this part. */
static bool is_named(const char *path, uint32_t number, uint32_t count)
{
	size_t n = strlen(path);
	char suffix[SUFFIX_SIZE + 16];

	(void)snprintf(
		suffix, sizeof suffix, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", number + 1, count);
	return n > SUFFIX_SIZE && !strcmp(path + n - SUFFIX_SIZE, suffix);
}

static int check_first(const char *path, uint32_t number, uint32_t count, struct error *err)
{
	if (count > num_min(LIMIT_MODEL_FILES, LOOKS_MAX))
		return error_set(err, -EBADMSG,
			"key 'split.count' is %" PRIu32 "; models in up to %u files are supported",
			count, LIMIT_MODEL_FILES);
	if (number > 0)
		return error_set(err, -EINVAL,
			"this is part %" PRIu32 " of %" PRIu32
			" of a model in several files; name the first one, which ends in "
			"'-00001-of-%05" PRIu32 ".gguf'",
			number + 1, count, count);
	if (!is_named(path, 0, count))
		return error_set(err, -EINVAL,
			"this is the first of %" PRIu32
			" files of one model, but its name does not end in '-00001-of-%05" PRIu32
			".gguf', so that the others cannot be found; give it its name back",
			count, count);
	return 0;
}

/* The tensors of `part` become g's, as those of file `number`. */
static int adopt(struct gguf *g, struct gguf *part, uint32_t number, struct error *err)
{
	uint64_t n = g->n_tensors + part->n_tensors;
	struct gguf_tensor *tensors;

	if (n > LIMIT_GGUF_TENSORS)
		return error_set(err, -EBADMSG,
			"the parts have %" PRIu64 " tensors; the limit is %u", n,
			LIMIT_GGUF_TENSORS);
	tensors = realloc(g->tensors, num_max(n, (uint64_t)1) * sizeof *tensors);
	if (!tensors)
		return -ENOMEM;
	g->tensors = tensors;
	for (uint64_t i = 0; i < part->n_tensors; i++) {
		tensors[g->n_tensors] = part->tensors[i];
		tensors[g->n_tensors++].file = number;
	}
	g->memory += part->n_tensors * sizeof *tensors;
	part->n_tensors = 0; /* their names are g's */
	g->file_size += part->file_size;
	g->paths[number] = part->paths[0];
	part->paths[0] = NULL;
	return 0;
}

static int open_part(struct gguf *g, uint32_t number, uint32_t count, struct error *err)
{
	char *path = part_path(g->paths[0], number, count);
	uint32_t is_number = 0, is_count = 0;
	struct gguf *part = NULL;
	int r = path ? open_one(&part, path, err) : -ENOMEM;

	if (r < 0) {
		if (path)
			error_prefix(err, "part %" PRIu32 " of %" PRIu32, number + 1, count);
		free(path);
		return r;
	}
	r = split_of(part, &is_number, &is_count, err);
	if (r == 0 && (is_number != number || is_count != count))
		r = error_set(err, -EBADMSG,
			"its keys say part %" PRIu32 " of %" PRIu32 ", its name says part %" PRIu32
			" of %" PRIu32 ": the files are mixed up",
			is_number + 1, is_count, number + 1, count);
	if (r == 0)
		r = adopt(g, part, number, err);
	if (r < 0)
		error_prefix(err, "part '%s'", path);
	gguf_free(part);
	free(path);
	return r;
}

/* What the first part says of all of them. */
static int check_whole(struct gguf *g, struct error *err)
{
	uint64_t n = g->n_tensors;

	if (gguf_get_u64(g, "split.tensors.count", &n, err) < 0)
		return -EBADMSG;
	if (n != g->n_tensors)
		return error_set(err, -EBADMSG,
			"key 'split.tensors.count' is %" PRIu64 ", but the %" PRIu32
			" parts have %" PRIu64 " tensors: they are not of one model",
			n, g->n_files, g->n_tensors);
	return gguf_index_tensors(g, err);
}

static int open_parts(struct gguf *g, struct error *err)
{
	const char *path = g->paths[0];
	uint32_t number = 0, count = 0;
	char **paths;
	int r = split_of(g, &number, &count, err);

	if (r == 0 && count > 1)
		r = check_first(path, number, count, err);
	if (r < 0 || count == 1) {
		if (r < 0)
			error_prefix(err, "model '%s'", path);
		return r;
	}
	paths = realloc(g->paths, count * sizeof *paths);
	if (!paths)
		return -ENOMEM;
	g->paths = paths;
	for (uint32_t i = 1; r == 0 && i < count; i++) {
		r = open_part(g, i, count, err);
		if (r == 0)
			g->n_files++;
	}
	if (r == 0)
		r = check_whole(g, err);
	if (r < 0)
		error_prefix(err, "model '%s'", path);
	return r;
}

int gguf_open(struct gguf **ret, const char *path, struct error *err)
{
	struct gguf *g = NULL;
	int r = open_one(&g, path, err);

	if (r < 0)
		return r;
	r = open_parts(g, err);
	if (r < 0) {
		gguf_free(g);
		return error_errno(err, r, "cannot open '%s'", path);
	}
	*ret = g;
	return 0;
}

int gguf_files_open(struct file **ret, const struct gguf *g, struct error *err)
{
	struct file *files = calloc(g->n_files, sizeof *files);

	if (!files)
		return error_errno(err, -ENOMEM, "cannot open '%s'", gguf_path(g));
	for (uint32_t i = 0; i < g->n_files; i++) {
		int r = file_open(&files[i], gguf_file_path(g, i), err);

		if (r < 0) {
			gguf_files_close(files, i);
			return r;
		}
	}
	*ret = files;
	return 0;
}

void gguf_files_close(struct file *files, uint32_t n)
{
	for (uint32_t i = 0; files && i < n; i++)
		file_close(&files[i]);
	free(files);
}
