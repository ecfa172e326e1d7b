/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Reads that go wrong on demand: an io over one memfd whose bytes are known, with a script of
 * outcomes for the next reads and, behind it, chances drawn from a seed.  Results come back in any
 * order and, if asked, late.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.h"
#include "io.h"

#define FAKE_DEPTH_MAX 128

enum fake_what {
	FAKE_FINE,
	FAKE_ERROR, /* arg: -errno */
	FAKE_SHORT, /* arg: bytes at most */
};

struct fake_outcome {
	enum fake_what what;
	int arg;
};

struct fake_io {
	struct io io;
	struct file file;
	size_t size;

	size_t depth;
	struct io_read pending[FAKE_DEPTH_MAX];
	size_t n_pending;

	const struct fake_outcome *script; /* for results in order of arrival; may be NULL */
	size_t n_script;
	unsigned chance_short, chance_again, chance_error; /* of 1000 */
	bool hold_back;	  /* reap gives nothing, whatever the timeout */
	bool in_order;	  /* first come, first served; else at random */
	int submit_fails; /* -errno of the next submissions, this many: */
	unsigned n_submit_fails;
	int reap_fails; /* -errno of every reap */
	uint32_t seed;
	size_t reads, bytes; /* served */
};

/* The byte at this offset of the file. */
unsigned char fake_byte(uint64_t offset);
bool fake_is_content(const void *p, uint64_t offset, size_t n);

void fake_init(struct fake_io *f, size_t size, uint32_t align);
void fake_deinit(struct fake_io *f);
uint32_t fake_random(uint32_t *seed);
