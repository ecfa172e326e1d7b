/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the daemon knows of its disks: remembered in the state directory, said in the log and in the
 * status.  What is damaged there is probed again.  Loop thread.
 */

#include <stddef.h>
#include <stdio.h>

#include "engine.h"
#include "limit.h"

struct disks {
	struct probe_entry known[LIMIT_DISKS_REMEMBERED];
	size_t n;
};

/* folder: the state directory, or -1. */
void disks_load(struct disks *d, int folder);
/* After the start: logs what holds for each, and remembers what was probed. */
void disks_report(struct disks *d, int folder, const struct engine_disk *disks, uint32_t n);
/* A JSON list. */
void disks_print(FILE *f, const struct engine_disk *disks, uint32_t n);
