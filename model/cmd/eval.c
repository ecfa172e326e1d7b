/* SPDX-License-Identifier: MIT */

/* moe-model eval: prompts of ids through the engine in process; logits, routes, greedy tokens. */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "cmd.h"
#include "desc.h"
#include "engine.h"
#include "gguf.h"
#include "memory-limit.h"
#include "num.h"
#include "plan.h"
#include "sampler.h"

#define VERB "eval"
#define WAIT_NS UINT64_C(1000000000)
#define SPARE (UINT64_C(4) << 20) /* of the reserve, which no clients use here */

static const char text[] =
	"Usage: moe-model eval FILE --prompts IDS.json [OPTION...]\n"
	"Run prompts, given as ids, through the engine and print what it computes.\n\n"
	"  --prompts FILE   {\"prompts\": [[1, 2, 3], ...]}; - is stdin\n"
	"  --greedy N       continue each prompt by N tokens, the best one each time\n"
	"  --memory SIZE    the limit, as 512M, 6G or 60% (default: what there is)\n"
	"  --threads N      threads of the engine (default: one for each CPU)\n"
	"  --chunk N        rows of a step at most (default: the plan's)\n"
	"  --batch          all prompts side by side in the same steps\n"
	"  --io HOW         auto, uring or pread\n"
	"  --stats          counters of the engine as JSON on stderr\n"
	"  --json           the answer as JSON (the only form; may be left out)\n"
	"  --help           show this and exit\n\n"
	"The answer is a list, one object a prompt: prompt_ids; logits, one row a position;\n"
	"experts[layer][position], {ids, weights}, best first (a dense layer has []);\n"
	"greedy, the ids that follow; error, where the prompt failed.\n\n"
	"Exit status: 0 success, 1 failure (a prompt that failed, too), 2 wrong usage.\n";

struct options {
	const char *file, *prompts, *memory;
	uint64_t greedy, threads, chunk;
	enum engine_io io;
	bool batch, stats;
};

struct prompt {
	struct eval *eval;
	struct engine_seq *seq;
	uint32_t *ids; /* prompt, then greedy */
	size_t n, n_greedy, fed, printed;
	/* While it runs; what is held for longer than a step is in the plan: answer_bytes(). */
	float *logits;	      /* [n][vocabulary], only in a batch: else printed as they come */
	float *last;	      /* of the last row */
	uint32_t *route_ids;  /* [n][n_layers][top_k] */
	float *route_weights; /* the same */
	int code;
	char error[512];
};

/* One row of the prompt, as argument of the callbacks. */
struct cell {
	struct prompt *prompt;
	size_t position;
};

struct eval {
	struct options o;
	struct gguf *gguf;
	struct desc *desc;
	struct plan plan;
	struct engine *engine;
	struct prompt *prompts;
	size_t n_prompts;
	struct engine_row *rows;
	struct cell *cells;
	uint64_t print_ns; /* spent on printing inside the engine's steps */
};

static int read_prompt(struct prompt *p, const json_t *ids, const struct eval *v)
{
	size_t n = json_array_size(ids);

	if (n + v->o.greedy > LIMIT_CONTEXT)
		return -E2BIG;
	if (!json_is_array(ids) || n == 0)
		return -EINVAL;
	p->n = n;
	p->ids = calloc(n + v->o.greedy, sizeof *p->ids);
	if (!p->ids)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		json_t *id = json_array_get(ids, i);

		if (!json_is_integer(id) || json_integer_value(id) < 0 ||
			json_integer_value(id) >= v->desc->vocabulary)
			return -EINVAL;
		p->ids[i] = (uint32_t)json_integer_value(id);
	}
	return 0;
}

static json_t *load_json(const char *path)
{
	bool is_stdin = !strcmp(path, "-");
	json_error_t why;
	json_t *root = is_stdin ? json_loadf(stdin, 0, &why) : json_load_file(path, 0, &why);

	if (!root)
		(void)cmd_failed(VERB, "cannot read '%s': %s, line %d", is_stdin ? "stdin" : path,
			why.text, why.line);
	return root;
}

