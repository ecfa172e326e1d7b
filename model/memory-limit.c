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

/* v2: above memory.high whoever takes more is slowed down, so that is a limit too. */
static void lower_to_folder(struct memory_limit *ret, const char *folder, bool v2)
{
	if (!v2) {
		lower(ret, folder, "memory.limit_in_bytes");
		return;
	}
	lower(ret, folder, "memory.max");
	lower(ret, folder, "memory.high");
}

/* The group `name` below the mount point and all its ancestors, the mount point too. */
static void lower_to_ancestors(
	struct memory_limit *ret, const char *mount, const char *name, bool v2)
{
	char folder[PATH_MAX];
	size_t least = strlen(mount);
	int n = snprintf(folder, sizeof folder, "%s%s", mount, strcmp(name, "/") ? name : "");
	char *slash;

	if (n < 0 || (size_t)n >= sizeof folder)
		return;
	for (;;) {
		lower_to_folder(ret, folder, v2);
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

/* mountinfo writes blanks, tabs, newlines and backslashes as "\\040". */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
			s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

struct mount {
	char top[PATH_MAX];   /* group that is seen at the mount point: "/", or a container's */
	char point[PATH_MAX]; /* where */
};

/* The next mount of a hierarchy; v1: of the one with the controller "memory". */
static bool next_mount(const char **mountinfo, bool v2, struct mount *ret)
{
	const char *line = *mountinfo;

	while (line && *line) {
		char options[PATH_MAX], type[64];
		const char *end = strchr(line, '\n'), *rest = strstr(line, " - ");
		bool found = rest && (!end || rest < end) &&
			     sscanf(line, "%*s %*s %*s %4095s %4095s", ret->top, ret->point) == 2 &&
			     sscanf(rest, " - %63s %*s %4095s", type, options) == 2 &&
			     (v2 ? !strcmp(type, "cgroup2")
				 : !strcmp(type, "cgroup") &&
						     has_word(options, strlen(options), "memory"));

		line = end ? end + 1 : NULL;
		if (!found)
			continue;
		unescape(ret->top);
		unescape(ret->point);
		*mountinfo = line;
		return true;
	}
	return false;
}

/* What is left of the group below what a mount shows; NULL where it shows other groups. */
static const char *below(const char *group, const char *top)
{
	size_t n = strcmp(top, "/") ? strlen(top) : 0;

	if (strncmp(group, top, n) != 0 || (group[n] && group[n] != '/'))
		return NULL;
	return group[n] ? group + n : "/";
}

/*
 * One hierarchy may be mounted more than once, and show this group in one place only.  Where none
 * does (the mount is from outside our cgroup namespace, or the group from outside the container),
 * what lies at a mount point is still the nearest there is to an ancestor.
 */
static void lower_to_group(struct memory_limit *ret, const char *root, const char *mountinfo,
	const char *group, size_t n, bool v2)
{
	char name[PATH_MAX], full[2 * PATH_MAX], other[PATH_MAX] = "";
	struct mount m;
	bool shown = false;

	if (n >= sizeof name)
		return;
	memcpy(name, group, n);
	name[n] = '\0';
	while (next_mount(&mountinfo, v2, &m)) {
		const char *rest = below(name, m.top);

		(void)snprintf(full, sizeof full, "%s%s", root, m.point);
		if (strlen(full) >= PATH_MAX)
			continue;
		if (rest)
			lower_to_ancestors(ret, full, rest, v2);
		else if (!*other)
			(void)snprintf(other, sizeof other, "%.*s", PATH_MAX - 1, full);
		shown |= rest != NULL;
	}
	if (!shown && *other)
		lower_to_folder(ret, other, v2);
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

void memory_limit_now(struct memory_limit *ret, uint64_t wanted, const char *root)
{
	*ret = (struct memory_limit){.bytes = wanted ? wanted : UINT64_MAX};
	lower_to_cgroups(ret, root);
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
