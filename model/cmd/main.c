/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "cmd.h"
#include "config.h"
#include "limit.h"
#include "num.h"

struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
};

/* Sorted by name. */
static const struct verb verbs[] = {
	{"check", cmd_check, "read all of a model file and name its faults"},
	{"detokenize", cmd_detokenize, "turn ids on standard input into text"},
	{"eval", cmd_eval, "print logits, routes and greedy tokens of prompts"},
	{"inspect", cmd_inspect, "say what a model file is, and whether it can be run"},
	{"plan", cmd_plan, "show how a memory limit would be divided"},
	{"tokenize", cmd_tokenize, "turn text on standard input into ids"},
	{"upcycle", cmd_upcycle, "write a dense model as a Mixture-of-Experts one"},
	{NULL, NULL, NULL},
};

static void help(FILE *f)
{
	(void)fputs("Usage: moe-model VERB [ARGUMENT...]\n"
		    "       moe-model VERB --help\n"
		    "Work on model files, without a running daemon.\n\nVerbs:\n",
		f);
	for (const struct verb *v = verbs; v->name; v++)
		(void)fprintf(f, "  %-12s %s\n", v->name, v->help);
	(void)fputs("\nOptions:\n"
		    "  --help       show this and exit\n"
		    "  --version    show the version and exit\n"
		    "\nExit status: 0 success, 1 failure, 2 wrong usage.\n",
		f);
}

static int say(int status, const char *verb, const char *format, va_list args)
{
	cmd_progress_end();
	(void)fprintf(stderr, "moe-model%s%s: ", verb ? " " : "", verb ? verb : "");
	(void)vfprintf(stderr, format, args);
	(void)fputc('\n', stderr);
	if (status == CMD_USAGE)
		(void)fprintf(
			stderr, "Try 'moe-model%s%s --help'.\n", verb ? " " : "", verb ? verb : "");
	return status;
}

int cmd_usage(const char *verb, const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = say(CMD_USAGE, verb, format, args);
	va_end(args);
	return r;
}

int cmd_failed(const char *verb, const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = say(CMD_FAILED, verb, format, args);
	va_end(args);
	return r;
}

int cmd_bad_option(const char *verb, int answer, char **argv)
{
	const char *last = argv[optind - 1];

	if (answer == ':')
		return cmd_usage(verb, "option '%s' needs a value", last);
	/* A letter within "-xy" is told by optopt alone. */
	if (strncmp(last, "--", 2) != 0 && optopt)
		return cmd_usage(verb, "unknown option '-%c'", optopt);
	return cmd_usage(verb, "unknown option '%s'", last);
}

uint32_t cmd_cpus(void)
{
	cpu_set_t set;
	uint32_t n = 1;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		n = num_max((uint32_t)CPU_COUNT(&set), 1u);
	return num_min(n, LIMIT_THREADS);
}

static bool progress_shown;

void cmd_progress(const char *what, uint64_t done, uint64_t all)
{
	enum { WIDTH = 30 };
	static uint64_t last;
	uint64_t now = clock_now();
	unsigned percent = all ? (unsigned)((double)done / (double)all * 100.0) : 100;
	unsigned full = percent * WIDTH / 100;

	if (!isatty(STDERR_FILENO) || (progress_shown && now - last < 100 * CLOCK_NS_PER_MS))
		return;
	last = now;
	progress_shown = true;
	(void)fprintf(stderr, "\r%s [%.*s%*s] %3u %%", what, (int)num_min(full, (unsigned)WIDTH),
		"##############################", (int)(WIDTH - num_min(full, (unsigned)WIDTH)), "",
		percent);
	(void)fflush(stderr);
}

void cmd_progress_end(void)
{
	if (progress_shown)
		(void)fputs("\r\033[K", stderr);
	progress_shown = false;
}

/* What could not be written (a full disk) is a failure, not a short success. */
static int finish(const char *verb, int status)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return cmd_failed(verb, "cannot write the output: %m");
	return status;
}

static int version(void)
{
	(void)puts("moe-model " MOED_VERSION);
	return finish(NULL, CMD_OK);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return cmd_usage(NULL, "no verb given");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help(stdout);
		return finish(NULL, CMD_OK);
	}
	if (!strcmp(argv[1], "--version"))
		return version();
	for (const struct verb *v = verbs; v->name; v++) {
		if (strcmp(v->name, argv[1]) != 0)
			continue;
		if (argc == 3 && !strcmp(argv[2], "--version"))
			return version();
		return finish(v->name, v->run(argc - 1, argv + 1));
	}
	return cmd_usage(NULL, "unknown %s '%s'", *argv[1] == '-' ? "option" : "verb", argv[1]);
}
