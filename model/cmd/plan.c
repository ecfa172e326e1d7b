/* SPDX-License-Identifier: MIT */

/* moe-model plan: what would be where in memory. */

#include "plan.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "gguf.h"
#include "limit.h"
#include "memory-limit.h"
#include "num.h"

#define VERB "plan"

static const char text[] =
	"Usage: moe-model plan FILE --memory SIZE [OPTION...]\n"
	"Say how moed would divide a memory limit for this model: what stays in memory, how many\n"
	"experts have a slot, the smallest limit that works, bytes read per token.\n\n"
	"  --memory SIZE      the limit, as 512M, 6G or 60% (of this machine's or control "
	"group's)\n"
	"  --context N        positions of keys and values in all (default: what fits sensibly)\n"
	"  --threads N        threads of the engine (default: one for each CPU)\n"
	"  --clients N        clients whose segments are counted (default: 64)\n"
	"  --json             one JSON object\n"
	"  --help             show this and exit\n\n"
	"Exit status: 0 success, 1 failure (a limit that is too small, too), 2 wrong usage.\n";

struct options {
	const char *file, *memory;
	uint64_t context, threads, clients;
	bool json;
};

static void print_reads(const struct plan *p, uint64_t half)
{
	char a[NUM_SIZE_TEXT_MAX], b[NUM_SIZE_TEXT_MAX];

	(void)printf("token cycle:    %s of experts; about %s read per token\n",
		num_format_size(p->cycle, a), num_format_size((uint64_t)p->bytes_per_token, b));
	(void)printf(
		"                (%.0f %% of experts found in slots, were all equally likely)\n",
		100 * p->expected_hit);
	if (p->use[PLAN_SLOTS] < p->cycle)
		(void)printf("                the slots hold less than one token cycle\n");
	if (half)
		(void)printf("half the reads: with %s, about twice the speed where the disk is the "
			     "limit\n",
			num_format_size(half, a));
}

static void print_text(const struct plan *p, const struct desc *d, uint64_t half)
{
	char a[NUM_SIZE_TEXT_MAX];

	(void)printf("%s under %s\n\n", *d->name ? d->name : d->arch, num_format_size(p->limit, a));
	for (int u = 0; u < PLAN_USES; u++)
		(void)printf("  %-12s %12s  %5.1f %%\n", plan_use_name(u),
			num_format_size(p->use[u], a),
			100.0 * (double)p->use[u] / (double)p->limit);
	(void)printf("\nresident:       dense weights%s\n",
		p->expected_hit >= 1 && d->experts ? " and all experts" : "");
	(void)printf("context:        %" PRIu32
		     " positions in all (the model was trained for %" PRIu32 " of one session)\n",
		p->context, d->context);
	(void)printf("rows:           %" PRIu32
		     " sessions decode at once, prefill in chunks of %" PRIu32 "\n",
		p->live_rows, p->bulk_rows);
	if (d->experts)
		(void)printf("slots:          %" PRIu64 " experts, %.1f per layer of %" PRIu32 "\n",
			p->slots, p->slots_per_layer, d->experts);
	if (d->experts)
		print_reads(p, half);
	(void)printf(
		"smallest limit: %s (%" PRIu64 " bytes)\n", num_format_size(p->floor, a), p->floor);
}

static json_t *to_json(
	const struct plan *p, const struct desc *d, uint64_t half, const char *reason)
{
	json_t *use = json_object();
	bool fits = !reason;

	for (int u = 0; fits && u < PLAN_USES; u++)
		json_object_set_new(use, plan_use_name(u), json_integer((json_int_t)p->use[u]));
	return json_pack("{s:b, s:s*, s:I, s:I, s:o, s:I, s:I, s:i, s:i, s:i, s:I, s:f, s:f, s:f, "
			 "s:I, s:i, s:i, s:I, s:I}",
		"fits", fits, "reason", reason, "limit", (json_int_t)p->limit, "floor",
		(json_int_t)p->floor, "use", use, "arena", (json_int_t)p->arena, "token_cycle",
		(json_int_t)p->cycle, "context", (int)p->context, "live_rows", (int)p->live_rows,
		"bulk_rows", (int)p->bulk_rows, "slots", (json_int_t)p->slots, "slots_per_layer",
		p->slots_per_layer, "expected_hit", p->expected_hit, "bytes_per_token",
		p->bytes_per_token, "half_reads_limit", (json_int_t)half, "experts",
		(int)d->experts, "top_k", (int)d->top_k, "dense_bytes",
		(json_int_t)desc_dense_bytes(d), "kv_bytes_per_position",
		(json_int_t)(desc_kv_bytes(d, 64) / 64));
}

