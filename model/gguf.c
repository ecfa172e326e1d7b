/* SPDX-License-Identifier: MIT */

/* The parser: bytes to tables.  Everything that it stores was checked against the file's size. */

#include "gguf-private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "num.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files and memory are little-endian");

#define DEFAULT_ALIGNMENT 32u

struct reader {
	const uint8_t *data;
	uint64_t size;	    /* bytes at hand */
	uint64_t file_size; /* bytes that exist */
	uint64_t pos;
	struct error *err;
};

unsigned gguf_kind_size(uint32_t kind)
{
	static const uint8_t sizes[] = {
		[GGUF_U8] = 1,
		[GGUF_I8] = 1,
		[GGUF_U16] = 2,
		[GGUF_I16] = 2,
		[GGUF_U32] = 4,
		[GGUF_I32] = 4,
		[GGUF_F32] = 4,
		[GGUF_BOOL] = 1,
		[GGUF_U64] = 8,
		[GGUF_I64] = 8,
		[GGUF_F64] = 8,
	};

	return kind < ARRAY_SIZE(sizes) ? sizes[kind] : 0;
}

/* 0 where n bytes are at hand, GGUF_MORE where the file has them, -EBADMSG where it has not. */
static int need(struct reader *r, uint64_t n, const char *what)
{
	if (n <= r->size - r->pos)
		return 0;
	if (n > r->file_size - r->pos)
		return error_set(r->err, -EBADMSG,
			"%s at offset %" PRIu64 " needs %" PRIu64
			" bytes, but the file ends at %" PRIu64 ": it is truncated or broken",
			what, r->pos, n, r->file_size);
	if (r->pos + n > LIMIT_GGUF_HEADER)
		return error_set(r->err, -EBADMSG,
			"%s at offset %" PRIu64 " makes the header larger than %" PRIu64 " bytes",
			what, r->pos, LIMIT_GGUF_HEADER);
	return GGUF_MORE;
}

static int get_u32(struct reader *r, const char *what, uint32_t *ret)
{
	int e = need(r, sizeof *ret, what);

	if (e)
		return e;
	memcpy(ret, r->data + r->pos, sizeof *ret);
	r->pos += sizeof *ret;
	return 0;
}

static int get_u64(struct reader *r, const char *what, uint64_t *ret)
{
	int e = need(r, sizeof *ret, what);

	if (e)
		return e;
	memcpy(ret, r->data + r->pos, sizeof *ret);
	r->pos += sizeof *ret;
	return 0;
}

static int get_string(struct reader *r, const char *what, uint64_t max, struct gguf_string *ret)
{
	uint64_t n, at = r->pos;
	int e = get_u64(r, what, &n);

	if (e)
		return e;
	if (n > max)
		return error_set(r->err, -EBADMSG,
			"%s at offset %" PRIu64 " is %" PRIu64 " bytes long, the limit is %" PRIu64,
			what, at, n, max);
	e = need(r, n, what);
	if (e)
		return e;
	*ret = (struct gguf_string){(const char *)r->data + r->pos, n};
	r->pos += n;
	return 0;
}

/* A key or the name of a tensor: printable ASCII, so that any message may show it. */
static int get_name(struct reader *r, const char *what, uint64_t max, char **ret)
{
	struct gguf_string s = {0};
	uint64_t at = r->pos;
	int e = get_string(r, what, max, &s);

	if (e)
		return e;
	if (!s.size)
		return error_set(r->err, -EBADMSG, "%s at offset %" PRIu64 " is empty", what, at);
	for (uint64_t i = 0; i < s.size; i++)
		if (s.data[i] < 0x20 || s.data[i] > 0x7e)
			return error_set(r->err, -EBADMSG,
				"%s at offset %" PRIu64 " holds the byte 0x%02x", what, at,
				(unsigned char)s.data[i]);
	*ret = strndup(s.data, s.size);
	return *ret ? 0 : -ENOMEM;
}

