/* SPDX-License-Identifier: MIT */

/* moectl: the command line.  Which options there are is in one table. */

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "moectl.h"
#include "num.h"

enum verb {
	STATUS = 1 << 0,
	PROMPT = 1 << 1,
	SCORE = 1 << 2,
	BENCH = 1 << 3,
	PING = 1 << 4,
	RELOAD = 1 << 5,
	DRAIN = 1 << 6,
	TOP = 1 << 7,
	EXPERTS = 1 << 8,
	TRACE = 1 << 9,
};

static const struct verb_info {
	const char *name;
	enum verb verb;
	bool text;
	const char *usage, *about;
} verbs[] = {
	{"status", STATUS, false, "status [--json]",
		"show what the daemon does with its memory and time"},
	{"prompt", PROMPT, true, "prompt [OPTION]... [TEXT | -]",
		"answer TEXT, or standard input; without TEXT on a terminal: a conversation"},
	{"score", SCORE, true, "score [--json] [--ids] TEXT | -",
		"log-probability of every token of a text, total and perplexity"},
	{"bench", BENCH, false, "bench [OPTION]...",
		"measure prefill, decode and first-token time"},
	{"top", TOP, false, "top [--interval S] [--count N] [--json]",
		"watch the daemon: rates, hit rate, disk, memory, sessions"},
	{"experts", EXPERTS, false, "experts [OPTION]...",
		"how often each expert is used, and which a text uses"},
	{"trace", TRACE, true, "trace [OPTION]... [TEXT | -]",
		"what the routers choose for every token, as CSV"},
	{"ping", PING, false, "ping [--json] [--count N] [--busy]",
		"round trip through the shared memory"},
	{"reload", RELOAD, false, "reload",
		"let the daemon read its configuration again (administrators)"},
	{"drain", DRAIN, false, "drain",
		"let the daemon finish what it does and end (administrators)"},
};

static const struct option_info {
	const char *name, *argument;
	unsigned verbs;
	const char *about;
	char letter; /* 0: none */
} option_table[] = {
	{"json", NULL, STATUS | PROMPT | SCORE | BENCH | PING | EXPERTS, "print one JSON object"},
	{"json", NULL, TOP, "one JSON object a line"},
	{"interval", "S", TOP, "seconds between two looks, 0.1 to 3600; default 1"},
	{"count", "N", TOP, "end after N looks; default: never"},
	{"text", "TEXT", EXPERTS, "of this text alone; given twice, both and what they share"},
	{"text-file", "FILE", EXPERTS, "the same, of a file (-: standard input)"},
	{"svg", NULL, EXPERTS, "a picture (SVG)"},
	{"prompt", "TEXT", TRACE, "the same as TEXT"},
	{"file", "FILE", TRACE, "the prompt is in a file (-: standard input)"},
	{"raw", NULL, TRACE, "give TEXT to the model as it is, without its chat template"},
	{"tokens", "N", TRACE,
		"N tokens of the answer, past its end; default: to its end, at most 128", 'n'},
	{"all", NULL, TRACE, "the tokens of all users, until Ctrl-C (administrators)"},
	{"seconds", "N", TRACE, "with --all: end after N seconds"},
	{"output", "FILE", TRACE | EXPERTS, "write there, not to standard output", 'o'},
	{"system", "TEXT", PROMPT, "a system turn before the conversation"},
	{"raw", NULL, PROMPT, "give TEXT to the model as it is, without its chat template"},
	{"temperature", "T", PROMPT, "0 to 100; 0 (default): always the likeliest token"},
	{"top-k", "K", PROMPT, "only the K likeliest tokens; 0 (default): off"},
	{"top-p", "P", PROMPT,
		"above 0, to 1: the likeliest tokens that make up P; 1 (default): off"},
	{"min-p", "P", PROMPT,
		"0 to 1: tokens at least P times as likely as the likeliest; 0 (default): off"},
	{"seed", "N", PROMPT, "the same seed, the same answer; default 0"},
	{"max-tokens", "N", PROMPT | BENCH,
		"at most N tokens; prompt: 0 (default): to the end of the context; bench: 64"},
	{"stop", "TEXT", PROMPT, "end the answer before TEXT; up to 16 times"},
	{"ids", NULL, SCORE, "TEXT is token ids, parted by blanks or commas"},
	{"tokens", "N", BENCH, "the same as --max-tokens"},
	{"prompt-tokens", "N", BENCH, "length of the prompt; default 128"},
	{"context", "N", BENCH,
		"N tokens before the prompt, computed before the clock starts; default 0"},
	{"clients", "C", BENCH, "C connections at once; default 1"},
	{"sequences", "S", BENCH, "S requests at once on each connection; default 1"},
	{"repeat", "R", BENCH, "R requests of each, one after another; default 1"},
	{"rounds", "N", BENCH, "all that N times: medians, least and most; default 1"},
	{"seed", "N", BENCH, "the same seed, the same prompts; 0 (default): others each time"},
	{"breakdown", NULL, BENCH, "where the daemon's time goes, per token"},
	{"count", "N", PING, "N round trips; default 1000"},
	{"busy", NULL, PING, "both sides spin instead of sleeping"},
};

