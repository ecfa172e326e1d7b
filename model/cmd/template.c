/* SPDX-License-Identifier: MIT */

/* What chat template a file has, in a word. */

#include <stdio.h>
#include <string.h>

#include "chat.h"
#include "cmd.h"

const char *cmd_template(const struct gguf *g, char buf[128])
{
	struct chat *c;
	const char *name;

	if (chat_new(&c, g, NULL, NULL) < 0)
		return "none";
	name = chat_name(c);
	(void)snprintf(buf, 128, "%s", strcmp(name, "unsupported") != 0 ? name : "other");
	chat_free(c);
	return buf;
}
