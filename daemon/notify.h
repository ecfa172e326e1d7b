/* SPDX-License-Identifier: MIT */
#pragma once

/* What the service manager is told, where there is one.  Loop thread. */

#include <stdbool.h>
#include <stdint.h>

struct notify {
	uint64_t watchdog_ns; /* half of WATCHDOG_USEC; 0: none */
	uint64_t ping_ns;     /* when the next one is due */
	unsigned percent;
	uint64_t extend_ns;
};

void notify_init(struct notify *n);
void notify_loading(struct notify *n, unsigned percent, const char *phase);
void notify_ready(struct notify *n, const char *status);
void notify_status(const char *status);
void notify_reloading(void);
void notify_reloaded(const char *outcome);
void notify_stopping(const char *status, uint64_t most_ns);
/* Until a ping is due; -1: none ever is. */
int notify_timeout_ms(const struct notify *n, uint64_t now_ns);
/* Pings where one is due; call it only when the daemon is known to make progress. */
void notify_watchdog(struct notify *n, uint64_t now_ns);
