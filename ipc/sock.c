/* SPDX-License-Identifier: MIT */
#include "sock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"
#include "wire.h"

#define SOCK_BACKLOG 128

static int address_set(struct sockaddr_un *ret, const char *path, struct error *err)
{
	size_t length = strlen(path);

	if (length == 0 || length >= sizeof(ret->sun_path))
		return error_set(err, -ENAMETOOLONG,
			"the socket path '%s' must have 1 to %zu bytes: choose a shorter one", path,
			sizeof(ret->sun_path) - 1);
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret->sun_path, path, length);
	return 0;
}

static int socket_new(struct error *err)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 ? fd : error_errno(err, -errno, "cannot make a unix socket");
}

int sock_connect(const char *path, struct error *err)
{
	cleanup_fd_ int fd = -1;
	struct sockaddr_un address;
	int k;

	k = address_set(&address, path, err);
	if (k < 0)
		return k;
	fd = socket_new(err);
	if (fd < 0)
		return steal_fd(fd);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, -errno, "cannot connect to moed at %s", path);
	return steal_fd(fd);
}

/* Removes a socket file that nobody serves. */
static int stale_remove(const char *path, struct error *err)
{
	struct stat st;
	int fd, k;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : error_errno(err, -errno, "cannot look at %s", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST,
			"%s exists and is not a socket: remove it or choose another path", path);
	fd = sock_connect(path, NULL);
	if (fd >= 0 || fd == -EAGAIN) {
		(void)fd_close(fd);
		return error_set(err, -EADDRINUSE,
			"another daemon serves %s: stop it or choose another path", path);
	}
	k = fd;
	if (k != -ECONNREFUSED)
		return error_errno(err, k, "cannot tell whether %s is served", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "cannot remove the old socket %s", path);
	return 0;
}

int sock_listen(const char *path, mode_t mode, struct error *err)
{
	cleanup_fd_ int fd = -1;
	struct sockaddr_un address;
	int k;

	k = address_set(&address, path, err);
	if (k < 0)
		return k;
	k = stale_remove(path, err);
	if (k < 0)
		return k;
	fd = socket_new(err);
	if (fd < 0)
		return steal_fd(fd);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, -errno, "cannot bind the socket %s", path);
	/* Before listen(): nobody can connect with the permissions that the umask gave. */
	if (chmod(path, mode) < 0 || listen(fd, SOCK_BACKLOG) < 0) {
		k = -errno;
		(void)unlink(path);
		return error_errno(err, k, "cannot listen on %s", path);
	}
	return steal_fd(fd);
}

int sock_accept(int listener, struct sock_peer *ret_peer)
{
	cleanup_fd_ int fd = -1;
	struct ucred cred;
	socklen_t length = sizeof(cred);

	do {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0)
		return -errno;
	*ret_peer = (struct sock_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
	return steal_fd(fd);
}

int sock_send(int fd, const void *packet, size_t size, const int *fds, size_t n_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * SOCK_FDS_MAX)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)packet, .iov_len = size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (n_fds > SOCK_FDS_MAX)
		return -EINVAL;
	if (n_fds) {
		message.msg_control = control.buf;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do {
		n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Hands out the descriptors of a message, and closes those for which there is no room. */
static size_t message_fds(struct msghdr *message, int *ret_fds, size_t room, size_t *ret_excess)
{
	struct cmsghdr *c;
	size_t n = 0, excess = 0, count;
	int fd;

	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (n < room) {
				ret_fds[n++] = fd;
			} else {
				(void)fd_close(fd);
				excess++;
			}
		}
	}
	*ret_excess = excess;
	return n;
}

ssize_t sock_recv(int fd, void *packet, size_t size, int *ret_fds, size_t *n_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * SOCK_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = packet, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	size_t got, excess;
	ssize_t n;

	do {
		n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	got = message_fds(&message, ret_fds, *n_fds, &excess);
	if (excess || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		while (got)
			(void)fd_close(ret_fds[--got]);
		return -EMSGSIZE;
	}
	*n_fds = got;
	return n;
}

ssize_t sock_recv_plain(int fd, void *packet, size_t size)
{
	ssize_t n;

	do {
		n = recv(fd, packet, size, MSG_DONTWAIT | MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n > size ? -EMSGSIZE : n;
}

int sock_bell(int fd)
{
	static const uint8_t bell = WIRE_BELL;
	ssize_t n;

	do {
		n = send(fd, &bell, sizeof(bell), MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n >= 0 || errno == EAGAIN || errno == ENOBUFS)
		return 0;
	return errno == EPIPE ? -ECONNRESET : -errno;
}

/*
 * Only one: an honest side rings once a sleep, so a second look would be a system call for nothing.
 * What is left makes the socket readable again, and a flood gets no more than its turns.
 */
int sock_bell_take(int fd)
{
	uint8_t byte = 0;
	ssize_t n = sock_recv_plain(fd, &byte, sizeof(byte));

	if (n == -EAGAIN)
		return 0;
	if (n == 0 || n == -ECONNRESET)
		return 1;
	if (n == -EMSGSIZE || (n == 1 && byte != WIRE_BELL))
		return -EPROTO;
	return n < 0 ? (int)n : 0;
}
