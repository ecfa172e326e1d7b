/* SPDX-License-Identifier: MIT */
#pragma once

/* Who may do what: the one table.  Pure. */

#include <stdbool.h>

enum privilege_verb {
	PRIVILEGE_PROMPT,
	PRIVILEGE_STATUS,
	PRIVILEGE_OTHERS, /* figures of other users */
	PRIVILEGE_RELOAD,
	PRIVILEGE_DRAIN,
	PRIVILEGE_FORGET, /* own sessions */
	PRIVILEGE_TRACE,  /* what routers choose for all requests; for own ones: PROMPT */
	PRIVILEGE_VERBS,
};

enum privilege_role {
	PRIVILEGE_USER = 1 << 0,  /* whoever the socket lets in */
	PRIVILEGE_ADMIN = 1 << 1, /* root, the daemon's own user, the group moed-admin */
};

const char *privilege_name(enum privilege_verb verb);
bool privilege_may(enum privilege_verb verb, bool admin);
