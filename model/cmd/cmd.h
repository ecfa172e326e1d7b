/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The verbs of moe-model.  Each gets its own arguments (argv[0] is the verb) and returns the exit
 * status: CMD_OK, CMD_FAILED with a sentence on stderr, or CMD_USAGE.  One thread.
 */

#include <stdint.h>

enum {
	CMD_OK = 0,
	CMD_FAILED = 1,
	CMD_USAGE = 2,
};

/* Sorted. */
int cmd_check(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_upcycle(int argc, char **argv);

/* Says "moe-model VERB: ..." and how to get help; returns CMD_USAGE. */
int cmd_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Says "moe-model VERB: ..."; returns CMD_FAILED. */
int cmd_failed(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * For the answers '?' and ':' of getopt_long() (an option string that starts with ':', opterr 0):
 * says which option is unknown or lacks its value; returns CMD_USAGE.
 */
int cmd_bad_option(const char *verb, int answer, char **argv);

/* CPUs that this process may use: threads where nobody says how many, as moed counts them. */
uint32_t cmd_cpus(void);

/* A line of progress on stderr, where that is a terminal; at most some ten a second. */
void cmd_progress(const char *what, uint64_t done, uint64_t all);
/* Wipes the line. */
void cmd_progress_end(void);
