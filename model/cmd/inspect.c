/* SPDX-License-Identifier: MIT */

/* moe-model inspect: what a file is, also one that this version cannot run. */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "cmd.h"
#include "desc.h"
#include "gguf.h"
#include "kernels.h"
#include "num.h"
#include "tokenizer.h"
#include "utf8.h"

#define VERB "inspect"

static const char text[] =
	"Usage: moe-model inspect FILE [--json]\n"
	"Say what a GGUF file is: shape, quantisation by role, bytes that every token uses, bytes "
	"of\n"
	"an expert, tokenizer, chat template, and whether moed can run it, or why not.\n\n"
	"  --json   one JSON object, with all tensors\n"
	"  --help   show this and exit\n\n"
	"Exit status: 0 success (a file that cannot be run, too), 1 not readable as GGUF, 2 "
	"usage.\n";

enum role {
	ROLE_EMBEDDING,
	ROLE_OUTPUT,
	ROLE_ATTENTION,
	ROLE_NORM,
	ROLE_ROUTER,
	ROLE_EXPERT,
	ROLE_FFN,
	ROLE_OTHER,
	ROLES,
};

static const char *const role_names[ROLES] = {
	[ROLE_EMBEDDING] = "embedding",
	[ROLE_OUTPUT] = "output",
	[ROLE_ATTENTION] = "attention",
	[ROLE_NORM] = "norms",
	[ROLE_ROUTER] = "router",
	[ROLE_EXPERT] = "experts",
	[ROLE_FFN] = "feed-forward",
	[ROLE_OTHER] = "other",
};

/* Sums of one role by type number; the last entry is for all numbers beyond. */
struct sums {
	uint64_t tensors[KERNELS_TYPE_MAX + 1], bytes[KERNELS_TYPE_MAX + 1];
};

struct report {
	const struct gguf *g;
	const struct desc *d;	       /* NULL: not supported, for reason->text */
	const struct tokenizer *t;     /* NULL: none that is supported, for t_reason->text */
	const char *reason, *t_reason; /* why, "" where d or t are there */
	const char *chat;	       /* name of the template */
	struct sums roles[ROLES];
	struct gguf_string arch, name, tokenizer, pre, template;
	uint64_t parameters, experts, top_k, layers, tokens;
	uint64_t dense, expert, cycle; /* bytes; expert: the largest one */
};

