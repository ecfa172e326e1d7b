/* SPDX-License-Identifier: MIT */
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "num.h"

#define STATE_FILE "totals"
#define STATE_FILE_NEW "totals.new"
#define STATE_FILE_MAX 1024u
#define STATE_SESSIONS "sessions"

static const struct {
	const char *name;
	size_t at;
} state_names[] = {
	{"starts", offsetof(struct state_totals, starts)},
	{"requests", offsetof(struct state_totals, requests)},
	{"failed", offsetof(struct state_totals, failed)},
	{"prompt_tokens", offsetof(struct state_totals, prompt_tokens)},
	{"generated_tokens", offsetof(struct state_totals, generated_tokens)},
	{"bytes_read", offsetof(struct state_totals, bytes_read)},
};

static uint64_t *state_field(const struct state_totals *t, size_t i)
{
	return (void *)((char *)(uintptr_t)t + state_names[i].at);
}

/* Lines of "name number", every name once, in order. */
static int state_parse(struct state_totals *t, char *text)
{
	char *line = text;

	for (size_t i = 0; i < ARRAY_SIZE(state_names); ++i) {
		char *end = strchr(line, '\n'), *blank;

		if (!end)
			return -EINVAL;
		*end = 0;
		blank = strchr(line, ' ');
		if (!blank)
			return -EINVAL;
		*blank = 0;
		if (strcmp(line, state_names[i].name) ||
			num_parse_u64(blank + 1, 0, UINT64_MAX / 2, state_field(t, i)) < 0)
			return -EINVAL;
		line = end + 1;
	}
	return *line ? -EINVAL : 0;
}

static int state_read(struct state_totals *t, int folder)
{
	char text[STATE_FILE_MAX + 1];
	cleanup_fd_ int fd =
		openat(folder, STATE_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof text);
	if (n < 0)
		return -errno;
	if (n == 0 || (size_t)n > STATE_FILE_MAX || memchr(text, 0, (size_t)n))
		return -EINVAL;
	text[n] = 0;
	return state_parse(t, text);
}

int state_init(struct state *s, const char *path, struct error *err)
{
	int r;

	*s = (struct state){.folder = -1, .sessions = -1};
	if (mkdir(path, 0750) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make the state directory %s", path);
	s->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->folder < 0)
		return error_errno(err, -errno, "cannot open the state directory %s", path);
	if (flock(s->folder, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		state_deinit(s);
		return r == -EWOULDBLOCK
			       ? error_set(err, -EBUSY,
					 "the state directory %s is in use by another moed: give "
					 "this one its own with --state",
					 path)
			       : error_errno(err, r, "cannot lock the state directory %s", path);
	}
	r = state_read(&s->before, s->folder);
	if (r < 0 && r != -ENOENT) {
		log_warning("the totals in %s cannot be used (%s): they begin at zero", path,
			strerror(-r));
		s->before = (struct state_totals){0};
	}
	return 0;
}

/* Files of state files' names; nothing else is touched. */
static void state_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!folder)
		fd_close(copy);
	while (folder && (e = readdir(folder)))
		if (strstr(e->d_name, ".kv"))
			(void)unlinkat(fd, e->d_name, 0);
	if (folder)
		(void)closedir(folder);
}

int state_sessions(struct state *s, bool keep, struct error *err)
{
	cleanup_fd_ int fd = -1;
	struct stat st;

	if (keep && mkdirat(s->folder, STATE_SESSIONS, 0700) < 0 && errno != EEXIST)
		return error_errno(err, -errno,
			"cannot make the folder '%s' in the state directory", STATE_SESSIONS);
	fd = openat(s->folder, STATE_SESSIONS, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && !keep && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno,
			"cannot open the folder '%s' in the state directory", STATE_SESSIONS);
	if (!keep) {
		state_empty(fd);
		return 0;
	}
	/* What people said lies there: for nobody else's eyes. */
	if (st.st_uid != geteuid() || ((st.st_mode & 077) && fchmod(fd, 0700) < 0))
		return error_set(err, -EPERM,
			"the folder '%s' in the state directory belongs to another user",
			STATE_SESSIONS);
	s->sessions = steal_fd(fd);
	return 0;
}

int state_save(const struct state *s, const struct state_totals *totals, struct error *err)
{
	cleanup_fd_ int fd = -1;
	char text[STATE_FILE_MAX];
	size_t n = 0;
	int r;

	if (s->folder < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(state_names); ++i)
		n += (size_t)snprintf(text + n, sizeof text - n, "%s %" PRIu64 "\n",
			state_names[i].name, *state_field(totals, i));
	fd = openat(s->folder, STATE_FILE_NEW,
		O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? -errno : fd_write_all(fd, text, n);
	if (r >= 0 &&
		(fsync(fd) < 0 || renameat(s->folder, STATE_FILE_NEW, s->folder, STATE_FILE) < 0))
		r = -errno;
	return r < 0 ? error_errno(err, r, "cannot write the totals in the state directory") : 0;
}

void state_deinit(struct state *s)
{
	s->sessions = fd_close(s->sessions);
	s->folder = fd_close(s->folder);
}
