/* SPDX-License-Identifier: MIT */

#include "forecast-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

/* The score of experts of a layer that was not visited yet. */
#define UNKNOWN -20.0f

/*
 * Fitted to recorded routing of two models (Qwen3-30B-A3B, gpt-oss-120b), the mean of both,
 * rounded: the fit of each serves the other as well as itself, within a point of hit rate.
 */
static const double WEIGHTS[FEATURES] = {
	[FEATURE_SHORT] = 0.05,
	[FEATURE_MIDDLE] = 0.35,
	[FEATURE_LONG] = 0.05,
	[FEATURE_FOLLOWS] = 0.40,
	[FEATURE_AGE] = -0.30,
	[FEATURE_ONE] = 0.0,
};

/* Added to a multiple of the mean before its logarithm is taken. */
#define LEAST 0.2f
/* Each layer back counts so much less for the likeness of two tokens. */
#define FADE 0.9f
/* Likeness to a power of e. */
#define SHARPNESS 1.5f
/* The fitted weights hold as much as so many (expert, visit) pairs that might have gone either way.
 */
#define PRIOR 200.0
/* What was learned counts half after so many steps. */
#define MEMORY 512.0
#define STEP_MOST 0.25 /* of a weight, at once */

/*
 * What follows similar tokens not at once but later counts a little too, lest an expert that is
 * sure to come back in three tokens is taken for one that never does: each token later so much
 * less, all together so much of what comes at once.
 */
#define LATER 0.85f
#define LATER_SHARE 0.15f

/* Visits over which an expert's frequency is averaged; the mean of all as long as there are fewer.
 */
static const float SPAN[SPANS] = {6.0f, 23.0f, 1500.0f};

static double clamp(double x, double least, double most)
{
	return x < least ? least : x > most ? most : x;
}

/* Within 2e-4 (of normal numbers above 0), the same on every machine. */
static float log_of(float x)
{
	uint32_t bits;
	float m, e;

	memcpy(&bits, &x, sizeof bits);
	e = (float)((int32_t)(bits >> 23) - 127);
	bits = (bits & 0x7fffff) | 0x3f800000;
	memcpy(&m, &bits, sizeof m);
	m = (((-0.0800109f * m + 0.6355111f) * m - 2.0994023f) * m + 4.0496169f) * m - 2.5056147f;
	return (e + m) * 0.69314718f;
}

/* Within 2e-4 of its value. */
static float exp_of(float x)
{
	float t = (float)clamp(x * 1.4426950f, -100.0, 100.0), f, power;
	int32_t whole = (int32_t)t - (t < 0.0f);
	uint32_t bits = (uint32_t)(whole + 127) << 23;

	memcpy(&power, &bits, sizeof power);
	f = t - (float)whole;
	return power * (0.9998967f + f * (0.6963906f + f * (0.2245163f + f * 0.0790857f)));
}

int forecast_new(struct forecast **ret, uint32_t groups, const uint32_t *experts)
{
	struct forecast *f = calloc(1, sizeof *f);
	uint64_t cells = 0;
	uint32_t most = 0;

	if (!f)
		return -ENOMEM;
	f->n_groups = groups;
	f->groups = calloc((size_t)groups + 1, sizeof *f->groups);
	if (!f->groups) {
		forecast_free(f);
		return -ENOMEM;
	}
	for (uint32_t g = 0; g < groups; g++) {
		f->groups[g] = (struct group){.first = (uint32_t)cells, .experts = experts[g]};
		cells += experts[g];
		most = num_max(most, experts[g]);
	}
	f->n_cells = (uint32_t)cells;
	f->last = calloc(cells + 1, sizeof *f->last);
	f->often = calloc((cells + 1) * SPANS, sizeof *f->often);
	f->features = calloc((cells + 1) * FEATURES, sizeof *f->features);
	f->scores = calloc(cells + 1, sizeof *f->scores);
	f->chances = calloc(cells + 1, sizeof *f->chances);
	f->follows = calloc((size_t)most + 1, sizeof *f->follows);
	f->later = calloc((size_t)most + 1, sizeof *f->later);
	f->wanted = calloc((size_t)most + 1, sizeof *f->wanted);
	f->tokens = calloc((size_t)FORECAST_TOKENS * (groups + 1), sizeof *f->tokens);
	if (!f->last || !f->often || !f->features || !f->scores || !f->chances || !f->follows ||
		!f->later || !f->wanted || !f->tokens) {
		forecast_free(f);
		return -ENOMEM;
	}
	memcpy(f->weights, WEIGHTS, sizeof f->weights);
	for (uint64_t i = 0; i < cells; i++)
		f->scores[i] = UNKNOWN;
	*ret = f;
	return 0;
}

