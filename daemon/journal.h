/* SPDX-License-Identifier: MIT */
#pragma once

/* Structured messages to the journal, where standard error is connected to it.  Any thread. */

#include <stdbool.h>

/* JOURNAL_STREAM names what standard error is. */
bool journal_is_connected(void);
/* From here on log_*() goes there. */
void journal_connect(void);