static bool starts(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

/* By the names that all families share. */
static enum role role_of(const char *name)
{
	const char *rest;

	/* Encoder and decoder have blocks of their own. */
	if (starts(name, "enc.") || starts(name, "dec."))
		name += 4;
	rest = name;
	if (starts(name, "token_embd.") || starts(name, "token_types."))
		return ROLE_EMBEDDING;
	if (starts(name, "output."))
		return ROLE_OUTPUT;
	if (starts(name, "blk.")) {
		rest = strchr(name + 4, '.');
		rest = rest ? rest + 1 : name;
	}
	if (strstr(rest, "norm"))
		return ROLE_NORM;
	if (starts(rest, "ffn_gate_inp") || starts(rest, "exp_probs_b"))
		return ROLE_ROUTER;
	if (starts(rest, "attn_") || starts(rest, "cross_attn_") || starts(rest, "ssm_"))
		return ROLE_ATTENTION;
	if (!starts(rest, "ffn_"))
		return ROLE_OTHER;
	if (strstr(rest, "_exps."))
		return ROLE_EXPERT;
	/* ffn_gate.3.weight: files that are older than stacked experts. */
	rest = strchr(rest, '.');
	return rest && rest[1] >= '0' && rest[1] <= '9' ? ROLE_EXPERT : ROLE_FFN;
}

static uint64_t arch_number(const struct report *r, const char *suffix)
{
	char key[256];
	uint64_t v = 0;

	(void)snprintf(key, sizeof key, "%.*s.%s", (int)num_min(r->arch.size, (uint64_t)64),
		r->arch.data, suffix);
	(void)gguf_get_u64(r->g, key, &v, NULL);
	return v;
}

static void read_keys(struct report *r)
{
	enum gguf_kind kind;

	(void)gguf_get_string(r->g, "general.architecture", &r->arch, NULL);
	(void)gguf_get_string(r->g, "general.name", &r->name, NULL);
	(void)gguf_get_string(r->g, "tokenizer.ggml.model", &r->tokenizer, NULL);
	(void)gguf_get_string(r->g, "tokenizer.ggml.pre", &r->pre, NULL);
	(void)gguf_get_string(r->g, "tokenizer.chat_template", &r->template, NULL);
	(void)gguf_get_array(r->g, "tokenizer.ggml.tokens", &kind, &r->tokens, NULL);
	r->experts = arch_number(r, "expert_count");
	r->top_k = arch_number(r, "expert_used_count");
	r->layers = arch_number(r, "block_count");
}

static void add_up(struct report *r)
{
	uint64_t expert_bytes = 0, moe_layers = 0;

	for (uint64_t i = 0; i < gguf_n_tensors(r->g); i++) {
		const struct gguf_tensor *t = gguf_tensor(r->g, i);
		enum role role = role_of(t->name);
		uint32_t type = num_min(t->type, (uint32_t)KERNELS_TYPE_MAX);

		r->roles[role].tensors[type]++;
		r->roles[role].bytes[type] += t->size;
		/* The product was checked when the file was opened; the sum may still be absurd. */
		if (!num_add(r->parameters, t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3],
			    &r->parameters))
			r->parameters = UINT64_MAX;
		if (role == ROLE_EXPERT)
			expert_bytes += t->size;
		else
			r->dense += t->size;
		moe_layers += role == ROLE_ROUTER && strstr(t->name, "ffn_gate_inp.weight");
	}
	if (r->d) {
		r->dense = desc_dense_bytes(r->d);
		r->cycle = desc_cycle_bytes(r->d);
		for (uint32_t l = 0; l < r->d->n_layers; l++)
			r->expert = num_max(r->expert, desc_expert_bytes(r->d, l));
	} else if (r->experts && moe_layers) {
		r->expert = expert_bytes / r->experts / moe_layers;
		r->cycle = (uint64_t)((double)expert_bytes / (double)r->experts * (double)r->top_k);
	}
}

/* The name of a type, or its number where it has none; the last entry of sums is for all beyond. */
static const char *type_name(uint32_t type, char buf[16])
{
	const struct kernels_format *f = kernels_format(type);

	if (f)
		return f->name;
	(void)snprintf(buf, 16, "type %" PRIu32, type);
	return buf;
}

static const char *sums_name(uint32_t type, char buf[16])
{
	return type < KERNELS_TYPE_MAX ? type_name(type, buf) : "type >= 64";
}

_Static_assert(KERNELS_TYPE_MAX == 64, "sums_name() says so");

static const char *shown(struct gguf_string s, char buf[128])
{
	return gguf_text(s, buf, 128);
}

static void print_roles(const struct report *r)
{
	char size[NUM_SIZE_TEXT_MAX], name[16];

	for (int i = 0; i < ROLES; i++)
		for (uint32_t t = 0; t <= KERNELS_TYPE_MAX; t++)
			if (r->roles[i].tensors[t])
				(void)printf("  %-13s %-8s %6" PRIu64 " tensors  %10s\n",
					role_names[i], sums_name(t, name), r->roles[i].tensors[t],
					num_format_size(r->roles[i].bytes[t], size));
}

/* Why the file cannot be run, NULL where it can. */
static const char *why_not(const struct report *r)
{
	if (!r->d)
		return r->reason;
	return r->t ? NULL : r->t_reason;
}

static void print_shape(const struct desc *d)
{
	(void)printf("shape:        %" PRIu32 " layers, hidden %" PRIu32 ", %" PRIu32
		     " heads (%" PRIu32 " of keys and values) of %" PRIu32 ", vocabulary %" PRIu32
		     "%s, context %" PRIu32 "\n",
		d->n_layers, d->hidden, d->heads, d->kv_heads, d->head_size, d->vocabulary,
		desc_is_tied(d) ? " (tied)" : "", d->context);
	(void)printf("rope:         base %g, %" PRIu32 " elements, %s%s\n", (double)d->rope_base,
		d->rope_dims, d->rope_neighbours ? "neighbours" : "halves",
		d->rope_scale != 1 || d->rope_factors.size ? ", scaled" : "");
	if (d->experts)
		(void)printf("router:       %s%s\n",
			d->router == DESC_TOPK_SOFTMAX ? "top-k, then softmax"
						       : "softmax, then top-k",
			d->router_normalize ? ", normalised" : "");
}

