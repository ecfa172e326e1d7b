/* SPDX-License-Identifier: MIT */
#include "status.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "config.h"
#include "manager.h"
#include "matrix.h"
#include "num.h"

void status_latency_add(struct status_latencies *l, uint64_t ns)
{
	l->samples[l->n++ % STATUS_SAMPLES] = ns;
}

static int status_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t status_latency(const struct status_latencies *l, unsigned q)
{
	uint64_t sorted[STATUS_SAMPLES];
	size_t n = num_min(l->n, (uint64_t)STATUS_SAMPLES);

	if (!n)
		return 0;
	memcpy(sorted, l->samples, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, status_compare);
	return sorted[num_min(n * q / 100, n - 1)];
}

/* Names come from files: whatever JSON does not allow is escaped, what is no ASCII is passed on. */
static void status_string(FILE *f, const char *name, const char *text)
{
	(void)fprintf(f, "\"%s\": \"", name);
	for (const unsigned char *p = (const unsigned char *)text; *p; ++p)
		if (*p == '"' || *p == '\\')
			(void)fprintf(f, "\\%c", *p);
		else if (*p < 0x20 || *p >= 0x7f)
			(void)fprintf(f, "\\u%04x", *p);
		else
			(void)fputc(*p, f);
	(void)fputc('"', f);
}

static void status_model(FILE *f, const struct manager *m)
{
	const struct desc *d = m->load.desc;

	(void)fprintf(f, "\"model\": {");
	status_string(f, "path", m->config.model);
	(void)fputs(", ", f);
	status_string(f, "arch", d->arch);
	(void)fputs(", ", f);
	status_string(f, "name", d->name);
	(void)fputs(", \"expert_bytes\": [", f);
	for (uint32_t l = 0; l < d->n_layers; ++l)
		(void)fprintf(f, "%s%" PRIu64, l ? ", " : "", desc_expert_bytes(d, l));
	(void)fprintf(f,
		"], \"layers\": %u, \"hidden\": %u, \"experts\": %u, \"top_k\": %u, "
		"\"vocabulary\": "
		"%u, \"context\": %u, \"template\": \"%s\", \"upcycled\": %s}",
		d->n_layers, d->hidden, d->experts, d->top_k, d->vocabulary, m->load.context,
		chat_name(m->load.chat), d->upcycled ? "true" : "false");
}

static void status_budget(FILE *f, const struct manager *m)
{
	const struct plan *p = &m->load.plan;

	(void)fprintf(f, ", \"budget\": {\"limit\": %" PRIu64, p->limit);
	for (enum plan_use u = 0; u < PLAN_USES; ++u)
		(void)fprintf(f, ", \"%s\": %" PRIu64, plan_use_name(u), p->use[u]);
	(void)fputc('}', f);
}

/* Everybody may know that somebody looks on, and who. */
static void status_tracing(FILE *f, const struct manager *m)
{
	const char *comma = "";

	(void)fprintf(f, ", \"tracing\": {\"all\": %u, \"uids\": [", m->n_traces);
	list_for_each(it, &m->traces)
	{
		(void)fprintf(f, "%s%u", comma, (unsigned)list_entry(it, struct trace, link)->uid);
		comma = ", ";
	}
	(void)fputs("]}", f);
}

/* What the limit and other programs have asked for since the start. */
static void status_pressure(FILE *f, const struct budget *b)
{
	const struct pressure *p = &b->pressure;

	(void)fprintf(f,
		", \"pressure\": {\"limit\": %" PRIu64 ", \"limit_less\": %" PRIu64
		", \"source\": \"%s\", \"given_back_bytes\": %" PRIu64 ", \"gave_back\": %" PRIu64
		", \"took_again\": %" PRIu64 "}",
		b->limit, b->less,
		p->handed	      ? "service manager"
		: p->fd >= 0	      ? "trigger"
		: p->root && p->known ? "timer"
				      : "none",
		b->given, b->gave, b->took);
}