static int get_strings(struct reader *r, struct gguf *g, struct gguf_entry *e)
{
	struct gguf_string s;
	int x = need(r, e->n * sizeof(uint64_t), "array of strings");

	if (x)
		return x;
	e->strings = malloc(num_max(e->n, (uint64_t)1) * sizeof *e->strings);
	if (!e->strings)
		return -ENOMEM;
	g->memory += e->n * sizeof *e->strings;
	for (uint64_t i = 0; i < e->n; i++) {
		e->strings[i] = (uint32_t)r->pos;
		x = get_string(r, "string of an array", LIMIT_GGUF_STRING, &s);
		if (x)
			return x;
	}
	return 0;
}

static int get_array(struct reader *r, struct gguf *g, struct gguf_entry *e)
{
	uint32_t kind = 0;
	uint64_t at = r->pos, bytes;
	int x = get_u32(r, "kind of an array", &kind);

	if (x)
		return x;
	x = get_u64(r, "length of an array", &e->n);
	if (x)
		return x;
	if (kind == GGUF_ARRAY)
		return error_set(r->err, -EBADMSG,
			"array '%.100s' at offset %" PRIu64 " holds arrays, which no model needs",
			e->name, at);
	if (kind != GGUF_STRING && !gguf_kind_size(kind))
		return error_set(r->err, -EBADMSG,
			"array '%.100s' at offset %" PRIu64 " is of the unknown kind %" PRIu32,
			e->name, at, kind);
	if (e->n > LIMIT_GGUF_ARRAY)
		return error_set(r->err, -EBADMSG,
			"array '%.100s' at offset %" PRIu64 " has %" PRIu64
			" elements, the limit is %" PRIu64,
			e->name, at, e->n, LIMIT_GGUF_ARRAY);
	e->element = kind;
	e->at = r->pos;
	if (kind == GGUF_STRING)
		return get_strings(r, g, e);
	bytes = e->n * gguf_kind_size(kind);
	x = need(r, bytes, "array");
	if (x)
		return x;
	r->pos += bytes;
	return 0;
}

static int get_entry(struct reader *r, struct gguf *g, struct gguf_entry *e)
{
	struct gguf_string s = {0};
	uint32_t kind = 0;
	uint64_t at;
	int x = get_name(r, "key", LIMIT_GGUF_KEY_LENGTH, &e->name);

	if (x)
		return x;
	g->memory += strlen(e->name) + 1;
	at = r->pos;
	x = get_u32(r, "kind of a value", &kind);
	if (x)
		return x;
	e->kind = kind;
	e->at = r->pos;
	if (kind == GGUF_ARRAY)
		return get_array(r, g, e);
	if (kind == GGUF_STRING) {
		x = get_string(r, "string", LIMIT_GGUF_STRING, &s);
		e->at = r->pos - s.size;
		e->size = s.size;
		return x;
	}
	if (!gguf_kind_size(kind))
		return error_set(r->err, -EBADMSG,
			"key '%.100s' has the unknown kind %" PRIu32 " at offset %" PRIu64, e->name,
			kind, at);
	x = need(r, gguf_kind_size(kind), "value");
	if (x)
		return x;
	if (kind == GGUF_BOOL && r->data[r->pos] > 1)
		return error_set(r->err, -EBADMSG,
			"key '%.100s' is a boolean of %u at offset %" PRIu64, e->name,
			r->data[r->pos], r->pos);
	r->pos += gguf_kind_size(kind);
	return 0;
}

