/* SPDX-License-Identifier: MIT */

#include "policy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

#define NOTHING UINT32_MAX
#define OUT UINT16_MAX /* class of what is not in memory */

/*
 * Of two cells that are equally likely to be wanted, that of the nearer layer is worth more, since
 * it holds its slot for a shorter time until then.  Worth goes with the distance to this power: 0
 * to 1 differ little, and 0.5 was best on the recorded traces.
 */
#define DISTANCE_POWER 0.5f

/* Logarithm of the chance, one in ten, below which an expert is cold. */
#define COLD -2.3f

struct cell {
	uint64_t used; /* when last */
	uint32_t times;
	uint32_t group;
	uint16_t class;
	bool was_in; /* before a restart */
};

struct policy {
	enum policy_kind kind;
	uint32_t groups, classes;
	uint32_t *first; /* [groups + 1] */
	struct cell *cells;
	uint32_t n_cells;
	uint64_t now;
	uint32_t group;	 /* visited last */
	float *nearness; /* [groups] added for a group that comes after so many others */
	uint32_t *worst; /* [groups][classes] the first cell to go; NOTHING: none in memory */
	bool *is_stale;	 /* [groups][classes] the worst is to be looked for */
	struct forecast *forecast;
};

/* ln(n / of), within 0.03: the integral of 1 / x, by its middles. */
static float log_of_share(uint32_t n, uint32_t of)
{
	float sum = 0.0f;

	for (uint32_t i = n; i < of; i++)
		sum -= 1.0f / ((float)i + 0.5f);
	return sum;
}

int policy_new(struct policy **ret, const struct policy_config *config)
{
	struct policy *p;
	uint64_t n = 0, at = 0;
	int r = -ENOMEM;

	if (config->groups >= OUT || config->classes >= OUT || config->classes == 0)
		return -EINVAL;
	for (uint32_t g = 0; g < config->groups; g++)
		n += config->experts[g];
	if (n >= NOTHING)
		return -EINVAL;
	p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	p->kind = config->kind;
	p->groups = config->groups;
	p->classes = config->classes;
	p->n_cells = (uint32_t)n;
	p->first = calloc((size_t)p->groups + 1, sizeof *p->first);
	p->cells = calloc(n + 1, sizeof *p->cells);
	p->nearness = calloc((size_t)p->groups + 1, sizeof *p->nearness);
	p->worst = calloc((size_t)p->groups * p->classes + 1, sizeof *p->worst);
	p->is_stale = calloc((size_t)p->groups * p->classes + 1, sizeof *p->is_stale);
	if (p->first && p->cells && p->nearness && p->worst && p->is_stale)
		r = p->kind == POLICY_FORECAST
			    ? forecast_new(&p->forecast, config->groups, config->experts)
			    : 0;
	if (r < 0) {
		policy_free(p);
		return r;
	}
	for (uint32_t g = 0; g < p->groups; g++) {
		for (uint32_t x = 0; x < config->experts[g]; x++)
			p->cells[at + x] = (struct cell){.group = g, .class = OUT};
		at += config->experts[g];
		p->first[g + 1] = (uint32_t)at;
		if (p->kind == POLICY_FORECAST)
			p->nearness[g] = -DISTANCE_POWER * log_of_share(g + 1, p->groups);
	}
	for (size_t i = 0; i < (size_t)p->groups * p->classes; i++)
		p->worst[i] = NOTHING;
	*ret = p;
	return 0;
}

struct policy *policy_free(struct policy *p)
{
	if (!p)
		return NULL;
	forecast_free(p->forecast);
	free(p->first);
	free(p->cells);
	free(p->nearness);
	free(p->worst);
	free(p->is_stale);
	free(p);
	return NULL;
}

static void set_stale(struct policy *p, uint32_t group)
{
	for (uint32_t c = 0; c < p->classes; c++)
		p->is_stale[(size_t)group * p->classes + c] = true;
}

void policy_visit(struct policy *p, const struct forecast_visit *v)
{
	if (v->group >= p->groups)
		return;
	p->group = v->group;
	if (!p->forecast)
		return;
	forecast_visit(p->forecast, v);
	set_stale(p, v->group);
}

static size_t place_of(const struct policy *p, const struct cell *c)
{
	return (size_t)c->group * p->classes + c->class;
}

void policy_touch(struct policy *p, uint32_t cell)
{
	struct cell *c;

	if (cell >= p->n_cells)
		return;
	c = &p->cells[cell];
	c->used = ++p->now;
	c->times++;
	if (c->class != OUT && p->worst[place_of(p, c)] == cell)
		p->is_stale[place_of(p, c)] = true;
}

