/* SPDX-License-Identifier: MIT */

/*
 * The lower rung: a pool of threads that call pread(2).  One mutex guards two rings, reads that
 * wait for a thread and results that wait for the owner; both hold DEPTH entries and no more than
 * DEPTH reads are in flight, so neither can overflow.
 */

#include "io.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "limit.h"

#define DEPTH LIMIT_READS_IN_FLIGHT
#define THREADS_MAX 64u

struct pool {
	struct io io;
	pthread_mutex_t lock;
	pthread_cond_t work, results_come;
	bool stop;
	atomic_bool has_results; /* result_count > 0, for who looks without the lock */
	unsigned n_threads;
	size_t in_flight; /* submitted and not reaped */
	unsigned read_head, read_count, result_head, result_count;
	struct io_read reads[DEPTH];
	struct io_result results[DEPTH];
	pthread_t threads[THREADS_MAX];
	size_t n_fds;
	int fds[];
};

static int32_t read_one(const struct pool *p, const struct io_read *read)
{
	ssize_t k;

	if (read->file >= p->n_fds)
		return -EBADF;
	k = pread(p->fds[read->file], read->buffer, read->length, (off_t)read->offset);
	return k < 0 ? -errno : (int32_t)k;
}

static void *thread_main(void *arg)
{
	struct pool *p = arg;

	(void)pthread_mutex_lock(&p->lock);
	for (;;) {
		struct io_read read;
		int32_t res;

		while (!p->read_count && !p->stop)
			(void)pthread_cond_wait(&p->work, &p->lock);
		if (!p->read_count)
			break;
		read = p->reads[p->read_head];
		p->read_head = (p->read_head + 1) % DEPTH;
		p->read_count--;
		(void)pthread_mutex_unlock(&p->lock);
		res = read_one(p, &read);
		(void)pthread_mutex_lock(&p->lock);
		p->results[(p->result_head + p->result_count++) % DEPTH] =
			(struct io_result){read.tag, res};
		atomic_store_explicit(&p->has_results, true, memory_order_relaxed);
		(void)pthread_cond_signal(&p->results_come);
	}
	(void)pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int pool_submit(struct io *io, const struct io_read *reads, size_t n)
{
	struct pool *p = (struct pool *)io;
	size_t taken = 0;

	(void)pthread_mutex_lock(&p->lock);
	while (taken < n && p->in_flight < DEPTH) {
		p->reads[(p->read_head + p->read_count++) % DEPTH] = reads[taken++];
		p->in_flight++;
	}
	if (taken > 1)
		(void)pthread_cond_broadcast(&p->work);
	else if (taken)
		(void)pthread_cond_signal(&p->work);
	(void)pthread_mutex_unlock(&p->lock);
	return (int)taken;
}

static int pool_reap(struct io *io, struct io_result *results, size_t max, uint64_t timeout_ns)
{
	struct pool *p = (struct pool *)io;
	uint64_t now = timeout_ns ? clock_now() : 0, until = now + timeout_ns;
	struct timespec deadline;
	size_t n = 0;

	if (until < now)
		until = UINT64_MAX;
	deadline.tv_sec = (time_t)(until / CLOCK_NS_PER_S);
	deadline.tv_nsec = (long)(until % CLOCK_NS_PER_S);

	(void)pthread_mutex_lock(&p->lock);
	while (!p->result_count && p->in_flight && timeout_ns)
		if (pthread_cond_timedwait(&p->results_come, &p->lock, &deadline) == ETIMEDOUT)
			break;
	while (n < max && p->result_count) {
		results[n++] = p->results[p->result_head];
		p->result_head = (p->result_head + 1) % DEPTH;
		p->result_count--;
		p->in_flight--;
	}
	atomic_store_explicit(&p->has_results, p->result_count > 0, memory_order_relaxed);
	(void)pthread_mutex_unlock(&p->lock);
	return (int)n;
}

static bool pool_ready(const struct io *io)
{
	const struct pool *p = (const struct pool *)io;

	return atomic_load_explicit(&p->has_results, memory_order_relaxed);
}

static size_t pool_depth(const struct io *io)
{
	(void)io;
	return DEPTH;
}

/* The threads take what is queued before they look at `stop`: nothing is in flight afterwards. */
static void pool_free(struct io *io)
{
	struct pool *p = (struct pool *)io;

	(void)pthread_mutex_lock(&p->lock);
	p->stop = true;
	(void)pthread_cond_broadcast(&p->work);
	(void)pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->n_threads; i++)
		(void)pthread_join(p->threads[i], NULL);
	(void)pthread_cond_destroy(&p->results_come);
	(void)pthread_cond_destroy(&p->work);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct io_ops pool_ops = {
	.name = "pread",
	.submit = pool_submit,
	.reap = pool_reap,
	.ready = pool_ready,
	.depth = pool_depth,
	.free = pool_free,
};

static int start_threads(struct pool *p, unsigned threads)
{
	sigset_t all, old;
	int r = 0;

	/* Signals belong to the threads that expect them. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (r == 0 && p->n_threads < threads) {
		r = pthread_create(&p->threads[p->n_threads], NULL, thread_main, p);
		if (r == 0)
			p->n_threads++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return p->n_threads ? 0 : -r; /* fewer threads are slower, not wrong */
}

int io_pool_new(struct io **ret, const int *fds, size_t n, unsigned threads, struct error *err)
{
	pthread_condattr_t attr;
	struct pool *p;
	int r;

	if (n > LIMIT_MODEL_FILES || threads < 1)
		return error_set(err, -EINVAL, "a pool of %u threads cannot read %zu files (of %u)",
			threads, n, LIMIT_MODEL_FILES);
	p = calloc(1, sizeof *p + n * sizeof p->fds[0]);
	if (!p)
		return error_errno(err, -ENOMEM, "cannot make the pool of reading threads");
	p->io.ops = &pool_ops;
	p->n_fds = n;
	if (n > 0)
		memcpy(p->fds, fds, n * sizeof fds[0]);
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->work, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->results_come, &attr);
	(void)pthread_condattr_destroy(&attr);
	r = start_threads(p, threads < THREADS_MAX ? threads : THREADS_MAX);
	if (r < 0) {
		pool_free(&p->io);
		return error_errno(err, r, "cannot start the pool of reading threads");
	}
	*ret = &p->io;
	return 0;
}
