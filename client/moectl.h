/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What moectl's verbs share: options, waiting for the daemon, JSON out.  Only moe.h is used of the
 * library.  Single-threaded; messages go to stderr here, since this is the program itself.
 */

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "moe.h"

#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_CANCELLED 130

/* A text of the command line, or the name of a file with it. */
struct source {
	const char *text;
	bool is_file;
};

struct options {
	const char *socket;
	bool json, raw, ids, busy, breakdown, all, svg;
	const char *system, *output;
	const char *text;	  /* NULL: none, "-": standard input */
	struct source sources[2]; /* of trace and experts */
	size_t n_sources;
	double interval;
	const char *stops[16];
	size_t n_stops;
	double temperature, top_p, min_p;
	uint64_t top_k, seed, max_tokens, prompt_tokens, clients, repeat, count, sequences, rounds,
		context, seconds;
};

struct answer {
	char *text;
	size_t length, room;
	json_t *ids;
	struct moe_event done; /* its figures */
};

/* Submits with the options of the command line and prints what comes.  An exit status. */
int answer_get(const struct options *o, struct moe *m, struct moe_session *s, struct moe_request *r,
	struct answer *a);
void answer_deinit(struct answer *a);

/* The figures of MOE_DONE: timing and cache.  NULL: out of memory. */
json_t *done_json(const struct moe_event *e);

/* A conversation on a terminal.  An exit status. */
int talk(const struct options *o, struct moe *m);

/* The verbs; each returns an exit status. */
int verb_status(const struct options *o);
int verb_prompt(const struct options *o);
int verb_score(const struct options *o);
int verb_bench(const struct options *o);
int verb_ping(const struct options *o);
int verb_admin(const struct options *o, unsigned verb);
int verb_trace(const struct options *o);
int verb_experts(const struct options *o);
int verb_top(const struct options *o);

/* Says why on stderr; returns EXIT_FAILED. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Connects and waits until the daemon is ready, showing how far it has loaded.  0 or a status. */
int daemon_open(const struct options *o, struct moe **ret, uint32_t *ret_vocabulary);

/* Says why moe_open() failed. */
int open_failed(int code);

/*
 * The next event, waiting as long as it takes.  1: *ret; 0: a Ctrl-C came (interrupts() tells how
 * many so far); negative: complained about.
 */
int daemon_next(struct moe *m, const struct moe_event **ret);
/* The same within so many milliseconds, 0 after that too; negative: no such end. */
int daemon_next_within(struct moe *m, int ms, const struct moe_event **ret);

/* The daemon's status, an object to be dropped by the caller.  0, or an exit status. */
int status_get(struct moe *m, json_t **ret);

/* The answer to moe_status() or moe_experts() as an object; to others just the exit status. */
int json_answer(struct moe *m, uint64_t request, json_t **ret);

/*
 * Sums up, over pairs of the status' "time" before and after, where the daemon's time went, in an
 * object that the caller begins empty.  0, or an exit status.
 */
int breakdown_add(json_t *sum, json_t *before, json_t *after);
/* The sum per token and in shares: as JSON (NULL: out of memory), as a table. */
json_t *breakdown_json(json_t *sum);
void breakdown_print(json_t *sum);
/* The status' "time" in a line. */
void breakdown_line(json_t *time);

/* From here on Ctrl-C is counted and ends nothing by itself. */
void interrupts_catch(void);
int interrupts(void);
void interrupts_reset(void);

/* Waits until standard input can be read; false: a signal came. */
bool input_wait(void);

/* All of standard input, or the text given; to be freed.  NULL: complained about. */
char *text_read(const struct options *o, size_t *ret_length);

/* The n-th of o->sources. */
char *source_read(const struct options *o, size_t n, size_t *ret_length);

/* To standard output; a terminal is shown no control characters. */
void text_print(const char *text, size_t n);

/* Flushes standard output.  An exit status. */
int output_end(void);

/* What is no JSON number becomes null. */
json_t *json_number(double v);

/* A JSON string of bytes; what is no UTF-8 becomes U+FFFD. */
json_t *json_text(const char *text, size_t length);

/* Prints it on a line, and drops the reference.  An exit status. */
int json_print(json_t *value);

double seconds(uint64_t ns);

/* The p-th percentile (0 to 100) of n > 0 numbers, which are sorted by this. */
double percentile(double *values, size_t n, double p);
