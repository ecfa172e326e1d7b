/* SPDX-License-Identifier: MIT */

#include "replay-time.h"

#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "limit.h"
#include "num.h"

DEFINE_CLEANUP(struct cache *, cache_free, NULL)

struct clockwork {
	const struct trace *t;
	const struct time_config *config;
	struct cache *cache;
	uint32_t *missing;
	double now, disk; /* disk: when it is free */
	uint64_t seed;
	struct time_result *result;
	/* Read ahead for the next visit. */
	uint32_t ahead[LIMIT_TOP_K];
	double arrives[LIMIT_TOP_K];
	uint32_t n_ahead;
};

static double chance(struct clockwork *w)
{
	w->seed = w->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (double)(w->seed >> 11) / (double)(UINT64_C(1) << 53);
}

static double read_time(const struct clockwork *w, uint32_t group)
{
	return (double)w->t->bytes[group] / w->config->disk;
}

/* What the next layer's router would say, best first, into `ret`; their number. */
static uint32_t predict(struct clockwork *w, const struct trace_visit *v, uint32_t *ret)
{
	const uint32_t *choices = w->t->choices + v->row * w->t->k;
	double span = w->config->recall_first - w->config->recall_last;
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->t->k; i++) {
		double recall =
			w->config->recall_first - (w->t->k > 1 ? span * i / (w->t->k - 1) : 0.0);

		if (choices[i] == UINT32_MAX)
			continue;
		ret[n++] =
			v->group * w->t->experts +
			(chance(w) < recall ? choices[i] : (uint32_t)(chance(w) * w->t->experts));
	}
	return n;
}

static void read_ahead(struct clockwork *w, const struct trace_visit *next, double until)
{
	uint32_t predicted[LIMIT_TOP_K], n = predict(w, next, predicted);
	double each = read_time(w, next->group), from = num_max(w->now, w->disk);

	for (uint32_t i = 0; i < n; i++) {
		double window = until - from, late = num_max(each - window, 0.0);
		double p = w->config->recall_first -
			   (n > 1 ? (w->config->recall_first - w->config->recall_last) * i / (n - 1)
				  : 0.0);

		/* What is gained where it is right, against what is lost where it is not. */
		if (window <= 0 || p * (each - late) <= (1 - p) * late)
			break;
		if (cache_has(w->cache, predicted[i]) || !cache_bring(w->cache, predicted[i]))
			continue;
		w->arrives[w->n_ahead] = from + each;
		w->ahead[w->n_ahead++] = predicted[i];
		w->result->issued++;
		w->result->bytes += w->t->bytes[next->group];
		from += each;
		w->disk = from;
	}
}

/*
 * What was read ahead and is wanted: no hit where it has not arrived.  When the last of it does;
 * ret_late: how many have not.
 */
static double take_ahead(struct clockwork *w, const struct trace_visit *v, uint32_t *ret_late)
{
	const uint32_t *choices = w->t->choices + v->row * w->t->k;
	double last = w->now;

	*ret_late = 0;
	for (uint32_t i = 0; i < w->n_ahead; i++)
		for (uint32_t k = 0; k < w->t->k; k++) {
			if (w->ahead[i] != v->group * w->t->experts + choices[k])
				continue;
			w->result->useful++;
			*ret_late += w->arrives[i] > w->now;
			last = num_max(last, w->arrives[i]);
		}
	w->n_ahead = 0;
	w->result->late += *ret_late;
	return last;
}

static void decode(struct clockwork *w, uint64_t i)
{
	const struct trace_visit *v = &w->t->visits[i];
	const struct trace_visit *next = i + 1 < w->t->n_visits ? v + 1 : NULL;
	double part = w->config->compute / w->t->groups / 2, arrived, each, done, ahead;
	uint32_t wanted, misses, late;

	w->now += part;
	ahead = take_ahead(w, v, &late);
	misses = cache_visit(w->cache, i, w->missing, &wanted);
	w->result->wanted += wanted;
	w->result->hits += wanted - misses - late;
	each = part / num_max(wanted, 1u);
	done = w->now + each * (wanted - misses - late);
	if (late)
		done = num_max(done, ahead) + each * late;
	arrived = num_max(w->now, w->disk);
	for (uint32_t k = 0; k < misses; k++) {
		arrived += read_time(w, v->group);
		done = num_max(done, arrived) + each;
		w->result->bytes += w->t->bytes[v->group];
		(void)cache_bring(w->cache, w->missing[k]);
	}
	if (misses)
		w->disk = arrived;
	/* The first layer's choices depend on a token that is not known yet. */
	if (w->config->prefetch && next && next->decode && !next->first)
		read_ahead(w, next, done + part);
	w->now = done;
}

int time_replay(struct time_result *ret, const struct trace *t, const struct cache_config *cache,
	const struct time_config *config)
{
	cleanup_free_ uint32_t *missing = malloc((t->experts + 1) * sizeof *missing);
	cleanup_(cache_freep) struct cache *c = NULL;
	struct clockwork w = {
		.t = t, .config = config, .missing = missing, .seed = config->seed, .result = ret};
	int r = missing ? cache_new(&c, t, cache) : -ENOMEM;

	if (r < 0)
		return r;
	w.cache = c;
	*ret = (struct time_result){0};
	for (uint64_t i = 0; i < t->n_visits; i++) {
		uint32_t wanted, misses;

		if (t->visits[i].decode) {
			decode(&w, i);
			continue;
		}
		misses = cache_visit(c, i, missing, &wanted);
		for (uint32_t k = 0; k < misses; k++)
			(void)cache_bring(c, missing[k]);
	}
	ret->seconds = w.now;
	ret->per_token = t->steps ? w.now / (double)t->steps : 0.0;
	return 0;
}
