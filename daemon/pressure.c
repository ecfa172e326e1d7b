/* SPDX-License-Identifier: MIT */
#include "pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "limit.h"

#define FILE_MAX 65536u
#define WINDOW (2 * CLOCK_NS_PER_S)
/* Share of a window in which somebody waited for memory, in thousandths. */
#define STALLED 100u
#define CALM 10u
/* Before the first chunk is taken again, and between chunks. */
#define CALM_FOR (30 * CLOCK_NS_PER_S)
#define CALM_BETWEEN (10 * CLOCK_NS_PER_S)
/* Lacking is who has less than this share of all left. */
#define SCARCE 8u
/* A tenth of two seconds: the window that kernels from 6.5 on grant to anybody. */
#define TRIGGER "some 200000 2000000"

static int read_text(const char *root, const char *name, char **ret)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof path, "%s/proc/%s", root, name);

	if (n < 0 || (size_t)n >= sizeof path)
		return -ENAMETOOLONG;
	return fd_read_file(path, FILE_MAX, ret, NULL);
}

/* The number after a word. */
static int find(const char *text, const char *word, uint64_t *ret)
{
	const char *at = strstr(text, word);

	return at && sscanf(at + strlen(word), "%" SCNu64, ret) == 1 ? 0 : -ENODATA;
}

int pressure_read(struct pressure_sample *ret, const char *root)
{
	cleanup_free_ char *stalls = NULL, *memory = NULL;
	struct pressure_sample s;
	int r = read_text(root, "pressure/memory", &stalls);

	if (r >= 0)
		r = read_text(root, "meminfo", &memory);
	/* "some" is the first line, "full" the second. */
	if (r >= 0)
		r = strncmp(stalls, "some ", 5) ? -ENODATA : find(stalls, "total=", &s.stalled_us);
	if (r >= 0)
		r = find(memory, "MemTotal:", &s.total);
	if (r >= 0)
		r = find(memory, "MemAvailable:", &s.available);
	if (r >= 0)
		*ret = s;
	return r < 0 ? r : 0;
}

enum pressure_advice pressure_decide(
	struct pressure *p, const struct pressure_sample *s, bool given, uint64_t now_ns)
{
	uint64_t elapsed_us = (now_ns - p->at_ns) / CLOCK_NS_PER_US;
	uint64_t stalled = s->stalled_us - p->stalled_us;
	bool known = p->known, scarce = s->available < s->total / SCARCE;

	p->known = true;
	p->at_ns = now_ns;
	p->stalled_us = s->stalled_us;
	if (!known || stalled > elapsed_us * CALM / 1000 || scarce)
		p->calm_ns = now_ns;
	if (!known)
		return PRESSURE_NONE;
	if (scarce && stalled > elapsed_us * STALLED / 1000)
		return PRESSURE_GIVE_BACK;
	if (!given || now_ns - p->calm_ns < CALM_FOR)
		return PRESSURE_NONE;
	p->calm_ns = now_ns - CALM_FOR + CALM_BETWEEN;
	return PRESSURE_TAKE_AGAIN;
}

bool pressure_is_due(const struct pressure *p, uint64_t now_ns)
{
	return p->told || !p->known || now_ns - p->at_ns >= WINDOW;
}

enum pressure_advice pressure_look(struct pressure *p, bool given, uint64_t now_ns)
{
	struct pressure_sample s;
	enum pressure_advice advice = PRESSURE_NONE;

	if (p->root && pressure_read(&s, p->root) == 0) {
		advice = pressure_decide(p, &s, given, now_ns);
	} else {
		p->known = true;
		p->at_ns = now_ns;
	}
	if (p->told) {
		p->told = false;
		p->calm_ns = now_ns;
		advice = PRESSURE_GIVE_BACK;
	}
	return advice;
}

int pressure_timeout_ms(const struct pressure *p, bool given)
{
	return given || (p->root && p->fd < 0) ? (int)(WINDOW / CLOCK_NS_PER_MS) : -1;
}

void pressure_event(struct pressure *p)
{
	char buffer[256];
	ssize_t n = 1;

	p->told = p->handed;
	while (p->drains && n > 0)
		n = read(p->fd, buffer, sizeof buffer);
	/* The other side is gone: it would be readable for ever. */
	if (p->drains && n == 0)
		p->fd = fd_close(p->fd);
}

/* A word of base64, as far as it is one: bytes written to `to`, which has `room`. */
static size_t decode(const char *text, char *to, size_t room)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t bits = 0;
	unsigned n_bits = 0;
	size_t n = 0;

	for (; *text && n < room; text++) {
		const char *digit = strchr(digits, *text);

		if (!digit)
			break;
		bits = bits << 6 | (uint32_t)(digit - digits);
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			to[n++] = (char)(bits >> n_bits);
		}
	}
	return n;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return fd_close(fd);
	return fd;
}

/* What the service manager hands over: a file of pressure, a pipe or a socket. */
static void open_handed(struct pressure *p, const char *path, const char *order)
{
	char text[LIMIT_PRESSURE_ORDER];
	size_t n = order ? decode(order, text, sizeof text) : 0;
	struct stat st;

	if (*path != '/' || stat(path, &st) < 0)
		return;
	p->drains = S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode);
	p->fd = S_ISSOCK(st.st_mode) ? connect_to(path)
				     : open(path, (n > 0 || p->drains ? O_RDWR : O_RDONLY) |
							  O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (p->fd >= 0 && n > 0 && write(p->fd, text, n) != (ssize_t)n)
		p->fd = fd_close(p->fd);
	if (p->fd < 0)
		return;
	p->handed = true;
	p->events = p->drains ? EPOLLIN : EPOLLPRI;
}

void pressure_init(struct pressure *p, const char *root)
{
	const char *handed = getenv("MEMORY_PRESSURE_WATCH");
	struct pressure_sample s;
	char path[PATH_MAX];

	*p = (struct pressure){.fd = -1, .events = EPOLLPRI};
	/* So the service manager says that nobody is to look. */
	if (handed && strcmp(handed, "/dev/null") == 0)
		return;
	if (handed)
		open_handed(p, handed, getenv("MEMORY_PRESSURE_WRITE"));
	if (pressure_read(&s, root) < 0)
		return;
	p->root = root;
	if (p->handed)
		return;
	(void)snprintf(path, sizeof path, "%s/proc/pressure/memory", root);
	p->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (p->fd >= 0 && write(p->fd, TRIGGER, sizeof TRIGGER) < 0)
		p->fd = fd_close(p->fd);
}

void pressure_deinit(struct pressure *p)
{
	p->fd = fd_close(p->fd);
}
