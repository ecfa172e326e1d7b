/* SPDX-License-Identifier: MIT */
#include "privilege.h"

static const struct {
	const char *name;
	unsigned roles;
} privilege_table[PRIVILEGE_VERBS] = {
	[PRIVILEGE_PROMPT] = {"prompt", PRIVILEGE_USER | PRIVILEGE_ADMIN},
	[PRIVILEGE_STATUS] = {"status", PRIVILEGE_USER | PRIVILEGE_ADMIN},
	[PRIVILEGE_OTHERS] = {"others", PRIVILEGE_ADMIN},
	[PRIVILEGE_RELOAD] = {"reload", PRIVILEGE_ADMIN},
	[PRIVILEGE_DRAIN] = {"drain", PRIVILEGE_ADMIN},
	[PRIVILEGE_TRACE] = {"trace", PRIVILEGE_ADMIN},
	[PRIVILEGE_FORGET] = {"forget", PRIVILEGE_USER | PRIVILEGE_ADMIN},
};

const char *privilege_name(enum privilege_verb verb)
{
	return privilege_table[verb].name;
}

bool privilege_may(enum privilege_verb verb, bool admin)
{
	return privilege_table[verb].roles & (admin ? PRIVILEGE_ADMIN : PRIVILEGE_USER);
}