void policy_insert(struct policy *p, uint32_t cell, uint32_t class)
{
	struct cell *c;

	if (cell >= p->n_cells || class >= p->classes)
		return;
	policy_remove(p, cell);
	c = &p->cells[cell];
	c->class = (uint16_t) class;
	p->is_stale[place_of(p, c)] = true;
}

void policy_remove(struct policy *p, uint32_t cell)
{
	struct cell *c;

	if (cell >= p->n_cells)
		return;
	c = &p->cells[cell];
	if (c->class == OUT)
		return;
	if (p->worst[place_of(p, c)] == cell)
		p->is_stale[place_of(p, c)] = true;
	c->class = OUT;
}

/* What a cell is worth, that of its layer's distance left out. */
static float worth(const struct policy *p, uint32_t cell)
{
	switch (p->kind) {
	case POLICY_FORECAST:
		return forecast_scores(p->forecast)[cell];
	case POLICY_LFU:
		return (float)p->cells[cell].times;
	default:
		return 0.0f;
	}
}

static bool is_worse(const struct policy *p, uint32_t a, float worth_a, uint32_t b, float worth_b)
{
	if (b == NOTHING || worth_a != worth_b)
		return b == NOTHING || worth_a < worth_b;
	return p->cells[a].used < p->cells[b].used;
}

struct asked {
	bool (*may_evict)(void *arg, uint32_t cell);
	void *arg;
};

/* The cell of a group and class to go first, of those that may. */
static uint32_t find_worst(
	const struct policy *p, uint32_t group, uint32_t class, const struct asked *asked)
{
	uint32_t worst = NOTHING;
	float least = 0.0f;

	for (uint32_t i = p->first[group]; i < p->first[group + 1]; i++) {
		float w;

		if (p->cells[i].class != class)
			continue;
		w = worth(p, i);
		if (!is_worse(p, i, w, worst, least) || (asked && !asked->may_evict(asked->arg, i)))
			continue;
		worst = i;
		least = w;
	}
	return worst;
}

int64_t policy_victim(
	struct policy *p, uint32_t class, bool (*may_evict)(void *arg, uint32_t cell), void *arg)
{
	const struct asked asked = {may_evict, arg};
	uint32_t victim = NOTHING;
	float least = 0.0f;

	if (class >= p->classes)
		return -1;
	for (uint32_t i = 0; i < p->groups; i++) {
		/* The group visited last comes last. */
		uint32_t group = (p->group + 1 + i) % p->groups, worst;
		size_t place = (size_t)group * p->classes + class;
		float w;

		if (p->is_stale[place]) {
			p->worst[place] = find_worst(p, group, class, NULL);
			p->is_stale[place] = false;
		}
		worst = p->worst[place];
		if (worst == NOTHING)
			continue;
		w = worth(p, worst) + p->nearness[i];
		if (!is_worse(p, worst, w, victim, least))
			continue;
		if (!may_evict(arg, worst)) {
			worst = find_worst(p, group, class, &asked);
			if (worst == NOTHING)
				continue;
			w = worth(p, worst) + p->nearness[i];
			if (!is_worse(p, worst, w, victim, least))
				continue;
		}
		victim = worst;
		least = w;
	}
	return victim == NOTHING ? -1 : (int64_t)victim;
}

bool policy_is_cold(const struct policy *p, uint32_t cell)
{
	return cell < p->n_cells &&
	       (p->kind != POLICY_FORECAST || forecast_scores(p->forecast)[cell] < COLD);
}

/* The forecast's, then a bit for each cell. */
static size_t bits_at(const struct policy *p)
{
	return p->forecast ? forecast_state_size(p->forecast) : 0;
}

size_t policy_state_size(const struct policy *p)
{
	return bits_at(p) + ((size_t)p->n_cells + 7) / 8;
}

void policy_get(const struct policy *p, void *ret)
{
	uint8_t *bits = (uint8_t *)ret + bits_at(p);

	if (p->forecast)
		forecast_get(p->forecast, ret);
	memset(bits, 0, policy_state_size(p) - bits_at(p));
	for (uint32_t i = 0; i < p->n_cells; i++)
		if (p->cells[i].class != OUT)
			bits[i / 8] |= (uint8_t)(1u << i % 8);
}

int policy_set(struct policy *p, const void *bytes, size_t n)
{
	const uint8_t *bits = (const uint8_t *)bytes + bits_at(p);
	int r;

	if (n != policy_state_size(p))
		return -EINVAL;
	r = p->forecast ? forecast_set(p->forecast, bytes, bits_at(p)) : 0;
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < p->n_cells; i++)
		p->cells[i].was_in = bits[i / 8] >> i % 8 & 1;
	for (uint32_t g = 0; g < p->groups; g++)
		set_stale(p, g);
	return 0;
}

bool policy_was_in(const struct policy *p, uint32_t cell)
{
	return cell < p->n_cells && p->cells[cell].was_in;
}
