/* SPDX-License-Identifier: MIT */

/* The disks of the model, and how each wants to be read: remembered, or probed at the start. */

#include "engine-internal.h"

#include <string.h>

#include "clock.h"
#include "num.h"

#define PROBE_NS (800 * CLOCK_NS_PER_MS) /* of all disks together */

static struct engine_disk *find(struct engine *e, dev_t device)
{
	for (uint32_t i = 0; i < e->n_disks; i++)
		if (e->disks[i].device == device)
			return &e->disks[i];
	return NULL;
}

static void recall(struct engine_disk *d, const struct engine_config *config)
{
	for (size_t i = 0; i < config->n_disks; i++) {
		if (strcmp(config->disks[i].name, d->entry.name) != 0)
			continue;
		d->entry.tuning = config->disks[i].tuning;
		d->source = ENGINE_DISK_REMEMBERED;
	}
}

void disks_find(struct engine *e, const struct engine_config *config)
{
	for (uint32_t i = 0; i < e->n_files; i++) {
		struct engine_disk *d;

		if (find(e, e->files[i].device))
			continue;
		d = &e->disks[e->n_disks++];
		*d = (struct engine_disk){.device = e->files[i].device, .file = i};
		probe_name(d->entry.name, d->device, e->io->ops->name);
		d->entry.tuning = probe_default();
		recall(d, config);
	}
}

void disks_tune(struct engine *e, bool probe)
{
	/* The slots that are there have nothing in them yet. */
	size_t room = 0;
	void *memory = memory_room(&e->memory, &room);

	for (uint32_t i = 0; i < e->n_disks; i++) {
		struct engine_disk *d = &e->disks[i];
		struct probe p = {.io = e->io,
			.file = &e->files[d->file],
			.index = d->file,
			.memory = memory,
			.size = room,
			.ns = PROBE_NS / e->n_disks};
		uint64_t start = clock_now();

		/* What cannot be read now will say so when it is wanted. */
		if (probe && d->source == ENGINE_DISK_DEFAULT &&
			probe_run(&d->entry.tuning, &p) == 0) {
			d->source = ENGINE_DISK_PROBED;
			d->probe_ns = clock_now() - start;
		}
		store_tune(e->store, d->device, &d->entry.tuning);
	}
}

uint32_t engine_disks(const struct engine *e, const struct engine_disk **ret)
{
	*ret = e->disks;
	return e->n_disks;
}
