/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * GGUF v2 and v3 (github.com/ggml-org/ggml docs/gguf.md): the metadata and the tensor table of a
 * model file, every count, offset, string and shape checked before use.  The file is hostile.
 *
 * The header is read around the page cache where the file system allows.  A struct gguf is
 * immutable after gguf_open(): any thread may read it.  Strings are NOT NUL-terminated unless said.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "limit.h"

struct gguf;

enum gguf_kind {
	GGUF_U8,
	GGUF_I8,
	GGUF_U16,
	GGUF_I16,
	GGUF_U32,
	GGUF_I32,
	GGUF_F32,
	GGUF_BOOL,
	GGUF_STRING,
	GGUF_ARRAY,
	GGUF_U64,
	GGUF_I64,
	GGUF_F64,
};

struct gguf_string {
	const char *data;
	uint64_t size;
};

struct gguf_tensor {
	const char *name; /* NUL-terminated, without control characters */
	uint32_t type;	  /* enum kernels_type, or a number unknown to us */
	uint32_t n_dims;
	uint64_t dims[LIMIT_GGUF_DIMS]; /* dims[0] is the row length; absent ones are 1 */
	uint32_t file;			/* index of the part (0 for a single file) */
	uint64_t offset;		/* from the start of that file */
	uint64_t size;			/* bytes; 0 where the type is unknown */
};

/*
 * Opens and checks.  0, or -errno with *err naming file, offset and reason: -EBADMSG for a file
 * that breaks the format or our limits.  Of a model in several files (gguf-split) the first is to
 * be named, as PREFIX-00001-of-0000N.gguf; the others are opened beside it, and all become one.
 */
int gguf_open(struct gguf **ret, const char *path, struct error *err);
struct gguf *gguf_free(struct gguf *g);

/* The same over bytes in memory (fuzzers, tests): `size` of a header, data_size for bounds. */
int gguf_parse(
	struct gguf **ret, const void *bytes, size_t size, uint64_t file_size, struct error *err);

uint32_t gguf_version(const struct gguf *g);
const char *gguf_path(const struct gguf *g); /* as given; "" when parsed from memory */
uint32_t gguf_n_files(const struct gguf *g);
const char *gguf_file_path(const struct gguf *g, uint32_t file);
uint64_t gguf_file_size(const struct gguf *g); /* of all files */
uint32_t gguf_alignment(const struct gguf *g);
uint64_t gguf_data_offset(const struct gguf *g);

/* Keys.  Each getter: 1 found, 0 absent, -EINVAL of another kind or out of range (with *err). */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct error *err);
int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *ret, struct error *err);
int gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct error *err);
int gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct error *err);
int gguf_get_string(
	const struct gguf *g, const char *key, struct gguf_string *ret, struct error *err);

/*
 * Text of a file for people: as much of it as fits into room bytes and a NUL, with '?' for each
 * byte that is no UTF-8 and each character that controls a terminal.  Returns buf.
 */
const char *gguf_text(struct gguf_string s, char *buf, size_t room);

/* Arrays: kind of the elements and their count, then elements by index (checked when opened). */
int gguf_get_array(const struct gguf *g, const char *key, enum gguf_kind *ret_kind, uint64_t *ret_n,
	struct error *err);
/* Element i of an array of strings, in constant time; the array must exist and be of strings. */
struct gguf_string gguf_array_string(const struct gguf *g, const char *key, uint64_t i);
/* Raw little-endian elements of an array of numbers, unaligned; NULL for other kinds. */
const void *gguf_array_data(const struct gguf *g, const char *key);

/* For listing: the i-th key, NUL-terminated, its kind. */
uint64_t gguf_n_keys(const struct gguf *g);
const char *gguf_key(const struct gguf *g, uint64_t i, enum gguf_kind *ret_kind);

/* The i-th key with its value, as both stand in the file: for tools that copy them. */
const void *gguf_key_bytes(const struct gguf *g, uint64_t i, size_t *ret_n);

uint64_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, uint64_t i);
/* By name, by bisection; NULL where absent. */
const struct gguf_tensor *gguf_find(const struct gguf *g, const char *name);

/* All of its files, opened: [gguf_n_files()], to be closed.  0 or -errno with *err. */
struct file;
int gguf_files_open(struct file **ret, const struct gguf *g, struct error *err);
void gguf_files_close(struct file *files, uint32_t n); /* NULL is fine */

/* Heap and mapped bytes that g holds. */
size_t gguf_memory(const struct gguf *g);