static int prompt_refused(const struct eval *v, size_t i, size_t n, int why)
{
	if (why == -ENOMEM)
		return cmd_failed(VERB, "out of memory");
	if (why == -E2BIG)
		return cmd_failed(VERB,
			"prompt %zu of '%s' has %zu ids; with what follows them at most %" PRIu64
			" are allowed",
			i, v->o.prompts, n, LIMIT_CONTEXT);
	return cmd_failed(VERB,
		"prompt %zu of '%s' is not a list of ids from 0 to %" PRIu32 " with at least one",
		i, v->o.prompts, v->desc->vocabulary - 1);
}

static int read_prompts(struct eval *v)
{
	json_t *root = load_json(v->o.prompts), *list;
	int status = CMD_OK;

	if (!root)
		return CMD_FAILED;
	list = json_object_get(root, "prompts");
	v->n_prompts = json_array_size(list);
	if (!json_is_array(list))
		status = cmd_failed(VERB, "'%s' is not {\"prompts\": [[ids], ...]}", v->o.prompts);
	else if (v->o.batch && v->n_prompts > LIMIT_SESSIONS)
		status = cmd_failed(
			VERB, "%zu prompts: with --batch at most %u", v->n_prompts, LIMIT_SESSIONS);
	else
		v->prompts = calloc(v->n_prompts + 1, sizeof *v->prompts);
	if (status == CMD_OK && !v->prompts)
		status = cmd_failed(VERB, "out of memory");
	for (size_t i = 0; status == CMD_OK && i < v->n_prompts; i++) {
		const json_t *ids = json_array_get(list, i);
		int r;

		v->prompts[i].eval = v;
		r = read_prompt(&v->prompts[i], ids, v);
		if (r < 0)
			status = prompt_refused(v, i, json_array_size(ids), r);
	}
	json_decref(root);
	return status;
}

static int open_model(struct eval *v)
{
	struct error err = ERROR_NONE;
	int r = gguf_open(&v->gguf, v->o.file, &err);

	if (r == 0)
		r = desc_new(&v->desc, v->gguf, &err);
	return r < 0 ? cmd_failed(VERB, "%s", error_text(&err, r)) : CMD_OK;
}

static int progress(void *arg, enum engine_phase phase, uint64_t done, uint64_t all)
{
	static const char *const names[] = {"memory", "dense weights", "experts"};

	cmd_progress(names[phase], done, all);
	return 0;
}

/* Positions that the plan must have room for. */
static uint64_t positions(const struct eval *v)
{
	uint64_t sum = 0, most = 0;

	for (size_t i = 0; i < v->n_prompts; i++) {
		uint64_t n = num_align_up(v->prompts[i].n + v->o.greedy, 64);

		sum += n;
		most = num_max(most, n);
	}
	return num_max(v->o.batch ? sum : most, (uint64_t)64);
}

static size_t route_size(const struct eval *v)
{
	return (size_t)v->desc->n_layers * num_max(v->desc->top_k, 1u);
}

/* What the answers of the prompts that run together take. */
static uint64_t answer_bytes(const struct eval *v)
{
	uint64_t row = (uint64_t)v->desc->vocabulary * sizeof(float), sum = 0, most = 0;

	for (size_t i = 0; i < v->n_prompts; i++) {
		uint64_t n = v->prompts[i].n;
		uint64_t bytes = n * route_size(v) * (sizeof(uint32_t) + sizeof(float)) + row;

		bytes += v->o.batch ? n * row : 0;
		sum += bytes;
		most = num_max(most, bytes);
	}
	return v->o.batch ? sum : most;
}

