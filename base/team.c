/* SPDX-License-Identifier: MIT */

#include "team.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "num.h"
#include "relax.h"

/*
 * Longer than what worker 0 does alone between two jobs of a layer, a long context's attention and
 * the choice of a token too: who sleeps must be woken, which costs the caller an interrupt of
 * another processor, on a virtual machine ten to twenty microseconds.  Far below what an idle
 * daemon's figures show.
 */
#define SPIN_NS 300000u
#define SPIN_ROUNDS 32u /* from one look at the clock to the next */

/*
 * How long a worker stays away that was preempted within a job: the caller alone does what it would
 * have done, and only the next try can be disturbed.  Each time longer, until it is not disturbed.
 */
#define REST_LEAST_MS 8u
#define REST_MOST_MS 128u
#define REST_FORGET 16u /* jobs in a row without being late */

/* A caller that waited so long did not wait for a piece of work. */
#define LATE_NS 1000000u

/*
 * One word is the gate of the job under way: how many workers are inside, whether more may enter,
 * whether the team ends, and the job's number, by which a worker knows that it has been inside.
 */
#define GATE_INSIDE 0x3ffu
#define GATE_OPEN 0x400u
#define GATE_END 0x800u
#define GATE_NUMBER 0x1000u

_Static_assert(LIMIT_THREADS <= GATE_INSIDE, "all workers can be counted");

/* Both sides sleep on the gate; these tell whom a wake-up is for. */
#define WAKE_WORKERS 1u
#define WAKE_CALLER 2u

struct worker {
	struct team *team;
	pthread_t thread;
	unsigned index;
	unsigned rest_ms, timely; /* the last rest, and jobs since */
	long preempted;		  /* so often, when last asked */
};

/*
 * A worker enters by raising the count of an open gate and leaves by lowering it.  The caller
 * closes the gate when it finds no more to do, and waits only for those inside: a worker that a
 * neighbour keeps from its processor has not entered, and holds nobody up.  The gate and the
 * sleepers' flags are sequentially consistent: either the sleeper sees the new gate before it
 * sleeps, or the other side sees the flag and wakes it.
 */
struct team {
	_Alignas(128) atomic_uint gate;
	_Alignas(128) atomic_uint sleepers;
	_Atomic uint64_t caller_sleeps; /* since then (clock_now()), or 0 */
	team_fn fn;			/* read only inside */
	void *arg;
	unsigned n;
	struct worker workers[LIMIT_THREADS];
};

static void futex_wait(atomic_uint *word, unsigned expected, unsigned whom)
{
	(void)syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, NULL, NULL, whom);
}

static void futex_wake(atomic_uint *word, unsigned whom)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE_BITSET_PRIVATE, INT32_MAX, NULL, NULL, whom);
}

/* Into the next job, whose number is stored; false when the team ends. */
static bool enter(struct team *t, unsigned *number)
{
	uint64_t start = clock_now();
	unsigned spins = 0;

	for (;;) {
		unsigned gate = atomic_load(&t->gate);

		if (gate & GATE_END)
			return false;
		if (gate & GATE_OPEN && gate / GATE_NUMBER != *number) {
			if (!atomic_compare_exchange_weak(&t->gate, &gate, gate + 1))
				continue;
			*number = gate / GATE_NUMBER;
			return true;
		}
		if (++spins % SPIN_ROUNDS || clock_now() - start < SPIN_NS) {
			relax_cpu();
			continue;
		}
		atomic_fetch_add(&t->sleepers, 1);
		futex_wait(&t->gate, gate, WAKE_WORKERS);
		atomic_fetch_sub(&t->sleepers, 1);
		/* Where one job was, the next is near, even if this one is over. */
		start = clock_now();
	}
}

/* True where the caller has waited long for this worker. */
static bool leave(struct team *t)
{
	unsigned gate = atomic_fetch_sub(&t->gate, 1) - 1;
	uint64_t since;

	if (gate & GATE_OPEN)
		return false;
	since = atomic_load(&t->caller_sleeps);
	if (!since)
		return false;
	if (!(gate & GATE_INSIDE))
		futex_wake(&t->gate, WAKE_CALLER);
	return clock_now() - since > LATE_NS;
}

/* Times that this thread lost its processor without giving it up. */
static long preemptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/*
 * After a job for which the caller waited long.  A long piece of work taken last is no reason to
 * stay away; a processor that somebody else has is one.
 */
static void rest(struct worker *w)
{
	long n = preemptions();
	bool disturbed = n > w->preempted;
	struct timespec time;

	w->preempted = n;
	if (!disturbed)
		return;
	w->rest_ms = num_max(w->rest_ms * 2, REST_LEAST_MS);
	w->rest_ms = num_min(w->rest_ms, REST_MOST_MS);
	w->timely = 0;
	time = (struct timespec){.tv_nsec = (long)w->rest_ms * 1000000};
	(void)nanosleep(&time, NULL);
	w->preempted = preemptions();
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct team *t = w->team;
	unsigned number = 0;

	while (enter(t, &number)) {
		t->fn(t->arg, w->index, t->n);
		if (leave(t))
			rest(w);
		else if (++w->timely >= REST_FORGET) {
			w->timely = 0;
			w->rest_ms = 0;
			w->preempted = preemptions();
		}
	}
	return NULL;
}

