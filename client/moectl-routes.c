/* SPDX-License-Identifier: MIT */
#include "moectl-routes.h"

#include <stdlib.h>
#include <string.h>

#include "num.h"

#define LAYERS_MAX 4096
#define TOP_K_MAX 256

/* A name for a line of words. */
static void word(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; *from && n + 1 < size; from++)
		to[n++] = (unsigned char)*from <= ' ' || *from == 0x7f ? '_' : *from;
	to[n] = 0;
}

static uint32_t number(const json_t *o, const char *key, uint32_t most)
{
	json_int_t v = json_integer_value(json_object_get(o, key));

	return v < 0 ? 0 : (uint32_t)num_min((uint64_t)v, (uint64_t)most);
}

static int shape_read(const json_t *model, struct shape *s)
{
	const char *path = json_string_value(json_object_get(model, "path"));
	const char *arch = json_string_value(json_object_get(model, "arch"));
	const json_t *bytes = json_object_get(model, "expert_bytes");

	path = path ? path : "?";
	word(s->name, sizeof(s->name), strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
	word(s->arch, sizeof(s->arch), arch ? arch : "?");
	s->layers = number(model, "layers", LAYERS_MAX);
	s->experts = number(model, "experts", UINT16_MAX);
	s->top_k = number(model, "top_k", TOP_K_MAX);
	if (!s->layers || !s->experts || !s->top_k)
		return complain("the daemon's model has no experts");
	if (json_array_size(bytes) != s->layers)
		return complain("the daemon's status does not tell what experts there are: it is "
				"older than this moectl");
	s->expert_bytes = calloc(s->layers, sizeof(*s->expert_bytes));
	if (!s->expert_bytes)
		return complain("out of memory");
	for (uint32_t l = 0; l < s->layers; l++) {
		s->expert_bytes[l] = (uint64_t)json_integer_value(json_array_get(bytes, l));
		s->moe_layers += s->expert_bytes[l] > 0;
	}
	return EXIT_OK;
}

int shape_get(struct moe *m, struct shape *ret)
{
	json_t *status = NULL;
	int k = status_get(m, &status);

	*ret = (struct shape){.layers = 0};
	if (k == EXIT_OK)
		k = shape_read(json_object_get(status, "model"), ret);
	json_decref(status);
	return k;
}

void shape_deinit(struct shape *s)
{
	free(s->expert_bytes);
	s->expert_bytes = NULL;
}

static struct token **bucket(struct tokens *t, uint32_t turn, uint32_t position)
{
	return &t->buckets[(turn * 31 + position) % ARRAY_SIZE(t->buckets)];
}

static struct token **token_find(struct tokens *t, const struct moe_route *r)
{
	const struct shape *s = t->shape;
	struct token **at = bucket(t, r->turn, r->position), *token;

	for (; *at; at = &(*at)->next) {
		if ((*at)->turn == r->turn && (*at)->position == r->position)
			return at;
	}
	token = t->unused;
	if (token)
		t->unused = token->next;
	else
		token = malloc(
			sizeof(*token) + (size_t)s->layers * s->top_k * sizeof(*token->choices));
	if (!token)
		return NULL;
	*token = (struct token){.turn = r->turn, .position = r->position, .decode = r->decode};
	*at = token;
	return at;
}

static int route_add(struct tokens *t, const struct moe_route *r)
{
	const struct shape *s = t->shape;
	struct token **at, *token;
	int k = 0;

	if (r->layer >= s->layers || r->slot >= s->top_k || r->expert >= s->experts)
		return complain("the daemon's routes do not fit its model");
	at = token_find(t, r);
	if (!at)
		return complain("out of memory");
	token = *at;
	token->choices[(size_t)r->layer * s->top_k + r->slot] = (struct choice){
		.weight = r->weight,
		.expert = (uint16_t)r->expert,
		.resident = r->resident != 0,
	};
	token->layers += r->slot + 1 == s->top_k;
	if (token->layers == s->moe_layers) {
		*at = token->next;
		k = t->done(t->arg, token);
		token->next = t->unused;
		t->unused = token;
	}
	return k;
}

int tokens_add(struct tokens *t, const struct moe_event *e)
{
	int k = 0;

	for (size_t i = 0; i < e->n_routes && k == 0; i++)
		k = route_add(t, &e->routes[i]);
	return k;
}

void tokens_deinit(struct tokens *t)
{
	struct token *next;

	for (size_t i = 0; i <= ARRAY_SIZE(t->buckets); i++) {
		struct token **list = i ? &t->buckets[i - 1] : &t->unused;

		for (struct token *at = *list; at; at = next) {
			next = at->next;
			free(at);
		}
		*list = NULL;
	}
}

/* One event of the request.  -1: go on; else the exit status. */
static int routes_event(struct tokens *t, const struct moe_event *e)
{
	switch (e->type) {
	case MOE_ROUTES:
		return tokens_add(t, e) ? EXIT_FAILED : -1;
	case MOE_ERROR:
		return complain("%s", *e->text ? e->text : moe_strerror(e->code));
	case MOE_DONE:
		return e->finish == MOE_FINISH_CANCELLED ? EXIT_CANCELLED : EXIT_OK;
	default:
		return -1;
	}
}

int routes_get(struct moe *m, const struct moe_request *r, struct tokens *t)
{
	const struct moe_event *e;
	bool cancelled = false;
	uint64_t request;
	int k = moe_submit(m, NULL, r, &request), status = -1;

	if (k < 0)
		return complain("%s", *moe_last_error(m) ? moe_last_error(m) : moe_strerror(k));
	while (status < 0) {
		if (interrupts() > 1)
			return EXIT_CANCELLED;
		if (interrupts() && !cancelled) {
			(void)moe_cancel(m, request);
			cancelled = true;
		}
		k = daemon_next(m, &e);
		if (k < 0)
			return EXIT_FAILED;
		if (k == 1 && e->request == request)
			status = routes_event(t, e);
	}
	return status;
}