/* Size in bytes from type and dimensions. */
static int tensor_size(struct reader *r, struct gguf_tensor *t, uint64_t at)
{
	const struct kernels_format *f = kernels_format(t->type);
	uint64_t rows = 1, elements = 1, row_bytes, size;

	for (unsigned i = 0; i < LIMIT_GGUF_DIMS; i++)
		if (!num_mul(elements, t->dims[i], &elements) || elements > INT64_MAX ||
			(i > 0 && !num_mul(rows, t->dims[i], &rows)))
			return error_set(r->err, -EBADMSG,
				"tensor '%s' at offset %" PRIu64 " has too many elements", t->name,
				at);
	if (!f)
		return 0;
	if (t->dims[0] % f->block)
		return error_set(r->err, -EBADMSG,
			"tensor '%s' at offset %" PRIu64 " has rows of %" PRIu64
			" elements, which are not whole blocks of %" PRIu32 " of %s",
			t->name, at, t->dims[0], f->block, f->name);
	if (!kernels_row_bytes(f, t->dims[0], &row_bytes) || !num_mul(row_bytes, rows, &size))
		return error_set(r->err, -EBADMSG,
			"tensor '%s' at offset %" PRIu64 " is larger than any file", t->name, at);
	t->size = size;
	return 0;
}

static int get_tensor(struct reader *r, struct gguf *g, struct gguf_tensor *t)
{
	uint64_t at = r->pos;
	char *name = NULL;
	int x = get_name(r, "name of a tensor", LIMIT_GGUF_NAME, &name);

	if (x)
		return x;
	t->name = name;
	g->memory += strlen(name) + 1;
	x = get_u32(r, "number of dimensions", &t->n_dims);
	if (x)
		return x;
	if (!t->n_dims || t->n_dims > LIMIT_GGUF_DIMS)
		return error_set(r->err, -EBADMSG,
			"tensor '%s' at offset %" PRIu64 " has %" PRIu32
			" dimensions, 1 to %u are allowed",
			name, at, t->n_dims, LIMIT_GGUF_DIMS);
	for (uint32_t i = 0; i < LIMIT_GGUF_DIMS; i++) {
		t->dims[i] = 1;
		if (i >= t->n_dims)
			continue;
		x = get_u64(r, "dimension", &t->dims[i]);
		if (x)
			return x;
		if (!t->dims[i])
			return error_set(r->err, -EBADMSG,
				"tensor '%s' at offset %" PRIu64 " has an empty dimension", name,
				at);
	}
	x = get_u32(r, "type of a tensor", &t->type);
	if (x)
		return x;
	x = get_u64(r, "offset of a tensor", &t->offset);
	if (x)
		return x;
	return tensor_size(r, t, at);
}

static int get_alignment(struct reader *r, struct gguf *g)
{
	uint32_t a;
	int x;

	g->alignment = DEFAULT_ALIGNMENT;
	x = gguf_get_u32(g, "general.alignment", &a, r->err);
	if (x < 0)
		return -EBADMSG;
	if (x == 0)
		return 0;
	if (!num_is_pow2(a) || a > 65536)
		return error_set(r->err, -EBADMSG,
			"general.alignment is %" PRIu32 ", not a power of two up to 65536", a);
	g->alignment = a;
	return 0;
}

/* From offsets within the data to offsets in the file, all within it. */
static int place_tensors(struct reader *r, struct gguf *g)
{
	for (uint64_t i = 0; i < g->n_tensors; i++) {
		struct gguf_tensor *t = &g->tensors[i];
		uint64_t end, offset;

		if (t->offset % g->alignment)
			return error_set(r->err, -EBADMSG,
				"tensor '%s' lies at %" PRIu64
				" of the data, which is not a multiple of the alignment %" PRIu32,
				t->name, t->offset, g->alignment);
		if (!num_add(t->offset, g->data_offset, &offset) ||
			!num_add(offset, t->size, &end) || end > g->file_size)
			return error_set(r->err, -EBADMSG,
				"tensor '%s' (%" PRIu64 " bytes at %" PRIu64
				" of the data, which starts at offset %" PRIu64
				") goes past the end of the file at %" PRIu64
				": the file is truncated or broken",
				t->name, t->size, t->offset, g->data_offset, g->file_size);
		t->offset = offset;
	}
	return 0;
}

static int compare_entries(const void *a, const void *b, void *arg)
{
	const struct gguf *g = arg;

	return strcmp(g->entries[*(const uint32_t *)a].name, g->entries[*(const uint32_t *)b].name);
}