static void print_text(const struct report *r, const char *path)
{
	char a[128], b[128], size[NUM_SIZE_TEXT_MAX];

	(void)printf("file:         %s, %s, GGUF v%" PRIu32 ", %" PRIu64 " tensors, %.3g billion "
		     "parameters\n",
		path, num_format_size(gguf_file_size(r->g), size), gguf_version(r->g),
		gguf_n_tensors(r->g), (double)r->parameters / 1e9);
	(void)printf("model:        %s, architecture %s\n", shown(r->name, a), shown(r->arch, b));
	(void)printf(
		"runs here:    %s%s\n", why_not(r) ? "no: " : "yes", why_not(r) ? why_not(r) : "");
	if (r->d)
		print_shape(r->d);
	if (r->experts)
		(void)printf("experts:      %" PRIu64 " per layer, %" PRIu64 " of them per token\n",
			r->experts, r->top_k);
	else
		(void)printf("experts:      none, a dense model\n");
	(void)printf("every token:  %s of dense weights\n", num_format_size(r->dense, size));
	if (r->experts) {
		(void)printf("an expert:    %s\n", num_format_size(r->expert, size));
		(void)printf("token cycle:  %s of experts\n", num_format_size(r->cycle, size));
	}
	(void)printf("tokenizer:    %s%s%s, %" PRIu64 " tokens\n",
		r->tokenizer.size ? shown(r->tokenizer, a) : "none", r->pre.size ? ", pre " : "",
		r->pre.size ? shown(r->pre, b) : "", r->tokens);
	(void)printf("template:     %s%s\n", r->chat,
		!strcmp(r->chat, "unsupported") ? ", prompts need --raw" : "");
	(void)printf("tensors:\n");
	print_roles(r);
}

/* Numbers of a file may be larger than JSON's. */
static json_int_t json_number(uint64_t v)
{
	return (json_int_t)num_min(v, (uint64_t)INT64_MAX);
}

/* Any bytes as a JSON string: U+FFFD for each that is no UTF-8, at most some 4096 of them. */
static json_t *json_text(struct gguf_string s)
{
	char utf8[4096 + 4];
	size_t n = 0;

	for (uint64_t i = 0; i < s.size && n + 4 < sizeof utf8;) {
		uint32_t c;

		i += utf8_decode(s.data + i, s.size - i, &c);
		n += utf8_encode(c < UTF8_BROKEN ? c : 0xfffd, utf8 + n);
	}
	return json_stringn(utf8, n);
}

static json_t *json_text_or_null(struct gguf_string s)
{
	return s.size ? json_text(s) : json_null();
}

static json_t *json_roles(const struct report *r)
{
	json_t *all = json_object();
	char name[16];

	for (int i = 0; i < ROLES; i++) {
		json_t *role = json_object();

		for (uint32_t t = 0; t <= KERNELS_TYPE_MAX; t++)
			if (r->roles[i].tensors[t])
				json_object_set_new(role, sums_name(t, name),
					json_pack("{s:I, s:I}", "tensors",
						json_number(r->roles[i].tensors[t]), "bytes",
						json_number(r->roles[i].bytes[t])));
		if (json_object_size(role))
			json_object_set_new(all, role_names[i], role);
		else
			json_decref(role);
	}
	return all;
}

static json_t *json_tensors(const struct gguf *g)
{
	json_t *all = json_array();
	char type[16];

	for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
		const struct gguf_tensor *t = gguf_tensor(g, i);
		json_t *shape = json_array();

		for (uint32_t k = 0; k < t->n_dims; k++)
			json_array_append_new(shape, json_integer(json_number(t->dims[k])));
		json_array_append_new(all,
			json_pack("{s:s, s:s, s:I, s:o, s:I, s:I, s:s}", "name", t->name, "type",
				type_name(t->type, type), "type_number", json_number(t->type),
				"shape", shape, "offset", json_number(t->offset), "size",
				json_number(t->size), "role", role_names[role_of(t->name)]));
	}
	return all;
}

