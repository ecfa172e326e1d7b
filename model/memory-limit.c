/* SPDX-License-Identifier: MIT */
#include "memory-limit.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "fd.h"
#include "num.h"

#define FILE_MAX ((size_t)1 << 20)

/* "Name:   123 kB" of proc/meminfo, in bytes. */
static int meminfo(const char *text, const char *name, uint64_t *ret)
{
	const char *at = strstr(text, name);
	uint64_t v = 0;

	if (!at)
		return -ENODATA;
	at += strlen(name);
	while (*at == ' ' || *at == '\t')
		at++;
	if (*at < '0' || *at > '9')
		return -ENODATA;
	for (; *at >= '0' && *at <= '9'; at++)
		if (!num_mul(v, 10, &v) || !num_add(v, (uint64_t)(*at - '0'), &v))
			return -ERANGE;
	return num_mul(v, 1024, ret) ? 0 : -ERANGE;
}

static int read_meminfo(const char *root, uint64_t *total, uint64_t *available, struct error *err)
{
	cleanup_free_ char *text = NULL;
	char path[PATH_MAX];
	int r;

	(void)snprintf(path, sizeof path, "%s/proc/meminfo", root);
	r = fd_read_file(path, FILE_MAX, &text, NULL);
	if (r >= 0)
		r = meminfo(text, "MemTotal:", total);
	if (r >= 0)
		r = meminfo(text, "MemAvailable:", available);
	return r < 0 ? error_errno(err, r, "cannot read the memory of the machine from '%s'", path)
		     : 0;
}

/* Lowers *ret to the limit in a file, if there is one; "max" and absent files set none. */
static void lower(struct memory_limit *ret, const char *folder, const char *file)
{
	cleanup_free_ char *text = NULL;
	char path[PATH_MAX];
	uint64_t v;
	int n = snprintf(path, sizeof path, "%s/%s", folder, file);

	if (n < 0 || (size_t)n >= sizeof path || fd_read_file(path, FILE_MAX, &text, NULL) < 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	if (num_parse_u64(text, 0, UINT64_MAX, &v) < 0 || v >= ret->bytes)
		return;
	ret->bytes = v;
	ret->source = MEMORY_LIMIT_CGROUP;
	(void)snprintf(ret->path, sizeof ret->path, "%.*s", (int)sizeof ret->path - 1, path);
}

/* The group `name` below the mount point and all its ancestors, the mount point too. */
static void lower_to_ancestors(
	struct memory_limit *ret, const char *mount, const char *name, const char *file)
{
	char folder[PATH_MAX];
	size_t least = strlen(mount);
	int n = snprintf(folder, sizeof folder, "%s%s", mount, strcmp(name, "/") ? name : "");
	char *slash;

	if (n < 0 || (size_t)n >= sizeof folder)
		return;
	for (;;) {
		lower(ret, folder, file);
		slash = strrchr(folder, '/');
		if (!slash || (size_t)(slash - folder) < least)
			return;
		*slash = '\0';
	}
}

static bool has_word(const char *list, size_t n, const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i + len <= n; i++)
		if (!memcmp(list + i, word, len) && (i == 0 || list[i - 1] == ',') &&
			(i + len == n || list[i + len] == ','))
			return true;
	return false;
}

/*
 * Where a hierarchy is mounted, and which group its root shows (not "/" inside a container that has
 * no cgroup namespace).  v1: the one with the controller "memory".  False where there is none.
 */
static bool find_mount(const char *mountinfo, bool v2, char mount[PATH_MAX], char top[PATH_MAX])
{
	const char *line = mountinfo;

	while (line && *line) {
		char root[PATH_MAX], point[PATH_MAX], options[PATH_MAX], type[64];
		const char *end = strchr(line, '\n'), *rest = strstr(line, " - ");

		if (rest && (!end || rest < end) &&
			sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) == 2 &&
			sscanf(rest, " - %63s %*s %4095s", type, options) == 2 &&
			(v2 ? !strcmp(type, "cgroup2")
			    : !strcmp(type, "cgroup") &&
						has_word(options, strlen(options), "memory"))) {
			(void)snprintf(mount, PATH_MAX, "%s", point);
			(void)snprintf(top, PATH_MAX, "%s", root);
			return true;
		}
		line = end ? end + 1 : NULL;
	}
	return false;
}