static int compare_tensors(const void *a, const void *b, void *arg)
{
	const struct gguf *g = arg;

	return strcmp(g->tensors[*(const uint32_t *)a].name, g->tensors[*(const uint32_t *)b].name);
}

static int compare_offsets(const void *a, const void *b, void *arg)
{
	const struct gguf *g = arg;
	const struct gguf_tensor *x = &g->tensors[*(const uint32_t *)a];
	const struct gguf_tensor *y = &g->tensors[*(const uint32_t *)b];

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Numbers 0 to n - 1 in the order of `compare`. */
static int sort_index(struct gguf *g, uint64_t n,
	int (*compare)(const void *, const void *, void *), uint32_t **ret)
{
	uint32_t *index = malloc(num_max(n, (uint64_t)1) * sizeof *index);

	if (!index)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++)
		index[i] = (uint32_t)i;
	qsort_r(index, n, sizeof *index, compare, g);
	*ret = index;
	return 0;
}

static int index_entries(struct reader *r, struct gguf *g)
{
	int x = sort_index(g, g->n_entries, compare_entries, &g->entries_by_name);

	for (uint64_t i = 1; !x && i < g->n_entries; i++)
		if (!compare_entries(&g->entries_by_name[i - 1], &g->entries_by_name[i], g))
			return error_set(r->err, -EBADMSG, "key '%.100s' is there twice",
				g->entries[g->entries_by_name[i]].name);
	return x;
}

int gguf_index_tensors(struct gguf *g, struct error *err)
{
	int x;

	free(g->tensors_by_name);
	g->tensors_by_name = NULL;
	x = sort_index(g, g->n_tensors, compare_tensors, &g->tensors_by_name);
	for (uint64_t i = 1; !x && i < g->n_tensors; i++)
		if (!compare_tensors(&g->tensors_by_name[i - 1], &g->tensors_by_name[i], g))
			return error_set(err, -EBADMSG, "tensor '%s' is there twice",
				g->tensors[g->tensors_by_name[i]].name);
	return x;
}

static int check_overlap(struct reader *r, struct gguf *g)
{
	uint32_t *order = NULL;
	int x = sort_index(g, g->n_tensors, compare_offsets, &order);

	for (uint64_t i = 1; !x && i < g->n_tensors; i++) {
		const struct gguf_tensor *a = &g->tensors[order[i - 1]];
		const struct gguf_tensor *b = &g->tensors[order[i]];

		if (a->size && b->size && a->offset + a->size > b->offset)
			x = error_set(r->err, -EBADMSG,
				"tensors '%s' and '%s' overlap at offset %" PRIu64, a->name,
				b->name, b->offset);
	}
	free(order);
	return x;
}

static int parse_start(struct reader *r, struct gguf *g)
{
	uint32_t magic = 0;
	int x = r->file_size ? get_u32(r, "magic", &magic)
			     : error_set(r->err, -EBADMSG, "not a GGUF file: it is empty");

	if (x)
		return x;
	if (magic != 0x46554747)
		return error_set(r->err, -EBADMSG,
			"not a GGUF file: it starts with the bytes %08" PRIx32
			" and not with 'GGUF' (47475546)",
			__builtin_bswap32(magic));
	x = get_u32(r, "version", &g->version);
	if (x)
		return x;
	if (g->version && !(g->version & 0xffff))
		return error_set(r->err, -EBADMSG,
			"a big-endian GGUF file (version %" PRIu32
			" at offset 4); only little-endian ones are supported",
			__builtin_bswap32(g->version));
	if (g->version != 2 && g->version != 3)
		return error_set(r->err, -EBADMSG,
			"GGUF version %" PRIu32 " at offset 4; versions 2 and 3 are supported%s",
			g->version,
			g->version == 1 ? " (convert the model again with today's tools)" : "");
	x = get_u64(r, "number of tensors", &g->n_tensors);
	if (x)
		return x;
	x = get_u64(r, "number of keys", &g->n_entries);
	if (x)
		return x;
	if (g->n_tensors > LIMIT_GGUF_TENSORS || g->n_entries > LIMIT_GGUF_KEYS) {
		x = error_set(r->err, -EBADMSG,
			"%" PRIu64 " tensors and %" PRIu64 " keys at offset 8; the limits are %u "
			"and %u",
			g->n_tensors, g->n_entries, LIMIT_GGUF_TENSORS, LIMIT_GGUF_KEYS);
		g->n_tensors = g->n_entries = 0;
	}
	return x;
}

