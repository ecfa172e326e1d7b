/* SPDX-License-Identifier: MIT */

/* Writes the seeds of the corpora into a folder: sound small files for the fuzzers to start from.
 */

#include <stdio.h>
#include <string.h>

#include "maker.h"

static int write_seed(
	const char *folder, const char *name, const struct maker_model *model, uint32_t more)
{
	static const char *const words[] = {"a", "b", "ab"};
	char path[4096];
	struct maker m;
	FILE *f;
	size_t n;

	maker_init(&m);
	maker_model_keys(&m, model);
	maker_key_strings(&m, "tokenizer.ggml.tokens", words, 3);
	maker_key_string(&m, "tokenizer.ggml.model", "gpt2");
	maker_model_tensors(&m, model);
	n = m.n;
	maker_finish(&m);
	n = (n + 31) / 32 * 32; /* the header: the data is claimed, not written */
	more += (uint32_t)m.data;
	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	f = fopen(path, "w");
	if (!f)
		return -1;
	if (fwrite(&more, sizeof more, 1, f) != 1 || fwrite(m.bytes, 1, n, f) != n) {
		(void)fclose(f);
		return -1;
	}
	maker_deinit(&m);
	return fclose(f);
}

int main(int argc, char **argv)
{
	struct maker_model model = MAKER_MODEL;
	int r;

	if (argc != 2)
		return 2;
	model.layers = 1;
	model.vocabulary = 3; /* as many as there are words */
	r = write_seed(argv[1], "mixtral", &model, 0);
	model.dense = true;
	r |= write_seed(argv[1], "llama", &model, 0);
	model.dense = false;
	model.arch = "qwen3moe";
	model.qk_norm = true;
	r |= write_seed(argv[1], "qwen3moe", &model, 7);
	model.arch = "olmoe";
	model.qk_norm = false;
	model.qk_whole = true;
	r |= write_seed(argv[1], "olmoe", &model, 0);
	return r ? 1 : 0;
}
