/* SPDX-License-Identifier: MIT */
#pragma once

/* Where the listening socket comes from: the service manager, or the configuration.  At start. */

#include <stdbool.h>

#include "configuration.h"
#include "error.h"

/* The name under which the service manager hands it over (FileDescriptorName=). */
#define LISTEN_NAME "moed"

struct listen {
	int fd;
	bool own; /* the file is ours to remove */
	char *path;
};

/* 0 or -errno with *err. */
int listen_init(struct listen *l, const struct config *c, struct error *err);
/* Closes; removes the file of an own socket. */
void listen_deinit(struct listen *l);
