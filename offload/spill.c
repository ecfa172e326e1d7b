/* SPDX-License-Identifier: MIT */
#include "spill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "limit.h"
#include "num.h"

/* A huge page: reads into small ones are slower by half. */
#define BUFFER ((size_t)2 << 20)

struct spill {
	struct spill_config config;
	struct spill_way way;
	void *map;
	pthread_t thread;
	bool joinable;
	pthread_mutex_t lock;
	pthread_cond_t more, ended; /* for the thread; for the owner */
	struct list loads, others, done;
	struct spill_job *now;
	bool stop;
};

/* ---- the folder ---------------------------------------------------------------------------- */

static bool has_end(const char *name, const char *end)
{
	size_t n = strlen(name), k = strlen(end);

	return n > k && strcmp(name + n - k, end) == 0;
}

/* Out of the way, for whoever wants to look at how it begins. */
static void set_aside(const struct spill_way *way, const char *name, struct spill_scan *scan)
{
	char aside[SPILL_NAME_MAX + 8];
	cleanup_fd_ int fd = -1;
	struct stat st;

	(void)snprintf(aside, sizeof aside, "%.*s.bad", (int)SPILL_NAME_MAX, name);
	(void)renameat(way->folder, name, way->folder, aside);
	scan->damaged++;
	fd = openat(way->folder, aside, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > LIMIT_SPILL_ASIDE)
		(void)!ftruncate(fd, LIMIT_SPILL_ASIDE);
}

struct chain {
	uint64_t *at, last;
	uint32_t block, inside; /* tokens of the block that is not full yet */
};

static int chain_add(void *arg, const uint32_t *tokens, size_t n)
{
	struct chain *c = arg;

	while (n > 0) {
		size_t k = num_min(n, (size_t)(c->block - c->inside));

		c->last = spill_chain(c->last, tokens, k);
		*c->at = c->last;
		c->inside += (uint32_t)k;
		if (c->inside == c->block) {
			c->at++;
			c->inside = 0;
		}
		tokens += k;
		n -= k;
	}
	return 0;
}

static int look(
	const struct spill_way *way, const char *name, struct spill_found *ret, struct error *err)
{
	struct spill_file f;
	struct chain chain;
	int r = spill_file_open(&f, way, name, err);

	if (r < 0)
		return r;
	*ret = (struct spill_found){.head = f.head, .size = f.size};
	ret->chain = calloc(spill_chain_length(f.head.n, f.head.block), sizeof *ret->chain);
	chain = (struct chain){.at = ret->chain, .block = f.head.block};
	r = ret->chain ? spill_file_tokens(&f, way, chain_add, &chain, err) : -ENOMEM;
	if (r < 0) {
		free(ret->chain);
		ret->chain = NULL;
	}
	spill_file_close(&f);
	return r;
}

static void scan_one(const struct spill_way *way, const char *name, struct spill_scan *scan)
{
	struct error err = ERROR_NONE;
	uint8_t id[SPILL_ID_SIZE];
	int r;

	/* A write that a crash ended. */
	if (has_end(name, ".kv.new"))
		(void)unlinkat(way->folder, name, 0);
	if (!spill_name_parse(name, id))
		return;
	if (scan->n == LIMIT_SPILL_FILES) {
		(void)unlinkat(way->folder, name, 0);
		scan->removed++;
		return;
	}
	r = look(way, name, &scan->found[scan->n], &err);
	if (r == 0 && scan->found[scan->n].head.passing) {
		/* Of a request that nobody waits for any more. */
		free(scan->found[scan->n].chain);
		(void)unlinkat(way->folder, name, 0);
		scan->removed++;
	} else if (r == 0) {
		scan->n++;
	} else if (r == -EBADMSG) {
		error_prefix(&err, "the state file %s is set aside", name);
		scan->error = err;
		set_aside(way, name, scan);
	} else if (r == -ESTALE) {
		/* Another version's: nobody will ever read it. */
		(void)unlinkat(way->folder, name, 0);
		scan->removed++;
	} else {
		error_prefix(&err, "the state file %s is left alone", name);
		scan->error = err;
	}
}