static json_t *json_shape(const struct desc *d)
{
	if (!d)
		return json_null();
	return json_pack(
		"{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:i, s:f, s:f, s:s, s:s, s:b, s:i}",
		"layers", (int)d->n_layers, "hidden", (int)d->hidden, "heads", (int)d->heads,
		"kv_heads", (int)d->kv_heads, "head_size", (int)d->head_size, "vocabulary",
		(int)d->vocabulary, "context", (int)d->context, "tied", desc_is_tied(d),
		"rope_dims", (int)d->rope_dims, "rope_base", (double)d->rope_base, "rope_scale",
		(double)d->rope_scale, "rope_pairs", d->rope_neighbours ? "neighbours" : "halves",
		"router", d->router == DESC_TOPK_SOFTMAX ? "topk-softmax" : "softmax-topk",
		"router_normalize", (int)(d->router_normalize || d->router == DESC_TOPK_SOFTMAX),
		"expert_ff", (int)d->expert_ff);
}

static struct gguf_string text_of(const char *s)
{
	return (struct gguf_string){s, s ? strlen(s) : 0};
}

static int print_json(const struct report *r, const char *path)
{
	json_t *all = json_pack("{s:o, s:I, s:i, s:o, s:o, s:b, s:o, s:I, s:I, s:I, s:I, s:o, s:o, "
				"s:{s:I, s:I, s:I}, s:{s:o, s:o, s:I}, s:{s:s, s:I}, s:o}",
		"file", json_text(text_of(path)), "size", json_number(gguf_file_size(r->g)),
		"version", (int)gguf_version(r->g), "architecture", json_text_or_null(r->arch),
		"name", json_text_or_null(r->name), "supported", !why_not(r), "reason",
		json_text_or_null(text_of(why_not(r))), "parameters", json_number(r->parameters),
		"layers", json_number(r->layers), "experts", json_number(r->experts), "top_k",
		json_number(r->top_k), "shape", json_shape(r->d), "quantisation", json_roles(r),
		"bytes", "dense", json_number(r->dense), "expert", json_number(r->expert),
		"token_cycle", json_number(r->cycle), "tokenizer", "model",
		json_text_or_null(r->tokenizer), "pre", json_text_or_null(r->pre), "tokens",
		json_number(r->tokens), "template", "kind", r->chat, "bytes",
		json_number(r->template.size), "tensors", json_tensors(r->g));

	if (!all)
		return cmd_failed(VERB, "out of memory");
	(void)json_dumpf(all, stdout, JSON_INDENT(2));
	(void)putchar('\n');
	json_decref(all);
	return CMD_OK;
}

static int report(const struct gguf *g, const char *path, bool json)
{
	struct error why = ERROR_NONE, t_why = ERROR_NONE, ignored = ERROR_NONE;
	struct report *r = calloc(1, sizeof *r);
	struct tokenizer *t = NULL;
	struct chat *chat = NULL;
	struct desc *d = NULL;
	int x, status = CMD_OK;

	if (!r)
		return cmd_failed(VERB, "out of memory");
	r->g = g;
	read_keys(r);
	x = desc_new(&d, g, &why);
	r->d = d;
	r->reason = error_text(&why, x);
	x = tokenizer_new(&t, g, &t_why);
	r->t = t;
	r->t_reason = error_text(&t_why, x);
	if (t)
		(void)chat_new(&chat, g, t, &ignored);
	r->chat = chat ? chat_name(chat) : r->template.size ? "unsupported" : "none";
	add_up(r);
	if (json)
		status = print_json(r, path);
	else
		print_text(r, path);
	chat_free(chat);
	tokenizer_free(t);
	desc_free(d);
	free(r);
	return status;
}

static int inspect(const char *path, bool json)
{
	struct error err = ERROR_NONE;
	struct gguf *g = NULL;
	int status, x = gguf_open(&g, path, &err);

	if (x < 0)
		return cmd_failed(VERB, "%s", error_text(&err, x));
	status = report(g, path, json);
	gguf_free(g);
	return status;
}

int cmd_inspect(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bool json = false;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option == 'h') {
			(void)fputs(text, stdout);
			return CMD_OK;
		}
		if (option == '?' || option == ':')
			return cmd_bad_option(VERB, option, argv);
		json = true;
	}
	if (argc - optind != 1)
		return cmd_usage(VERB, "expected is one FILE");
	return inspect(argv[optind], json);
}
