/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The unix socket (SOCK_SEQPACKET): connect, listen, accept with the kernel's credentials, whole
 * packets with descriptors, bells.  Used by daemon/ and client/; any thread, no state.  Negative
 * errno on failure.  Nothing here blocks unless told: all sockets are non-blocking and CLOEXEC.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

#define SOCK_FDS_MAX 2

struct sock_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
};

/* A connected socket; -ENOENT or -ECONNREFUSED where nobody listens, -EACCES, -ENAMETOOLONG. */
int sock_connect(const char *path, struct error *err);

/* Binds and listens; a socket file that nobody serves is replaced, one that is served: -EADDRINUSE.
 */
int sock_listen(const char *path, mode_t mode, struct error *err);

/* The next connection with its credentials (SO_PEERCRED); -EAGAIN where there is none. */
int sock_accept(int listener, struct sock_peer *ret_peer);

/* One packet, all or nothing; -EAGAIN where the other side does not read, -EPIPE, ... */
int sock_send(int fd, const void *packet, size_t size, const int *fds, size_t n_fds);

/*
 * One packet with descriptors (CLOEXEC), which the caller then owns; *n_fds is the room before and
 * the number after.  Bytes received; 0: the other side has closed; -EAGAIN; -EMSGSIZE where the
 * packet or its descriptors do not fit (they are closed).
 */
ssize_t sock_recv(int fd, void *packet, size_t size, int *ret_fds, size_t *n_fds);

/* As sock_recv(), but no control buffer: descriptors that were sent never enter this process. */
ssize_t sock_recv_plain(int fd, void *packet, size_t size);

/* Rings; a full queue is fine (a bell is pending then).  0 or the error of a broken connection. */
int sock_bell(int fd);

/*
 * Takes one bell, if there is one.  0: the connection lives; 1: the other side has closed; -EPROTO:
 * something that is no bell; or the error of the socket.
 */
int sock_bell_take(int fd);