struct forecast *forecast_free(struct forecast *f)
{
	if (!f)
		return NULL;
	free(f->groups);
	free(f->last);
	free(f->often);
	free(f->features);
	free(f->scores);
	free(f->chances);
	free(f->follows);
	free(f->later);
	free(f->wanted);
	free(f->tokens);
	free(f);
	return NULL;
}

const float *forecast_scores(const struct forecast *f)
{
	return f->scores;
}

static struct token *token_at(const struct forecast *f, uint64_t token, uint32_t group)
{
	return &f->tokens[(token % FORECAST_TOKENS) * f->n_groups + group];
}

/*
 * The weights follow the choices that came: a step of Newton's on what the forecasts of the step
 * missed, where older steps and the fitted weights hold against it.
 */
static void learn(struct forecast *f)
{
	double a[FEATURES][FEATURES + 1], keep = 1.0 - 1.0 / MEMORY;

	for (unsigned i = 0; i < FEATURES; i++) {
		memcpy(a[i], f->curvature[i], sizeof f->curvature[i]);
		a[i][i] += PRIOR;
		a[i][FEATURES] = f->slope[i] + PRIOR / MEMORY * (WEIGHTS[i] - f->weights[i]);
	}
	/* Positive definite: no pivot is 0. */
	for (unsigned i = 0; i < FEATURES; i++) {
		for (unsigned j = i + 1; j < FEATURES; j++) {
			double factor = a[j][i] / a[i][i];

			for (unsigned n = i; n <= FEATURES; n++)
				a[j][n] -= factor * a[i][n];
		}
	}
	for (unsigned i = FEATURES; i-- > 0;) {
		double change = a[i][FEATURES];

		for (unsigned j = i + 1; j < FEATURES; j++)
			change -= a[i][j] * a[j][FEATURES];
		a[i][FEATURES] = change / a[i][i];
	}
	for (unsigned i = 0; i < FEATURES; i++) {
		double change = a[i][FEATURES];

		f->weights[i] += clamp(change, -STEP_MOST, STEP_MOST);
		f->slope[i] = 0.0;
		for (unsigned j = 0; j < FEATURES; j++)
			f->curvature[i][j] *= keep;
	}
}

/* How far the forecasts of this group were off, for learn(). */
static void compare(struct forecast *f, const struct group *g)
{
	for (uint32_t x = 0; x < g->experts; x++) {
		const float *features = f->features + (size_t)(g->first + x) * FEATURES;
		float p = f->chances[g->first + x];
		double off = (double)(f->wanted[x] != 0) - (double)p, spread = (double)(p - p * p);

		for (unsigned i = 0; i < FEATURES; i++) {
			f->slope[i] += off * (double)features[i];
			for (unsigned j = 0; j <= i; j++)
				f->curvature[i][j] += spread * (double)(features[i] * features[j]);
		}
	}
	for (unsigned i = 0; i < FEATURES; i++)
		for (unsigned j = 0; j < i; j++)
			f->curvature[j][i] = f->curvature[i][j];
}