static void help_options(unsigned mask)
{
	for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
		const struct option_info *o = &option_table[i];
		char name[40], letter[8];

		if (!(o->verbs & mask))
			continue;
		(void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
		(void)snprintf(name, sizeof(name), "%s--%s%s%s", o->letter ? letter : "", o->name,
			o->argument ? " " : "", o->argument ? o->argument : "");
		(void)printf("  %-22s %s\n", name, o->about);
	}
	(void)printf("  %-22s %s\n", "--help", "this text");
	(void)printf("  %-22s %s\n", "--version", "the version");
}

static int help(const struct verb_info *v)
{
	if (v) {
		(void)printf("Usage: moectl [--socket PATH] %s\n\n%s.\n\n", v->usage, v->about);
		help_options(v->verb);
		return EXIT_OK;
	}
	(void)printf(
		"Usage: moectl [--socket PATH] VERB [OPTION]...\n\n"
		"Talks to moed, the daemon that keeps one Mixture-of-Experts model ready.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		(void)printf("  %-10s %s\n", verbs[i].name, verbs[i].about);
	(void)printf(
		"\n  --socket PATH  the daemon's socket; default $MOED_SOCKET, else "
		"/run/moed/moed.sock\n  --help         this text, or that of a verb\n"
		"  --version      the version\n\nExit status: 0 done, 1 failed, 2 wrong usage, "
		"130 cancelled with Ctrl-C.\n");
	return EXIT_OK;
}

static int version(void)
{
	(void)printf("moectl %s\n", MOED_VERSION);
	return EXIT_OK;
}

__attribute__((format(printf, 1, 2))) static int usage(const char *format, ...)
{
	va_list args;

	(void)fputs("moectl: ", stderr);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputs("; see moectl --help\n", stderr);
	return EXIT_USAGE;
}

static int set_u64(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	if (num_parse_u64(text, min, max, ret) == 0)
		return 0;
	(void)fprintf(stderr, "moectl: --%s must be a whole number from %llu to %llu, not '%s'\n",
		name, (unsigned long long)min, (unsigned long long)max, text);
	return EXIT_USAGE;
}

static int set_double(const char *name, const char *text, double min, double max, double *ret)
{
	if (num_parse_double(text, min, max, ret) == 0)
		return 0;
	(void)fprintf(stderr, "moectl: --%s must be a number from %g to %g, not '%s'\n", name, min,
		max, text);
	return EXIT_USAGE;
}

static int source_add(struct options *o, const char *text, bool is_file)
{
	if (o->n_sources == ARRAY_SIZE(o->sources))
		return usage("there are more than two texts");
	o->sources[o->n_sources++] = (struct source){text, is_file};
	return 0;
}

static int option_take(struct options *o, const char *name, const char *value)
{
	static const struct {
		const char *name;
		size_t at;
		uint64_t min, max;
	} numbers[] = {
		{"top-k", offsetof(struct options, top_k), 0, UINT32_MAX},
		{"seed", offsetof(struct options, seed), 0, UINT64_MAX},
		{"max-tokens", offsetof(struct options, max_tokens), 0, UINT32_MAX},
		{"tokens", offsetof(struct options, max_tokens), 1, UINT32_MAX},
		{"prompt-tokens", offsetof(struct options, prompt_tokens), 1, 1 << 20},
		{"clients", offsetof(struct options, clients), 1, 256},
		{"repeat", offsetof(struct options, repeat), 1, 1000000},
		{"sequences", offsetof(struct options, sequences), 1, 256},
		{"rounds", offsetof(struct options, rounds), 1, 1000},
		{"context", offsetof(struct options, context), 0, 1 << 24},
		{"seconds", offsetof(struct options, seconds), 1, 1000000},
		{"count", offsetof(struct options, count), 1, 10000000},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (strcmp(name, numbers[i].name) == 0)
			return set_u64(name, value, numbers[i].min, numbers[i].max,
				(uint64_t *)(void *)((char *)o + numbers[i].at));
	}
	if (strcmp(name, "temperature") == 0)
		return set_double(name, value, 0, 100, &o->temperature);
	if (strcmp(name, "top-p") == 0) {
		if (set_double(name, value, 0, 1, &o->top_p))
			return EXIT_USAGE;
		return o->top_p > 0 ? 0 : usage("--%s must be above 0", name);
	}
	if (strcmp(name, "min-p") == 0)
		return set_double(name, value, 0, 1, &o->min_p);
	if (strcmp(name, "stop") == 0) {
		if (o->n_stops == ARRAY_SIZE(o->stops))
			return usage("--%s may be given 16 times", name);
		if (!*value || strlen(value) > 256)
			return usage("--%s needs a text of 1 to 256 bytes", name);
		o->stops[o->n_stops++] = value;
		return 0;
	}
	if (strcmp(name, "interval") == 0)
		return set_double(name, value, 0.1, 3600, &o->interval);
	if (strcmp(name, "text") == 0 || strcmp(name, "prompt") == 0)
		return source_add(o, value, false);
	if (strcmp(name, "text-file") == 0 || strcmp(name, "file") == 0)
		return source_add(o, value, true);
	if (strcmp(name, "system") == 0)
		o->system = value;
	if (strcmp(name, "output") == 0)
		o->output = value;
	o->all |= strcmp(name, "all") == 0;
	o->svg |= strcmp(name, "svg") == 0;
	o->json |= strcmp(name, "json") == 0;
	o->raw |= strcmp(name, "raw") == 0;
	o->ids |= strcmp(name, "ids") == 0;
	o->busy |= strcmp(name, "busy") == 0;
	o->breakdown |= strcmp(name, "breakdown") == 0;
	return 0;
}

static int verb_run(const struct verb_info *v, const struct options *o)
{
	switch (v->verb) {
	case STATUS:
		return verb_status(o);
	case PROMPT:
		return verb_prompt(o);
	case SCORE:
		return verb_score(o);
	case BENCH:
		return verb_bench(o);
	case TOP:
		return verb_top(o);
	case EXPERTS:
		return verb_experts(o);
	case TRACE:
		return verb_trace(o);
	case PING:
		return verb_ping(o);
	case RELOAD:
		return verb_admin(o, MOE_ADMIN_RELOAD);
	case DRAIN:
		return verb_admin(o, MOE_ADMIN_DRAIN);
	}
	return EXIT_USAGE;
}

/* The option with this letter in a verb, or -1. */
static int letter_find(unsigned mask, int letter)
{
	for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
		if (option_table[i].verbs & mask && option_table[i].letter == letter)
			return (int)i;
	}
	return -1;
}