static void status_ms(FILE *f, const char *name, const struct status_latencies *l)
{
	(void)fprintf(f, "\"%s\": {\"p50\": %.3f, \"p99\": %.3f, \"count\": %" PRIu64 "}", name,
		(double)status_latency(l, 50) / 1e6, (double)status_latency(l, 99) / 1e6, l->n);
}

static void status_times(FILE *f, const uint64_t ns[ENGINE_TIMES], enum engine_layer y)
{
	unsigned begin = y == ENGINE_LAYER_NONE ? 0 : ENGINE_TIME_IN_LAYER;
	unsigned end = y == ENGINE_LAYER_NONE ? ENGINE_TIME_IN_LAYER : ENGINE_TIMES;

	for (unsigned t = begin; t < end; ++t)
		/* A dense layer chooses and reads no experts. */
		if (y != ENGINE_LAYER_DENSE || t < ENGINE_TIME_ROUTER || t > ENGINE_TIME_WAIT)
			(void)fprintf(f, "%s\"%s\": %" PRIu64, t == begin ? "" : ", ",
				engine_time_name(t), ns[t]);
}

static bool status_has_layers(const struct desc *d, bool moe)
{
	for (uint32_t i = 0; i < d->n_layers; ++i)
		if (d->layers[i].moe == moe)
			return true;
	return false;
}

/* Where the engine's time went, in all and by type of layer. */
static void status_time(FILE *f, const struct desc *d, const struct engine_stats *e)
{
	static const char *const names[] = {"decode", "prefill"};

	(void)fputs(", \"time\": {", f);
	for (enum engine_context c = 0; c < ENGINE_CONTEXTS; ++c) {
		(void)fprintf(f, "\"%s\": {\"tokens\": %" PRIu64 ", \"ns\": {", names[c],
			c == ENGINE_LIVE ? e->rows_live : e->rows_bulk);
		status_times(f, e->times.ns[c][ENGINE_LAYER_NONE], ENGINE_LAYER_NONE);
		for (enum engine_layer y = ENGINE_LAYER_MOE; y < ENGINE_LAYERS; ++y) {
			if (!status_has_layers(d, y == ENGINE_LAYER_MOE))
				continue;
			(void)fprintf(f, ", \"%s\": {", engine_layer_name(y));
			status_times(f, e->times.ns[c][y], y);
			(void)fputc('}', f);
		}
		(void)fputs("}}, ", f);
	}
	(void)fprintf(f, "\"idle_ns\": %" PRIu64 "}", e->times.idle_ns);
}

static void status_way(FILE *f, const char *name, const struct kernels_way *w)
{
	(void)fprintf(f, ", \"%s\": {\"kernel\": \"%s\", \"tile\": \"%ux%u\", \"columns\": %u}",
		name, w->name, w->rows, w->cols, w->from);
}

/* Which kernels multiply with the model's weights: with one column in decode, many in prefill. */
static void status_kernels(FILE *f, const struct desc *d, const struct kernels *k)
{
	uint64_t bytes[KERNELS_TYPE_MAX];
	const char *comma = "";

	(void)fprintf(f, ", \"kernels\": {\"tier\": \"%s\", \"products\": {", k ? k->name : "none");
	desc_type_bytes(d, bytes);
	for (uint32_t t = 0; k && t < KERNELS_TYPE_MAX; ++t) {
		bool packed = matrix_packs(k, t);
		const struct kernels_way *one = kernels_way(k, t, packed, 1);
		const struct kernels_way *many = kernels_way(k, t, packed, SIZE_MAX);

		if (!bytes[t] || !one || !many)
			continue;
		(void)fprintf(f, "%s\"%s\": {\"bytes\": %" PRIu64 ", \"layout\": \"%s\"", comma,
			kernels_format(t)->name, bytes[t], packed ? "packed" : "native");
		status_way(f, "decode", one);
		status_way(f, "prefill", many);
		(void)fputc('}', f);
		comma = ", ";
	}
	(void)fputs("}}", f);
}

static void status_after(FILE *f, const struct manager *m, const char *name, uint64_t ns)
{
	if (ns)
		(void)fprintf(f, ", \"%s\": %.3f", name, (double)(ns - m->start_ns) / 1e9);
	else
		(void)fprintf(f, ", \"%s\": null", name);
}

