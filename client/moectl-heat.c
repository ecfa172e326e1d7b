/* SPDX-License-Identifier: MIT */
#include "moectl-heat.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

/* Left of the map and right of it, on a terminal. */
#define LABEL_WIDTH 6u
#define FIGURES_WIDTH 26u
#define CELLS_LEAST 8u

int heat_init(struct heat *h, uint32_t rows, uint32_t experts, uint32_t top_k)
{
	size_t n = (size_t)rows * experts;

	*h = (struct heat){.rows = rows, .experts = experts, .top_k = top_k};
	h->layers = calloc(rows + 1, sizeof(*h->layers));
	h->uses = calloc(n + 1, sizeof(*h->uses));
	h->weights = calloc(n + 1, sizeof(*h->weights));
	if (h->layers && h->uses && h->weights)
		return 0;
	heat_deinit(h);
	return -ENOMEM;
}

void heat_deinit(struct heat *h)
{
	free(h->layers);
	free(h->uses);
	free(h->weights);
	free(h->resident);
	*h = (struct heat){.rows = 0};
}

static double cv2(double sum, double squares, double n)
{
	double mean = sum / n;

	return mean > 0 ? fmax(squares / n - mean * mean, 0) / (mean * mean) : 0;
}

void heat_evenness(const struct heat *h, uint32_t row, uint32_t rows, struct evenness *ret)
{
	size_t first = (size_t)row * h->experts, n = (size_t)rows * h->experts;
	double uses = 0, uses2 = 0, weights = 0, weights2 = 0;

	*ret = (struct evenness){.load = 0};
	for (size_t i = first; i < first + n; i++) {
		double u = (double)h->uses[i], w = h->weights[i];

		uses += u;
		uses2 += u * u;
		weights += w;
		weights2 += w * w;
		ret->used += u > 0;
		ret->resident += h->resident && h->resident[i];
	}
	if (!n)
		return;
	ret->load = cv2(uses, uses2, (double)n);
	ret->importance = cv2(weights, weights2, (double)n);
}

static double row_sum(const struct heat *h, uint32_t row)
{
	double sum = 0;

	for (uint32_t x = 0; x < h->experts; x++)
		sum += h->weights[(size_t)row * h->experts + x];
	return sum > 0 ? sum : 1;
}

void heat_overlap(const struct heat *a, const struct heat *b, uint32_t row, uint32_t rows,
	struct overlap *ret)
{
	double both = 0, any = 0, least = 0, most = 0;

	for (uint32_t r = row; r < row + rows; r++) {
		double of_a = row_sum(a, r), of_b = row_sum(b, r);

		for (uint32_t x = 0; x < a->experts; x++) {
			size_t i = (size_t)r * a->experts + x;
			double u = a->weights[i] / of_a, v = b->weights[i] / of_b;

			both += a->uses[i] && b->uses[i];
			any += a->uses[i] || b->uses[i];
			least += fmin(u, v);
			most += fmax(u, v);
		}
	}
	ret->jaccard = any > 0 ? both / any : 0;
	ret->weighted = most > 0 ? least / most : 0;
}

/* ---- JSON -------------------------------------------------------------------------------- */

static json_t *row_json(const struct heat *h, uint32_t row, uint64_t expert_bytes)
{
	json_t *uses = json_array(), *weights = json_array(), *resident = NULL, *o;
	struct evenness e;

	for (uint32_t x = 0; x < h->experts; x++) {
		size_t i = (size_t)row * h->experts + x;

		(void)json_array_append_new(uses, json_integer((json_int_t)h->uses[i]));
		(void)json_array_append_new(weights, json_real(h->weights[i]));
	}
	heat_evenness(h, row, 1, &e);
	o = json_pack("{s:I,s:I,s:I,s:f,s:f,s:o,s:o}", "layer", (json_int_t)h->layers[row],
		"expert_bytes", (json_int_t)expert_bytes, "used", (json_int_t)e.used, "load_cv2",
		e.load, "importance_cv2", e.importance, "uses", uses, "weights", weights);
	if (!o || !h->resident)
		return o;
	resident = json_array();
	for (uint32_t x = 0; x < h->experts; x++)
		(void)json_array_append_new(
			resident, json_integer(h->resident[(size_t)row * h->experts + x]));
	(void)json_object_set_new(o, "resident", resident);
	return o;
}

