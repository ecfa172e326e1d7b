/* SPDX-License-Identifier: MIT */

/* ping: the round trip through the rings. */

#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "moectl.h"

#define PING_TIMEOUT_NS (10 * CLOCK_NS_PER_S)

/* One round trip.  0, or an exit status. */
static int ping_once(const struct options *o, struct moe *m, double *ret_us)
{
	uint64_t start = clock_now(), request;
	const struct moe_event *e;
	int k;

	k = moe_ping(m, o->busy ? MOE_PING_BUSY : 0, &request);
	while (k >= 0) {
		k = moe_next(m, o->busy ? MOE_SPIN : 1000, &e);
		if (k == 1 && e->request == request) {
			if (e->type == MOE_ERROR)
				return complain("%s", *e->text ? e->text : moe_strerror(e->code));
			*ret_us = (double)(clock_now() - start) / 1e3;
			return 0;
		}
		if (k == 0 && clock_now() - start > PING_TIMEOUT_NS)
			return complain("no answer to a ping within 10 s");
	}
	return complain("%s", *moe_last_error(m) ? moe_last_error(m) : moe_strerror(k));
}

static int ping_print(const struct options *o, double *us)
{
	double p50 = percentile(us, o->count, 50), p99 = percentile(us, o->count, 99);

	if (o->json)
		return json_print(json_pack("{s:f,s:f,s:I,s:b}", "p50_us", p50, "p99_us", p99,
			"count", (json_int_t)o->count, "busy", o->busy));
	(void)printf("%llu round trips, %s: p50 %.2f us, p99 %.2f us\n",
		(unsigned long long)o->count, o->busy ? "spinning" : "sleeping", p50, p99);
	return output_end();
}

int verb_ping(const struct options *o)
{
	double *us = calloc(o->count, sizeof(*us));
	struct moe *m = NULL;
	int k;

	k = us ? daemon_open(o, &m, NULL) : complain("out of memory");
	for (uint64_t i = 0; i < o->count && k == 0; i++)
		k = ping_once(o, m, &us[i]);
	if (k == 0)
		k = ping_print(o, us);
	moe_close(m);
	free(us);
	return k;
}
