/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the cache of experts learned and holds, kept over a restart in the file "experts" of the
 * state directory, so that the next run reads first what this one used.  Checked like everything
 * from outside, and bound to model and build: what does not fit is said and not used, and nothing
 * depends on it but speed.  No text and no token is in it.  Engine thread.
 */

#include "engine.h"
#include "error.h"

enum warm_result {
	WARM_NONE, /* there is no such file, or nothing to be kept */
	WARM_USED,
};

/* Before the first row.  A result or -errno with *err: -ESTALE where it is another model's. */
int warm_load(int folder, struct engine *e, struct error *err);
/* Replaces the file as a whole.  0 or -errno with *err. */
int warm_save(int folder, const struct engine *e, struct error *err);
