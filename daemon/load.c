/* SPDX-License-Identifier: MIT */
#include "load.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "limit.h"
#include "num.h"

static uint32_t load_threads(const struct config *c)
{
	cpu_set_t set;
	uint32_t n;

	if (c->threads)
		return (uint32_t)c->threads;
	if (sched_getaffinity(0, sizeof set, &set) < 0)
		return 1;
	n = num_max((uint32_t)CPU_COUNT(&set), 1u);
	return num_min(n, LIMIT_THREADS);
}

static int load_limit(struct load *l, const struct config *c, struct error *err)
{
	uint64_t whole, wanted = 0;
	char text[NUM_SIZE_TEXT_MAX];
	int r;

	r = memory_limit_whole(&whole, "", err);
	if (r < 0)
		return r;
	if (strcmp(c->memory_limit, "auto")) {
		r = num_parse_size(c->memory_limit, whole, &wanted);
		if (r < 0)
			return error_set(
				err, r, "memory.limit: '%s' is not a size", c->memory_limit);
	}
	r = memory_limit_find(&l->limit, wanted, "", err);
	if (r < 0)
		return r;
	(void)snprintf(l->limit_text, sizeof l->limit_text, "%s (%s%s)",
		num_format_size(l->limit.bytes, text),
		l->limit.source == MEMORY_LIMIT_WANTED	 ? "memory.limit"
		: l->limit.source == MEMORY_LIMIT_CGROUP ? "control group "
							 : "available memory",
		l->limit.source == MEMORY_LIMIT_CGROUP ? l->limit.path : "");
	return 0;
}

static int load_model(struct load *l, const struct config *c, struct error *err)
{
	int r;

	if (!*c->model)
		return error_set(err, -EINVAL,
			"no model is given: name one with --model FILE, or with 'model:' in the "
			"configuration");
	r = gguf_open(&l->gguf, c->model, err);
	if (r < 0)
		return r;
	r = desc_new(&l->desc, l->gguf, err);
	if (r >= 0 && c->upcycle_experts)
		r = desc_upcycle(l->desc, (uint32_t)c->upcycle_experts, (uint32_t)c->upcycle_top_k,
			(uint32_t)c->upcycle_seed, c->upcycle_router == CONFIG_ROUTER_EXACT, err);
	if (r >= 0)
		r = tokenizer_new(&l->tokenizer, l->gguf, err);
	if (r >= 0)
		r = chat_new(&l->chat, l->gguf, l->tokenizer, err);
	if (r < 0)
		error_prefix(err, "%s", c->model);
	return r;
}

int load_init(struct load *l, const struct config *c, struct error *err)
{
	struct plan_input in;
	int r;

	*l = (struct load){.threads = load_threads(c)};
	r = load_limit(l, c, err);
	if (r >= 0)
		r = load_model(l, c, err);
	if (r < 0) {
		load_deinit(l);
		return error_errno(err, r, "cannot use the model %s", c->model);
	}
	in = (struct plan_input){
		.desc = l->desc,
		.limit = l->limit.bytes,
		.vocabulary = plan_vocabulary(l->gguf),
		.context = (uint32_t)c->context,
		.live_rows = (uint32_t)c->sessions,
		.bulk_rows = (uint32_t)c->chunk,
		.threads = l->threads,
		.clients = LIMIT_CLIENTS_PLANNED,
		.daemon = true,
	};
	r = plan_make(&l->plan, &in, err);
	if (r < 0) {
		(void)error_errno(err, r, "cannot divide the memory limit");
		error_prefix(err, "the memory limit is %s", l->limit_text);
		load_deinit(l);
		return r;
	}
	l->half_reads = plan_half_reads(&in, &l->plan);
	/* One session may have the whole pool, but no more than the model was trained for. */
	l->context = l->plan.context;
	if (l->desc->context)
		l->context = num_min(l->context, l->desc->context);
	return 0;
}

void load_deinit(struct load *l)
{
	chat_free(l->chat);
	tokenizer_free(l->tokenizer);
	desc_free(l->desc);
	gguf_free(l->gguf);
	*l = (struct load){0};
}

void load_print(const struct load *l, FILE *f)
{
	char text[NUM_SIZE_TEXT_MAX];

	(void)fprintf(f, "model         %s (%s)\n", gguf_path(l->gguf), l->desc->arch);
	(void)fprintf(f, "limit         %s\n", l->limit_text);
	for (enum plan_use u = 0; u < PLAN_USES; ++u)
		(void)fprintf(
			f, "  %-11s %s\n", plan_use_name(u), num_format_size(l->plan.use[u], text));
	(void)fprintf(f, "least limit   %s\n", num_format_size(l->plan.floor, text));
	(void)fprintf(f, "token cycle   %s\n", num_format_size(l->plan.cycle, text));
	(void)fprintf(f, "context       %u tokens, of one conversation at most %u\n",
		l->plan.context, l->context);
	(void)fprintf(f, "batch         %u conversations, chunks of %u tokens\n", l->plan.live_rows,
		l->plan.bulk_rows);
	(void)fprintf(f, "slots         %llu (%.1f a layer), %.0f %% of experts found in them\n",
		(unsigned long long)l->plan.slots, l->plan.slots_per_layer,
		100 * l->plan.expected_hit);
	(void)fprintf(f, "reads         %s a token expected%s\n",
		num_format_size((uint64_t)l->plan.bytes_per_token, text),
		l->half_reads && l->plan.use[PLAN_SLOTS] < l->plan.cycle
			? ": the slots hold less than one token cycle"
			: "");
	if (l->half_reads)
		(void)fprintf(f, "half of that  with a limit of %s: about twice the speed\n",
			num_format_size(l->half_reads, text));
}
