/* SPDX-License-Identifier: MIT */

#include "mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "cleanup.h"
#include "num.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct mem_arena {
	char *map; /* as mapped: one huge page more than size, for alignment */
	size_t map_size;
	char *base;
	size_t size, used, locked;
	unsigned flags;
};

/* Kernels before 5.14 have no MADV_POPULATE_WRITE: touch the pages instead. */
static int populate(char *p, size_t n)
{
	int r;

	do
		r = madvise(p, n, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
	while (r == -EINTR || r == -EAGAIN);
	if (r == -EINVAL) {
		for (size_t i = 0; i < n; i += 4096)
			((volatile char *)p)[i] = 0;
		return 0;
	}
	return r == -EFAULT || r == -EHWPOISON ? -ENOMEM : r;
}

static int take(struct mem_arena *a, char *p, size_t n, struct error *err)
{
	struct rlimit limit = {0};
	int r = populate(p, n);

	if (r < 0)
		return error_errno(err, r, "cannot take %zu MiB of memory", n >> 20);
	if (!(a->flags & (MEM_LOCK | MEM_TRY_LOCK)))
		return 0;
	if (mlock(p, n) == 0) {
		a->locked += n;
		return 0;
	}
	r = -errno;
	if (a->flags & MEM_TRY_LOCK) {
		/* All or nothing: what is locked in part is not kept in memory either. */
		(void)munlock(a->base, a->size);
		a->locked = 0;
		a->flags &= ~(unsigned)MEM_TRY_LOCK;
		return 0;
	}
	(void)getrlimit(RLIMIT_MEMLOCK, &limit);
	return error_errno(err, r,
		"cannot lock %zu MiB of memory (the locking limit is %llu KiB; raise "
		"LimitMEMLOCK= of the service or `ulimit -l`)",
		a->size >> 20, (unsigned long long)limit.rlim_cur >> 10);
}

int mem_arena_new(struct mem_arena **ret, size_t size, unsigned flags, mem_progress_fn progress,
	void *progress_arg, struct error *err)
{
	struct mem_arena *a;
	uint64_t rounded;
	int r;

	if (!num_align(size, MEM_HUGE_PAGE, &rounded) || rounded > SIZE_MAX - MEM_HUGE_PAGE)
		return error_set(err, -ERANGE, "an arena of %zu bytes is too large", size);
	a = calloc(1, sizeof *a);
	if (!a)
		return -ENOMEM;
	a->flags = flags;
	a->size = rounded;
	a->map_size = rounded + MEM_HUGE_PAGE;
	a->map = mmap(NULL, a->map_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->map == MAP_FAILED) {
		r = error_errno(err, -errno, "cannot reserve %zu MiB of address space", size >> 20);
		free(a);
		return r;
	}
	a->base = (char *)num_align_up((uintptr_t)a->map, MEM_HUGE_PAGE);
	/* Advice: without it the arena is slower, dumped, or counted twice in a fork; not wrong. */
	(void)madvise(a->base, a->size, MADV_HUGEPAGE);
	(void)madvise(a->base, a->size, MADV_DONTDUMP);
	(void)madvise(a->base, a->size, MADV_DONTFORK);

	for (size_t done = 0; done < a->size;) {
		size_t n = num_min(a->size - done, MEM_CHUNK);

		r = take(a, a->base + done, n, err);
		if (r < 0) {
			mem_arena_free(a);
			return r;
		}
		done += n;
		if (progress)
			progress(progress_arg, done, a->size);
	}
	a->flags = a->locked ? MEM_LOCK : 0; /* what is taken again is to be as the rest */
	*ret = a;
	return 0;
}

struct mem_arena *mem_arena_free(struct mem_arena *a)
{
	if (a) {
		(void)munmap(a->map, a->map_size);
		free(a);
	}
	return NULL;
}

void *mem_arena_alloc(struct mem_arena *a, size_t n, size_t align)
{
	uint64_t start, end;

	if (!num_align(a->used, align, &start) || !num_add(start, n, &end) || end > a->size)
		return NULL;
	a->used = end;
	return a->base + start;
}

size_t mem_arena_size(const struct mem_arena *a)
{
	return a->size;
}

size_t mem_arena_used(const struct mem_arena *a)
{
	return a->used;
}

size_t mem_arena_locked(const struct mem_arena *a)
{
	return a->locked;
}

void *mem_arena_base(const struct mem_arena *a)
{
	return a->base;
}

static bool is_part(const struct mem_arena *a, const char *p, size_t n)
{
	return p >= a->base && n <= a->size && (size_t)(p - a->base) <= a->size - n &&
	       (size_t)(p - a->base) % MEM_HUGE_PAGE == 0 && n % MEM_HUGE_PAGE == 0;
}

int mem_arena_give_back(struct mem_arena *a, void *p, size_t n)
{
	if (!is_part(a, p, n))
		return -EINVAL;
	if (a->locked && munlock(p, n) == 0)
		a->locked -= num_min(a->locked, n);
	return madvise(p, n, MADV_DONTNEED) < 0 ? -errno : 0;
}

int mem_arena_take_again(struct mem_arena *a, void *p, size_t n)
{
	int r;

	if (!is_part(a, p, n))
		return -EINVAL;
	r = take(a, p, n, NULL);
	if (r < 0)
		(void)madvise(p, n, MADV_DONTNEED);
	return r;
}
