/* SPDX-License-Identifier: MIT */

#include "replay-trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "limit.h"
#include "num.h"

#define LINE_MOST 1024u
#define FIELDS_MOST 32u
#define ROUTES_MOST ((uint64_t)1 << 27)

enum column {
	COLUMN_TURN,
	COLUMN_PHASE,
	COLUMN_STEP,
	COLUMN_LAYER,
	COLUMN_SLOT,
	COLUMN_EXPERT,
	COLUMN_BYTES,
	COLUMNS,
};

static const struct {
	const char *name;
	uint64_t most;
	bool must;
} columns[COLUMNS] = {
	[COLUMN_TURN] = {"turn", UINT64_MAX, false},
	[COLUMN_PHASE] = {"phase", 1, true},
	[COLUMN_STEP] = {"step", UINT64_MAX, true},
	[COLUMN_LAYER] = {"layer", LIMIT_LAYERS - 1, true},
	[COLUMN_SLOT] = {"slot", LIMIT_TOP_K - 1, true},
	[COLUMN_EXPERT] = {"expert", LIMIT_EXPERTS - 1, true},
	[COLUMN_BYTES] = {"expert_bytes", LIMIT_MEMORY, false},
};

struct route {
	uint64_t turn, step;
	uint16_t layer, expert;
	uint8_t phase, slot;
};

struct reader {
	struct trace *t;
	const char *path;
	uint64_t line;
	int place[COLUMNS]; /* of a column among the fields; -1: not there */
	bool has_header;
	uint32_t fields;
	bool sized[LIMIT_LAYERS]; /* by the comments at the top */
	struct route *routes;
	uint64_t n, room;
};

DEFINE_CLEANUP(FILE *, fclose, NULL)

static int complain(const struct reader *r, struct error *err, const char *what)
{
	return error_set(err, -EINVAL, "'%s', line %" PRIu64 ": %s", r->path, r->line, what);
}

/* Splits at commas; the number of fields, 0 where there are too many. */
static uint32_t split(char *line, char **fields)
{
	uint32_t n = 0;

	for (char *at = line; at; n++) {
		if (n == FIELDS_MOST)
			return 0;
		fields[n] = strsep(&at, ",");
	}
	return n;
}

static int take_header(struct reader *r, char **fields, uint32_t n, struct error *err)
{
	char text[160];

	for (unsigned c = 0; c < COLUMNS; c++) {
		r->place[c] = -1;
		for (uint32_t i = 0; i < n; i++)
			if (strcmp(fields[i], columns[c].name) == 0)
				r->place[c] = (int)i;
		if (r->place[c] >= 0 || !columns[c].must)
			continue;
		(void)snprintf(text, sizeof text,
			"the first line names the columns, and none is '%s'", columns[c].name);
		return complain(r, err, text);
	}
	r->fields = n;
	r->has_header = true;
	return 0;
}

/* "# layer=3 expert_bytes=2654208 ...", and "# ... n_expert=128 ...". */
static int take_comment(struct reader *r, char *line, struct error *err)
{
	uint64_t layer = UINT64_MAX, bytes = 0, n;
	char *word;

	for (char *at = line; (word = strsep(&at, " \t#"));) {
		if (strncmp(word, "layer=", 6) == 0 &&
			num_parse_u64(word + 6, 0, LIMIT_LAYERS - 1, &layer) < 0)
			return complain(r, err, "this is no layer");
		if (strncmp(word, "expert_bytes=", 13) == 0 &&
			num_parse_u64(word + 13, 1, LIMIT_MEMORY, &bytes) < 0)
			return complain(r, err, "this is no size of an expert");
		if (strncmp(word, "n_expert=", 9) == 0) {
			if (num_parse_u64(word + 9, 1, LIMIT_EXPERTS, &n) < 0)
				return complain(r, err, "this is no number of experts");
			r->t->experts = num_max(r->t->experts, (uint32_t)n);
		}
	}
	if (layer != UINT64_MAX && bytes) {
		r->t->bytes[layer] = bytes;
		r->sized[layer] = true;
	}
	return 0;
}

