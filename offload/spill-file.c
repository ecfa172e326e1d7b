/* SPDX-License-Identifier: MIT */
#include "spill-file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "crc32c.h"
#include "fd.h"
#include "limit.h"
#include "num.h"

#define MAGIC UINT64_C(0x4c4c4950534f4f4d) /* "MOOSPILL" */
#define VERSION 1u

/* The first SPILL_ALIGN bytes; the rest of them is zero. */
struct wire {
	uint64_t magic;
	uint32_t version;
	uint32_t sum; /* of the SPILL_ALIGN bytes, with this as 0 */
	uint64_t identity;
	uint8_t id[SPILL_ID_SIZE];
	uint32_t uid;
	uint32_t n;
	uint32_t block;
	uint32_t piece;
	uint64_t block_bytes;
	uint64_t size;
	uint32_t tokens_sum;
	uint32_t table_sum;
	uint32_t passing; /* 0 or 1 */
	uint32_t zero;
};
static_assert(sizeof(struct wire) == 88, "part of the format");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is written as it lies");

static ssize_t system_pread(int fd, void *bytes, size_t n, off_t at)
{
	return pread(fd, bytes, n, at);
}

static ssize_t system_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	return pwrite(fd, bytes, n, at);
}

const struct spill_io spill_io_system = {
	.pread = system_pread,
	.pwrite = system_pwrite,
	.fsync = fsync,
	.fallocate = fallocate,
};

void spill_name(const uint8_t id[SPILL_ID_SIZE], char name[SPILL_NAME_MAX])
{
	for (size_t i = 0; i < SPILL_ID_SIZE; i++)
		(void)snprintf(name + 2 * i, SPILL_NAME_MAX - 2 * i, "%02x", id[i]);
	(void)snprintf(name + 2 * SPILL_ID_SIZE, SPILL_NAME_MAX - 2 * SPILL_ID_SIZE, ".kv");
}

