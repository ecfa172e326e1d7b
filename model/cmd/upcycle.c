/* SPDX-License-Identifier: MIT */

/* moe-model upcycle: a dense GGUF to a Mixture-of-Experts one. */

#include "upcycle.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "limit.h"
#include "num.h"

#define VERB "upcycle"

static const char text[] =
	"Usage: moe-model upcycle DENSE OUT --experts N --top-k K [OPTION...]\n"
	"Write a dense llama GGUF as a Mixture-of-Experts one: every feed-forward block is copied "
	"to\n"
	"N experts behind a new router; all else is copied as it is.  The model's quality is that "
	"of\n"
	"the dense one until it is trained.\n\n"
	"  --experts N          experts of a layer\n"
	"  --top-k K            experts of a token\n"
	"  --router exact|random\n"
	"                       exact (default): rows in equal groups of K (a power of two that "
	"divides\n"
	"                       N), so that every weight is exactly 1/K and the answers are bit "
	"for bit\n"
	"                       those of the dense model; random: all rows differ\n"
	"  --router-seed S      what the rows are drawn from, 0 to 4294967295 (default 0)\n"
	"  --layers LIST        layers that get experts, as 0,2,8-15 (default: all; other programs "
	"may\n"
	"                       not load a file in which some layers stay dense)\n"
	"  --order topk-softmax|softmax-topk\n"
	"                       softmax over the chosen experts (default), or over all of them, "
	"the\n"
	"                       chosen weights normalised\n"
	"  --help               show this and exit\n\n"
	"OUT appears when it is complete.  Exit status: 0 success, 1 failure, 2 wrong usage.\n";

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	(void)number;
	stopped = 1;
}

static void on_progress(void *arg, uint64_t done, uint64_t all)
{
	(void)arg;
	cmd_progress("writing", done, all);
}

static bool number(const char *s, char **end, uint64_t *ret)
{
	uint64_t v = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		v = v * 10 + (uint64_t)(*s - '0');
		if (v >= LIMIT_LAYERS)
			return false;
	}
	*end = (char *)s;
	*ret = v;
	return true;
}

/* "0,2,8-15" */
static bool parse_layers(const char *list, bool layers[LIMIT_LAYERS])
{
	for (;;) {
		uint64_t first, last;
		char *at;

		if (!number(list, &at, &first))
			return false;
		last = first;
		if (*at == '-' && !number(at + 1, &at, &last))
			return false;
		if (last < first)
			return false;
		for (uint64_t l = first; l <= last; l++)
			layers[l] = true;
		if (!*at)
			return true;
		if (*at != ',')
			return false;
		list = at + 1;
	}
}

enum {
	OPT_EXPERTS = 256,
	OPT_TOP_K,
	OPT_ROUTER,
	OPT_SEED,
	OPT_LAYERS,
	OPT_ORDER,
};

static int choice(const char *name, const char *value, const char *no, const char *yes, bool *ret)
{
	if (strcmp(value, no) != 0 && strcmp(value, yes) != 0)
		return cmd_usage(VERB, "--%s is '%s'; allowed are %s and %s", name, value, yes, no);
	*ret = !strcmp(value, yes);
	return CMD_OK;
}

static int take(struct upcycle *how, bool layers[LIMIT_LAYERS], int option, const char *value)
{
	uint64_t v = 0;

	switch (option) {
	case OPT_EXPERTS:
		if (num_parse_u64(value, 1, LIMIT_EXPERTS, &v) < 0)
			return cmd_usage(VERB, "--experts is '%s'; allowed are 1 to %u", value,
				LIMIT_EXPERTS);
		how->experts = (uint32_t)v;
		return CMD_OK;
	case OPT_TOP_K:
		if (num_parse_u64(value, 1, LIMIT_TOP_K, &v) < 0)
			return cmd_usage(
				VERB, "--top-k is '%s'; allowed are 1 to %u", value, LIMIT_TOP_K);
		how->top_k = (uint32_t)v;
		return CMD_OK;
	case OPT_SEED:
		if (num_parse_u64(value, 0, UINT32_MAX, &v) < 0)
			return cmd_usage(VERB, "--router-seed is '%s'; allowed are 0 to %" PRIu32,
				value, UINT32_MAX);
		how->seed = (uint32_t)v;
		return CMD_OK;
	case OPT_ROUTER:
		return choice("router", value, "random", "exact", &how->exact);
	case OPT_ORDER:
		return choice("order", value, "topk-softmax", "softmax-topk", &how->softmax_first);
	case OPT_LAYERS:
		if (!parse_layers(value, layers))
			return cmd_usage(VERB,
				"--layers is '%s'; expected are numbers and ranges as 0,2,8-15",
				value);
		how->layers = layers;
		how->n_layers = LIMIT_LAYERS;
		return CMD_OK;
	default:
		return cmd_usage(VERB, "wrong options");
	}
}

static int write_out(const char *dense, const char *out, struct upcycle *how)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct upcycle_result result = {0};
	struct error err = ERROR_NONE;
	char size[NUM_SIZE_TEXT_MAX];
	int r;

	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGHUP, &action, NULL);
	/* A limit on the size of files is an error to clean up after, as a full disk is. */
	(void)signal(SIGXFSZ, SIG_IGN);
	how->progress = on_progress;
	how->stop = &stopped;
	r = upcycle_write(&result, dense, out, how, &err);
	cmd_progress_end();
	if (r < 0)
		return cmd_failed(VERB, "%s", error_text(&err, r));
	(void)printf("%s: %s, %" PRIu32 " experts (top-%" PRIu32 ") in %" PRIu32 " of %" PRIu32
		     " layers, %s router, seed %" PRIu32 ".\n"
		     "%s  Its quality is that of the dense model until it is trained.\n",
		out, num_format_size(result.size, size), how->experts, how->top_k,
		result.moe_layers, result.layers, how->exact ? "exact" : "random", how->seed,
		how->exact ? "It answers bit for bit as the dense model does."
			   : "It answers as the dense model does, up to rounding.");
	return CMD_OK;
}

int cmd_upcycle(int argc, char **argv)
{
	static const struct option options[] = {
		{"experts", required_argument, NULL, OPT_EXPERTS},
		{"top-k", required_argument, NULL, OPT_TOP_K},
		{"router", required_argument, NULL, OPT_ROUTER},
		{"router-seed", required_argument, NULL, OPT_SEED},
		{"layers", required_argument, NULL, OPT_LAYERS},
		{"order", required_argument, NULL, OPT_ORDER},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static bool layers[LIMIT_LAYERS];
	struct upcycle how = {.exact = true};
	int option, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option == 'h') {
			(void)fputs(text, stdout);
			return CMD_OK;
		}
		if (option == '?' || option == ':')
			return cmd_bad_option(VERB, option, argv);
		status = take(&how, layers, option, optarg);
		if (status != CMD_OK)
			return status;
	}
	if (argc - optind != 2)
		return cmd_usage(VERB, "expected are two files: DENSE and OUT");
	if (!*argv[optind + 1])
		return cmd_usage(VERB, "OUT has no name");
	if (!how.experts || !how.top_k)
		return cmd_usage(VERB, "--experts and --top-k are needed");
	if (how.top_k > how.experts)
		return cmd_usage(VERB, "--top-k %" PRIu32 " is more than --experts %" PRIu32,
			how.top_k, how.experts);
	if (how.exact && (!num_is_pow2(how.top_k) || how.experts % how.top_k))
		return cmd_usage(VERB,
			"with --router exact, --top-k must be a power of two that divides "
			"--experts; else say --router random");
	return write_out(argv[optind], argv[optind + 1], &how);
}
