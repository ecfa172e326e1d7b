/* SPDX-License-Identifier: MIT */

#include "forecast-internal.h"

#include <errno.h>
#include <string.h>

/* Of the machine that wrote it: the file that holds it is bound to the build. */
struct state_head {
	uint32_t groups, cells;
	double weights[FEATURES];
};

struct state_group {
	uint32_t visits;
	float mean;
};

struct state_cell {
	float often[SPANS];
	uint32_t last;
};

#define WEIGHT_MOST 100.0

size_t forecast_state_size(const struct forecast *f)
{
	return sizeof(struct state_head) + f->n_groups * sizeof(struct state_group) +
	       (size_t)f->n_cells * sizeof(struct state_cell);
}

void forecast_get(const struct forecast *f, void *ret)
{
	struct state_head head = {.groups = f->n_groups, .cells = f->n_cells};
	char *at = ret;

	memcpy(head.weights, f->weights, sizeof head.weights);
	memcpy(at, &head, sizeof head);
	at += sizeof head;
	for (uint32_t g = 0; g < f->n_groups; g++, at += sizeof(struct state_group)) {
		struct state_group group = {f->groups[g].visits, f->groups[g].mean};

		memcpy(at, &group, sizeof group);
	}
	for (uint32_t i = 0; i < f->n_cells; i++, at += sizeof(struct state_cell)) {
		struct state_cell cell = {.last = f->last[i]};

		memcpy(cell.often, f->often + (size_t)i * SPANS, sizeof cell.often);
		memcpy(at, &cell, sizeof cell);
	}
}

static bool is_share(float x)
{
	return x >= 0.0f && x <= 1.0f;
}

static bool is_sound(const struct forecast *f, const char *at)
{
	struct state_head head;

	memcpy(&head, at, sizeof head);
	at += sizeof head;
	if (head.groups != f->n_groups || head.cells != f->n_cells)
		return false;
	for (unsigned i = 0; i < FEATURES; i++)
		if (!(head.weights[i] >= -WEIGHT_MOST && head.weights[i] <= WEIGHT_MOST))
			return false;
	for (uint32_t g = 0; g < f->n_groups; g++) {
		const struct group *group = &f->groups[g];
		struct state_group s;

		memcpy(&s, at + g * sizeof s, sizeof s);
		if (!is_share(s.mean) || s.visits >= UINT32_MAX / 2)
			return false;
		for (uint32_t x = 0; x < group->experts; x++) {
			struct state_cell cell;

			memcpy(&cell,
				at + f->n_groups * sizeof s + (group->first + x) * sizeof cell,
				sizeof cell);
			for (unsigned i = 0; i < SPANS; i++)
				if (!is_share(cell.often[i]))
					return false;
			if (cell.last > s.visits)
				return false;
		}
	}
	return true;
}

int forecast_set(struct forecast *f, const void *bytes, size_t n)
{
	const char *at = bytes;
	struct state_head head;

	if (n != forecast_state_size(f) || !is_sound(f, at))
		return -EINVAL;
	memcpy(&head, at, sizeof head);
	at += sizeof head;
	memcpy(f->weights, head.weights, sizeof f->weights);
	for (uint32_t g = 0; g < f->n_groups; g++, at += sizeof(struct state_group)) {
		struct state_group s;

		memcpy(&s, at, sizeof s);
		f->groups[g].visits = s.visits;
		f->groups[g].mean = s.mean;
	}
	for (uint32_t i = 0; i < f->n_cells; i++, at += sizeof(struct state_cell)) {
		struct state_cell s;

		memcpy(&s, at, sizeof s);
		memcpy(f->often + (size_t)i * SPANS, s.often, sizeof s.often);
		f->last[i] = s.last;
	}
	for (uint32_t g = 0; g < f->n_groups; g++)
		if (f->groups[g].visits > 0)
			forecast_rescore(f, &f->groups[g]);
	return 0;
}