/* getopt's table for a verb (NULL: before the verb), from ours; val is an index + 256. */
static void options_for(unsigned mask, struct option *ret)
{
	size_t n = 0;

	ret[n++] = (struct option){"help", no_argument, NULL, 'h'};
	ret[n++] = (struct option){"version", no_argument, NULL, 'v'};
	ret[n++] = (struct option){"socket", required_argument, NULL, 's'};
	for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
		const struct option_info *o = &option_table[i];

		if (o->verbs & mask)
			ret[n++] = (struct option){o->name,
				o->argument ? required_argument : no_argument, NULL, 256 + (int)i};
	}
	ret[n] = (struct option){0};
}

/* -1: go on with the verb; else an exit status. */
static int options_parse(int argc, char **argv, const struct verb_info *v, struct options *o)
{
	struct option table[ARRAY_SIZE(option_table) + 4];
	char letters[8] = "+";
	int c;

	if (v) {
		letters[0] = 0;
		for (const char *l = "no"; *l; l++) {
			if (letter_find(v->verb, *l) >= 0)
				(void)snprintf(letters + strlen(letters), 3, "%c:", *l);
		}
	}
	options_for(v ? v->verb : 0, table);
	optind = 0; /* from the start, with the order of this table */
	while ((c = getopt_long(argc, argv, letters, table, NULL)) != -1) {
		switch (c) {
		case 'h':
			return help(v);
		case 'v':
			return version();
		case 's':
			o->socket = optarg;
			break;
		case '?':
			/* getopt has said what. */
			(void)fprintf(stderr, "moectl: see moectl %s%s--help\n", v ? v->name : "",
				v ? " " : "");
			return EXIT_USAGE;
		default:
			if (c < 256)
				c = 256 + letter_find(v->verb, c);
			if (option_take(o, option_table[c - 256].name, optarg))
				return EXIT_USAGE;
		}
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct options o = {.top_p = 1,
		.prompt_tokens = 128,
		.clients = 1,
		.sequences = 1,
		.repeat = 1,
		.rounds = 1,
		.count = 1000,
		.interval = 1};
	const struct verb_info *v = NULL;
	static char name[] = "moectl"; /* for getopt's messages */
	int k;

	if (argc < 1)
		return EXIT_USAGE;
	argv[0] = name;
	k = options_parse(argc, argv, NULL, &o);
	if (k >= 0)
		return k;
	if (optind == argc)
		return usage("a verb is missing");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		v = strcmp(argv[optind], verbs[i].name) == 0 ? &verbs[i] : v;
	if (!v)
		return usage("unknown verb '%s'", argv[optind]);
	argv[optind] = argv[0];
	argc -= optind;
	argv += optind;
	if (v->verb == BENCH)
		o.max_tokens = 64;
	if (v->verb == TOP)
		o.count = 0;
	k = options_parse(argc, argv, v, &o);
	if (k >= 0)
		return k;
	if (v->text && optind < argc)
		o.text = argv[optind++];
	if (v->verb == TRACE && o.text && source_add(&o, o.text, false))
		return EXIT_USAGE;
	if (optind < argc)
		return usage("'%s' is one argument too many for %s (quote the text)", argv[optind],
			v->name);
	if (v->verb == SCORE && !o.text)
		return usage("%s needs TEXT, or - for standard input", v->name);
	if (v->verb == BENCH && !o.max_tokens)
		return usage("--max-tokens must be at least 1 for bench");
	if (o.raw && o.system)
		return usage("--raw and --system exclude each other");
	return verb_run(v, &o);
}