static void begin_step(struct forecast *f, enum forecast_stream which, uint32_t rows)
{
	struct stream *s = &f->streams[which];

	if (which == FORECAST_DECODE) {
		/* The first token of an answer follows the last of its prompt. */
		const struct stream *from = &f->streams[f->newest];
		float last = from->likeness[FORECAST_TOKENS - 1];

		if (s->begun)
			learn(f);
		/* What follows a token that was like the last may be like this one. */
		memmove(s->likeness + 1, from->likeness,
			(FORECAST_TOKENS - 1) * sizeof s->likeness[0]);
		s->likeness[0] = last;
	} else {
		memset(s->likeness, 0, sizeof s->likeness);
	}
	s->begun = true;
	s->first = f->n_tokens;
	s->rows = rows;
	f->newest = which;
	for (uint32_t i = 0; i < rows; i++, f->n_tokens++) {
		size_t place = f->n_tokens % FORECAST_TOKENS;

		for (uint32_t g = 0; g < f->n_groups; g++)
			f->tokens[place * f->n_groups + g].n = 0;
		for (unsigned k = 0; k < FORECAST_STREAMS; k++)
			f->streams[k].likeness[place] = 0.0f;
	}
}

/* Counts a visit that wants what is marked. */
static void count(struct forecast *f, struct group *g)
{
	uint32_t n = 0;

	g->visits++;
	for (uint32_t x = 0; x < g->experts; x++) {
		float *often = f->often + (size_t)(g->first + x) * SPANS;
		float now = f->wanted[x] ? 1.0f : 0.0f;

		for (unsigned i = 0; i < SPANS; i++)
			often[i] += (now - often[i]) / num_min((float)g->visits, SPAN[i]);
		if (f->wanted[x])
			f->last[g->first + x] = g->visits;
		n += f->wanted[x];
	}
	g->mean += ((float)n / (float)g->experts - g->mean) /
		   num_min((float)g->visits, SPAN[SPAN_LONG]);
}

static void mark(struct forecast *f, const struct group *g, const uint32_t *choices, uint32_t k)
{
	for (uint32_t i = 0; i < k; i++)
		if (choices[i] < g->experts)
			f->wanted[choices[i]] = 1;
}

/* What is marked becomes the token's; of too many, some that are spread over all. */
static void keep(struct forecast *f, const struct group *g, struct token *t)
{
	uint32_t n = 0, i = 0;

	for (uint32_t x = 0; x < g->experts; x++)
		n += f->wanted[x];
	t->n = 0;
	for (uint32_t x = 0; x < g->experts; x++) {
		if (!f->wanted[x])
			continue;
		if (n <= FORECAST_CHOICES ||
			(i + 1) * FORECAST_CHOICES / n > i * FORECAST_CHOICES / n)
			t->choices[t->n++] = (uint16_t)x;
		i++;
	}
}

static void unmark(struct forecast *f, const struct group *g)
{
	memset(f->wanted, 0, g->experts * sizeof *f->wanted);
}

/* How like the stream's last token, by its choices in this group too, is to each past one. */
static void liken(struct forecast *f, struct stream *s, const struct group *g, uint64_t present)
{
	uint32_t group = (uint32_t)(g - f->groups);
	const struct token *t = token_at(f, present, group);
	float unit;

	for (uint32_t i = 0; i < t->n; i++)
		f->wanted[t->choices[i]] = 1;
	unit = t->n ? 1.0f / (float)t->n : 0.0f;
	for (uint32_t place = 0; place < FORECAST_TOKENS; place++) {
		const struct token *past = &f->tokens[place * f->n_groups + group];
		uint32_t same = 0;

		for (uint32_t i = 0; i < past->n; i++)
			same += f->wanted[past->choices[i]];
		s->likeness[place] = s->likeness[place] * FADE + (float)same * unit;
	}
	s->likeness[present % FORECAST_TOKENS] = 0.0f;
	unmark(f, g);
}

/*
 * f->follows: after what share of similar tokens each expert was wanted; f->later: the same for
 * those that come later, the sooner the more.
 */
