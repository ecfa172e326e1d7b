/* SPDX-License-Identifier: MIT */

#include "taker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "num.h"

#define THREADS_MAX 8u

/*
 * Pages have numbers in the order of the ranges.  A thread takes the next number, and what is done
 * reaches to the lowest that somebody is at.  The mutex is taken twice a page, which is nothing
 * beside zeroing it.
 */
struct taker {
	struct mem_arena *arena;
	pthread_mutex_t lock;
	pthread_cond_t advanced;
	bool stop;
	int error;
	size_t next, all, failed; /* page numbers; failed: the lowest, or all */
	size_t done, wanted;
	size_t range, range_first; /* of `next`, and the number of its first page */
	unsigned n_threads;
	pthread_t threads[THREADS_MAX];
	size_t at[THREADS_MAX]; /* the page that each is taking; SIZE_MAX: none */
	size_t n_ranges;
	struct taker_range ranges[];
};

struct hand {
	struct taker *taker;
	unsigned index;
};

/* Locked.  The next page, if any. */
static char *next_page(struct taker *t)
{
	const struct taker_range *r = &t->ranges[t->range];
	char *page;

	if (t->stop || t->error || t->next == t->all)
		return NULL;
	while ((t->next - t->range_first) * MEM_HUGE_PAGE >= r->size) {
		t->range_first += r->size / MEM_HUGE_PAGE;
		r = &t->ranges[++t->range];
	}
	page = (char *)mem_arena_base(t->arena) + r->offset +
	       (t->next - t->range_first) * MEM_HUGE_PAGE;
	t->next++;
	return page;
}

/* Locked.  It failed, and nobody is at a page before the one that could not be had. */
static bool is_over(const struct taker *t)
{
	return t->error && t->done == t->failed;
}

/* Locked. */
static void advance(struct taker *t)
{
	size_t done = num_min(t->next, t->failed);

	for (unsigned i = 0; i < t->n_threads; i++)
		done = num_min(done, t->at[i]);
	t->done = done;
	if (t->done >= t->wanted || is_over(t))
		(void)pthread_cond_broadcast(&t->advanced);
}

static void *thread_main(void *arg)
{
	struct hand *h = arg;
	struct taker *t = h->taker;
	unsigned index = h->index;
	char *page;

	free(h);
	(void)pthread_mutex_lock(&t->lock);
	while ((page = next_page(t))) {
		size_t number = t->next - 1;
		int r;

		t->at[index] = number;
		(void)pthread_mutex_unlock(&t->lock);
		r = mem_arena_take(t->arena, page, MEM_HUGE_PAGE);
		(void)pthread_mutex_lock(&t->lock);
		t->at[index] = SIZE_MAX;
		if (r < 0) {
			t->error = r;
			t->failed = num_min(t->failed, number);
		}
		advance(t);
	}
	(void)pthread_mutex_unlock(&t->lock);
	return NULL;
}

static int start_one(struct taker *t)
{
	struct hand *h = malloc(sizeof *h);
	int r;

	if (!h)
		return -ENOMEM;
	*h = (struct hand){t, t->n_threads};
	r = -pthread_create(&t->threads[t->n_threads], NULL, thread_main, h);
	if (r < 0)
		free(h);
	return r;
}

/* Signals belong to the threads that expect them.  Fewer threads are slower, not wrong. */
static int start(struct taker *t, unsigned threads)
{
	sigset_t all, old;
	int r = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	(void)pthread_mutex_lock(&t->lock);
	while (r == 0 && t->n_threads < threads) {
		r = start_one(t);
		t->n_threads += r == 0;
	}
	(void)pthread_mutex_unlock(&t->lock);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return t->n_threads ? 0 : r;
}

int taker_new(struct taker **ret, struct mem_arena *a, const struct taker_range *ranges, size_t n,
	unsigned threads)
{
	struct taker *t = calloc(1, sizeof *t + n * sizeof t->ranges[0]);
	pthread_condattr_t attr;
	int r;

	if (!t)
		return -ENOMEM;
	t->arena = a;
	t->n_ranges = n;
	if (n > 0)
		memcpy(t->ranges, ranges, n * sizeof ranges[0]);
	for (size_t i = 0; i < n; i++)
		t->all += ranges[i].size / MEM_HUGE_PAGE;
	t->failed = t->all;
	t->wanted = SIZE_MAX;
	for (unsigned i = 0; i < THREADS_MAX; i++)
		t->at[i] = SIZE_MAX;
	(void)pthread_mutex_init(&t->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&t->advanced, &attr);
	(void)pthread_condattr_destroy(&attr);
	threads = num_max(threads, 1u);
	r = start(t, num_min(threads, THREADS_MAX));
	if (r < 0) {
		taker_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void taker_stop(struct taker *t)
{
	(void)pthread_mutex_lock(&t->lock);
	t->stop = true;
	(void)pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->n_threads; i++)
		(void)pthread_join(t->threads[i], NULL);
	t->n_threads = 0;
}

struct taker *taker_free(struct taker *t)
{
	if (!t)
		return NULL;
	taker_stop(t);
	(void)pthread_cond_destroy(&t->advanced);
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
	return NULL;
}

size_t taker_done(struct taker *t)
{
	size_t n;

	(void)pthread_mutex_lock(&t->lock);
	n = t->done * MEM_HUGE_PAGE;
	(void)pthread_mutex_unlock(&t->lock);
	return n;
}

int taker_wait(struct taker *t, size_t bytes, uint64_t timeout_ns)
{
	size_t pages = num_align_up(bytes, MEM_HUGE_PAGE) / MEM_HUGE_PAGE;
	uint64_t now = clock_now(), until = now + timeout_ns;
	struct timespec deadline;
	int r;

	if (until < now)
		until = UINT64_MAX;
	deadline.tv_sec = (time_t)(until / CLOCK_NS_PER_S);
	deadline.tv_nsec = (long)(until % CLOCK_NS_PER_S);
	(void)pthread_mutex_lock(&t->lock);
	t->wanted = pages;
	while (t->done < pages && !is_over(t) && timeout_ns)
		if (pthread_cond_timedwait(&t->advanced, &t->lock, &deadline) == ETIMEDOUT)
			break;
	r = t->done >= pages ? 1 : is_over(t) ? t->error : 0;
	t->wanted = SIZE_MAX;
	(void)pthread_mutex_unlock(&t->lock);
	return r;
}