static int take_route(struct reader *r, char **fields, uint32_t n, struct error *err)
{
	uint64_t value[COLUMNS] = {0};
	struct route *route;
	char text[160];

	if (n != r->fields)
		return complain(r, err, "it has not as many fields as the first line");
	for (unsigned c = 0; c < COLUMNS; c++) {
		if (r->place[c] < 0 ||
			num_parse_u64(fields[r->place[c]], 0, columns[c].most, &value[c]) == 0)
			continue;
		(void)snprintf(text, sizeof text, "%s is no number from 0 to %" PRIu64,
			columns[c].name, columns[c].most);
		return complain(r, err, text);
	}
	if (r->n == r->room) {
		uint64_t room = num_max(2 * r->room, (uint64_t)4096);
		void *routes = reallocarray(r->routes, room, sizeof *r->routes);

		if (r->n == ROUTES_MOST)
			return complain(r, err, "the trace is too long");
		if (!routes)
			return error_errno(err, -ENOMEM, "cannot read '%s'", r->path);
		r->routes = routes;
		r->room = room;
	}
	route = &r->routes[r->n++];
	*route = (struct route){.turn = value[COLUMN_TURN],
		.step = value[COLUMN_STEP],
		.layer = (uint16_t)value[COLUMN_LAYER],
		.expert = (uint16_t)value[COLUMN_EXPERT],
		.phase = (uint8_t)value[COLUMN_PHASE],
		.slot = (uint8_t)value[COLUMN_SLOT]};
	if (!r->sized[route->layer])
		r->t->bytes[route->layer] = num_max(r->t->bytes[route->layer], value[COLUMN_BYTES]);
	r->t->groups = num_max(r->t->groups, route->layer + 1u);
	r->t->experts = num_max(r->t->experts, route->expert + 1u);
	r->t->k = num_max(r->t->k, route->slot + 1u);
	return 0;
}

static int take_line(struct reader *r, char *line, struct error *err)
{
	char *fields[FIELDS_MOST];
	uint32_t n;

	if (line[0] == '#')
		return take_comment(r, line, err);
	n = split(line, fields);
	if (n == 0)
		return complain(r, err, "it has too many fields");
	return r->has_header ? take_route(r, fields, n, err) : take_header(r, fields, n, err);
}

static int read_lines(struct reader *r, struct error *err)
{
	cleanup_(fclosep) FILE *file = fopen(r->path, "re");
	char line[LINE_MOST + 2];

	if (!file)
		return error_errno(err, -errno, "cannot open '%s'", r->path);
	while (fgets(line, sizeof line, file)) {
		size_t n = strlen(line);
		int x;

		r->line++;
		if (n > LINE_MOST)
			return complain(r, err, "it is too long, or has a byte 0");
		if (n == 0 || (line[n - 1] != '\n' && !feof(file)))
			return complain(r, err, "it has a byte 0");
		while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
			line[--n] = '\0';
		if (n == 0)
			continue;
		x = take_line(r, line, err);
		if (x < 0)
			return x;
	}
	if (ferror(file))
		return error_errno(err, -EIO, "cannot read '%s'", r->path);
	if (r->n == 0)
		return error_set(err, -EINVAL, "'%s' has no routes", r->path);
	return 0;
}

static bool is_same_row(const struct route *a, const struct route *b)
{
	return a->turn == b->turn && a->phase == b->phase && a->step == b->step &&
	       a->layer == b->layer;
}

/* Rows of one visit: the tokens of a chunk in prefill; sessions that decode together. */
static bool is_same_visit(const struct route *a, const struct route *b)
{
	return a->phase == b->phase && a->layer == b->layer &&
	       (a->phase == 0 ? a->turn == b->turn : a->step == b->step);
}

/*
 * A prompt goes through the layers as a chunk, however it was written down: the routes [begin, end)
 * of one come layer by layer, and else in their order.
 */