static void follow(
	struct forecast *f, const struct stream *s, const struct group *g, uint64_t present)
{
	uint32_t group = (uint32_t)(g - f->groups);
	uint64_t oldest = f->n_tokens > FORECAST_TOKENS ? f->n_tokens - FORECAST_TOKENS : 0;
	float most = 0.0f, after = 0.0f, all[2] = {0.0f};

	memset(f->follows, 0, g->experts * sizeof *f->follows);
	memset(f->later, 0, g->experts * sizeof *f->later);
	for (uint32_t i = 0; i < FORECAST_TOKENS; i++)
		most = num_max(most, s->likeness[i]);
	for (uint64_t t = oldest; t + 1 < f->n_tokens; t++) {
		const struct token *next = token_at(f, t + 1, group);
		float weight = 0.0f;

		if (t != present)
			weight = exp_of(SHARPNESS * (s->likeness[t % FORECAST_TOKENS] - most));
		if (next->n > 0) {
			all[0] += weight;
			all[1] += after;
		}
		for (uint32_t i = 0; i < next->n; i++) {
			f->follows[next->choices[i]] += weight;
			f->later[next->choices[i]] += after;
		}
		after = (after + weight) * LATER;
	}
	for (uint32_t x = 0; x < g->experts; x++) {
		f->follows[x] /= num_max(all[0], 1e-20f);
		f->later[x] /= num_max(all[1], 1e-20f);
	}
}

void forecast_rescore(struct forecast *f, const struct group *g)
{
	float mean = (float)clamp(g->mean, 1e-4, 0.9), w[FEATURES];
	float base = log_of(mean / (1.0f - mean)), per = 1.0f / mean;

	for (unsigned i = 0; i < FEATURES; i++)
		w[i] = (float)f->weights[i];
	for (uint32_t x = 0; x < g->experts; x++) {
		uint32_t cell = g->first + x;
		const float *often = f->often + (size_t)cell * SPANS;
		float *v = f->features + (size_t)cell * FEATURES;
		float z = base;

		for (unsigned i = 0; i < SPANS; i++)
			v[i] = log_of(often[i] * per + LEAST);
		v[FEATURE_FOLLOWS] = log_of(f->follows[x] * per + LEAST);
		v[FEATURE_AGE] = log_of((float)(g->visits + 1 - f->last[cell]) * mean);
		v[FEATURE_ONE] = 1.0f;
		for (unsigned i = 0; i < FEATURES; i++)
			z += v[i] * w[i];
		f->chances[cell] = 1.0f / (1.0f + exp_of(-z));
		f->scores[cell] = log_of(f->chances[cell] + LATER_SHARE * f->later[x]);
	}
}

void forecast_visit(struct forecast *f, const struct forecast_visit *v)
{
	struct stream *s = &f->streams[v->stream];
	struct group *g = &f->groups[v->group];
	bool decode = v->stream == FORECAST_DECODE;
	uint32_t most = v->aside ? FORECAST_ROWS_ASIDE : FORECAST_ROWS;
	uint64_t present;

	if (v->rows == 0 || v->group >= f->n_groups || g->experts == 0)
		return;
	if (!s->begun || v->group <= s->group)
		begin_step(f, v->stream, decode ? 1 : num_min(v->rows, most));
	s->group = v->group;
	present = s->first + s->rows - 1;
	if (decode) {
		for (uint32_t i = 0; i < v->rows; i++)
			mark(f, g, v->choices + (size_t)i * v->stride, v->k);
		if (g->visits > 0)
			compare(f, g);
		count(f, g);
		keep(f, g, token_at(f, present, v->group));
		unmark(f, g);
	}
	for (uint32_t i = 0; !decode && i < num_min(s->rows, v->rows); i++) {
		uint32_t row = v->rows - num_min(s->rows, v->rows) + i;

		mark(f, g, v->choices + (size_t)row * v->stride, v->k);
		count(f, g);
		keep(f, g, token_at(f, s->first + i, v->group));
		unmark(f, g);
	}
	liken(f, s, g, present);
	follow(f, s, g, present);
	forecast_rescore(f, g);
}