static int parse(struct reader *r, struct gguf *g)
{
	uint64_t n_tensors, n_entries;
	int x = parse_start(r, g);

	n_tensors = g->n_tensors;
	n_entries = g->n_entries;
	g->n_tensors = g->n_entries = 0;
	if (x)
		return x;
	g->entries = calloc(num_max(n_entries, (uint64_t)1), sizeof *g->entries);
	g->tensors = calloc(num_max(n_tensors, (uint64_t)1), sizeof *g->tensors);
	if (!g->entries || !g->tensors)
		return -ENOMEM;
	g->memory += n_entries * (sizeof *g->entries + 4) + n_tensors * (sizeof *g->tensors + 4);
	while (!x && g->n_entries < n_entries) {
		struct gguf_entry *e = &g->entries[g->n_entries++];

		e->begin = r->pos;
		x = get_entry(r, g, e);
		e->end = r->pos;
	}
	if (!x)
		x = index_entries(r, g);
	if (!x)
		x = get_alignment(r, g);
	while (!x && g->n_tensors < n_tensors)
		x = get_tensor(r, g, &g->tensors[g->n_tensors++]);
	if (!x)
		x = gguf_index_tensors(g, r->err);
	if (x)
		return x;
	g->header_size = r->pos;
	g->data_offset = num_align_up(r->pos, g->alignment);
	x = place_tensors(r, g);
	return x ? x : check_overlap(r, g);
}

int gguf_parse_owned(
	struct gguf **ret, uint8_t *header, uint64_t size, uint64_t file_size, struct error *err)
{
	struct reader r = {.data = header, .size = size, .file_size = file_size, .err = err};
	struct gguf *g = calloc(1, sizeof *g);
	uint8_t *exact;
	int x;

	if (!g) {
		free(header);
		return -ENOMEM;
	}
	g->header = header;
	g->file_size = file_size;
	g->n_files = 1;
	g->paths = calloc(1, sizeof *g->paths);
	x = g->paths ? parse(&r, g) : -ENOMEM;
	if (x) {
		if (x == GGUF_MORE)
			g->header = NULL;
		gguf_free(g);
		return x;
	}
	exact = realloc(g->header, num_max(g->header_size, (uint64_t)1));
	if (exact)
		g->header = exact;
	g->memory += sizeof *g + g->header_size;
	*ret = g;
	return 0;
}

int gguf_parse(
	struct gguf **ret, const void *bytes, size_t size, uint64_t file_size, struct error *err)
{
	uint8_t *copy;
	int x;

	if (size > file_size)
		return -EINVAL;
	copy = malloc(num_max(size, (size_t)1));
	if (!copy)
		return -ENOMEM;
	if (size)
		memcpy(copy, bytes, size);
	x = gguf_parse_owned(ret, copy, size, file_size, err);
	if (x == GGUF_MORE) {
		free(copy);
		return error_set(
			err, -EBADMSG, "the header goes on behind the %zu bytes at hand", size);
	}
	return x;
}

struct gguf *gguf_free(struct gguf *g)
{
	if (!g)
		return NULL;
	for (uint64_t i = 0; i < g->n_entries; i++) {
		free(g->entries[i].name);
		free(g->entries[i].strings);
	}
	for (uint64_t i = 0; i < g->n_tensors; i++)
		free((char *)g->tensors[i].name);
	free(g->entries);
	free(g->tensors);
	free(g->entries_by_name);
	free(g->tensors_by_name);
	free(g->header);
	for (uint32_t i = 0; g->paths && i < g->n_files; i++)
		free(g->paths[i]);
	free(g->paths);
	free(g);
	return NULL;
}