/* Since the process began, or, of what the engine does at its start, since that. */
static void status_start(FILE *f, const struct manager *m, const struct engine_stats *e)
{
	(void)fprintf(f,
		", \"start\": {\"dense_bytes\": %" PRIu64 ", \"dense_s\": %.3f, \"memory_s\": %.3f",
		e->dense_bytes, (double)e->dense_ns / 1e9, (double)e->memory_ns / 1e9);
	status_after(f, m, "engine_after_s", m->engine_ns);
	status_after(f, m, "ready_after_s", m->ready_ns);
	status_after(f, m, "filled_after_s", m->filled_ns);
	(void)fputc('}', f);
}

/* State files of sessions. */
static void status_disk(FILE *f, const struct sched_disk *d)
{
	static const char *const names[SCHED_REFUSALS] = {
		[SCHED_REFUSED_QUOTA] = "quota",
		[SCHED_REFUSED_FULL] = "disk_full",
		[SCHED_REFUSED_ERROR] = "error",
		[SCHED_REFUSED_DAMAGED] = "damaged",
		[SCHED_REFUSED_FOREIGN] = "other_model",
	};

	(void)fprintf(f,
		", \"disk\": {\"quota_bytes\": %" PRIu64 ", \"bytes\": %" PRIu64
		", \"sessions\": %" PRIu64 ", \"saved\": %" PRIu64 ", \"save_s\": %.6f"
		", \"restored\": %" PRIu64 ", \"restore_s\": %.6f, \"restored_tokens\": %" PRIu64
		", \"preempted\": %" PRIu64 ", \"resumed\": %" PRIu64 ", \"removed\": %" PRIu64
		", \"resting\": %s, \"refused\": {",
		d->quota, d->bytes, d->files, d->saved, (double)d->save_ns / 1e9, d->restored,
		(double)d->restore_ns / 1e9, d->restored_tokens, d->preempted, d->resumed,
		d->removed, d->resting ? "true" : "false");
	for (enum sched_refusal i = 0; i < SCHED_REFUSALS; ++i)
		(void)fprintf(f, "%s\"%s\": %" PRIu64, i ? ", " : "", names[i], d->refused[i]);
	(void)fputs("}}", f);
}

