/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Whether other programs lack memory: from /proc/pressure/memory of the machine, since the own
 * control group, being locked, cannot feel it.  Stalls that a control group's own limit causes are
 * told apart by what is still available.  Where the service manager hands a trigger over
 * (MEMORY_PRESSURE_WATCH and MEMORY_PRESSURE_WRITE of systemd, docs/PRESSURE.md there), each of its
 * events counts.  Loop thread; pure but for files below `root` and what is handed over.
 */

#include <stdbool.h>
#include <stdint.h>

enum pressure_advice {
	PRESSURE_NONE,
	PRESSURE_GIVE_BACK,
	PRESSURE_TAKE_AGAIN,
};

struct pressure_sample {
	uint64_t stalled_us; /* since boot: some task waited for memory */
	uint64_t available, total;
};

struct pressure {
	const char *root; /* NULL: the kernel does not tell */
	int fd; /* wakes the loop where stalls begin; -1 where the kernel does not let us */
	uint32_t events; /* of fd, for epoll */
	bool handed;	 /* fd is the service manager's */
	bool drains;	 /* it is a pipe or a socket: what comes is to be read */
	bool told;	 /* it had an event since the last look */
	bool known;
	uint64_t at_ns, stalled_us, calm_ns; /* the last look; since when it has been calm */
};

/*
 * root: "" for this machine, or a folder that holds proc (tests).  Cannot fail: what is handed over
 * and does not work is as if it were not.
 */
void pressure_init(struct pressure *p, const char *root);
void pressure_deinit(struct pressure *p);

/* How long the loop may sleep: ms, or -1.  given: whether something was given back. */
int pressure_timeout_ms(const struct pressure *p, bool given);

/* fd has an event: the next look is due, and advises to give back where the event is an order. */
void pressure_event(struct pressure *p);

/* True where the last look is two seconds old; then it is time for another. */
bool pressure_is_due(const struct pressure *p, uint64_t now_ns);
enum pressure_advice pressure_look(struct pressure *p, bool given, uint64_t now_ns);

/* The decision alone. */
enum pressure_advice pressure_decide(
	struct pressure *p, const struct pressure_sample *s, bool given, uint64_t now_ns);
/* 0 or -errno. */
int pressure_read(struct pressure_sample *ret, const char *root);
