/* SPDX-License-Identifier: MIT */
#include "experts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "manager.h"

void experts_deinit(struct experts *e)
{
	popularity_deinit(&e->copy);
	e->out = false;
}

/* For whoever wants one. */
static int experts_begin(struct manager *m, struct error *err)
{
	const struct desc *d = m->load.desc;
	struct experts *e = &m->experts;
	uint64_t heap = popularity_heap(d->n_layers, d->experts);
	bool any = false;
	int r;

	list_for_each(it, &m->clients) any |=
		list_entry(it, struct client, link)->experts == EXPERTS_WANTED;
	if (!any || e->out)
		return 0;
	/* The text that it becomes has about twice its size, three times. */
	r = manager_heap(m, (int64_t)(3 * heap), err);
	if (r < 0)
		return r;
	(void)manager_heap(m, -(int64_t)(3 * heap), NULL);
	if (popularity_init(&e->copy, d->n_layers, d->experts) < 0)
		return error_errno(err, -ENOMEM, "no memory for a copy of the counts");
	list_for_each(it, &m->clients)
	{
		struct client *c = list_entry(it, struct client, link);

		if (c->experts == EXPERTS_WANTED)
			c->experts = EXPERTS_ASKED;
	}
	e->out = true;
	engine_thread_send(m->engine, SCHED_EXPERTS, &e->copy);
	return 0;
}

int experts_ask(struct client *c, struct error *err)
{
	int r;

	c->experts = EXPERTS_WANTED;
	r = experts_begin(c->manager, err);
	if (r < 0)
		c->experts = EXPERTS_NONE;
	return r;
}

static void experts_layer(FILE *f, const struct popularity *p, uint32_t layer, uint64_t bytes)
{
	size_t first = (size_t)layer * p->experts;

	(void)fprintf(
		f, "{\"layer\": %u, \"expert_bytes\": %" PRIu64 ", \"uses\": [", layer, bytes);
	for (uint32_t x = 0; x < p->experts; ++x)
		(void)fprintf(f, "%s%" PRIu64, x ? "," : "", p->uses[first + x]);
	(void)fputs("], \"weights\": [", f);
	for (uint32_t x = 0; x < p->experts; ++x)
		(void)fprintf(f, "%s%.9g", x ? "," : "", p->weights[first + x]);
	(void)fputs("], \"resident\": [", f);
	for (uint32_t x = 0; x < p->experts; ++x)
		(void)fprintf(f, "%s%u", x ? "," : "", p->resident[first + x]);
	(void)fputs("]}", f);
}

static char *experts_json(struct manager *m, size_t *ret_size)
{
	const struct desc *d = m->load.desc;
	const struct popularity *p = &m->experts.copy;
	const char *comma = "";
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_size);
	bool failed;

	if (!f)
		return NULL;
	(void)fprintf(f, "{\"experts\": %u, \"top_k\": %u, \"layers\": [", d->experts, d->top_k);
	for (uint32_t l = 0; l < p->layers; ++l) {
		if (!d->layers[l].moe)
			continue;
		(void)fputs(comma, f);
		experts_layer(f, p, l, desc_expert_bytes(d, l));
		comma = ", ";
	}
	(void)fputs("]}\n", f);
	failed = ferror(f);
	if (fclose(f) || failed) {
		free(text);
		return NULL;
	}
	return text;
}

void experts_here(struct manager *m)
{
	struct error err = ERROR_NONE;

	m->experts.out = false;
	list_for_each_safe(it, &m->clients)
	{
		struct client *c = list_entry(it, struct client, link);

		if (c->experts != EXPERTS_ASKED)
			continue;
		c->experts = EXPERTS_NONE;
		c->status = experts_json(m, &c->status_size);
		if (!c->status) {
			client_kill(c, "no memory for the experts that it asked for");
			continue;
		}
		c->pumped = true;
		client_pump(c);
	}
	popularity_deinit(&m->experts.copy);
	if (experts_begin(m, &err) < 0)
		list_for_each_safe(it, &m->clients)
		{
			struct client *c = list_entry(it, struct client, link);

			if (c->experts == EXPERTS_WANTED)
				client_kill(c, "no memory for the experts that it asked for");
		}
}
