/* SPDX-License-Identifier: MIT */
#include "notify.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>

#include "clock.h"
#include "num.h"

/* Loading asks for so much more time as long as it moves. */
#define NOTIFY_EXTEND_US UINT64_C(30000000)
#define NOTIFY_EXTEND_EVERY (10 * CLOCK_NS_PER_S)

void notify_init(struct notify *n)
{
	uint64_t us = 0;

	*n = (struct notify){.percent = UINT32_MAX};
	if (sd_watchdog_enabled(0, &us) > 0)
		n->watchdog_ns = us * CLOCK_NS_PER_US / 2;
}

void notify_loading(struct notify *n, unsigned percent, const char *phase)
{
	uint64_t now = clock_now();

	if (percent == n->percent && now < n->extend_ns)
		return;
	n->percent = percent;
	n->extend_ns = now + NOTIFY_EXTEND_EVERY;
	(void)sd_notifyf(0, "STATUS=Loading %u %% (%s)\nEXTEND_TIMEOUT_USEC=%" PRIu64, percent,
		phase, NOTIFY_EXTEND_US);
}

void notify_ready(struct notify *n, const char *status)
{
	(void)n;
	(void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_status(const char *status)
{
	(void)sd_notifyf(0, "STATUS=%s", status);
}

void notify_reloading(void)
{
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=Reloading",
		clock_now() / CLOCK_NS_PER_US);
}

void notify_reloaded(const char *outcome)
{
	(void)sd_notifyf(0, "READY=1\nSTATUS=%s", outcome);
}

void notify_stopping(const char *status, uint64_t most_ns)
{
	(void)sd_notifyf(0, "STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%" PRIu64, status,
		most_ns / CLOCK_NS_PER_US + NOTIFY_EXTEND_US);
}

int notify_timeout_ms(const struct notify *n, uint64_t now_ns)
{
	if (!n->watchdog_ns)
		return -1;
	if (now_ns >= n->ping_ns)
		return 0;
	/* A little late rather than twice. */
	return (int)num_min((n->ping_ns - now_ns) / CLOCK_NS_PER_MS + 1, (uint64_t)INT32_MAX);
}

void notify_watchdog(struct notify *n, uint64_t now_ns)
{
	if (!n->watchdog_ns || now_ns < n->ping_ns)
		return;
	n->ping_ns = now_ns + n->watchdog_ns;
	(void)sd_notify(0, "WATCHDOG=1");
}
