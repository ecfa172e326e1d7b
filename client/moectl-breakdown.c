/* SPDX-License-Identifier: MIT */

/*
 * Where the daemon's time went: the differences of its status' "time", per token.  Which figures
 * there are is the daemon's to say.
 */

#include <stdio.h>
#include <string.h>

#include "moectl.h"

#define DEPTH_MAX 4
#define NAME_WIDTH 16

static const char *const contexts[] = {"decode", "prefill"};

/* sum += after - before, name by name. */
static int add(json_t *sum, json_t *before, json_t *after, int depth)
{
	const char *key;
	json_t *v;
	int k = 0;

	json_object_foreach(after, key, v)
	{
		json_t *old = json_object_get(before, key), *to = json_object_get(sum, key);

		if (json_is_object(v) && depth < DEPTH_MAX) {
			if (!to) {
				to = json_object();
				k |= json_object_set_new(sum, key, to);
			}
			k |= add(to, old, v, depth + 1);
		} else if (json_is_integer(v)) {
			json_int_t n = json_integer_value(v) - json_integer_value(old);

			k |= json_object_set_new(
				sum, key, json_integer(json_integer_value(to) + n));
		}
	}
	return k;
}

int breakdown_add(json_t *sum, json_t *before, json_t *after)
{
	if (!json_is_object(before) || !json_is_object(after))
		return complain("the daemon's status does not tell where its time goes: it is "
				"older than this moectl");
	return add(sum, before, after, 0) ? complain("out of memory") : 0;
}

/* Of a context's "ns", or of a layer type in it. */
static double total(const json_t *ns)
{
	double all = (double)json_integer_value(ns);
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)ns, key, v) all += total(v);
	return all;
}

struct share {
	double tokens, all; /* of the context */
};

static double per_token_us(const struct share *s, double ns)
{
	return s->tokens > 0 ? ns / s->tokens / 1e3 : 0;
}

static double part(const struct share *s, double ns)
{
	return s->all > 0 ? ns / s->all : 0;
}

static struct share share_of(const json_t *context)
{
	return (struct share){
		.tokens = (double)json_integer_value(json_object_get(context, "tokens")),
		.all = total(json_object_get(context, "ns"))};
}

static json_t *figures(const struct share *s, json_t *ns)
{
	json_t *ret;
	const char *key;
	json_t *v;

	if (!json_is_object(ns))
		return json_pack("{s:f,s:f}", "us_per_token",
			per_token_us(s, (double)json_integer_value(ns)), "share",
			part(s, (double)json_integer_value(ns)));
	ret = json_object();
	json_object_foreach(ns, key, v)(void) json_object_set_new(ret, key, figures(s, v));
	return ret;
}

json_t *breakdown_json(json_t *sum)
{
	json_t *ret = json_object();

	for (unsigned c = 0; c < 2; c++) {
		json_t *context = json_object_get(sum, contexts[c]);
		struct share s = share_of(context);

		(void)json_object_set_new(ret, contexts[c],
			json_pack("{s:I,s:f,s:o}", "tokens", (json_int_t)s.tokens, "us_per_token",
				per_token_us(&s, s.all), "time",
				figures(&s, json_object_get(context, "ns"))));
	}
	(void)json_object_set_new(
		ret, "idle_s", json_real(total(json_object_get(sum, "idle_ns")) / 1e9));
	return ret;
}

static void show_row(const char *name, int depth, const struct share s[2], const double ns[2])
{
	char text[64];

	(void)snprintf(text, sizeof(text), "%*s%s", depth * 2, "", name);
	text_print(text, strlen(text));
	(void)printf("%*s", (int)(strlen(text) < NAME_WIDTH ? NAME_WIDTH - strlen(text) : 1), "");
	for (unsigned c = 0; c < 2; c++)
		(void)printf(
			"%12.2f %6.1f %%", per_token_us(&s[c], ns[c]), part(&s[c], ns[c]) * 100);
	(void)putchar('\n');
}

static void show(json_t *const ns[2], int depth, const struct share s[2])
{
	const char *key;
	json_t *v;

	json_object_foreach(ns[0], key, v)
	{
		json_t *both[2] = {v, json_object_get(ns[1], key)};
		double all[2] = {total(both[0]), total(both[1])};

		show_row(key, depth, s, all);
		if (json_is_object(v) && depth < DEPTH_MAX)
			show(both, depth + 1, s);
	}
}

void breakdown_line(json_t *time)
{
	for (unsigned c = 0; c < 2; c++) {
		struct share s = share_of(json_object_get(time, contexts[c]));

		(void)printf("%s %.4g us a token, ", contexts[c], per_token_us(&s, s.all));
	}
	(void)printf("idle %.4g s\n", total(json_object_get(time, "idle_ns")) / 1e9);
}

void breakdown_print(json_t *sum)
{
	json_t *ns[2];
	struct share s[2];
	double all[2];

	for (unsigned c = 0; c < 2; c++) {
		json_t *context = json_object_get(sum, contexts[c]);

		s[c] = share_of(context);
		ns[c] = json_object_get(context, "ns");
		all[c] = s[c].all;
	}
	(void)printf("\n%-*s%21s%21s\n", NAME_WIDTH, "us per token", contexts[0], contexts[1]);
	show(ns, 0, s);
	show_row("total", 0, s, all);
	(void)printf("%-*s%12.0f%21.0f\n", NAME_WIDTH, "tokens", s[0].tokens, s[1].tokens);
}