static void lower_to_group(struct memory_limit *ret, const char *root, const char *mountinfo,
	const char *group, size_t n, bool v2)
{
	char mount[PATH_MAX], top[PATH_MAX], name[PATH_MAX], full[2 * PATH_MAX];
	size_t skip;

	if (n >= sizeof name || !find_mount(mountinfo, v2, mount, top))
		return;
	memcpy(name, group, n);
	name[n] = '\0';
	/* The path is from the root of the hierarchy, the mount may show a part of it only. */
	skip = strcmp(top, "/") ? strlen(top) : 0;
	if (skip && strncmp(name, top, skip) != 0)
		skip = strlen(name);
	(void)snprintf(full, sizeof full, "%s%s", root, mount);
	if (strlen(full) < PATH_MAX)
		lower_to_ancestors(ret, full, skip < strlen(name) ? name + skip : "/",
			v2 ? "memory.max" : "memory.limit_in_bytes");
}

/* Lines "0::/group" (v2) and "4:cpu,memory:/group" (v1). */
static void lower_to_cgroups(struct memory_limit *ret, const char *root)
{
	cleanup_free_ char *groups = NULL, *mountinfo = NULL;
	char path[PATH_MAX];
	const char *line;

	(void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	if (fd_read_file(path, FILE_MAX, &groups, NULL) < 0)
		return;
	(void)snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
	if (fd_read_file(path, FILE_MAX, &mountinfo, NULL) < 0)
		return;
	for (line = groups; line && *line;) {
		const char *end = strchrnul(line, '\n');
		const char *first = memchr(line, ':', (size_t)(end - line));
		const char *second =
			first ? memchr(first + 1, ':', (size_t)(end - first - 1)) : NULL;

		if (second) {
			bool v2 = second == first + 1;

			if (v2 || has_word(first + 1, (size_t)(second - first - 1), "memory"))
				lower_to_group(ret, root, mountinfo, second + 1,
					(size_t)(end - second - 1), v2);
		}
		line = *end ? end + 1 : NULL;
	}
}

int memory_limit_find(
	struct memory_limit *ret, uint64_t wanted, const char *root, struct error *err)
{
	struct memory_limit m = {.bytes = wanted ? wanted : UINT64_MAX};
	uint64_t total = 0, available = 0;
	int r = read_meminfo(root, &total, &available, err);

	if (r < 0)
		return r;
	lower_to_cgroups(&m, root);
	/* What was asked for by number is tried as it is: taking it tells whether it is there. */
	if (m.bytes != wanted && m.bytes > available) {
		if (available <= MEMORY_LIMIT_RESERVE)
			return error_set(err, -ENOMEM,
				"only %" PRIu64 " bytes of memory are available (MemAvailable), "
				"less than the %" PRIu64 " that are left to others",
				available, MEMORY_LIMIT_RESERVE);
		m.bytes = available - MEMORY_LIMIT_RESERVE;
		m.source = MEMORY_LIMIT_AVAILABLE;
		(void)snprintf(m.path, sizeof m.path, "%s/proc/meminfo", root);
	}
	*ret = m;
	return 0;
}

int memory_limit_whole(uint64_t *ret, const char *root, struct error *err)
{
	struct memory_limit m = {0};
	uint64_t available;
	int r = read_meminfo(root, &m.bytes, &available, err);

	if (r < 0)
		return r;
	lower_to_cgroups(&m, root);
	*ret = m.bytes;
	return 0;
}
