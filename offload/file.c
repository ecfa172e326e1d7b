/* SPDX-License-Identifier: MIT */

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fd.h"
#include "limit.h"
#include "num.h"

#define ALIGN_DEFAULT 4096u
#define ALIGN_MIN 512u
#define ALIGN_MAX 65536u
#define PAGE 4096u
#define WINDOW ((size_t)1 << 20)
#define PROBES 8u

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000u
#endif
#ifndef ZFS_SUPER_MAGIC
#define ZFS_SUPER_MAGIC 0x2fc12fc1
#endif
#define SYS_CACHESTAT                                                                              \
	451 /* Linux 6.5, newer than the headers we build with; one number everywhere */

static int64_t time_ns(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

/* What the kernel asks of direct reads.  False: this file cannot be read directly. */
static bool ask_alignment(int fd, uint32_t *offset, uint32_t *memory)
{
	*offset = *memory = ALIGN_DEFAULT;
#ifdef STATX_ATTR_DAX /* a libc new enough to know stx_dio_offset_align */
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) < 0 || !(x.stx_mask & STATX_DIOALIGN))
		return true;
	if (!num_is_pow2(x.stx_dio_offset_align) || x.stx_dio_offset_align > ALIGN_MAX ||
		!num_is_pow2(x.stx_dio_mem_align) || x.stx_dio_mem_align > ALIGN_MAX)
		return false;
	*offset = num_max(x.stx_dio_offset_align, ALIGN_MIN);
	*memory = num_max(x.stx_dio_mem_align, ALIGN_MIN);
#endif
	return true;
}

/* Pages of [offset, offset + n) in the page cache: count, or -errno where nobody will say. */
static int64_t count_cached(int fd, uint64_t offset, size_t n)
{
	struct {
		uint64_t offset, length;
	} range = {offset, n};
	struct {
		uint64_t cache, dirty, writeback, evicted, recently_evicted;
	} stat = {0};
	unsigned char pages[16] = {0};
	int64_t count = 0;
	void *map;
	int r;

	if (syscall(SYS_CACHESTAT, fd, &range, &stat, 0) == 0)
		return (int64_t)stat.cache;
	map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	if (map == MAP_FAILED)
		return -errno;
	r = mincore(map, n, pages) < 0 ? -errno : 0;
	(void)munmap(map, n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n / PAGE; i++)
		count += pages[i] & 1;
	return count;
}

/*
 * Reads one place and looks for it in the page cache: 1 it is there, 0 it is not, -EAGAIN where it
 * was before or the kernel will not tell.
 */
static int probe(int fd, uint64_t at, void *buffer)
{
	/* A file just written has dirty pages, which are not let go. */
	(void)sync_file_range(fd, (off_t)at, ALIGN_MAX,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	(void)posix_fadvise(fd, (off_t)at, ALIGN_MAX, POSIX_FADV_DONTNEED);
	if (count_cached(fd, at, PAGE) != 0)
		return -EAGAIN;
	if (pread(fd, buffer, ALIGN_MAX, (off_t)at) <= 0)
		return -EAGAIN;
	if (count_cached(fd, at, PAGE) <= 0)
		return 0;
	(void)posix_fadvise(fd, (off_t)at, ALIGN_MAX, POSIX_FADV_DONTNEED);
	return 1;
}

/*
 * Some file systems take O_DIRECT and go through the page cache all the same.  Where no place of
 * the file tells, the answer is no.
 */
static bool is_buffered_silently(int fd, uint64_t size)
{
	cleanup_free_ void *buffer = NULL;
	struct statfs fs;
	int r = -EAGAIN;

	if (fstatfs(fd, &fs) == 0 &&
		(fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
			fs.f_type == HUGETLBFS_MAGIC || fs.f_type == ZFS_SUPER_MAGIC))
		return true;
	if (posix_memalign(&buffer, ALIGN_MAX, ALIGN_MAX) != 0)
		return false;
	for (uint64_t i = 1; r < 0 && i < PROBES; i++)
		r = probe(fd, num_align_down(size / PROBES * i, ALIGN_MAX), buffer);
	return r > 0;
}

/* O_NONBLOCK so that a FIFO or a device does not hold us; taken away again, since io_uring would
 * answer EAGAIN instead of waiting. */
static int open_fd(const char *path, bool *ret_direct, struct error *err)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd = open(path, flags | O_DIRECT);

	*ret_direct = fd >= 0;
	if (fd < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
		fd = open(path, flags);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open '%s'", path);
	return fd;
}

int file_open(struct file *ret, const char *path, struct error *err)
{
	cleanup_free_ char *copy = NULL;
	cleanup_fd_ int fd = -1;
	struct file f = {0};
	struct stat st;
	int flags;

	fd = open_fd(path, &f.direct, err);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at '%s'", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
			"cannot read '%s': it is no regular file; name a model file", path);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return error_errno(err, -errno, "cannot open '%s'", path);
	copy = strdup(path);
	if (!copy)
		return error_errno(err, -ENOMEM, "cannot open '%s'", path);

	if (!ask_alignment(fd, &f.align, &f.memory_align))
		f.direct = false;
	if (f.direct && is_buffered_silently(fd, (uint64_t)st.st_size))
		f.direct = false;
	/* Plainly buffered then, without reading ahead: that would have to be dropped as well. */
	if (!f.direct) {
		if (fcntl(fd, F_SETFL, flags & ~(O_NONBLOCK | O_DIRECT)) < 0)
			return error_errno(err, -errno, "cannot open '%s'", path);
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	}
	f.fd = steal_fd(fd);
	f.size = (uint64_t)st.st_size;
	f.device = st.st_dev;
	f.inode = st.st_ino;
	f.mtime_ns = time_ns(&st.st_mtim);
	f.path = steal_ptr(copy);
	*ret = f;
	return 0;
}