static void status_engine(FILE *f, struct manager *m)
{
	struct engine_stats e;
	struct sched_figures s;
	const struct engine_disk *disks;
	uint32_t kv_free, kv_all, n_disks;
	uint64_t wanted;

	engine_thread_stats(m->engine, &e, &s, &kv_free, &kv_all);
	wanted = e.hits + e.misses;
	(void)fprintf(f,
		", \"cache\": {\"slots\": %" PRIu64 ", \"used\": %" PRIu64 ", \"experts\": %" PRIu64
		", \"experts_resident\": %" PRIu64 ", \"resident_bytes\": %" PRIu64
		", \"given_back_bytes\": %" PRIu64 ", \"evictions\": %" PRIu64
		", \"hits\": %" PRIu64 ", \"misses\": %" PRIu64 ", \"hit_rate\": %.6f}",
		e.slots, e.slots_used, e.experts, e.ready, e.ready_bytes, e.given_bytes,
		e.evictions, e.hits, e.misses, wanted ? (double)e.hits / (double)wanted : 0.0);
	(void)fprintf(f,
		", \"prefetch\": {\"state\": \"%s\", \"why\": \"%s\", \"issued\": %" PRIu64
		", \"useful\": %" PRIu64 ", \"late\": %" PRIu64 "}",
		e.ahead.state ? e.ahead.state : "off", e.ahead.why ? e.ahead.why : "loading",
		e.ahead.issued, e.ahead.useful, e.ahead.late);
	(void)fprintf(f,
		", \"io\": {\"method\": \"%s\", \"direct\": %s, \"reads\": %" PRIu64
		", \"bytes_read\": %" PRIu64 ", \"bytes_useful\": %" PRIu64 ", \"errors\": %" PRIu64
		", \"wait_s\": %.6f, \"disks\": ",
		e.io ? e.io : "none", e.direct ? "true" : "false", e.reads, e.bytes_read,
		e.bytes_useful, e.read_errors, (double)e.wait_ns / 1e9);
	n_disks = engine_thread_disks(m->engine, &disks);
	disks_print(f, disks, n_disks);
	(void)fputc('}', f);
	(void)fprintf(f,
		", \"kv\": {\"positions\": %u, \"free\": %u, \"evictions\": %" PRIu64
		", \"preemptions\": %" PRIu64 "}",
		kv_all, kv_free, s.evictions, s.preemptions);
	(void)fprintf(f,
		", \"queue\": {\"waiting\": %u, \"active\": %u}, \"tokens\": {\"prompt\": %" PRIu64
		", \"reused\": %" PRIu64 ", \"shared\": %" PRIu64 ", \"generated\": %" PRIu64 "}",
		/* Those that the engine has not seen yet wait too. */
		m->n_requests - num_min(m->n_requests, s.active), s.active, s.prompt_tokens,
		s.reused_tokens, s.shared_tokens, s.generated_tokens);
	status_disk(f, &s.disk);
	(void)fprintf(f,
		", \"engine\": {\"compute_s\": %.6f, \"steps_live\": %" PRIu64
		", \"steps_bulk\": %" PRIu64 ", \"rows_live\": %" PRIu64 ", \"rows_bulk\": %" PRIu64
		", \"tiles\": %" PRIu64 "}, \"locked_bytes\": %" PRIu64
		", \"taken_bytes\": %" PRIu64 ", \"arena_bytes\": %" PRIu64
		", \"huge_bytes\": %" PRIu64 ", \"tier\": \"%s\"",
		(double)e.compute_ns / 1e9, e.steps_live, e.steps_bulk, e.rows_live, e.rows_bulk,
		e.tiles, e.locked_bytes, e.taken_bytes, e.arena_bytes, m->huge,
		e.tier ? e.tier : "none");
	status_kernels(f, m->load.desc, e.kernels);
	status_time(f, m->load.desc, &e);
	status_start(f, m, &e);
}

static void status_totals(FILE *f, const struct manager *m)
{
	struct state_totals t;

	manager_totals(m, &t);
	(void)fprintf(f,
		", \"totals\": {\"starts\": %" PRIu64 ", \"requests\": %" PRIu64
		", \"failed\": %" PRIu64 ", \"prompt_tokens\": %" PRIu64
		", \"generated_tokens\": %" PRIu64 ", \"bytes_read\": %" PRIu64 "}",
		t.starts, t.requests, t.failed, t.prompt_tokens, t.generated_tokens, t.bytes_read);
}

char *status_json(struct manager *m, uid_t uid, int others, size_t *ret_size)
{
	static const char *const states[] = {"loading", "ready", "draining", "draining"};
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_size);
	bool failed;

	if (!f)
		return NULL;
	(void)fprintf(f, "{\"state\": \"%s\", \"version\": \"%s\", \"uptime_s\": %.3f, ",
		states[m->state], MOED_VERSION, (double)(clock_now() - m->start_ns) / 1e9);
	status_model(f, m);
	status_budget(f, m);
	status_engine(f, m);
	status_sessions(f, m, uid, others);
	status_tracing(f, m);
	status_pressure(f, &m->budget);
	status_totals(f, m);
	(void)fputs(", \"latencies_ms\": {", f);
	status_ms(f, "ttft", &m->ttft);
	(void)fputs(", ", f);
	status_ms(f, "token", &m->token);
	(void)fprintf(f,
		"}, \"requests\": {\"finished\": %" PRIu64 ", \"failed\": %" PRIu64
		"}, \"threads\": %u, ",
		m->n_finished, m->n_failed, m->load.threads);
	status_string(f, "limit_source", m->load.limit_text);
	(void)fputs("}\n", f);
	failed = ferror(f);
	if (fclose(f) || failed) {
		free(text);
		return NULL;
	}
	return text;
}