static void wait_until_left(struct team *t)
{
	uint64_t start = clock_now();
	unsigned gate, spins = 0;

	while (++spins % SPIN_ROUNDS || clock_now() - start < SPIN_NS) {
		if (!(atomic_load(&t->gate) & GATE_INSIDE))
			return;
		relax_cpu();
	}
	/* Somebody inside was preempted, perhaps: asleep, we leave it our processor. */
	atomic_store(&t->caller_sleeps, clock_now());
	while ((gate = atomic_load(&t->gate)) & GATE_INSIDE)
		futex_wait(&t->gate, gate, WAKE_CALLER);
	atomic_store(&t->caller_sleeps, 0);
}

/* Signals belong to the threads that expect them. */
static int start(struct worker *w)
{
	sigset_t all, old;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, NULL, worker_main, w);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

int team_new(struct team **ret, unsigned n_threads)
{
	struct team *t;

	if (n_threads < 1 || n_threads > LIMIT_THREADS)
		return -EINVAL;
	t = aligned_alloc(128, sizeof *t);
	if (!t)
		return -ENOMEM;
	*t = (struct team){.n = 1};
	for (unsigned i = 1; i < n_threads; i++) {
		struct worker *w = &t->workers[i];
		int r;

		*w = (struct worker){.team = t, .index = i};
		r = start(w);
		if (r < 0) {
			team_free(t);
			return r;
		}
		t->n = i + 1;
	}
	*ret = t;
	return 0;
}

struct team *team_free(struct team *t)
{
	if (!t)
		return NULL;
	atomic_fetch_or(&t->gate, GATE_END);
	futex_wake(&t->gate, WAKE_WORKERS);
	for (unsigned i = 1; i < t->n; i++)
		(void)pthread_join(t->workers[i].thread, NULL);
	free(t);
	return NULL;
}

unsigned team_size(const struct team *t)
{
	return t->n;
}

int team_pin(struct team *t)
{
	cpu_set_t allowed, one;
	int cpu = -1, r;

	r = pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed);
	if (r || CPU_COUNT(&allowed) == 0)
		return r ? -r : -ENODEV;
	for (unsigned i = 0; i < t->n; i++) {
		do
			cpu = (cpu + 1) % CPU_SETSIZE;
		while (!CPU_ISSET(cpu, &allowed));
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		r = pthread_setaffinity_np(
			i ? t->workers[i].thread : pthread_self(), sizeof one, &one);
		if (r)
			return -r;
	}
	return 0;
}

void team_run(struct team *t, team_fn fn, void *arg)
{
	if (t->n == 1) {
		fn(arg, 0, 1);
		return;
	}
	t->fn = fn;
	t->arg = arg;
	/* Closed, and nobody is inside: the number wraps round into nothing. */
	atomic_fetch_add(&t->gate, GATE_NUMBER + GATE_OPEN);
	if (atomic_load(&t->sleepers))
		futex_wake(&t->gate, WAKE_WORKERS);
	fn(arg, 0, t->n);
	if (atomic_fetch_and(&t->gate, ~GATE_OPEN) & GATE_INSIDE)
		wait_until_left(t);
}

#define SHARE(begin, end) ((uint64_t)(end) << 32 | (begin))

void team_shares_init(
	struct team_shares *s, unsigned workers, uint32_t n, uint32_t piece, uint32_t least)
{
	uint64_t pieces = ((uint64_t)n + piece - 1) / piece;
	uint64_t begin = 0;

	s->workers = workers;
	s->piece = piece;
	s->least = least;
	for (unsigned i = 0; i < workers; i++) {
		uint64_t end = num_min(pieces * (i + 1) / workers * piece, (uint64_t)n);

		atomic_init(&s->share[i].left, SHARE(begin, end));
		begin = end;
	}
}

bool team_shares_take(struct team_shares *s, unsigned worker, uint32_t *begin, uint32_t *end)
{
	for (unsigned i = 0; i < s->workers; i++) {
		_Atomic uint64_t *left = &s->share[(worker + i) % s->workers].left;
		uint64_t old = atomic_load_explicit(left, memory_order_relaxed);

		for (;;) {
			uint32_t b = (uint32_t)old, e = (uint32_t)(old >> 32), n;

			if (b >= e)
				break;
			n = num_max((e - b) / 2, s->least);
			n = num_min(n, s->piece);
			n = num_min(n, e - b);
			if (!atomic_compare_exchange_weak_explicit(left, &old,
				    i ? SHARE(b, e - n) : SHARE(b + n, e), memory_order_relaxed,
				    memory_order_relaxed))
				continue;
			*begin = i ? e - n : b;
			*end = *begin + n;
			return true;
		}
	}
	return false;
}
