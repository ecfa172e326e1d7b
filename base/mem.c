/* SPDX-License-Identifier: MIT */

#include "mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "cleanup.h"
#include "num.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

struct mem_arena {
	char *map; /* as mapped: one huge page more than size, for alignment */
	size_t map_size;
	char *base;
	size_t size, used;
	bool locked;
	_Atomic(size_t) taken;
	_Atomic(bool) here[]; /* by huge page */
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

/* As its pages come: of what is not there yet nothing has to be taken for this. */
static int lock_all(struct mem_arena *a, unsigned flags, struct error *err)
{
	struct rlimit limit = {0};
	int r;

	if (!(flags & (MEM_LOCK | MEM_TRY_LOCK)))
		return 0;
	if (mlock2(a->base, a->size, MLOCK_ONFAULT) == 0) {
		a->locked = true;
		return 0;
	}
	r = -errno;
	if (flags & MEM_TRY_LOCK)
		return 0;
	(void)getrlimit(RLIMIT_MEMLOCK, &limit);
	return error_errno(err, r,
		"cannot lock %zu MiB of memory (the locking limit is %llu KiB; raise "
		"LimitMEMLOCK= of the service or `ulimit -l`)",
		a->size >> 20, (unsigned long long)limit.rlim_cur >> 10);
}

int mem_arena_reserve(struct mem_arena **ret, size_t size, unsigned flags, struct error *err)
{
	struct mem_arena *a;
	uint64_t rounded;
	void *map;
	int r;

	if (!num_align(size, MEM_HUGE_PAGE, &rounded) || rounded > SIZE_MAX - MEM_HUGE_PAGE)
		return error_set(err, -ERANGE, "an arena of %zu bytes is too large", size);
	map = mmap(NULL, rounded + MEM_HUGE_PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return error_errno(
			err, -errno, "cannot reserve %zu MiB of address space", size >> 20);
	a = calloc(1, sizeof *a + rounded / MEM_HUGE_PAGE * sizeof a->here[0]);
	if (!a) {
		(void)munmap(map, rounded + MEM_HUGE_PAGE);
		return error_errno(err, -ENOMEM, "cannot reserve %zu MiB of memory", size >> 20);
	}
	a->map = map;
	a->map_size = rounded + MEM_HUGE_PAGE;
	a->size = rounded;
	a->base = (char *)num_align_up((uintptr_t)a->map, MEM_HUGE_PAGE);
	/* Advice: without it the arena is slower, dumped, or counted twice in a fork; not wrong. */
	(void)madvise(a->base, a->size, MADV_HUGEPAGE);
	(void)madvise(a->base, a->size, MADV_DONTDUMP);
	(void)madvise(a->base, a->size, MADV_DONTFORK);
	r = lock_all(a, flags, err);
	if (r < 0) {
		mem_arena_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

int mem_arena_new(struct mem_arena **ret, size_t size, unsigned flags, mem_progress_fn progress,
	void *progress_arg, struct error *err)
{
	struct mem_arena *a;
	int r = mem_arena_reserve(&a, size, flags, err);

	if (r < 0)
		return r;
	for (size_t done = 0; done < a->size;) {
		size_t n = num_min(a->size - done, MEM_CHUNK);

		r = mem_arena_take(a, a->base + done, n);
		if (r < 0) {
			mem_arena_free(a);
			return error_errno(err, r, "cannot take %zu MiB of memory", n >> 20);
		}
		done += n;
		if (progress)
			progress(progress_arg, done, a->size);
	}
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

size_t mem_arena_taken(const struct mem_arena *a)
{
	return atomic_load(&a->taken);
}

bool mem_arena_is_locked(const struct mem_arena *a)
{
	return a->locked;
}

size_t mem_arena_locked(const struct mem_arena *a)
{
	return a->locked ? mem_arena_taken(a) : 0;
}

uint64_t mem_arena_huge(const struct mem_arena *a)
{
	uintptr_t base = (uintptr_t)a->base;
	uint64_t sum = 0, kib;
	unsigned long begin, end;
	bool inside = false;
	char line[4096];
	FILE *f = fopen("/proc/self/smaps", "re");

	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			inside = begin < base + a->size && end > base;
		else if (inside && sscanf(line, "AnonHugePages: %" SCNu64 " kB", &kib) == 1)
			sum += kib << 10;
	}
	if (f)
		(void)fclose(f);
	/* The map is a page more than the arena. */
	return num_min(sum, (uint64_t)a->size);
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

/* Counts each page once, whoever else takes it at the same time. */
static void set_here(struct mem_arena *a, size_t page, bool here)
{
	if (atomic_exchange(&a->here[page], here) == here)
		return;
	if (here)
		atomic_fetch_add(&a->taken, MEM_HUGE_PAGE);
	else
		atomic_fetch_sub(&a->taken, MEM_HUGE_PAGE);
}

/* Locked pages are let go without unlocking the range, so that those that come again are locked. */
static int let_go(const struct mem_arena *a, void *p, size_t n)
{
	if (!a->locked)
		return madvise(p, n, MADV_DONTNEED) < 0 ? -errno : 0;
	if (madvise(p, n, MADV_DONTNEED_LOCKED) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	/* Kernels before 5.18. */
	if (munlock(p, n) < 0 || madvise(p, n, MADV_DONTNEED) < 0 ||
		mlock2(p, n, MLOCK_ONFAULT) < 0)
		return -errno;
	return 0;
}

/*
 * One after the other: the kernel holds a lock meanwhile that a growing heap or a new thread's
 * stack waits for, and a page may take it milliseconds.
 */
int mem_arena_take(struct mem_arena *a, void *p, size_t n)
{
	char *page = p, *end = page + n;

	if (!is_part(a, p, n))
		return -EINVAL;
	for (; page < end; page += MEM_HUGE_PAGE) {
		size_t i = (size_t)(page - a->base) / MEM_HUGE_PAGE;
		int r = atomic_load(&a->here[i]) ? 0 : populate(page, MEM_HUGE_PAGE);

		if (r < 0)
			return r;
		set_here(a, i, true);
	}
	return 0;
}

int mem_arena_give_back(struct mem_arena *a, void *p, size_t n)
{
	size_t first;
	int r;

	if (!is_part(a, p, n))
		return -EINVAL;
	r = let_go(a, p, n);
	first = (size_t)((char *)p - a->base) / MEM_HUGE_PAGE;
	for (size_t i = 0; r == 0 && i < n / MEM_HUGE_PAGE; i++)
		set_here(a, first + i, false);
	return r;
}