static int start_engine(struct eval *v)
{
	/* There is no tokenizer here: what the plan has for it holds the answers. */
	uint64_t answers = answer_bytes(v);
	uint64_t heap = gguf_memory(v->gguf) + answers - num_min(answers, SPARE);
	struct plan_input in = {.desc = v->desc,
		.vocabulary = num_max(plan_vocabulary(v->gguf), heap),
		.context = (uint32_t)num_min(positions(v), (uint64_t)LIMIT_CONTEXT),
		.threads = (uint32_t)v->o.threads};
	struct engine_config config = {.path = v->o.file,
		.desc = v->desc,
		.plan = &v->plan,
		.threads = (uint32_t)v->o.threads,
		.io = v->o.io,
		.prefetch = ENGINE_PREFETCH_AUTO,
		.progress = progress};
	struct error err = ERROR_NONE;
	struct memory_limit limit;
	uint64_t whole = 0;
	int r = 0;

	if (v->o.memory && strchr(v->o.memory, '%'))
		r = memory_limit_whole(&whole, "", &err);
	if (r == 0 && v->o.memory && num_parse_size(v->o.memory, whole, &in.limit) < 0)
		return cmd_usage(VERB, "--memory is '%s'; expected is a size as 512M, 6G or 60%%",
			v->o.memory);
	if (r == 0)
		r = memory_limit_find(&limit, in.limit, "", &err);
	if (r == 0) {
		in.limit = limit.bytes;
		r = plan_make(&v->plan, &in, &err);
	}
	if (r == 0)
		r = engine_start(&v->engine, &config, &err);
	cmd_progress_end();
	return r < 0 ? cmd_failed(VERB, "%s", error_text(&err, r)) : CMD_OK;
}

static void print_ids(const char *name, const uint32_t *ids, size_t n)
{
	(void)printf("\"%s\":[", name);
	for (size_t i = 0; i < n; i++)
		(void)printf("%s%" PRIu32, i ? "," : "", ids[i]);
	(void)putchar(']');
}

static void print_floats(const float *x, size_t n)
{
	(void)putchar('[');
	for (size_t i = 0; i < n; i++)
		(void)printf("%s%.9g", i ? "," : "", (double)x[i]);
	(void)putchar(']');
}

static void print_row(struct prompt *p, const float *logits)
{
	(void)printf("%s", p->printed++ ? ",\n" : ",\"logits\":[");
	print_floats(logits, p->eval->desc->vocabulary);
}

static void on_logits(void *arg, const float *logits)
{
	struct cell *c = arg;
	struct prompt *p = c->prompt;
	size_t n = p->eval->desc->vocabulary;

	if (c->position < p->n && p->logits)
		memcpy(p->logits + c->position * n, logits, n * sizeof *logits);
	else if (c->position < p->n) {
		uint64_t start = clock_now();

		print_row(p, logits);
		p->eval->print_ns += clock_now() - start;
	}
	memcpy(p->last, logits, n * sizeof *logits);
}

static void on_route(
	void *arg, uint32_t layer, const uint32_t *experts, const float *weights, uint32_t k)
{
	struct cell *c = arg;
	struct prompt *p = c->prompt;
	size_t at = c->position * route_size(p->eval) + (size_t)layer * k;

	if (c->position >= p->n)
		return;
	memcpy(p->route_ids + at, experts, k * sizeof *experts);
	memcpy(p->route_weights + at, weights, k * sizeof *weights);
}

static void on_error(void *arg, int code, const char *why)
{
	struct cell *c = arg;

	if (c->prompt->code)
		return;
	c->prompt->code = code;
	(void)snprintf(c->prompt->error, sizeof c->prompt->error, "%s", why);
}

static void prompt_fail(struct prompt *p, int code, const char *why)
{
	if (p->code)
		return;
	p->code = code;
	(void)snprintf(p->error, sizeof p->error, "%s", why);
}

static int run_step(struct eval *v, enum engine_context c, size_t n)
{
	static const struct engine_callbacks callbacks = {on_logits, on_route, on_error};
	int r = engine_begin(v->engine, c, v->rows, n, &callbacks);

	while (r == 0) {
		r = engine_advance(v->engine, c);
		if (r == ENGINE_IDLE)
			return 0;
		if (r == ENGINE_WAITING)
			r = engine_wait(v->engine, WAIT_NS);
		else if (r == ENGINE_MORE)
			r = 0;
	}
	return r;
}

