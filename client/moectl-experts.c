/* SPDX-License-Identifier: MIT */

/* experts: which of them are used, by all since the daemon's start, or by one or two texts. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "moectl-heat.h"
#include "moectl-routes.h"
#include "num.h"

#define COLUMNS_DEFAULT 80

/* ---- of all ------------------------------------------------------------------------------ */

static json_int_t integer_at(const json_t *array, size_t i)
{
	return json_integer_value(json_array_get(array, i));
}

static int row_read(struct heat *h, uint32_t row, const json_t *layer)
{
	const json_t *uses = json_object_get(layer, "uses");
	const json_t *weights = json_object_get(layer, "weights");
	const json_t *resident = json_object_get(layer, "resident");

	if (json_array_size(uses) != h->experts || json_array_size(weights) != h->experts ||
		json_array_size(resident) != h->experts)
		return complain("the daemon's counts of experts are not readable");
	h->layers[row] = (uint32_t)json_integer_value(json_object_get(layer, "layer"));
	for (uint32_t x = 0; x < h->experts; x++) {
		size_t i = (size_t)row * h->experts + x;

		h->uses[i] = (uint64_t)integer_at(uses, x);
		h->weights[i] = json_number_value(json_array_get(weights, x));
		h->resident[i] = integer_at(resident, x) != 0;
	}
	return EXIT_OK;
}

static int all_read(struct heat *h, const struct shape *s, const json_t *value)
{
	const json_t *layers = json_object_get(value, "layers");
	uint64_t uses = 0;
	int k = EXIT_OK;

	if (json_array_size(layers) != s->moe_layers)
		return complain("the daemon's counts of experts are not readable");
	if (heat_init(h, s->moe_layers, s->experts, s->top_k) < 0)
		return complain("out of memory");
	h->resident = calloc((size_t)h->rows * h->experts + 1, 1);
	if (!h->resident)
		return complain("out of memory");
	for (uint32_t r = 0; r < h->rows && k == EXIT_OK; r++)
		k = row_read(h, r, json_array_get(layers, r));
	for (uint32_t r = 0; r < h->rows; r++)
		k = h->layers[r] < s->layers ? k : EXIT_FAILED;
	for (size_t i = 0; i < (size_t)h->rows * h->experts; i++)
		uses += h->uses[i];
	h->tokens = uses / ((uint64_t)h->rows * h->top_k);
	(void)snprintf(h->title, sizeof(h->title), "%s, since the start", s->name);
	return k;
}

static int all_get(struct moe *m, const struct shape *s, struct heat *h)
{
	json_t *value = NULL;
	uint64_t request;
	int k = moe_experts(m, &request);

	k = k < 0 ? complain("%s", moe_strerror(k)) : json_answer(m, request, &value);
	if (k == EXIT_OK)
		k = all_read(h, s, value);
	json_decref(value);
	return k;
}

/* ---- of a text --------------------------------------------------------------------------- */

struct count {
	const struct shape *shape;
	struct heat *heat;
};

/* A tokens' done(). */
static int count_token(void *arg, const struct token *token)
{
	const struct count *c = arg;
	const struct shape *s = c->shape;
	struct heat *h = c->heat;

	h->tokens++;
	for (uint32_t r = 0; r < h->rows; r++) {
		const struct choice *choices = &token->choices[(size_t)h->layers[r] * s->top_k];

		for (uint32_t i = 0; i < s->top_k; i++) {
			size_t at = (size_t)r * h->experts + choices[i].expert;

			h->uses[at]++;
			h->weights[at] += (double)choices[i].weight;
		}
	}
	return 0;
}