bool spill_name_parse(const char *name, uint8_t id[SPILL_ID_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	if (strlen(name) != 2 * SPILL_ID_SIZE + 3 || strcmp(name + 2 * SPILL_ID_SIZE, ".kv") != 0)
		return false;
	for (size_t i = 0; i < SPILL_ID_SIZE; i++) {
		const char *high = strchr(digits, name[2 * i]);
		const char *low = strchr(digits, name[2 * i + 1]);

		if (!high || !low)
			return false;
		id[i] = (uint8_t)((high - digits) << 4 | (low - digits));
	}
	return true;
}

/* Where the parts lie.  False: out of range. */
static bool lay_out(const struct spill_head *h, struct spill_file *f)
{
	uint64_t blocks, body, pieces, table, tokens;

	if (h->n == 0 || h->n > LIMIT_CONTEXT || h->block == 0 || h->block > LIMIT_CONTEXT ||
		h->block_bytes == 0)
		return false;
	blocks = ((uint64_t)h->n + h->block - 1) / h->block;
	if (!num_mul(blocks, h->block_bytes, &body) || body > LIMIT_SPILL_FILE)
		return false;
	pieces = (body + SPILL_PIECE - 1) / SPILL_PIECE;
	tokens = num_align_up(h->n * sizeof(uint32_t), SPILL_ALIGN);
	table = num_align_up(pieces * sizeof(uint32_t), SPILL_ALIGN);
	f->head = *h;
	f->tokens_at = SPILL_ALIGN;
	f->table_at = f->tokens_at + tokens;
	f->body_at = f->table_at + table;
	f->size = f->body_at + num_align_up(body, SPILL_ALIGN);
	f->n_pieces = (uint32_t)pieces;
	return true;
}

uint64_t spill_file_size(const struct spill_head *head)
{
	struct spill_file f;

	return lay_out(head, &f) ? f.size : 0;
}

/* Bytes of piece i, unpadded. */
static size_t piece_size(const struct spill_file *f, uint32_t i)
{
	const struct spill_head *h = &f->head;
	uint64_t body = ((uint64_t)h->n + h->block - 1) / h->block * h->block_bytes;

	return (size_t)num_min((uint64_t)SPILL_PIECE, body - (uint64_t)i * SPILL_PIECE);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* What the file system kept in the page cache; with O_DIRECT, and where that is heeded, nothing. */
static void drop(int fd, uint64_t at, size_t n, bool written)
{
	if (written)
		(void)sync_file_range(fd, (off_t)at, (off_t)n,
			SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				SYNC_FILE_RANGE_WAIT_AFTER);
	(void)posix_fadvise(fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
}

/* All of the buffer's first n bytes, padded. */
static int put(const struct spill_way *way, int fd, uint64_t at, size_t n)
{
	size_t all = num_align_up(n, SPILL_ALIGN), done = 0;
	unsigned retries = 0;

	if (way->stop && atomic_load(way->stop))
		return -ECANCELED;
	memset(way->buffer + n, 0, all - n);
	while (done < all) {
		/* A short write may end anywhere; the next one has to begin aligned. */
		size_t from = num_align_down(done, SPILL_ALIGN);
		ssize_t k = way->io->pwrite(fd, way->buffer + from, all - from, (off_t)(at + from));

		if (k < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (k > 0 && from + (size_t)k > done) {
			done = from + (size_t)k;
			continue;
		}
		if (++retries > LIMIT_READ_RETRIES)
			return k < 0 ? -errno : -EIO;
	}
	drop(fd, at, all, true);
	return 0;
}

/* The pieces; their checksums go to the table. */
static int put_body(const struct spill_way *way, int fd, const struct spill_file *f,
	uint32_t *table, spill_read_fn read, void *arg)
{
	for (uint32_t i = 0; i < f->n_pieces; i++) {
		uint64_t at = (uint64_t)i * SPILL_PIECE;
		size_t n = piece_size(f, i);
		int r;

		read(arg, at, way->buffer, n);
		table[i] = crc32c(0, way->buffer, n);
		r = put(way, fd, f->body_at + at, n);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Numbers, as many as there are, through the buffer. */
static int put_numbers(const struct spill_way *way, int fd, uint64_t at, const uint32_t *numbers,
	size_t n, uint32_t *ret_sum)
{
	const size_t most = SPILL_PIECE / sizeof *numbers;

	*ret_sum = 0;
	for (size_t i = 0; i < n; i += most) {
		size_t k = num_min(most, n - i) * sizeof *numbers;
		int r;

		memcpy(way->buffer, numbers + i, k);
		*ret_sum = crc32c(*ret_sum, way->buffer, k);
		r = put(way, fd, at + i * sizeof *numbers, k);
		if (r < 0)
			return r;
	}
	return 0;
}

static int put_head(const struct spill_way *way, int fd, const struct spill_file *f)
{
	const struct spill_head *h = &f->head;
	struct wire w = {.magic = MAGIC,
		.version = VERSION,
		.identity = h->identity,
		.uid = h->uid,
		.n = h->n,
		.block = h->block,
		.piece = SPILL_PIECE,
		.block_bytes = h->block_bytes,
		.size = f->size,
		.tokens_sum = f->tokens_sum,
		.table_sum = f->table_sum,
		.passing = h->passing};

	memcpy(w.id, h->id, sizeof w.id);
	memset(way->buffer, 0, SPILL_ALIGN);
	memcpy(way->buffer, &w, sizeof w);
	w.sum = crc32c(0, way->buffer, SPILL_ALIGN);
	memcpy(way->buffer, &w, sizeof w);
	return put(way, fd, 0, SPILL_ALIGN);
}

/* The order of files; worth no error. */
static void set_time(int fd, int64_t ns)
{
	struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT}, {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}};

	(void)futimens(fd, times);
}

static int put_all(const struct spill_way *way, int fd, struct spill_file *f,
	const uint32_t *tokens, spill_read_fn read, void *arg)
{
	cleanup_free_ uint32_t *table = calloc(f->n_pieces, sizeof *table);
	int r;

	if (!table)
		return -ENOMEM;
	/* A disk that is full says so before anything is copied. */
	if (way->io->fallocate(fd, 0, 0, (off_t)f->size) < 0 && errno != EOPNOTSUPP &&
		errno != ENOSYS && errno != EINTR)
		return -errno;
	r = put_body(way, fd, f, table, read, arg);
	if (r == 0)
		r = put_numbers(way, fd, f->tokens_at, tokens, f->head.n, &f->tokens_sum);
	if (r == 0)
		r = put_numbers(way, fd, f->table_at, table, f->n_pieces, &f->table_sum);
	if (r == 0)
		r = put_head(way, fd, f);
	if (r == 0 && f->head.used_ns > 0)
		set_time(fd, f->head.used_ns);
	if (r == 0 && way->io->fsync(fd) < 0)
		r = -errno;
	return r;
}

static int open_direct(int folder, const char *name, int flags)
{
	int fd = openat(folder, name, flags | O_DIRECT, 0600);

	/* tmpfs of old kernels, for one, knows no such reads. */
	if (fd < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
		fd = openat(folder, name, flags & ~(O_CREAT | O_EXCL), 0600);
	if (fd < 0 && errno == ENOENT && flags & O_CREAT)
		fd = openat(folder, name, flags, 0600);
	return fd;
}

int spill_file_write(const struct spill_way *way, const struct spill_head *head,
	const uint32_t *tokens, spill_read_fn read, void *arg, struct error *err)
{
	char name[SPILL_NAME_MAX], fresh[SPILL_NAME_MAX + 4];
	struct spill_file f = {.fd = -1};
	cleanup_fd_ int fd = -1;
	int r;

	if (!lay_out(head, &f))
		return error_set(
			err, -ERANGE, "a session of %u positions is too large for a file", head->n);
	spill_name(head->id, name);
	(void)snprintf(fresh, sizeof fresh, "%s.new", name);
	(void)unlinkat(way->folder, fresh, 0);
	fd = open_direct(way->folder, fresh,
		O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make the state file %s", fresh);
	r = put_all(way, fd, &f, tokens, read, arg);
	if (r == 0 && renameat(way->folder, fresh, way->folder, name) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(way->folder, fresh, 0);
	if (r == 0 && way->io->fsync(way->folder) < 0) {
		r = -errno;
		/* Which of the two a crash would leave, nobody knows. */
		(void)unlinkat(way->folder, name, 0);
	}
	if (r < 0)
		return error_errno(
			err, r, "cannot write the state file %s (%" PRIu64 " bytes)", name, f.size);
	return 0;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* n bytes, padded, into the buffer. */
static int get(const struct spill_way *way, int fd, uint64_t at, size_t n, struct error *err)
{
	size_t all = num_align_up(n, SPILL_ALIGN), done = 0;
	unsigned retries = 0;

	if (way->stop && atomic_load(way->stop))
		return -ECANCELED;
	while (done < n) {
		size_t from = num_align_down(done, SPILL_ALIGN);
		ssize_t k = way->io->pread(fd, way->buffer + from, all - from, (off_t)(at + from));

		if (k == 0)
			return error_set(err, -EBADMSG, "it ends at offset %" PRIu64, at + done);
		if (k < 0 && errno != EINTR && errno != EAGAIN)
			return error_errno(err, -errno, "cannot read at offset %" PRIu64, at);
		if (k > 0 && from + (size_t)k > done) {
			done = from + (size_t)k;
			continue;
		}
		if (++retries > LIMIT_READ_RETRIES)
			return error_errno(
				err, k < 0 ? -errno : -EIO, "cannot read at offset %" PRIu64, at);
	}
	drop(fd, at, all, false);
	return 0;
}

static bool is_zero(const char *p, size_t n)
{
	while (n > 0 && !*p) {
		p++;
		n--;
	}
	return n == 0;
}

/* The head, which lies in the buffer. */
static int check_head(
	struct spill_file *f, const struct spill_way *way, uint64_t size, struct error *err)
{
	struct spill_head h;
	struct wire w;
	uint32_t sum;

	memcpy(&w, way->buffer, sizeof w);
	if (w.magic != MAGIC)
		return error_set(err, -EBADMSG, "it does not begin as a state file");
	if (w.version != VERSION)
		return error_set(err, -ESTALE, "it is of version %u, not %u", w.version, VERSION);
	sum = w.sum;
	w.sum = 0;
	memcpy(way->buffer, &w, sizeof w);
	if (crc32c(0, way->buffer, SPILL_ALIGN) != sum)
		return error_set(err, -EBADMSG, "its head is damaged");
	h = (struct spill_head){.identity = w.identity,
		.uid = w.uid,
		.n = w.n,
		.block = w.block,
		.block_bytes = w.block_bytes,
		.passing = w.passing};
	memcpy(h.id, w.id, sizeof h.id);
	if (!is_zero(way->buffer + sizeof w, SPILL_ALIGN - sizeof w) || w.piece != SPILL_PIECE ||
		w.passing > 1 || w.zero || !lay_out(&h, f) || w.size != f->size)
		return error_set(err, -EBADMSG, "the numbers in its head are out of range");
	if (size != f->size)
		return error_set(err, -EBADMSG, "it has %" PRIu64 " bytes instead of %" PRIu64,
			size, f->size);
	f->tokens_sum = w.tokens_sum;
	f->table_sum = w.table_sum;
	return 0;
}

int spill_file_begin(struct spill_file *ret, const struct spill_way *way, int fd, struct error *err)
{
	struct spill_file f = {.fd = fd};
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at it");
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EBADMSG, "it is no regular file");
	if ((uint64_t)st.st_size < SPILL_ALIGN || (uint64_t)st.st_size > 2 * LIMIT_SPILL_FILE)
		return error_set(
			err, -EBADMSG, "%" PRIi64 " bytes are no state file", (int64_t)st.st_size);
	r = get(way, fd, 0, SPILL_ALIGN, err);
	if (r == 0)
		r = check_head(&f, way, (uint64_t)st.st_size, err);
	if (r < 0)
		return r;
	f.head.used_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	*ret = f;
	return 0;
}

int spill_file_open(
	struct spill_file *ret, const struct spill_way *way, const char *name, struct error *err)
{
	cleanup_fd_ int fd = open_direct(
		way->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	uint8_t id[SPILL_ID_SIZE];
	int r;

	/* A link, where a file of ours should be. */
	if (fd < 0)
		return error_errno(err, errno == ELOOP ? -EBADMSG : -errno, "cannot open it");
	r = spill_file_begin(ret, way, fd, err);
	if (r == 0 && (!spill_name_parse(name, id) || memcmp(id, ret->head.id, sizeof id) != 0))
		r = error_set(err, -EBADMSG, "it is the file of another session");
	if (r == 0)
		ret->fd = steal_fd(fd);
	return r;
}

void spill_file_close(struct spill_file *f)
{
	f->fd = fd_close(f->fd);
}

/* Numbers from `at` on through fn, after their checksum was found right: they are read twice. */
static int get_numbers(const struct spill_file *f, const struct spill_way *way, uint64_t at,
	uint32_t n, uint32_t sum, spill_tokens_fn fn, void *arg, struct error *err)
{
	const uint32_t most = SPILL_PIECE / sizeof(uint32_t);
	uint32_t have = 0;

	for (int pass = n > most ? 0 : 1; pass < 2; pass++) {
		have = 0;
		for (uint32_t i = 0; i < n; i += most) {
			uint32_t k = num_min(most, n - i);
			int r = get(way, f->fd, at + (uint64_t)i * sizeof(uint32_t),
				k * sizeof(uint32_t), err);

			if (r < 0)
				return r;
			have = crc32c(have, way->buffer, k * sizeof(uint32_t));
			if (n <= most && have != sum)
				break;
			if (pass == 1)
				r = fn(arg, (const uint32_t *)(const void *)way->buffer, k);
			if (r < 0)
				return r;
		}
		if (have != sum)
			return error_set(
				err, -EBADMSG, "what begins at offset %" PRIu64 " is damaged", at);
	}
	return 0;
}

int spill_file_tokens(const struct spill_file *f, const struct spill_way *way, spill_tokens_fn fn,
	void *arg, struct error *err)
{
	return get_numbers(f, way, f->tokens_at, f->head.n, f->tokens_sum, fn, arg, err);
}

struct compare {
	const uint32_t *tokens;
	size_t n; /* that are still to compare */
};

static int compare_tokens(void *arg, const uint32_t *tokens, size_t n)
{
	struct compare *c = arg;
	size_t k = num_min(n, c->n);

	if (memcmp(c->tokens, tokens, k * sizeof *tokens) != 0)
		return -ESTALE;
	c->tokens += k;
	c->n -= k;
	return 0;
}

static int keep_numbers(void *arg, const uint32_t *numbers, size_t n)
{
	uint32_t **to = arg;

	memcpy(*to, numbers, n * sizeof *numbers);
	*to += n;
	return 0;
}

static int check_wanted(
	const struct spill_file *f, const struct spill_head *want, uint32_t n, struct error *err)
{
	const struct spill_head *h = &f->head;

	if (h->identity != want->identity || h->block != want->block ||
		h->block_bytes != want->block_bytes)
		return error_set(err, -ESTALE, "it is of another model or build");
	if (h->uid != want->uid || memcmp(h->id, want->id, sizeof h->id) != 0)
		return error_set(err, -ESTALE, "it is of another user or session");
	if (n == 0 || n > h->n)
		return error_set(err, -ESTALE, "it holds %u positions", h->n);
	return 0;
}

/* Pieces, as far as the first `end` bytes of keys and values reach. */
static int get_body(const struct spill_file *f, const struct spill_way *way, const uint32_t *table,
	uint64_t end, spill_write_fn write, void *arg, struct error *err)
{
	for (uint32_t i = 0; (uint64_t)i * SPILL_PIECE < end; i++) {
		uint64_t at = (uint64_t)i * SPILL_PIECE;
		size_t n = piece_size(f, i);
		int r = get(way, f->fd, f->body_at + at, n, err);

		if (r < 0)
			return r;
		if (crc32c(0, way->buffer, n) != table[i])
			return error_set(err, -EBADMSG, "piece %u at offset %" PRIu64 " is damaged",
				i, f->body_at + at);
		write(arg, at, way->buffer, (size_t)num_min((uint64_t)n, end - at));
	}
	return 0;
}

int spill_file_read(const struct spill_file *f, const struct spill_way *way,
	const struct spill_head *want, const uint32_t *tokens, uint32_t n, spill_write_fn write,
	void *arg, struct error *err)
{
	cleanup_free_ uint32_t *table = NULL;
	struct compare compare = {tokens, n};
	uint32_t *to;
	uint64_t end;
	int r = check_wanted(f, want, n, err);

	if (r < 0)
		return r;
	to = table = calloc(f->n_pieces, sizeof *table);
	if (!table)
		return error_errno(err, -ENOMEM, "cannot read it");
	end = ((uint64_t)n + f->head.block - 1) / f->head.block * f->head.block_bytes;
	r = spill_file_tokens(f, way, compare_tokens, &compare, err);
	if (r == -ESTALE)
		return error_set(err, r, "it is of another text");
	if (r == 0)
		r = get_numbers(
			f, way, f->table_at, f->n_pieces, f->table_sum, keep_numbers, &to, err);
	if (r == 0)
		r = get_body(f, way, table, end, write, arg, err);
	return r;
}

/* ---- beginnings ---------------------------------------------------------------------------- */

uint32_t spill_chain_length(uint32_t n, uint32_t block)
{
	return n / block + (n % block != 0);
}

uint64_t spill_chain(uint64_t before, const uint32_t *tokens, size_t n)
{
	uint64_t hash = before ^ UINT64_C(0x9e3779b97f4a7c15);

	for (size_t i = 0; i < n; i++) {
		hash = (hash ^ tokens[i]) * UINT64_C(0xff51afd7ed558ccd);
		hash ^= hash >> 32;
	}
	return hash;
}