/* Puts up to `room` rows of a prompt into the step; returns how many. */
static size_t feed(struct eval *v, struct prompt *p, size_t at, size_t room, size_t upto)
{
	size_t n = p->fed < upto ? num_min(upto - p->fed, room) : 0;

	if (p->code || n == 0)
		return 0;
	if (engine_seq_reserve(v->engine, p->seq, (uint32_t)n) < 0) {
		prompt_fail(p, -ENOSPC, "no room for its keys and values: give more --memory");
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		v->cells[at + i] = (struct cell){p, p->fed + i};
		v->rows[at + i] = (struct engine_row){.seq = p->seq,
			.token = p->ids[p->fed + i],
			.want = ENGINE_WANT_LOGITS | ENGINE_WANT_ROUTES,
			.arg = &v->cells[at + i]};
	}
	p->fed += n;
	return n;
}

/* Steps until prompts [first, last) have been fed up to n + done tokens. */
static int run_upto(
	struct eval *v, size_t first, size_t last, size_t done, enum engine_context context)
{
	size_t most = context == ENGINE_BULK ? v->plan.bulk_rows : v->plan.live_rows;

	if (v->o.chunk)
		most = num_min(most, (size_t)v->o.chunk);
	for (;;) {
		size_t n = 0;
		int r;

		for (size_t i = first; i < last && n < most; i++) {
			struct prompt *p = &v->prompts[i];

			n += feed(v, p, n, most - n, p->n + done);
		}
		if (n == 0)
			return 0;
		r = run_step(v, context, n);
		if (r < 0)
			return r;
	}
}

static int prompt_start(struct eval *v, struct prompt *p)
{
	size_t k = route_size(v), n = v->desc->vocabulary;

	p->last = calloc(n, sizeof *p->last);
	p->route_ids = calloc(p->n * k, sizeof *p->route_ids);
	p->route_weights = calloc(p->n * k, sizeof *p->route_weights);
	if (v->o.batch)
		p->logits = malloc(p->n * n * sizeof *p->logits);
	if (!p->last || !p->route_ids || !p->route_weights || (v->o.batch && !p->logits))
		return -ENOMEM;
	return engine_seq_new(v->engine, &p->seq);
}

static void prompt_end(struct eval *v, struct prompt *p)
{
	free(p->logits);
	free(p->last);
	free(p->route_ids);
	free(p->route_weights);
	p->logits = p->last = p->route_weights = NULL;
	p->route_ids = NULL;
	if (p->seq)
		p->seq = engine_seq_free(v->engine, p->seq);
}

static int run_group(struct eval *v, size_t first, size_t last)
{
	int r = 0;

	for (size_t i = first; i < last && r == 0; i++)
		r = prompt_start(v, &v->prompts[i]);
	if (r == 0)
		r = run_upto(v, first, last, 0, ENGINE_BULK);
	for (size_t g = 0; r == 0 && g < v->o.greedy; g++) {
		for (size_t i = first; i < last; i++) {
			struct prompt *p = &v->prompts[i];

			if (p->code)
				continue;
			r = sampler_pick(&SAMPLER_DEFAULT, engine_kernels(v->engine), p->last,
				v->desc->vocabulary, 0, NULL, &p->ids[p->n + g], NULL);
			if (r < 0)
				return r;
			p->n_greedy++;
		}
		if (g + 1 < v->o.greedy)
			r = run_upto(v, first, last, g + 1, ENGINE_LIVE);
	}
	return r;
}

/* [layer][position]; a dense layer has no positions. */
static void print_experts(const struct eval *v, const struct prompt *p)
{
	uint32_t k = v->desc->top_k;

	(void)printf("\"experts\":[");
	for (uint32_t l = 0; l < v->desc->n_layers; l++) {
		(void)printf("%s", l ? ",\n[" : "[");
		for (size_t i = 0; v->desc->layers[l].moe && i < p->n; i++) {
			(void)printf("%s{", i ? "," : "");
			print_ids("ids", p->route_ids + i * route_size(v) + (size_t)l * k, k);
			(void)printf(",\"weights\":");
			print_floats(p->route_weights + i * route_size(v) + (size_t)l * k, k);
			(void)putchar('}');
		}
		(void)putchar(']');
	}
	(void)putchar(']');
}

