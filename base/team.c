/* SPDX-License-Identifier: MIT */

#include "team.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limit.h"

/* About 50 microseconds: longer than the gap between two jobs of one layer, far below a time slice.
 */
#define SPIN_ROUNDS 2000

struct worker {
	struct team *team;
	pthread_t thread;
	unsigned index;
};

/*
 * A job is published by raising `job`; workers answer by raising `done`.  The sleepers' flags and
 * the counters are sequentially consistent: either the sleeper sees the new count before it sleeps,
 * or the other side sees the flag and wakes it.
 */
struct team {
	_Alignas(128) atomic_uint job;
	atomic_uint sleepers;
	_Alignas(128) atomic_uint done;
	atomic_uint caller_sleeps;
	_Alignas(128) team_fn fn;
	void *arg;
	unsigned n;
	bool pin;
	atomic_bool stop;
	struct worker workers[LIMIT_THREADS];
};

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void futex_wait(atomic_uint *word, unsigned expected)
{
	(void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int n)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void pin_to(unsigned index)
{
	cpu_set_t allowed, one;
	unsigned seen = 0;

	if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
		return;
	index %= (unsigned)CPU_COUNT(&allowed);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && seen++ == index) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			(void)sched_setaffinity(0, sizeof one, &one);
			return;
		}
}

/* Waits until *word differs from old; spins first, then sleeps with the flag raised. */
static void wait_change(atomic_uint *word, unsigned old, atomic_uint *flag)
{
	for (int i = 0; i < SPIN_ROUNDS; i++) {
		if (atomic_load(word) != old)
			return;
		pause_cpu();
	}
	atomic_fetch_add(flag, 1);
	while (atomic_load(word) == old)
		futex_wait(word, old);
	atomic_fetch_sub(flag, 1);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct team *t = w->team;
	unsigned seen = 0;

	if (t->pin)
		pin_to(w->index);
	for (;;) {
		wait_change(&t->job, seen, &t->sleepers);
		seen++;
		if (atomic_load(&t->stop))
			return NULL;
		t->fn(t->arg, w->index, t->n);
		atomic_fetch_add(&t->done, 1);
		if (atomic_load(&t->caller_sleeps))
			futex_wake(&t->done, 1);
	}
}

static void publish(struct team *t)
{
	atomic_fetch_add(&t->job, 1);
	if (atomic_load(&t->sleepers))
		futex_wake(&t->job, INT32_MAX);
}

int team_new(struct team **ret, unsigned n_threads, bool pin)
{
	struct team *t;

	if (n_threads < 1 || n_threads > LIMIT_THREADS)
		return -EINVAL;
	t = aligned_alloc(128, sizeof *t);
	if (!t)
		return -ENOMEM;
	*t = (struct team){.n = 1, .pin = pin};
	for (unsigned i = 1; i < n_threads; i++) {
		struct worker *w = &t->workers[i];
		int r;

		*w = (struct worker){.team = t, .index = i};
		r = pthread_create(&w->thread, NULL, worker_main, w);
		if (r) {
			team_free(t);
			return -r;
		}
		t->n = i + 1;
	}
	if (pin)
		pin_to(0);
	*ret = t;
	return 0;
}

struct team *team_free(struct team *t)
{
	if (!t)
		return NULL;
	atomic_store(&t->stop, true);
	publish(t);
	for (unsigned i = 1; i < t->n; i++)
		(void)pthread_join(t->workers[i].thread, NULL);
	free(t);
	return NULL;
}

unsigned team_size(const struct team *t)
{
	return t->n;
}

void team_run(struct team *t, team_fn fn, void *arg)
{
	unsigned others = t->n - 1, done;

	if (!others) {
		fn(arg, 0, 1);
		return;
	}
	t->fn = fn;
	t->arg = arg;
	atomic_store(&t->done, 0);
	publish(t);
	fn(arg, 0, t->n);
	while ((done = atomic_load(&t->done)) < others)
		wait_change(&t->done, done, &t->caller_sleeps);
}
