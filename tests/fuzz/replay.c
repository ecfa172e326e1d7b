/* SPDX-License-Identifier: MIT */

/*
 * Runs the entry of a fuzzer over the files of folders, and over every file cut short and with each
 * of its first bytes changed: a test of what once was found, and a little more, without libFuzzer.
 */

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define CHANGED 4096u

static void run(const uint8_t *bytes, size_t n)
{
	/* Its own allocation, so that the sanitizer sees the end. */
	uint8_t *copy = malloc(n ? n : 1);

	if (!copy)
		abort();
	if (n)
		memcpy(copy, bytes, n);
	(void)LLVMFuzzerTestOneInput(copy, n);
	free(copy);
}

static void run_changed(uint8_t *bytes, size_t n)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};

	for (size_t i = 0; i < n && i < CHANGED; i++) {
		uint8_t old = bytes[i];

		bytes[i] = values[i % sizeof values];
		run(bytes, n);
		bytes[i] = old ^ (uint8_t)(1u << (i % 8));
		run(bytes, n);
		bytes[i] = old;
		run(bytes, i);
	}
}

static int run_file(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *f = fopen(path, "r");
	size_t n;

	if (!f)
		return -errno;
	n = fread(bytes, 1, sizeof bytes, f);
	(void)fclose(f);
	run(bytes, n);
	run_changed(bytes, n);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned files = 0;

	for (int i = 1; i < argc; i++) {
		DIR *folder = opendir(argv[i]);
		struct dirent *e;

		while (folder && (e = readdir(folder))) {
			char path[4096];

			if (e->d_name[0] == '.')
				continue;
			(void)snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
			if (run_file(path) < 0) {
				(void)fprintf(stderr, "cannot read %s\n", path);
				return 1;
			}
			files++;
		}
		if (folder)
			(void)closedir(folder);
	}
	(void)printf("%u files\n", files);
	return files ? 0 : 1;
}
