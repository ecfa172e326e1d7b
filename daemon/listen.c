/* SPDX-License-Identifier: MIT */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "sock.h"

static int listen_check(int fd, struct error *err)
{
	int r = sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0), flags;

	if (r < 0)
		return error_errno(err, r, "cannot look at the socket '" LISTEN_NAME "'");
	if (!r)
		return error_set(err, -EINVAL,
			"the socket '" LISTEN_NAME "' from the service manager is no listening "
			"unix socket of whole packets: use ListenSequentialPacket=");
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "cannot set up the socket '" LISTEN_NAME "'");
	return 0;
}

/* 1: taken over; 0: none was passed. */
static int listen_inherit(struct listen *l, struct error *err)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), r = 0;

	if (n < 0)
		return error_errno(err, n, "cannot take over the sockets of the service manager");
	for (int i = 0; i < n; ++i) {
		int fd = SD_LISTEN_FDS_START + i;

		if (l->fd < 0 && !strcmp(names[i], LISTEN_NAME)) {
			l->fd = fd;
		} else {
			log_warning("the service manager passed a descriptor '%s', which moed does "
				    "not know: closed",
				names[i]);
			(void)fd_close(fd);
		}
		free(names[i]);
	}
	free(names);
	if (n > 0 && l->fd < 0)
		r = error_set(err, -EINVAL,
			"the service manager passed no socket named '" LISTEN_NAME
			"': set FileDescriptorName=" LISTEN_NAME);
	if (l->fd >= 0)
		r = listen_check(l->fd, err);
	if (r < 0) {
		l->fd = fd_close(l->fd);
		return r;
	}
	return l->fd >= 0;
}

/* The folder, where only that is missing. */
static void listen_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder;

	if (!slash || slash == path)
		return;
	folder = strndup(path, (size_t)(slash - path));
	if (folder && !mkdir(folder, 0755))
		(void)chmod(folder, 0755);
	free(folder);
}

static void listen_group(const char *path, const char *name)
{
	const struct group *g = *name ? getgrnam(name) : NULL;

	if (!g || g->gr_gid == getegid())
		return;
	if (chown(path, (uid_t)-1, g->gr_gid) < 0)
		log_debug("cannot give %s to the group %s: %s", path, name, strerror(errno));
}

int listen_init(struct listen *l, const struct config *c, struct error *err)
{
	int r;

	*l = (struct listen){.fd = -1};
	r = listen_inherit(l, err);
	if (r)
		return r < 0 ? r : 0;
	l->path = strdup(c->socket);
	if (!l->path)
		return error_errno(err, -ENOMEM, "cannot listen");
	listen_folder(c->socket);
	r = sock_listen(c->socket, (mode_t)c->socket_mode, err);
	if (r < 0) {
		listen_deinit(l);
		return r;
	}
	l->fd = r;
	l->own = true;
	listen_group(c->socket, c->socket_group);
	return 0;
}

void listen_deinit(struct listen *l)
{
	/* First the file: whoever finds it gets an answer, or nothing is there. */
	if (l->own)
		(void)unlink(l->path);
	l->fd = fd_close(l->fd);
	free(l->path);
	*l = (struct listen){.fd = -1};
}