static int report(const struct options *o, const struct gguf *g, const struct desc *d)
{
	struct error err = ERROR_NONE;
	struct plan_input in = {
		.desc = d,
		.vocabulary = plan_vocabulary(g),
		.context = (uint32_t)o->context,
		.threads = (uint32_t)o->threads,
		.clients = (uint32_t)o->clients,
		.daemon = true,
	};
	struct plan p = {0};
	uint64_t whole = 0, half;
	int r;

	if (strchr(o->memory, '%')) {
		r = memory_limit_whole(&whole, "", &err);
		if (r < 0)
			return cmd_failed(VERB, "%s", error_text(&err, r));
	}
	if (num_parse_size(o->memory, whole, &in.limit) < 0 || !in.limit)
		return cmd_usage(VERB, "--memory is '%s'; expected is a size as 512M, 6G or 60%%",
			o->memory);
	r = plan_make(&p, &in, &err);
	if (r < 0 && !p.floor)
		return cmd_failed(VERB, "%s", error_text(&err, r));
	half = r < 0 ? 0 : plan_half_reads(&in, &p);
	if (o->json) {
		json_t *all = to_json(&p, d, half, r < 0 ? error_text(&err, r) : NULL);

		if (!all)
			return cmd_failed(VERB, "out of memory");
		(void)json_dumpf(all, stdout, JSON_INDENT(2));
		(void)putchar('\n');
		json_decref(all);
	} else if (r == 0) {
		print_text(&p, d, half);
	}
	return r < 0 ? cmd_failed(VERB, "%s", error_text(&err, r)) : CMD_OK;
}

static int take(struct options *o, int option, const char *value)
{
	switch (option) {
	case 'm':
		o->memory = value;
		return CMD_OK;
	case 'c':
		if (num_parse_u64(value, 1, LIMIT_CONTEXT, &o->context) < 0)
			return cmd_usage(VERB, "--context is '%s'; allowed are 1 to %" PRIu64,
				value, LIMIT_CONTEXT);
		return CMD_OK;
	case 't':
		if (num_parse_u64(value, 1, LIMIT_THREADS, &o->threads) < 0)
			return cmd_usage(VERB, "--threads is '%s'; allowed are 1 to %u", value,
				LIMIT_THREADS);
		return CMD_OK;
	case 'n':
		if (num_parse_u64(value, 0, LIMIT_CLIENTS, &o->clients) < 0)
			return cmd_usage(VERB, "--clients is '%s'; allowed are 0 to %u", value,
				LIMIT_CLIENTS);
		return CMD_OK;
	default:
		o->json = true;
		return CMD_OK;
	}
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"memory", required_argument, NULL, 'm'},
		{"context", required_argument, NULL, 'c'},
		{"threads", required_argument, NULL, 't'},
		{"clients", required_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option == 'h') {
			(void)fputs(text, stdout);
			return -1;
		}
		if (option == '?' || option == ':')
			return cmd_bad_option(VERB, option, argv);
		status = take(o, option, optarg);
		if (status != CMD_OK)
			return status;
	}
	if (argc - optind != 1)
		return cmd_usage(VERB, "expected is one FILE");
	if (!o->memory)
		return cmd_usage(VERB, "--memory is needed");
	o->file = argv[optind];
	return CMD_OK;
}

int cmd_plan(int argc, char **argv)
{
	struct options o = {.clients = LIMIT_CLIENTS_PLANNED, .threads = cmd_cpus()};
	struct error err = ERROR_NONE;
	struct gguf *g = NULL;
	struct desc *d = NULL;
	int r, status = parse(argc, argv, &o);

	if (status != CMD_OK)
		return status < 0 ? CMD_OK : status;
	r = gguf_open(&g, o.file, &err);
	if (!r)
		r = desc_new(&d, g, &err);
	status = r < 0 ? cmd_failed(VERB, "%s", error_text(&err, r)) : report(&o, g, d);
	desc_free(d);
	gguf_free(g);
	return status;
}
