/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "num.h"

static const char *log_program = "moed";
static _Atomic(int) log_level_max = LOG_LEVEL_INFO;
static log_sink_fn log_sink;

void log_set_program(const char *name)
{
	log_program = name;
}

void log_set_level(enum log_level level)
{
	atomic_store(&log_level_max, (int)level);
}

void log_set_sink(log_sink_fn sink)
{
	log_sink = sink;
}

/* File names and model strings may hold control characters: never to a terminal or the journal. */
static void log_clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; ++p)
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
}

static void log_stderr(enum log_level level, const char *text)
{
	static const char *const words[] = {
		[LOG_LEVEL_ERROR] = "error: ",
		[LOG_LEVEL_WARNING] = "warning: ",
		[LOG_LEVEL_DEBUG] = "debug: ",
	};
	const char *word = (size_t)level < ARRAY_SIZE(words) && words[level] ? words[level] : "";
	char line[LOG_TEXT_MAX + 64];
	int n = snprintf(line, sizeof line, "%s: %s%s\n", log_program, word, text);

	/* One write, so that lines of two threads do not mix. */
	if (n > 0)
		(void)fd_write_all(STDERR_FILENO, line, num_min((size_t)n, sizeof line - 1));
}

void log_fields(enum log_level level, const struct log_field *fields, size_t n_fields,
	const char *format, ...)
{
	char text[LOG_TEXT_MAX];
	int keep = errno;
	va_list ap;

	if ((int)level > atomic_load_explicit(&log_level_max, memory_order_relaxed))
		return;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	log_clean(text);
	if (log_sink)
		log_sink(level, text, fields, num_min(n_fields, (size_t)LOG_FIELDS_MAX));
	else
		log_stderr(level, text);
	errno = keep;
}
