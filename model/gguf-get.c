/* SPDX-License-Identifier: MIT */

/* Questions to a parsed file. */

#include "gguf-private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "utf8.h"

static const char *const kind_names[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool",
	"string", "array", "u64", "i64", "f64"};

uint32_t gguf_version(const struct gguf *g)
{
	return g->version;
}

const char *gguf_path(const struct gguf *g)
{
	return gguf_file_path(g, 0);
}

uint32_t gguf_n_files(const struct gguf *g)
{
	return g->n_files;
}

const char *gguf_file_path(const struct gguf *g, uint32_t file)
{
	return file < g->n_files && g->paths[file] ? g->paths[file] : "";
}

uint32_t gguf_alignment(const struct gguf *g)
{
	return g->alignment;
}

uint64_t gguf_file_size(const struct gguf *g)
{
	return g->file_size;
}

uint64_t gguf_data_offset(const struct gguf *g)
{
	return g->data_offset;
}

size_t gguf_memory(const struct gguf *g)
{
	return g->memory;
}

const struct gguf_entry *gguf_entry_find(const struct gguf *g, const char *key)
{
	uint64_t low = 0, high = g->n_entries;

	while (low < high) {
		uint64_t mid = (low + high) / 2;
		const struct gguf_entry *e = &g->entries[g->entries_by_name[mid]];
		int c = strcmp(key, e->name);

		if (!c)
			return e;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

const struct gguf_tensor *gguf_find(const struct gguf *g, const char *name)
{
	uint64_t low = 0, high = g->n_tensors;

	while (low < high) {
		uint64_t mid = (low + high) / 2;
		const struct gguf_tensor *t = &g->tensors[g->tensors_by_name[mid]];
		int c = strcmp(name, t->name);

		if (!c)
			return t;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

static int wrong_kind(const struct gguf_entry *e, const char *wanted, struct error *err)
{
	return error_set(err, -EINVAL, "key '%.100s' is of kind %s, expected is %s", e->name,
		kind_names[e->kind], wanted);
}

/* An integer of any kind; false where it is none, or negative. */
static bool integer(const struct gguf *g, const struct gguf_entry *e, uint64_t *ret)
{
	const uint8_t *p = g->header + e->at;
	unsigned size = gguf_kind_size(e->kind);
	uint64_t v = 0;

	switch (e->kind) {
	case GGUF_U8:
	case GGUF_U16:
	case GGUF_U32:
	case GGUF_U64:
		memcpy(&v, p, size);
		break;
	case GGUF_I8:
	case GGUF_I16:
	case GGUF_I32:
	case GGUF_I64:
		if (p[size - 1] & 0x80)
			return false;
		memcpy(&v, p, size);
		break;
	default:
		return false;
	}
	*ret = v;
	return true;
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *ret, struct error *err)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);

	if (!e)
		return 0;
	if (!integer(g, e, ret))
		return wrong_kind(e, "an integer that is not negative", err);
	return 1;
}

int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct error *err)
{
	uint64_t v = 0;
	int r = gguf_get_u64(g, key, &v, err);

	if (r <= 0)
		return r;
	if (v > UINT32_MAX)
		return error_set(err, -EINVAL, "key '%.100s' is %" PRIu64 ", out of range", key, v);
	*ret = (uint32_t)v;
	return 1;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct error *err)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);
	double d;

	if (!e)
		return 0;
	if (e->kind == GGUF_F32) {
		memcpy(ret, g->header + e->at, sizeof *ret);
	} else if (e->kind == GGUF_F64) {
		memcpy(&d, g->header + e->at, sizeof d);
		*ret = (float)d;
	} else {
		return wrong_kind(e, "f32", err);
	}
	return 1;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct error *err)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);

	if (!e)
		return 0;
	if (e->kind != GGUF_BOOL)
		return wrong_kind(e, "bool", err);
	*ret = g->header[e->at];
	return 1;
}

int gguf_get_string(
	const struct gguf *g, const char *key, struct gguf_string *ret, struct error *err)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);

	if (!e)
		return 0;
	if (e->kind != GGUF_STRING)
		return wrong_kind(e, "string", err);
	*ret = (struct gguf_string){(const char *)g->header + e->at, e->size};
	return 1;
}

/* C0, C1, and what turns or breaks lines (so that no text looks like another). */
static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0x9f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f || c == 0xfeff;
}

const char *gguf_text(struct gguf_string s, char *buf, size_t room)
{
	size_t n = 0;

	for (uint64_t i = 0; i < s.size;) {
		uint32_t c;
		unsigned k = utf8_decode(s.data + i, s.size - i, &c);
		bool shown = c < UTF8_BROKEN && !is_control(c);

		if (n + (shown ? k : 1) >= room)
			break;
		if (shown)
			memcpy(buf + n, s.data + i, k);
		else
			buf[n] = '?';
		n += shown ? k : 1;
		i += k;
	}
	buf[n] = '\0';
	return buf;
}

int gguf_get_array(const struct gguf *g, const char *key, enum gguf_kind *ret_kind, uint64_t *ret_n,
	struct error *err)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);

	if (!e)
		return 0;
	if (e->kind != GGUF_ARRAY)
		return wrong_kind(e, "array", err);
	*ret_kind = e->element;
	*ret_n = e->n;
	return 1;
}

struct gguf_string gguf_array_string(const struct gguf *g, const char *key, uint64_t i)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);
	uint64_t n;

	if (!e || !e->strings || i >= e->n)
		return (struct gguf_string){"", 0};
	memcpy(&n, g->header + e->strings[i], sizeof n);
	return (struct gguf_string){(const char *)g->header + e->strings[i] + sizeof n, n};
}

const void *gguf_array_data(const struct gguf *g, const char *key)
{
	const struct gguf_entry *e = gguf_entry_find(g, key);

	return e && e->kind == GGUF_ARRAY && !e->strings ? g->header + e->at : NULL;
}

uint64_t gguf_n_keys(const struct gguf *g)
{
	return g->n_entries;
}

const char *gguf_key(const struct gguf *g, uint64_t i, enum gguf_kind *ret_kind)
{
	if (ret_kind)
		*ret_kind = g->entries[i].kind;
	return g->entries[i].name;
}

const void *gguf_key_bytes(const struct gguf *g, uint64_t i, size_t *ret_n)
{
	const struct gguf_entry *e = &g->entries[i];

	*ret_n = e->end - e->begin;
	return g->header + e->begin;
}

uint64_t gguf_n_tensors(const struct gguf *g)
{
	return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, uint64_t i)
{
	return &g->tensors[i];
}