static void print_begin(const struct eval *v, const struct prompt *p)
{
	(void)printf("%s{", p > v->prompts ? ",\n" : "");
	print_ids("prompt_ids", p->ids, p->n);
}

/* Logits may have been printed before the prompt failed. */
static void print_end(const struct eval *v, const struct prompt *p)
{
	if (p->printed)
		(void)putchar(']');
	(void)putchar(',');
	if (p->code) {
		json_t *why = json_string(p->error);

		(void)printf("\"error\":");
		if (!why || json_dumpf(why, stdout, JSON_ENCODE_ANY) < 0)
			(void)printf("\"failed\"");
		json_decref(why);
	} else {
		print_experts(v, p);
		(void)putchar(',');
		print_ids("greedy", p->ids + p->n, p->n_greedy);
	}
	(void)putchar('}');
}

/* Side by side: the logits come in any order of prompts. */
static int run_batch(struct eval *v)
{
	int r = run_group(v, 0, v->n_prompts);

	for (size_t i = 0; r == 0 && i < v->n_prompts; i++) {
		struct prompt *p = &v->prompts[i];

		print_begin(v, p);
		for (size_t j = 0; !p->code && j < p->n; j++)
			print_row(p, p->logits + j * v->desc->vocabulary);
		print_end(v, p);
	}
	for (size_t i = 0; i < v->n_prompts; i++)
		prompt_end(v, &v->prompts[i]);
	return r;
}

static int run_one(struct eval *v, size_t i)
{
	int r;

	print_begin(v, &v->prompts[i]);
	r = run_group(v, i, i + 1);
	if (r == 0)
		print_end(v, &v->prompts[i]);
	prompt_end(v, &v->prompts[i]);
	return r;
}

static void print_stats(const struct eval *v)
{
	struct engine_stats s;

	engine_stats(v->engine, &s);
	(void)fprintf(stderr,
		"{\"io\":\"%s\",\"direct\":%s,\"tier\":\"%s\",\"hits\":%" PRIu64
		",\"misses\":%" PRIu64 ",\"evictions\":%" PRIu64 ",\"bytes_read\":%" PRIu64
		",\"bytes_useful\":%" PRIu64 ",\"reads\":%" PRIu64 ",\"read_errors\":%" PRIu64
		",\"wait_s\":%.6f"
		",\"compute_s\":%.6f,\"rows_live\":%" PRIu64 ",\"rows_bulk\":%" PRIu64
		",\"steps_live\":%" PRIu64 ",\"steps_bulk\":%" PRIu64 ",\"tiles\":%" PRIu64
		",\"slots\":%" PRIu64 ",\"slots_used\":%" PRIu64 ",\"arena\":%" PRIu64
		",\"locked\":%" PRIu64 "}\n",
		s.io, s.direct ? "true" : "false", s.tier, s.hits, s.misses, s.evictions,
		s.bytes_read, s.bytes_useful, s.reads, s.read_errors, (double)s.wait_ns * 1e-9,
		(double)(s.compute_ns - num_min(v->print_ns, s.compute_ns)) * 1e-9, s.rows_live,
		s.rows_bulk, s.steps_live, s.steps_bulk, s.tiles, s.slots, s.slots_used,
		s.arena_bytes, s.locked_bytes);
}

