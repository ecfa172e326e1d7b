/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The configuration: one table of all options, and a YAML file read by it.  Anything that is not in
 * the table, twice there, of another type or out of range is refused with file, line and column.
 * Loop thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"
#include "log.h"

#define CONFIG_PATH_DEFAULT MOED_SYSCONFDIR "/moed/moed.yaml"
#define CONFIG_TEXT_MAX 4096u /* of one value */

enum config_type {
	CONFIG_TEXT,   /* char * */
	CONFIG_PATH,   /* char *, absolute */
	CONFIG_SIZE,   /* char *: "512M", "6G", "60%", or "auto" */
	CONFIG_BYTES,  /* uint64_t: "512M", "6G", or 0 */
	CONFIG_NUMBER, /* uint64_t */
	CONFIG_MODE,   /* uint64_t, octal */
	CONFIG_REAL,   /* double */
	CONFIG_CHOICE, /* uint64_t, index of the word */
};

/* When a change acts. */
enum config_when {
	CONFIG_LIVE,	/* on reload */
	CONFIG_RESTART, /* after a restart; named when a reload finds it changed */
};

struct config {
	char *model, *memory_limit, *socket, *socket_group, *state;
	uint64_t memory_lock, socket_mode, threads, pin, context, sessions, chunk, io, log;
	uint64_t upcycle_experts, upcycle_top_k, upcycle_router, upcycle_seed;
	uint64_t limit_connections, limit_requests, limit_sessions, limit_tokens;
	uint64_t drain_s, sessions_on_disk;
};

enum config_lock { CONFIG_LOCK_TRY, CONFIG_LOCK_REQUIRED };
enum config_io { CONFIG_IO_AUTO, CONFIG_IO_URING, CONFIG_IO_PREAD };
enum config_router { CONFIG_ROUTER_EXACT, CONFIG_ROUTER_RANDOM };

struct config_option {
	const char *name; /* "memory.limit" */
	enum config_type type;
	enum config_when when;
	size_t at; /* in struct config */
	double min, max;
	const char *words; /* of CONFIG_CHOICE, separated by '|' */
	const char *value; /* the default, as it would stand in the file */
	const char *help;
};

extern const struct config_option config_options[];
extern const size_t config_n_options;

/* All defaults.  0 or -ENOMEM. */
int config_init(struct config *c);
void config_deinit(struct config *c);

/*
 * Reads a file over what c holds.  0; -ENOENT where there is none; else -errno with *err naming
 * file, line, column, the key and what is allowed.  c is a mixture then.
 */
int config_read(struct config *c, const char *path, struct error *err);
/* The same from memory; `path` is for messages. */
int config_parse(
	struct config *c, const char *text, size_t size, const char *path, struct error *err);

/* What an option of the table takes, in words; returns text. */
const char *config_takes(const char *name, char *text, size_t size);

/* Sets one option from text (command line).  *err names what is allowed. */
int config_set(struct config *c, const char *name, const char *value, struct error *err);

/*
 * Takes the live options of `from` over; calls changed() for each option that differs.
 */
void config_reload(struct config *c, const struct config *from,
	void (*changed)(void *arg, const struct config_option *o), void *arg);

/* The option `log`, as base/log.h numbers it. */
enum log_level config_log_level(const struct config *c);

/* The commented default file. */
void config_print(FILE *f);