void file_close(struct file *f)
{
	f->fd = fd_close(f->fd);
	free(f->path);
	f->path = NULL;
}

int file_check(const struct file *f)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != f->size || st.st_dev != f->device || st.st_ino != f->inode ||
		time_ns(&st.st_mtim) != f->mtime_ns)
		return -ESTALE;
	return 0;
}

void file_drop(const struct file *f, uint64_t offset, uint64_t n)
{
	uint64_t begin = num_align_down(offset, PAGE);

	/* Only whole pages are dropped, so the range grows to whole ones. */
	if (!f->direct && n > 0)
		(void)posix_fadvise(f->fd, (off_t)begin,
			(off_t)(num_align_up(offset + n, PAGE) - begin), POSIX_FADV_DONTNEED);
}

/* Reads until `need` bytes of the aligned window are there; at most n.  0 or -errno. */
static int read_window(const struct file *f, char *buffer, size_t n, size_t need, uint64_t offset)
{
	unsigned retries = 0;
	size_t done = 0;

	while (done < need) {
		/* A short read may end anywhere; the next one must start aligned. */
		size_t from = num_align_down(done, f->align);
		ssize_t k = pread(f->fd, buffer + from, n - from, (off_t)(offset + from));

		if (k == 0)
			return -ENODATA;
		if (k < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (k > 0 && from + (size_t)k > done) {
			done = from + (size_t)k;
			continue;
		}
		if (++retries > LIMIT_READ_RETRIES)
			return k < 0 ? -errno : -ENODATA;
	}
	return 0;
}

int file_read(const struct file *f, uint64_t offset, void *buffer, size_t n, struct error *err)
{
	cleanup_free_ void *window = NULL;
	uint64_t end, at = num_align_down(offset, f->align);
	char *to = buffer;
	size_t size;

	if (!num_add(offset, n, &end) || end > f->size)
		return error_set(err, -ENODATA,
			"cannot read %zu bytes at offset %llu of '%s': it ends at %llu", n,
			(unsigned long long)offset, f->path, (unsigned long long)f->size);
	if (n == 0)
		return 0;
	size = num_min(num_align_up(end, f->align) - at, (uint64_t)WINDOW);
	if (posix_memalign(&window, num_max(f->memory_align, PAGE), size) != 0)
		return error_errno(err, -ENOMEM, "cannot read '%s'", f->path);

	for (; at < end; at += size) {
		size_t skip = offset > at ? offset - at : 0;
		size_t upto = num_min((uint64_t)size, end - at);
		size_t all = num_min((uint64_t)size, num_align_up(end, f->align) - at);
		int r = read_window(f, window, all, upto, at);

		file_drop(f, at, all);
		if (r < 0)
			return error_errno(err, r, "cannot read '%s' at offset %llu", f->path,
				(unsigned long long)at);
		memcpy(to, (char *)window + skip, upto - skip);
		to += upto - skip;
	}
	return 0;
}