json_t *heat_json(const struct heat *h, const uint64_t *expert_bytes)
{
	json_t *layers = json_array();
	uint64_t uses = 0;
	struct evenness e;

	for (uint32_t r = 0; r < h->rows; r++)
		(void)json_array_append_new(layers, row_json(h, r, expert_bytes[h->layers[r]]));
	for (size_t i = 0; i < (size_t)h->rows * h->experts; i++)
		uses += h->uses[i];
	heat_evenness(h, 0, h->rows, &e);
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:o}", "tokens", (json_int_t)h->tokens,
		"moe_layers", (json_int_t)h->rows, "experts", (json_int_t)h->experts, "top_k",
		(json_int_t)h->top_k, "uses", (json_int_t)uses, "used", (json_int_t)e.used,
		"load_cv2", e.load, "importance_cv2", e.importance, "layers", layers);
}

json_t *overlap_json(const struct heat *a, const struct heat *b)
{
	json_t *layers = json_array();
	struct overlap o;

	for (uint32_t r = 0; r < a->rows; r++) {
		heat_overlap(a, b, r, 1, &o);
		(void)json_array_append_new(
			layers, json_pack("{s:I,s:f,s:f}", "layer", (json_int_t)a->layers[r],
					"jaccard", o.jaccard, "weighted", o.weighted));
	}
	heat_overlap(a, b, 0, a->rows, &o);
	return json_pack(
		"{s:f,s:f,s:o}", "jaccard", o.jaccard, "weighted", o.weighted, "layers", layers);
}

/* ---- a terminal -------------------------------------------------------------------------- */

/* 0 (not used) to 1, of uses by the most of any expert. */
static double shade(double uses, double most)
{
	return most > 0 ? uses / most : 0;
}

static double most_of(const struct heat *h, uint32_t fold)
{
	double most = 0;

	for (uint32_t r = 0; r < h->rows; r++) {
		for (uint32_t x = 0; x < h->experts; x += fold) {
			double sum = 0;

			for (uint32_t i = x; i < x + fold && i < h->experts; i++)
				sum += (double)h->uses[(size_t)r * h->experts + i];
			most = fmax(most, sum);
		}
	}
	return most;
}

static void cell(FILE *f, double v, bool colours)
{
	static const unsigned char ramp[] = {
		17, 18, 54, 90, 126, 162, 197, 203, 209, 215, 221, 228};
	static const char characters[] = ".:-=+*#%@";
	size_t n = colours ? ARRAY_SIZE(ramp) : sizeof(characters) - 1;
	size_t at = num_min((size_t)(v * (double)n), n - 1);

	if (v <= 0)
		(void)fputs(colours ? "\033[48;5;233m " : " ", f);
	else if (colours)
		(void)fprintf(f, "\033[48;5;%um ", ramp[at]);
	else
		(void)fputc(characters[at], f);
}

static void row_print(
	const struct heat *h, uint32_t r, FILE *f, uint32_t fold, double most, bool colours)
{
	struct evenness e;

	(void)fprintf(f, "%4u |", h->layers[r]);
	for (uint32_t x = 0; x < h->experts; x += fold) {
		double sum = 0;

		for (uint32_t i = x; i < x + fold && i < h->experts; i++)
			sum += (double)h->uses[(size_t)r * h->experts + i];
		cell(f, shade(sum, most), colours);
	}
	heat_evenness(h, r, 1, &e);
	(void)fprintf(
		f, "%s|%7.3f%7.3f%5u", colours ? "\033[0m" : "", e.load, e.importance, e.used);
	if (h->resident)
		(void)fprintf(f, "%5u", e.resident);
	(void)fputc('\n', f);
}

