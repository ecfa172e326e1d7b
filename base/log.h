/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What programs tell the administrator.  Only programs log (daemon/, tools); libraries return
 * errors. One line to stderr, or wherever the sink of the program sends it (daemon: the journal).
 * Any thread; the level and the sink are set at start-up or by the main thread.
 *
 * The text of prompts and answers never comes here.
 */

#include <stdarg.h>
#include <stddef.h>

/* As syslog numbers them. */
enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

#define LOG_TEXT_MAX 1280
#define LOG_FIELDS_MAX 8

/* A structured field; the name in capitals, as the journal wants it. */
struct log_field {
	const char *name;
	const char *value;
};

/* Takes one message with its fields. */
typedef void (*log_sink_fn)(
	enum log_level level, const char *text, const struct log_field *fields, size_t n_fields);

/* Prefix of lines on stderr; static storage. */
void log_set_program(const char *name);
/* Messages above this level are dropped (LOG_LEVEL_INFO at first). */
void log_set_level(enum log_level level);
/* NULL: stderr. */
void log_set_sink(log_sink_fn sink);

void log_fields(enum log_level level, const struct log_field *fields, size_t n_fields,
	const char *format, ...) __attribute__((format(printf, 4, 5)));

#define log_error(...) log_fields(LOG_LEVEL_ERROR, NULL, 0, __VA_ARGS__)
#define log_warning(...) log_fields(LOG_LEVEL_WARNING, NULL, 0, __VA_ARGS__)
#define log_notice(...) log_fields(LOG_LEVEL_NOTICE, NULL, 0, __VA_ARGS__)
#define log_info(...) log_fields(LOG_LEVEL_INFO, NULL, 0, __VA_ARGS__)
#define log_debug(...) log_fields(LOG_LEVEL_DEBUG, NULL, 0, __VA_ARGS__)