static int by_use(const void *a, const void *b)
{
	const struct spill_found *x = a, *y = b;

	return x->head.used_ns < y->head.used_ns ? -1 : x->head.used_ns > y->head.used_ns;
}

static int scan(const struct spill_way *way, struct spill_job *job)
{
	struct spill_scan *s = &job->scan;
	int fd = openat(way->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	unsigned aside = 0;
	struct dirent *e;

	s->found = calloc(LIMIT_SPILL_FILES, sizeof *s->found);
	if (!folder || !s->found) {
		int r = folder ? -ENOMEM : -errno;

		if (folder)
			(void)closedir(folder);
		else if (fd >= 0)
			(void)close(fd);
		return error_errno(&job->error, r, "cannot look through the state directory");
	}
	while (!atomic_load(&job->stop) && (e = readdir(folder)))
		scan_one(way, e->d_name, s);
	rewinddir(folder);
	while ((e = readdir(folder)))
		if (has_end(e->d_name, ".kv.bad") && ++aside > LIMIT_SPILL_DAMAGED)
			(void)unlinkat(way->folder, e->d_name, 0);
	(void)closedir(folder);
	qsort(s->found, s->n, sizeof *s->found, by_use);
	return 0;
}

void spill_scan_deinit(struct spill_scan *scan)
{
	for (size_t i = 0; i < scan->n; i++)
		free(scan->found[i].chain);
	free(scan->found);
	*scan = (struct spill_scan){0};
}

/* ---- jobs ---------------------------------------------------------------------------------- */

static int load(const struct spill_way *way, struct spill_job *job)
{
	struct spill_scan aside = {0};
	char name[SPILL_NAME_MAX];
	struct spill_file f;
	int r;

	spill_name(job->head.id, name);
	r = spill_file_open(&f, way, name, &job->error);
	if (r == 0) {
		r = spill_file_read(&f, way, &job->head, job->tokens, job->n, job->write, job->arg,
			&job->error);
		/* It was used: after a restart that counts too. */
		if (r == 0)
			(void)futimens(f.fd, NULL);
		spill_file_close(&f);
	}
	if (r == -EBADMSG) {
		error_prefix(&job->error, "the state file %s is set aside", name);
		set_aside(way, name, &aside);
	} else if (r < 0) {
		error_prefix(&job->error, "cannot read the state file %s", name);
	}
	return r;
}

static int do_remove(const struct spill_way *way, struct spill_job *job)
{
	char name[SPILL_NAME_MAX];

	spill_name(job->head.id, name);
	if (unlinkat(way->folder, name, 0) < 0 && errno != ENOENT)
		return error_errno(&job->error, -errno, "cannot remove the state file %s", name);
	return 0;
}

static int run(struct spill *s, struct spill_job *job)
{
	struct spill_way way = s->way;

	way.stop = &job->stop;
	if (atomic_load(&job->stop) && job->kind != SPILL_REMOVE)
		return -ECANCELED;
	switch (job->kind) {
	case SPILL_SAVE:
		return spill_file_write(
			&way, &job->head, job->tokens, job->read, job->arg, &job->error);
	case SPILL_LOAD:
		return load(&way, job);
	case SPILL_REMOVE:
		return do_remove(&way, job);
	case SPILL_SCAN:
		return scan(&way, job);
	}
	return -EINVAL;
}

/* Locked. */
static struct spill_job *next(struct spill *s)
{
	struct list *from = list_is_empty(&s->loads) ? &s->others : &s->loads;
	struct spill_job *job;

	if (list_is_empty(from))
		return NULL;
	job = list_entry(from->next, struct spill_job, link);
	list_remove(&job->link);
	return job;
}

static void *thread_main(void *arg)
{
	struct spill *s = arg;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		uint64_t start;

		s->now = next(s);
		if (!s->now) {
			(void)pthread_cond_wait(&s->more, &s->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&s->lock);
		start = clock_now();
		s->now->result = run(s, s->now);
		s->now->ns = clock_now() - start;
		(void)pthread_mutex_lock(&s->lock);
		list_append(&s->done, &s->now->link);
		s->now = NULL;
		(void)pthread_cond_signal(&s->ended);
		/* Locked still: the owner, who may end all this, cannot be ahead of it. */
		if (s->config.wake)
			s->config.wake(s->config.wake_arg);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int start(struct spill *s)
{
	pthread_condattr_t attr;
	sigset_t all, old;
	int r;

	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->more, &attr);
	(void)pthread_cond_init(&s->ended, &attr);
	(void)pthread_condattr_destroy(&attr);
	/* Signals belong to the threads that expect them. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&s->thread, NULL, thread_main, s);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	s->joinable = r == 0;
	return r;
}

int spill_new(struct spill **ret, const struct spill_config *config, struct error *err)
{
	struct spill *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, "no memory for writing sessions to disk");
	s->config = *config;
	list_init(&s->loads);
	list_init(&s->others);
	list_init(&s->done);
	/* Twice as much, so that a huge page lies in it. */
	s->map = mmap(NULL, 2 * BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->map == MAP_FAILED) {
		r = -errno;
		free(s);
		return error_errno(err, r, "no memory for writing sessions to disk");
	}
	s->way = (struct spill_way){.folder = config->folder,
		.buffer = (char *)num_align_up((uintptr_t)s->map, BUFFER),
		.io = config->io ? config->io : &spill_io_system};
	(void)madvise(s->way.buffer, BUFFER, MADV_HUGEPAGE);
	(void)madvise(s->way.buffer, BUFFER, MADV_DONTDUMP);
	(void)mlock(s->way.buffer, BUFFER);
	r = start(s);
	if (r < 0) {
		spill_free(s);
		return error_errno(err, r, "cannot start the thread that writes sessions to disk");
	}
	*ret = s;
	return 0;
}

struct spill *spill_free(struct spill *s)
{
	if (!s)
		return NULL;
	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	if (s->now)
		atomic_store(&s->now->stop, true);
	(void)pthread_cond_signal(&s->more);
	(void)pthread_mutex_unlock(&s->lock);
	if (s->joinable)
		(void)pthread_join(s->thread, NULL);
	(void)pthread_cond_destroy(&s->more);
	(void)pthread_cond_destroy(&s->ended);
	(void)pthread_mutex_destroy(&s->lock);
	(void)munmap(s->map, 2 * BUFFER);
	free(s);
	return NULL;
}

void spill_submit(struct spill *s, struct spill_job *job)
{
	(void)pthread_mutex_lock(&s->lock);
	list_append(job->kind == SPILL_LOAD ? &s->loads : &s->others, &job->link);
	(void)pthread_cond_signal(&s->more);
	(void)pthread_mutex_unlock(&s->lock);
}

struct spill_job *spill_take(struct spill *s)
{
	struct spill_job *job = NULL;

	(void)pthread_mutex_lock(&s->lock);
	if (!list_is_empty(&s->done)) {
		job = list_entry(s->done.next, struct spill_job, link);
		list_remove(&job->link);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return job;
}

void spill_wait(struct spill *s, uint64_t timeout_ns)
{
	uint64_t until = clock_now() + timeout_ns;
	struct timespec deadline = {.tv_sec = (time_t)(until / CLOCK_NS_PER_S),
		.tv_nsec = (long)(until % CLOCK_NS_PER_S)};

	(void)pthread_mutex_lock(&s->lock);
	while (list_is_empty(&s->done) &&
		(s->now || !list_is_empty(&s->loads) || !list_is_empty(&s->others)))
		if (pthread_cond_timedwait(&s->ended, &s->lock, &deadline) == ETIMEDOUT)
			break;
	(void)pthread_mutex_unlock(&s->lock);
}
