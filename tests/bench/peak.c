/* SPDX-License-Identifier: MIT */

#include "peak.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "clock.h"
#include "limit.h"
#include "num.h"

#define TRIES 5u
#define TRY_NS (8 * CLOCK_NS_PER_MS)

struct peak_thread {
	pthread_t id;
	pthread_barrier_t *start;
	const struct peak_loop *loop;
	const char *weights;
	double rates[TRIES];
};

static void *peak_worker(void *arg)
{
	struct peak_thread *t = arg;

	for (unsigned i = 0; i < TRIES; i++) {
		uint64_t begin, passes = 0, took = 0;

		(void)pthread_barrier_wait(t->start);
		begin = clock_now();
		for (; took < TRY_NS; passes++) {
			t->loop->run(t->weights);
			took = clock_now() - begin;
		}
		/* Operations in a nanosecond. */
		t->rates[i] = (double)passes * t->loop->operations / (double)took;
	}
	return NULL;
}

int peak_measure(const struct peak_loop *loop, const void *weights, unsigned threads, double *ret)
{
	static struct peak_thread all[LIMIT_THREADS];
	pthread_barrier_t start;
	double best = 0;
	unsigned n;

	if (pthread_barrier_init(&start, NULL, threads))
		return -EAGAIN;
	for (n = 0; n < threads; n++) {
		all[n] = (struct peak_thread){.start = &start,
			.loop = loop,
			.weights = (const char *)weights + n * PEAK_WEIGHTS};
		/* The caller is the last: those before it wait for it at the barrier. */
		if (n + 1 < threads && pthread_create(&all[n].id, NULL, peak_worker, &all[n]) != 0)
			return -EAGAIN;
	}
	(void)peak_worker(&all[n - 1]);
	for (unsigned i = 0; i + 1 < threads; i++)
		(void)pthread_join(all[i].id, NULL);
	(void)pthread_barrier_destroy(&start);
	for (unsigned i = 0; i < TRIES; i++) {
		double sum = 0;

		for (n = 0; n < threads; n++)
			sum += all[n].rates[i];
		best = num_max(best, sum);
	}
	*ret = best;
	return 0;
}

double peak_registers(
	const struct peak_loop *loops, size_t n, const char *tier, const void *weights)
{
	double rate = 0;

	for (size_t i = 0; i < n; i++)
		if (!strcmp(loops[i].tier, tier) && !strcmp(loops[i].name, "registers") &&
			loops[i].usable() && peak_measure(&loops[i], weights, 1, &rate) < 0)
			return 0;
	return rate;
}
