/* SPDX-License-Identifier: MIT */
#include "engine-case.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NPY_HEAD 10 /* magic, version, length of the header */

static void *take(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	assert_non_null(p);
	return p;
}

static uint32_t *take_ids(const json_t *list, size_t *n)
{
	uint32_t *ids;

	*n = json_array_size(list);
	ids = take(*n, sizeof *ids);
	for (size_t i = 0; i < *n; i++)
		ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
	return ids;
}

static double *take_numbers(const json_t *list, size_t n)
{
	double *x = take(n, sizeof *x);

	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);

		x[i] = json_is_number(v) ? json_number_value(v) : INFINITY;
	}
	return x;
}

/* The array of a NumPy file of little-endian floats in C order. */
static void load_logits(struct engine_case *c)
{
	unsigned char head[NPY_HEAD];
	char path[600], text[512] = "";
	size_t n;
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/%s/logits.npy", DATA_DIR, c->name);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
	n = head[8] | (size_t)head[9] << 8;
	assert_true(n < sizeof text);
	assert_int_equal(fread(text, 1, n, f), n);
	assert_non_null(strstr(text, "'<f4'"));
	assert_non_null(strstr(text, "'fortran_order': False"));
	n = c->rows * c->vocabulary;
	c->logits = take(n, sizeof *c->logits);
	assert_int_equal(fread(c->logits, sizeof *c->logits, n, f), n);
	assert_int_equal(fgetc(f), EOF);
	(void)fclose(f);
}

static void load_prompt(struct case_prompt *p, const json_t *from)
{
	const json_t *layers = json_object_get(from, "router");
	size_t n;

	p->ids = take_ids(json_object_get(from, "ids"), &p->n);
	p->greedy = take_ids(json_object_get(from, "greedy"), &p->n_greedy);
	p->greedy_margin = take_numbers(json_object_get(from, "greedy_margin"), p->n_greedy);
	p->greedy_router = take_numbers(json_object_get(from, "greedy_router_margin"), p->n_greedy);
	p->margin = take_numbers(NULL, p->n);
	for (size_t l = 0; l < json_array_size(layers); l++) {
		double *m =
			take_numbers(json_object_get(json_array_get(layers, l), "margin"), p->n);

		for (n = 0; n < p->n; n++)
			p->margin[n] = fmin(p->margin[n], m[n]);
		free(m);
	}
}

void engine_case_load(struct engine_case *c, const char *name)
{
	char path[600];
	json_error_t why;
	const json_t *list;
	json_t *root;
	double sum = 0, squares = 0, n;

	*c = (struct engine_case){.name = name};
	(void)snprintf(c->path, sizeof c->path, "%s/%s/model.gguf", DATA_DIR, name);
	(void)snprintf(path, sizeof path, "%s/%s/reference.json", DATA_DIR, name);
	root = json_load_file(path, 0, &why);
	if (!root)
		fail_msg("%s: %s", path, why.text);
	c->vocabulary = (size_t)json_integer_value(json_object_get(root, "vocab"));
	c->router_safe = json_number_value(json_object_get(root, "router_margin_safe"));
	list = json_object_get(root, "prompts");
	c->n_prompts = json_array_size(list);
	assert_true(c->n_prompts > 0);
	c->prompts = take(c->n_prompts, sizeof *c->prompts);
	for (size_t i = 0; i < c->n_prompts; i++) {
		load_prompt(&c->prompts[i], json_array_get(list, i));
		c->rows += c->prompts[i].n;
	}
	load_logits(c);
	for (size_t i = 0, at = 0; i < c->n_prompts; at += c->prompts[i++].n)
		c->prompts[i].logits = c->logits + at * c->vocabulary;
	json_decref(root);
	n = (double)(c->rows * c->vocabulary);
	for (size_t i = 0; i < c->rows * c->vocabulary; i++) {
		sum += (double)c->logits[i];
		squares += (double)c->logits[i] * (double)c->logits[i];
	}
	c->deviation = sqrt(squares / n - sum / n * (sum / n));
}

void engine_case_free(struct engine_case *c)
{
	for (size_t i = 0; i < c->n_prompts; i++) {
		free(c->prompts[i].ids);
		free(c->prompts[i].margin);
		free(c->prompts[i].greedy);
		free(c->prompts[i].greedy_margin);
		free(c->prompts[i].greedy_router);
	}
	free(c->prompts);
	free(c->logits);
}