static int evaluate(struct eval *v)
{
	size_t most = num_max(v->plan.bulk_rows, v->plan.live_rows);
	int status = CMD_OK, r = 0;

	v->rows = calloc(most, sizeof *v->rows);
	v->cells = calloc(most, sizeof *v->cells);
	if (!v->rows || !v->cells)
		return cmd_failed(VERB, "out of memory");
	(void)putchar('[');
	if (v->o.batch)
		r = run_batch(v);
	for (size_t i = 0; r == 0 && !v->o.batch && i < v->n_prompts && !ferror(stdout); i++)
		r = run_one(v, i);
	if (r < 0)
		return cmd_failed(VERB, "the engine failed: %s", strerror(-r));
	for (size_t i = 0; i < v->n_prompts; i++)
		if (v->prompts[i].code)
			status = cmd_failed(VERB, "prompt %zu: %s", i, v->prompts[i].error);
	(void)printf("]\n");
	if (fflush(stdout) || ferror(stdout))
		status = cmd_failed(VERB, "cannot write the answer: %s", strerror(errno));
	if (v->o.stats)
		print_stats(v);
	return status;
}

static int take_number(
	const char *name, const char *value, uint64_t min, uint64_t max, uint64_t *ret)
{
	if (num_parse_u64(value, min, max, ret) < 0)
		return cmd_usage(VERB, "--%s is '%s'; allowed are %" PRIu64 " to %" PRIu64, name,
			value, min, max);
	return CMD_OK;
}

static int take(struct options *o, int option, const char *value)
{
	switch (option) {
	case 'p':
		o->prompts = value;
		return CMD_OK;
	case 'm':
		o->memory = value;
		return CMD_OK;
	case 'g':
		return take_number("greedy", value, 0, LIMIT_CONTEXT, &o->greedy);
	case 't':
		return take_number("threads", value, 1, LIMIT_THREADS, &o->threads);
	case 'c':
		return take_number("chunk", value, 1, LIMIT_BULK_ROWS, &o->chunk);
	case 'b':
		o->batch = true;
		return CMD_OK;
	case 's':
		o->stats = true;
		return CMD_OK;
	case 'i':
		if (!strcmp(value, "auto"))
			o->io = ENGINE_IO_AUTO;
		else if (!strcmp(value, "uring"))
			o->io = ENGINE_IO_URING;
		else if (!strcmp(value, "pread"))
			o->io = ENGINE_IO_PREAD;
		else
			return cmd_usage(
				VERB, "--io is '%s'; allowed are auto, uring, pread", value);
		return CMD_OK;
	default:
		return CMD_OK;
	}
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"prompts", required_argument, NULL, 'p'},
		{"greedy", required_argument, NULL, 'g'},
		{"memory", required_argument, NULL, 'm'},
		{"threads", required_argument, NULL, 't'},
		{"chunk", required_argument, NULL, 'c'},
		{"batch", no_argument, NULL, 'b'},
		{"io", required_argument, NULL, 'i'},
		{"stats", no_argument, NULL, 's'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h') {
			(void)fputs(text, stdout);
			return -1;
		}
		if (option == '?')
			return cmd_usage(
				VERB, "unknown option or missing value: '%s'", argv[optind - 1]);
		status = take(o, option, optarg);
		if (status != CMD_OK)
			return status;
	}
	if (argc - optind != 1)
		return cmd_usage(VERB, "expected is one FILE");
	if (!o->prompts)
		return cmd_usage(VERB, "--prompts is needed");
	o->file = argv[optind];
	return CMD_OK;
}

static void eval_deinit(struct eval *v)
{
	for (size_t i = 0; i < v->n_prompts && v->prompts; i++)
		free(v->prompts[i].ids);
	free(v->prompts);
	free(v->rows);
	free(v->cells);
	engine_free(v->engine);
	desc_free(v->desc);
	gguf_free(v->gguf);
}

int cmd_eval(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct eval v = {.o.threads = cpus < 1 ? 1 : num_min((unsigned)cpus, LIMIT_THREADS)};
	int status = parse(argc, argv, &v.o);

	if (status != CMD_OK)
		return status < 0 ? CMD_OK : status;
	status = open_model(&v);
	if (status == CMD_OK)
		status = read_prompts(&v);
	if (status == CMD_OK)
		status = start_engine(&v);
	if (status == CMD_OK)
		status = evaluate(&v);
	eval_deinit(&v);
	return status;
}
