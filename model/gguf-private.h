/* SPDX-License-Identifier: MIT */
#pragma once

/* The inside of struct gguf, for the files gguf-*.c alone. */

#include "gguf.h"

struct gguf_entry {
	char *name;
	enum gguf_kind kind;	/* of the value */
	enum gguf_kind element; /* of an array's elements */
	uint64_t n;		/* elements of an array */
	uint64_t at;		/* of the value in the header: number, or first element */
	uint64_t size;		/* of a string */
	uint64_t begin, end;	/* key and value in the header */
	uint32_t *strings;	/* [n] where each string's length stands in the header */
};

struct gguf {
	char **paths; /* [n_files]; NULL: parsed from memory */
	uint32_t n_files;
	uint8_t *header;
	uint64_t header_size; /* bytes of header[] that were parsed */
	uint64_t file_size;   /* of all files */
	uint64_t data_offset;
	uint32_t version, alignment;
	struct gguf_entry *entries;
	uint64_t n_entries;
	uint32_t *entries_by_name;
	struct gguf_tensor *tensors;
	uint64_t n_tensors;
	uint32_t *tensors_by_name;
	size_t memory;
};

enum { GGUF_MORE = 1 };

/*
 * Parses header[size], which becomes g's in any case.  0; GGUF_MORE where the header goes on behind
 * `size` in the file (then nothing was taken, header stays the caller's); -EBADMSG, -ENOMEM.
 */
int gguf_parse_owned(
	struct gguf **ret, uint8_t *header, uint64_t size, uint64_t file_size, struct error *err);

/* Sorts the tensors by name; -EBADMSG where one is there twice. */
int gguf_index_tensors(struct gguf *g, struct error *err);

/* Bytes of one element; 0 for strings and arrays, and for numbers that are no kind. */
unsigned gguf_kind_size(uint32_t kind);

const struct gguf_entry *gguf_entry_find(const struct gguf *g, const char *key);