static int text_get(
	const struct options *o, struct moe *m, const struct shape *s, size_t n, struct heat *h)
{
	struct moe_request r = MOE_REQUEST_INIT;
	struct count count = {s, h};
	struct tokens tokens = {.shape = s, .done = count_token, .arg = &count};
	size_t length;
	char *text = source_read(o, n, &length);
	uint32_t row = 0;
	int k;

	if (!text)
		return EXIT_FAILED;
	if (heat_init(h, s->moe_layers, s->experts, s->top_k) < 0) {
		free(text);
		return complain("out of memory");
	}
	for (uint32_t l = 0; l < s->layers; l++) {
		if (s->expert_bytes[l])
			h->layers[row++] = l;
	}
	(void)snprintf(h->title, sizeof(h->title), "%.256s",
		o->sources[n].is_file ? o->sources[n].text
		: o->n_sources > 1    ? (n ? "second text" : "first text")
				      : "text");
	r.text = text;
	r.text_length = length;
	r.max_tokens = 1;
	r.flags = MOE_WANT_ROUTES | MOE_IGNORE_END;
	k = routes_get(m, &r, &tokens);
	tokens_deinit(&tokens);
	free(text);
	return k;
}

/* ---- out --------------------------------------------------------------------------------- */

static unsigned columns_of(void)
{
	const char *text = getenv("COLUMNS");
	struct winsize w;
	uint64_t n;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col)
		return w.ws_col;
	return text && num_parse_u64(text, 20, 10000, &n) == 0 ? (unsigned)n : COLUMNS_DEFAULT;
}

static json_t *experts_json(const struct shape *s, const struct heat h[2], size_t n)
{
	json_t *value;

	if (n < 2)
		value = heat_json(&h[0], s->expert_bytes);
	else
		value = json_pack("{s:[o,o],s:o}", "texts", heat_json(&h[0], s->expert_bytes),
			heat_json(&h[1], s->expert_bytes), "overlap", overlap_json(&h[0], &h[1]));
	if (value)
		(void)json_object_set_new(value, "model", json_string(s->name));
	return value;
}

static int experts_write(
	const struct options *o, const struct shape *s, const struct heat h[2], size_t n, FILE *f)
{
	const char *no_colour = getenv("NO_COLOR");
	bool colours = f == stdout && isatty(STDOUT_FILENO) && !(no_colour && *no_colour);
	json_t *value;
	int k;

	if (o->svg) {
		heat_svg(&h[0], n > 1 ? &h[1] : NULL, f);
		return EXIT_OK;
	}
	if (o->json) {
		value = experts_json(s, h, n);
		k = value ? json_dumpf(value, f, JSON_COMPACT | JSON_REAL_PRECISION(10)) : -1;
		json_decref(value);
		(void)fputc('\n', f);
		return k ? complain("cannot put the answer together: out of memory") : EXIT_OK;
	}
	for (size_t i = 0; i < num_max(n, (size_t)1); i++)
		heat_print(&h[i], f, columns_of(), colours);
	if (n > 1)
		overlap_print(&h[0], &h[1], f);
	return EXIT_OK;
}

static int experts_print(
	const struct options *o, const struct shape *s, const struct heat h[2], size_t n)
{
	FILE *f = o->output ? fopen(o->output, "we") : stdout;
	bool failed;
	int k;

	if (!f)
		return complain("cannot write %s: %s", o->output, strerror(errno));
	k = experts_write(o, s, h, n, f);
	if (f == stdout)
		return k == EXIT_OK ? output_end() : k;
	failed = ferror(f);
	if (fclose(f) == EOF || failed)
		return complain("cannot write %s: %s", o->output, strerror(errno));
	return k;
}

int verb_experts(const struct options *o)
{
	struct heat h[2] = {{.rows = 0}, {.rows = 0}};
	struct shape s = {.layers = 0};
	struct moe *m = NULL;
	int k;

	if (o->json && o->svg) {
		(void)complain("--json and --svg exclude each other; see moectl experts --help");
		return EXIT_USAGE;
	}
	interrupts_catch();
	k = daemon_open(o, &m, NULL);
	if (k == EXIT_OK)
		k = shape_get(m, &s);
	if (k == EXIT_OK && !o->n_sources)
		k = all_get(m, &s, &h[0]);
	for (size_t i = 0; i < o->n_sources && k == EXIT_OK; i++)
		k = text_get(o, m, &s, i, &h[i]);
	if (k == EXIT_OK)
		k = experts_print(o, &s, h, o->n_sources);
	heat_deinit(&h[0]);
	heat_deinit(&h[1]);
	shape_deinit(&s);
	moe_close(m);
	return k;
}
