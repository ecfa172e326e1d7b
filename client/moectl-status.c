/* SPDX-License-Identifier: MIT */

/* status, reload, drain.  What the daemon tells is shown as it comes: names are its own. */

#include <stdio.h>
#include <string.h>

#include "moectl.h"
#include "num.h"

#define DEPTH_MAX 8

static bool is_bytes(const char *key, const char *section)
{
	return strstr(key, "bytes") || strcmp(section, "budget") == 0 ||
	       strcmp(section, "memory") == 0;
}

static void show_number(json_int_t v, bool bytes)
{
	char buf[NUM_SIZE_TEXT_MAX];

	if (bytes && v >= 1024)
		(void)printf("%s (%lld)\n", num_format_size((uint64_t)v, buf), (long long)v);
	else
		(void)printf("%lld\n", (long long)v);
}

static void show_text(const char *text)
{
	for (; *text; text++)
		(void)putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
	(void)putchar('\n');
}

static const char *text_of(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

/* "vnni; Q4_K packed: decode vpdpbusd 16x1, prefill vpdpbusd 16x4" */
static void show_kernels(json_t *kernels)
{
	static const char *const contexts[] = {"decode", "prefill"};
	const char *type;
	char line[1024];
	int n = snprintf(line, sizeof(line), "%s", text_of(kernels, "tier"));
	json_t *v;

	json_object_foreach(json_object_get(kernels, "products"), type, v)
	{
		if (n >= 0 && (size_t)n < sizeof(line))
			n += snprintf(line + n, sizeof(line) - (size_t)n, "; %s %s:", type,
				text_of(v, "layout"));
		for (unsigned c = 0; c < 2; c++) {
			json_t *way = json_object_get(v, contexts[c]);

			if (n >= 0 && (size_t)n < sizeof(line))
				n += snprintf(line + n, sizeof(line) - (size_t)n, "%s %s %s %s",
					c ? "," : "", contexts[c], text_of(way, "kernel"),
					text_of(way, "tile"));
		}
	}
	show_text(line);
}

static void show(const char *section, json_t *value, int depth)
{
	const char *key;
	json_t *v;

	if (depth > DEPTH_MAX)
		return;
	json_object_foreach(value, key, v)
	{
		(void)printf("%*s%-*s ", depth * 2, "", 24 - depth * 2, key);
		switch (json_typeof(v)) {
		case JSON_OBJECT:
			if (!depth && strcmp(key, "time") == 0) {
				breakdown_line(v);
				break;
			}
			if (!depth && strcmp(key, "kernels") == 0) {
				show_kernels(v);
				break;
			}
			(void)putchar('\n');
			show(depth ? section : key, v, depth + 1);
			break;
		case JSON_ARRAY:
			(void)printf("%zu\n", json_array_size(v));
			break;
		case JSON_STRING:
			show_text(json_string_value(v));
			break;
		case JSON_INTEGER:
			show_number(json_integer_value(v), is_bytes(key, section));
			break;
		case JSON_REAL:
			(void)printf("%.4g\n", json_real_value(v));
			break;
		default:
			(void)puts(json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
		}
	}
}

static int status_print(const struct options *o, json_t *value)
{
	if (o->json)
		return json_print(value);
	show("", value, 0);
	json_decref(value);
	return output_end();
}

static int status_parse(const struct moe_event *e, json_t **ret)
{
	json_error_t error;
	json_t *value = json_loadb(e->text, e->text_length, JSON_REJECT_DUPLICATES, &error);

	if (!json_is_object(value)) {
		json_decref(value);
		return complain("the daemon's status is not readable");
	}
	*ret = value;
	return EXIT_OK;
}

int json_answer(struct moe *m, uint64_t request, json_t **ret)
{
	const struct moe_event *e;
	int k;

	for (;;) {
		k = daemon_next(m, &e);
		if (k < 0)
			return EXIT_FAILED;
		if (k == 0 || e->request != request)
			continue;
		if (e->type == MOE_STATUS)
			return status_parse(e, ret);
		if (e->type == MOE_OK)
			return EXIT_OK;
		return complain("%s", *e->text ? e->text : moe_strerror(e->code));
	}
}

int status_get(struct moe *m, json_t **ret)
{
	uint64_t request;
	int k = moe_status(m, &request);

	return k < 0 ? complain("%s", moe_strerror(k)) : json_answer(m, request, ret);
}

int verb_status(const struct options *o)
{
	json_t *value = NULL;
	struct moe *m;
	int k;

	k = daemon_open(o, &m, NULL);
	if (k)
		return k;
	k = status_get(m, &value);
	if (k == EXIT_OK)
		k = status_print(o, value);
	moe_close(m);
	return k;
}

int verb_admin(const struct options *o, unsigned verb)
{
	json_t *value = NULL;
	uint64_t request;
	struct moe *m;
	int k;

	k = daemon_open(o, &m, NULL);
	if (k)
		return k;
	k = moe_admin(m, verb, &request);
	k = k < 0 ? complain("%s", moe_strerror(k)) : json_answer(m, request, &value);
	json_decref(value);
	moe_close(m);
	return k;
}