void heat_print(const struct heat *h, FILE *f, unsigned columns, bool colours)
{
	uint32_t room = columns > LABEL_WIDTH + FIGURES_WIDTH + CELLS_LEAST
				? columns - LABEL_WIDTH - FIGURES_WIDTH
				: CELLS_LEAST;
	uint32_t fold = (h->experts + room - 1) / room;
	uint32_t cells = fold ? (h->experts + fold - 1) / fold : 0;
	double most = most_of(h, num_max(fold, 1u));
	struct evenness e;

	(void)fprintf(f, "%s: %llu tokens, %u of %u experts in each of %u layers\n", h->title,
		(unsigned long long)h->tokens, h->top_k, h->experts, h->rows);
	if (fold > 1)
		(void)fprintf(f, "A column is %u experts.\n", fold);
	(void)fprintf(f, "%5s %*s%7s%7s%5s%s\n", "layer", (int)cells + 1, "CV2 of", "load", "imp.",
		"used", h->resident ? " here" : "");
	for (uint32_t r = 0; r < h->rows; r++)
		row_print(h, r, f, fold, most, colours);
	heat_evenness(h, 0, h->rows, &e);
	(void)fprintf(
		f, "%5s %*s%7.3f%7.3f%5u", "all", (int)cells + 1, "", e.load, e.importance, e.used);
	if (h->resident)
		(void)fprintf(f, "%5u", e.resident);
	(void)fputc('\n', f);
	(void)fputs("0 ", f);
	for (unsigned i = 0; i < 9; i++)
		cell(f, (i + 1) / 9.0 - 0.01, colours);
	(void)fprintf(f, "%s %.0f uses\n", colours ? "\033[0m" : "", most);
}

void overlap_print(const struct heat *a, const struct heat *b, FILE *f)
{
	struct overlap o;

	(void)fprintf(f, "%5s %9s %9s\n", "layer", "jaccard", "weighted");
	for (uint32_t r = 0; r < a->rows; r++) {
		heat_overlap(a, b, r, 1, &o);
		(void)fprintf(f, "%5u %9.3f %9.3f\n", a->layers[r], o.jaccard, o.weighted);
	}
	heat_overlap(a, b, 0, a->rows, &o);
	(void)fprintf(f, "%5s %9.3f %9.3f\n", "all", o.jaccard, o.weighted);
}

/* ---- SVG --------------------------------------------------------------------------------- */

#define SVG_LEVELS 24u
#define SVG_LEFT 52u
#define SVG_BAR 90u
#define SVG_HEAD 46u
#define SVG_LEAST 760u /* for the title */

/* Dark to bright, evenly seen by most eyes. */
static void colour(double v, char ret[8])
{
	static const unsigned char stops[][3] = {{68, 1, 84}, {72, 40, 120}, {62, 73, 137},
		{49, 104, 142}, {38, 130, 142}, {31, 158, 137}, {53, 183, 121}, {110, 206, 88},
		{181, 222, 43}, {253, 231, 37}};
	double at = v * (ARRAY_SIZE(stops) - 1);
	size_t i = num_min((size_t)at, ARRAY_SIZE(stops) - 2);
	unsigned c[3];

	for (unsigned k = 0; k < 3; k++)
		c[k] = (unsigned)lround(
			stops[i][k] + (at - (double)i) * ((double)stops[i + 1][k] - stops[i][k]));
	(void)snprintf(ret, 8, "#%02x%02x%02x", c[0] & 255, c[1] & 255, c[2] & 255);
}

static void svg_text(FILE *f, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '&' || *p == '<' || *p == '>' || *p == '"')
			(void)fprintf(f, "&#%u;", *p);
		else if (*p < 0x20 || *p >= 0x7f)
			(void)fputc('?', f);
		else
			(void)fputc(*p, f);
	}
}

/* All cells of a level are one path: a map of thousands stays small. */
static void svg_cells(const struct heat *h, FILE *f, unsigned y, unsigned size)
{
	double most = most_of(h, 1);

	for (unsigned level = 0; level <= SVG_LEVELS; level++) {
		char fill[8] = "#eeeeee";
		bool any = false;

		if (level)
			colour((double)(level - 1) / (SVG_LEVELS - 1), fill);
		for (size_t i = 0; i < (size_t)h->rows * h->experts; i++) {
			double v = shade((double)h->uses[i], most);
			unsigned of =
				h->uses[i] ? 1 + num_min((unsigned)(v * SVG_LEVELS), SVG_LEVELS - 1)
					   : 0;

			if (of != level)
				continue;
			(void)fprintf(f, "%sM%u %uh%uv%uh-%uz", any ? "" : "<path d=\"",
				SVG_LEFT + (unsigned)(i % h->experts) * size,
				y + (unsigned)(i / h->experts) * size, size - 1, size - 1,
				size - 1);
			any = true;
		}
		if (any)
			(void)fprintf(f, "\" fill=\"%s\"/>\n", fill);
	}
}