static int sort_chunk(struct reader *r, uint64_t begin, uint64_t end)
{
	cleanup_free_ struct route *copy = malloc((end - begin) * sizeof *copy);
	uint64_t at[LIMIT_LAYERS + 1] = {0};

	if (!copy)
		return -ENOMEM;
	memcpy(copy, r->routes + begin, (end - begin) * sizeof *copy);
	for (uint64_t i = begin; i < end; i++)
		at[r->routes[i].layer + 1]++;
	for (uint32_t g = 1; g <= LIMIT_LAYERS; g++)
		at[g] += at[g - 1];
	for (uint64_t i = 0; i < end - begin; i++)
		r->routes[begin + at[copy[i].layer]++] = copy[i];
	return 0;
}

static int sort_chunks(struct reader *r)
{
	uint64_t end;

	for (uint64_t i = 0; i < r->n; i = end) {
		const struct route *x = &r->routes[i];
		int e;

		for (end = i + 1; end < r->n && r->routes[end].phase == x->phase &&
				  r->routes[end].turn == x->turn;
			end++)
			;
		e = x->phase == 0 ? sort_chunk(r, i, end) : 0;
		if (e < 0)
			return e;
	}
	return 0;
}

static int add_choice(struct trace *t, const struct reader *r, uint64_t i, struct error *err)
{
	uint32_t *choices = t->choices + (t->n_rows - 1) * t->k;
	const struct route *x = &r->routes[i];

	for (uint32_t k = 0; k < t->k; k++)
		if (choices[k] == x->expert)
			return error_set(err, -EINVAL,
				"'%s': step %" PRIu64 " has expert %u twice in layer %u", r->path,
				x->step, x->expert, x->layer);
	if (choices[x->slot] != UINT32_MAX)
		return error_set(err, -EINVAL,
			"'%s': step %" PRIu64 " has slot %u twice in layer %u", r->path, x->step,
			x->slot, x->layer);
	choices[x->slot] = x->expert;
	return 0;
}

static int build(struct reader *r, struct error *err)
{
	struct trace *t = r->t;
	uint64_t rows = 0, visits = 0, last[2] = {0};
	bool begun[2] = {false};

	for (uint64_t i = 0; i < r->n; i++) {
		rows += i == 0 || !is_same_row(&r->routes[i - 1], &r->routes[i]);
		visits += i == 0 || !is_same_visit(&r->routes[i - 1], &r->routes[i]);
	}
	t->visits = calloc(visits, sizeof *t->visits);
	t->choices = malloc(rows * t->k * sizeof *t->choices);
	if (!t->visits || !t->choices)
		return error_errno(err, -ENOMEM, "cannot read '%s'", r->path);
	memset(t->choices, 0xff, rows * t->k * sizeof *t->choices);
	for (uint64_t i = 0; i < r->n; i++) {
		const struct route *x = &r->routes[i];
		struct trace_visit *v;
		int e;

		if (i == 0 || !is_same_visit(x - 1, x)) {
			v = &t->visits[t->n_visits++];
			v->group = x->layer;
			v->decode = x->phase;
			v->row = t->n_rows;
			v->first = !begun[x->phase] || x->layer <= last[x->phase];
			t->steps += v->first && v->decode;
			begun[x->phase] = true;
			last[x->phase] = x->layer;
		}
		if (i == 0 || !is_same_row(x - 1, x)) {
			t->n_rows++;
			t->visits[t->n_visits - 1].rows++;
		}
		e = add_choice(t, r, i, err);
		if (e < 0)
			return e;
	}
	return 0;
}

int trace_load(struct trace *ret, const char *path, struct error *err)
{
	struct trace t = {0};
	struct reader r = {.t = &t, .path = path};
	uint64_t most = 0;
	int x = read_lines(&r, err);

	if (x == 0 && sort_chunks(&r) < 0)
		x = error_errno(err, -ENOMEM, "cannot read '%s'", path);
	if (x == 0)
		x = build(&r, err);
	free(r.routes);
	if (x < 0) {
		trace_deinit(&t);
		return x;
	}
	/* A layer that nothing was read for, in a trace that says no sizes: as the largest. */
	for (uint32_t g = 0; g < t.groups; g++)
		most = num_max(most, t.bytes[g]);
	for (uint32_t g = 0; g < t.groups; g++)
		t.bytes[g] = t.bytes[g] ? t.bytes[g] : most;
	*ret = t;
	return 0;
}

void trace_deinit(struct trace *t)
{
	free(t->visits);
	free(t->choices);
}
