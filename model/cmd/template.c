/* SPDX-License-Identifier: MIT */

/* What chat template a file has, in a word. */

#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "num.h"

const char *cmd_template(const struct gguf *g, char buf[128])
{
	struct gguf_string s = {"", 0};
	const char *kind = "other";

	(void)gguf_get_string(g, "tokenizer.chat_template", &s, NULL);
	if (!s.size)
		return "none";
	if (memmem(s.data, s.size, "<|im_start|>", 12))
		kind = "chatml";
	else if (memmem(s.data, s.size, "[INST]", 6))
		kind = "mixtral";
	(void)snprintf(buf, 128, "%s", kind);
	return buf;
}
