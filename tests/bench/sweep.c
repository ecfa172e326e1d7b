/* SPDX-License-Identifier: MIT */
#include "sweep.h"

#include <stdint.h>

#include "cleanup.h"
#include "clock.h"
#include "limit.h"
#include "mem.h"
#include "num.h"
#include "team.h"

#define SWEEPS 7u

DEFINE_CLEANUP(struct team *, team_free, NULL)

struct sweep {
	const char *base;
	size_t size;
	struct team_shares shares;	  /* of huge pages */
	uint64_t sums[LIMIT_THREADS][16]; /* a cache line and more for each */
};

/* Sums 64-byte lines; the prefetch hides what one core's line buffers cannot. */
static uint64_t sum_lines(const char *p, size_t n)
{
	typedef uint64_t v8 __attribute__((vector_size(64)));
	v8 a = {0}, b = {0}, c = {0}, d = {0};

	for (size_t i = 0; i + 256 <= n; i += 256) {
		const v8 *v = (const v8 *)__builtin_assume_aligned(p + i, 64);

		for (size_t k = 0; k < 256; k += 64)
			__builtin_prefetch(p + i + 3072 + k, 0, 3);
		a += v[0];
		b += v[1];
		c += v[2];
		d += v[3];
	}
	a += b + c + d;
	return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

static void sweep_worker(void *arg, unsigned worker, unsigned workers)
{
	struct sweep *s = arg;
	uint32_t begin, end;

	while (team_shares_take(&s->shares, worker, &begin, &end))
		s->sums[worker][0] +=
			sum_lines(s->base + begin * MEM_HUGE_PAGE, (end - begin) * MEM_HUGE_PAGE);
}

int sweep_measure(const char *base, size_t size, unsigned threads, double *ret)
{
	static struct sweep s;
	cleanup_(team_freep) struct team *team = NULL;
	double best = 0;
	int r = team_new(&team, threads);

	if (r < 0)
		return r;
	s.base = base;
	s.size = size;
	for (unsigned i = 0; i < SWEEPS; i++) {
		uint64_t start = clock_now();
		double rate;

		team_shares_init(&s.shares, threads, (uint32_t)(size / MEM_HUGE_PAGE), 1, 1);
		team_run(team, sweep_worker, &s);
		rate = (double)size / (double)(clock_now() - start) * (double)CLOCK_NS_PER_S / 1e9;
		best = num_max(best, rate);
	}
	*ret = best;
	return 0;
}
