/* SPDX-License-Identifier: MIT */
#include "journal.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Without this the library would add the place of this file to each message. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "log.h"

#define JOURNAL_FIELD_MAX 256u

bool journal_is_connected(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char mine[64];
	struct stat st;

	/* "device:inode"; inherited by children whose standard error is something else. */
	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	(void)snprintf(mine, sizeof mine, "%" PRIu64 ":%" PRIu64, (uint64_t)st.st_dev,
		(uint64_t)st.st_ino);
	return !strcmp(stream, mine);
}

static void journal_sink(
	enum log_level level, const char *text, const struct log_field *fields, size_t n_fields)
{
	char message[LOG_TEXT_MAX + 16], priority[32], buffers[LOG_FIELDS_MAX][JOURNAL_FIELD_MAX];
	struct iovec v[LOG_FIELDS_MAX + 3];
	int n = 0;

	(void)snprintf(message, sizeof message, "MESSAGE=%s", text);
	(void)snprintf(priority, sizeof priority, "PRIORITY=%d", (int)level);
	v[n++] = (struct iovec){message, strlen(message)};
	v[n++] = (struct iovec){priority, strlen(priority)};
	v[n++] = (struct iovec){
		(char *)"SYSLOG_IDENTIFIER=moed", sizeof "SYSLOG_IDENTIFIER=moed" - 1};
	for (size_t i = 0; i < n_fields; ++i) {
		(void)snprintf(
			buffers[i], sizeof buffers[i], "%s=%s", fields[i].name, fields[i].value);
		v[n++] = (struct iovec){buffers[i], strlen(buffers[i])};
	}
	/* The journal may be away: nobody waits for it, and standard error is the journal too. */
	if (sd_journal_sendv(v, n) < 0)
		(void)dprintf(STDERR_FILENO, "<%d>%s\n", (int)level, text);
}

void journal_connect(void)
{
	log_set_sink(journal_sink);
}