static void svg_resident(const struct heat *h, FILE *f, unsigned y, unsigned size)
{
	bool any = false;

	for (size_t i = 0; h->resident && i < (size_t)h->rows * h->experts; i++) {
		if (!h->resident[i])
			continue;
		(void)fprintf(f, "%sM%u %uh2v2h-2z", any ? "" : "<path d=\"",
			SVG_LEFT + (unsigned)(i % h->experts) * size + size / 2 - 1,
			y + (unsigned)(i / h->experts) * size + size / 2 - 1);
		any = true;
	}
	if (any)
		(void)fputs("\" fill=\"#ffffff\" stroke=\"#000000\" stroke-width=\"0.4\"/>\n", f);
}

/* A number of each row, as a bar; full: its length. */
static void svg_bars(const struct heat *h, FILE *f, unsigned x, unsigned y, unsigned size,
	const char *name, const char *fill, const double *v, double full)
{
	(void)fprintf(f, "<text x=\"%u\" y=\"%u\">%s</text>\n", x, y - 6, name);
	for (uint32_t r = 0; r < h->rows; r++) {
		double length = full > 0 ? v[r] / full * (SVG_BAR - 46) : 0;

		(void)fprintf(f,
			"<rect x=\"%u\" y=\"%u\" width=\"%.1f\" height=\"%u\" fill=\"%s\"/>"
			"<text x=\"%.1f\" y=\"%u\" class=\"n\">%.3f</text>\n",
			x, y + r * size, length, size - 1, fill, x + length + 3,
			y + (r + 1) * size - 2, v[r]);
	}
}

static double *svg_figures(const struct heat *a, const struct heat *b, unsigned which, double *most)
{
	double *v = calloc(a->rows + 1, sizeof(*v));

	*most = 0;
	for (uint32_t r = 0; v && r < a->rows; r++) {
		struct evenness e;
		struct overlap o;

		if (b) {
			heat_overlap(a, b, r, 1, &o);
			v[r] = which ? o.weighted : o.jaccard;
		} else {
			heat_evenness(a, r, 1, &e);
			v[r] = which ? e.importance : e.load;
		}
		*most = fmax(*most, v[r]);
	}
	return v;
}

static void svg_map(
	const struct heat *h, const struct heat *other, FILE *f, unsigned y, unsigned size)
{
	static const char *const names[2][2] = {
		{"CV&#178; of load", "CV&#178; of importance"}, {"Jaccard", "weighted"}};
	unsigned x = SVG_LEFT + h->experts * size + 14;

	(void)fprintf(f, "<text x=\"%u\" y=\"%u\" class=\"t\">", SVG_LEFT, y - 26);
	svg_text(f, h->title);
	(void)fprintf(f,
		": %llu tokens, %u of %u experts a layer%s</text>\n<text x=\"%u\" y=\"%u\">expert "
		"0 to %u; brighter: used more, at most %.0f times</text>\n",
		(unsigned long long)h->tokens, h->top_k, h->experts,
		h->resident ? "; dots: in memory now" : "", SVG_LEFT, y - 8, h->experts - 1,
		most_of(h, 1));
	for (uint32_t r = 0; r < h->rows; r++)
		(void)fprintf(f, "<text x=\"%u\" y=\"%u\" class=\"n l\">%u</text>\n", SVG_LEFT - 6,
			y + (r + 1) * size - 2, h->layers[r]);
	svg_cells(h, f, y, size);
	svg_resident(h, f, y, size);
	for (unsigned i = 0; i < 2; i++) {
		double most, *v = svg_figures(h, other, i, &most);

		if (v)
			svg_bars(h, f, x + i * (SVG_BAR + 30), y, size, names[other != NULL][i],
				i ? "#c06030" : "#3070a0", v, other ? 1 : most);
		free(v);
	}
}

void heat_svg(const struct heat *a, const struct heat *b, FILE *f)
{
	unsigned size = a->experts > 512 ? 6 : 9, maps = b ? 2 : 1;
	unsigned width = num_max(SVG_LEFT + a->experts * size + 2 * (SVG_BAR + 30) + 20, SVG_LEAST);
	unsigned height = SVG_HEAD + a->rows * size + 10;

	(void)fprintf(f,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg "
		"xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u "
		"%u\" font-family=\"sans-serif\" font-size=\"11\">\n"
		"<style>.t{font-size:14px;font-weight:bold}.n{font-size:8px}"
		".l{text-anchor:end}</style>\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
		width, height * maps, width, height * maps);
	svg_map(a, b, f, SVG_HEAD, size);
	if (b)
		svg_map(b, a, f, height + SVG_HEAD, size);
	(void)fputs("</svg>\n", f);
}
