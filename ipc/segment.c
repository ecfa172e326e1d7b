/* SPDX-License-Identifier: MIT */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "limit.h"
#include "num.h"

/* Newer than the headers we build with; the values are the kernel's ABI. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SEALS_SIZE (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

uint64_t segment_size(uint32_t ring_size)
{
	return (uint64_t)WIRE_RING_OFFSET + ring_size;
}

static int memfd_new(struct error *err)
{
	const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	fd = memfd_create("moed-segment", flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("moed-segment", flags);
	return fd >= 0 ? fd : error_errno(err, -errno, "cannot make a shared segment");
}

static struct wire_segment *map_fd(int fd, uint64_t size, int protection)
{
	void *map = mmap(NULL, size, protection, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return NULL;
	/* Prompts and answers pass here: not into core files. */
	(void)madvise(map, size, MADV_DONTDUMP);
	return map;
}

int segment_make(struct segment *ret, uint32_t ring_size, bool daemon_writes, struct error *err)
{
	const int seals = SEALS_SIZE | (daemon_writes ? F_SEAL_FUTURE_WRITE : 0);
	uint64_t size = segment_size(ring_size);
	struct wire_segment *map;
	cleanup_fd_ int fd = -1;

	if (!num_is_pow2(ring_size) || ring_size < LIMIT_RING_MIN || ring_size > LIMIT_RING_MAX)
		return error_set(err, -EINVAL, "a ring of %u bytes is not possible", ring_size);
	fd = memfd_new(err);
	if (fd < 0)
		return fd;
	/* All pages now: so they are this process's, accounted once, and no access can fail later.
	 */
	if (ftruncate(fd, (off_t)size) < 0 || fallocate(fd, 0, 0, (off_t)size) < 0)
		return error_errno(err, -errno, "cannot get %llu bytes for a shared segment",
			(unsigned long long)size);
	map = map_fd(fd, size, PROT_READ | PROT_WRITE);
	if (!map)
		return error_errno(err, -errno, "cannot map a shared segment");
	map->magic = WIRE_SEGMENT_MAGIC;
	map->major = WIRE_MAJOR;
	map->minor = WIRE_MINOR;
	map->header_size = sizeof(*map);
	map->geometry = (struct wire_geometry){size, WIRE_RING_OFFSET, ring_size};
	if (fcntl(fd, F_ADD_SEALS, seals) < 0) {
		int k = -errno;

		(void)munmap(map, size);
		return error_errno(err, k, "cannot seal a shared segment");
	}
	*ret = (struct segment){
		.map = map,
		.size = size,
		.geometry = {size, WIRE_RING_OFFSET, ring_size},
	};
	ret->fd = steal_fd(fd);
	return 0;
}

static bool geometry_ok(const struct wire_geometry *g)
{
	return num_is_pow2(g->ring_size) && g->ring_size >= LIMIT_RING_MIN &&
	       g->ring_size <= LIMIT_RING_MAX && g->ring_offset >= sizeof(struct wire_segment) &&
	       g->ring_offset <= LIMIT_RING_MAX && g->ring_offset % 64 == 0 &&
	       g->segment_size <= 2 * LIMIT_RING_MAX &&
	       (uint64_t)g->ring_offset + g->ring_size <= g->segment_size;
}

static int fd_check(int fd, const struct wire_geometry *g, bool daemon_writes, struct error *err)
{
	const int wanted = SEALS_SIZE | (daemon_writes ? F_SEAL_FUTURE_WRITE : 0);
	struct stat st;
	int seals;

	if (!geometry_ok(g))
		return error_set(err, -EPROTO, "the daemon offers a segment of impossible shape");
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the daemon's segment");
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & wanted) != wanted)
		return error_set(err, -EPROTO, "the daemon's segment is not sealed as agreed");
	if (st.st_size < 0 || (uint64_t)st.st_size != g->segment_size)
		return error_set(err, -EPROTO, "the daemon's segment is not of the size agreed");
	return 0;
}

int segment_map(struct segment *ret, int fd_taken, const struct wire_geometry *geometry,
	bool daemon_writes, struct error *err)
{
	const struct wire_geometry g = *geometry;
	struct wire_segment *map;
	cleanup_fd_ int fd = fd_taken;
	int k;

	k = fd_check(fd, &g, daemon_writes, err);
	if (k < 0)
		return k;
	map = map_fd(fd, g.segment_size, daemon_writes ? PROT_READ : PROT_READ | PROT_WRITE);
	if (!map)
		return error_errno(err, -errno, "cannot map the daemon's segment");
	if (map->magic != WIRE_SEGMENT_MAGIC || map->major != WIRE_MAJOR ||
		map->geometry.segment_size != g.segment_size ||
		map->geometry.ring_offset != g.ring_offset ||
		map->geometry.ring_size != g.ring_size) {
		(void)munmap(map, g.segment_size);
		return error_set(err, -EPROTO, "the daemon's segment contradicts its welcome");
	}
	*ret = (struct segment){.map = map, .size = g.segment_size, .fd = -1, .geometry = g};
	return 0;
}

void segment_close_fd(struct segment *s)
{
	s->fd = fd_close(s->fd);
}

void segment_deinit(struct segment *s)
{
	segment_close_fd(s);
	if (s->map)
		(void)munmap(s->map, s->size);
	*s = SEGMENT_NULL;
}
