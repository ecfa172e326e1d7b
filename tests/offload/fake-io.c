/* SPDX-License-Identifier: MIT */

#include "fake-io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "num.h"

uint32_t fake_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

unsigned char fake_byte(uint64_t offset)
{
	return (unsigned char)((offset * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

bool fake_is_content(const void *p, uint64_t offset, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const unsigned char *)p)[i] != fake_byte(offset + i))
			return false;
	return true;
}

static int fake_submit(struct io *io, const struct io_read *reads, size_t n)
{
	struct fake_io *f = (struct fake_io *)io;
	size_t taken = 0;

	if (f->n_submit_fails) {
		f->n_submit_fails--;
		return f->submit_fails;
	}
	/* What the real rungs rely on. */
	for (size_t i = 0; i < n; i++)
		if (reads[i].offset % f->file.align || reads[i].length % f->file.align ||
			(uintptr_t)reads[i].buffer % f->file.memory_align || !reads[i].length)
			abort();
	while (taken < n && f->n_pending < f->depth)
		f->pending[f->n_pending++] = reads[taken++];
	return (int)taken;
}

static struct fake_outcome draw(struct fake_io *f)
{
	uint32_t x = fake_random(&f->seed) % 1000;

	if (f->n_script) {
		f->n_script--;
		return *f->script++;
	}
	if (x < f->chance_short)
		return (struct fake_outcome){FAKE_SHORT, (int)(fake_random(&f->seed) % 9000)};
	x -= f->chance_short;
	if (x < f->chance_again)
		return (struct fake_outcome){FAKE_ERROR, x % 2 ? -EINTR : -EAGAIN};
	x -= f->chance_again;
	if (x < f->chance_error)
		return (struct fake_outcome){FAKE_ERROR, -EIO};
	return (struct fake_outcome){FAKE_FINE, 0};
}

static int32_t serve(struct fake_io *f, const struct io_read *read)
{
	struct fake_outcome outcome = draw(f);
	size_t n = read->length;
	ssize_t k;

	if (outcome.what == FAKE_ERROR)
		return outcome.arg;
	if (outcome.what == FAKE_SHORT)
		n = num_min(n, outcome.arg > 0 ? (size_t)outcome.arg : 1);
	k = pread(f->file.fd, read->buffer, n, (off_t)read->offset);
	f->reads++;
	f->bytes += k > 0 ? (size_t)k : 0;
	return k < 0 ? -errno : (int32_t)k;
}

static int fake_reap(struct io *io, struct io_result *results, size_t max, uint64_t timeout_ns)
{
	struct fake_io *f = (struct fake_io *)io;
	size_t n = 0, want;

	if (f->reap_fails)
		return f->reap_fails;
	if (f->hold_back || !f->n_pending)
		return 0;
	want = f->in_order ? max : fake_random(&f->seed) % 4;
	if (timeout_ns && !want)
		want = 1;
	while (n < want && n < max && f->n_pending) {
		size_t i = f->in_order ? 0 : fake_random(&f->seed) % f->n_pending;
		struct io_read read = f->pending[i];

		memmove(&f->pending[i], &f->pending[i + 1],
			(f->n_pending - i - 1) * sizeof f->pending[0]);
		f->n_pending--;
		results[n++] = (struct io_result){read.tag, serve(f, &read)};
	}
	return (int)n;
}

static bool fake_ready(const struct io *io)
{
	const struct fake_io *f = (const struct fake_io *)io;

	return !f->hold_back && f->n_pending > 0;
}

static size_t fake_depth(const struct io *io)
{
	return ((const struct fake_io *)io)->depth;
}

static void fake_free(struct io *io)
{
	(void)io;
}

static const struct io_ops fake_ops = {
	.name = "fake",
	.submit = fake_submit,
	.reap = fake_reap,
	.ready = fake_ready,
	.depth = fake_depth,
	.free = fake_free,
};

void fake_init(struct fake_io *f, size_t size, uint32_t align)
{
	unsigned char *map;
	struct stat st;
	int fd = memfd_create("fake", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		abort();
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort();
	for (size_t i = 0; i < size; i++)
		map[i] = fake_byte(i);
	(void)munmap(map, size);
	if (fstat(fd, &st) < 0)
		abort();
	*f = (struct fake_io){
		.io = {&fake_ops},
		.file = {.fd = fd,
			.direct = true,
			.align = align,
			.memory_align = align,
			.size = size,
			.device = st.st_dev,
			.inode = st.st_ino,
			.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
			.path = strdup("fake.gguf")},
		.size = size,
		.depth = 8,
		.in_order = true,
		.seed = 1,
	};
}

void fake_deinit(struct fake_io *f)
{
	file_close(&f->file);
}
