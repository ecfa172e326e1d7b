/* SPDX-License-Identifier: MIT */

/*
 * State files: what was written comes back, whole or as a beginning; whatever is damaged, cut, of
 * another model, user or text is refused and never read as if it were right; a disk that is full or
 * broken, or a crash at any moment, leaves the old file or none.
 */

#include "spill.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "limit.h"
#include "num.h"

#define BLOCK 64u
#define BLOCK_BYTES 100000u /* no multiple of anything */
#define TOKENS 1700u	    /* 27 blocks, 3 pieces */
#define BODY ((size_t)27 * BLOCK_BYTES)

static char path[] = "/var/tmp/moed-spill-XXXXXX";
static int folder;
static char *buffer, *source, *target;
static uint32_t tokens[TOKENS];

static const struct spill_head head = {
	.identity = 77,
	.id = {1, 2, 3},
	.uid = 1000,
	.n = TOKENS,
	.block = BLOCK,
	.block_bytes = BLOCK_BYTES,
};

static void body_read(void *arg, uint64_t at, void *to, size_t n)
{
	memcpy(to, (char *)arg + at, n);
}

static void body_write(void *arg, uint64_t at, const void *from, size_t n)
{
	assert_true(at + n <= BODY);
	memcpy((char *)arg + at, from, n);
}

static struct spill_way way(const struct spill_io *io)
{
	return (struct spill_way){folder, buffer, io ? io : &spill_io_system, NULL};
}

/* Contents of version v: another text each. */
static int save(uint32_t v, const struct spill_io *io, struct error *err)
{
	struct spill_way w = way(io);

	for (uint32_t i = 0; i < TOKENS; i++)
		tokens[i] = i * 31 + v;
	for (size_t i = 0; i < BODY; i++)
		source[i] = (char)(i * 7 + i / 1000 + v);
	return spill_file_write(&w, &head, tokens, body_read, source, err);
}

/* What comes back of the first n positions: 0 and the right bytes, or an error. */
static int load(const struct spill_head *want, uint32_t v, uint32_t n, struct error *err)
{
	struct spill_way w = way(NULL);
	char name[SPILL_NAME_MAX];
	struct spill_file f;
	size_t bytes = (n + BLOCK - 1) / BLOCK * BLOCK_BYTES;
	int r;

	for (uint32_t i = 0; i < TOKENS; i++)
		tokens[i] = i * 31 + v;
	memset(target, 0x5a, BODY);
	spill_name(want->id, name);
	r = spill_file_open(&f, &w, name, err);
	if (r < 0)
		return r;
	r = spill_file_read(&f, &w, want, tokens, n, body_write, target, err);
	spill_file_close(&f);
	for (size_t i = 0; r == 0 && i < bytes; i++)
		if (target[i] != (char)(i * 7 + i / 1000 + v))
			fail_msg("byte %zu is not what was written", i);
	for (size_t i = bytes; r == 0 && i < BODY; i++)
		assert_int_equal(target[i], 0x5a);
	return r;
}

static char *file_path(const char *end)
{
	static char text[256];
	char name[SPILL_NAME_MAX];

	spill_name(head.id, name);
	(void)snprintf(text, sizeof text, "%s/%s%s", path, name, end);
	return text;
}

static bool is_there(const char *end)
{
	return access(file_path(end), F_OK) == 0;
}

static void test_names(void **state)
{
	static const char *const bad[] = {"", ".kv", "totals", "0102030000000000000000000000000.kv",
		"0102030000000000000000000000000g.kv", "01020300000000000000000000000000.kv.new",
		"0102030000000000000000000000000A.kv"};
	uint8_t id[SPILL_ID_SIZE];
	char name[SPILL_NAME_MAX];

	spill_name(head.id, name);
	assert_string_equal(name, "01020300000000000000000000000000.kv");
	assert_true(spill_name_parse(name, id));
	assert_memory_equal(id, head.id, sizeof id);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(spill_name_parse(bad[i], id));
}

static void test_round(void **state)
{
	static const uint32_t ns[] = {1, 63, 64, 65, 671, 672, 1600, TOKENS};
	struct stat st;

	assert_int_equal(save(1, NULL, NULL), 0);
	assert_false(is_there(".new"));
	assert_int_equal(stat(file_path(""), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_size, spill_file_size(&head));
	for (size_t i = 0; i < ARRAY_SIZE(ns); i++)
		assert_int_equal(load(&head, 1, ns[i], NULL), 0);
	/* Replaced as a whole. */
	assert_int_equal(save(2, NULL, NULL), 0);
	assert_int_equal(load(&head, 2, TOKENS, NULL), 0);
	assert_int_equal(load(&head, 1, 1, NULL), -ESTALE);
}

static void test_others(void **state)
{
	struct error err = ERROR_NONE;
	struct spill_head h = head;

	assert_int_equal(save(1, NULL, NULL), 0);
	h.identity++;
	assert_int_equal(load(&h, 1, 10, &err), -ESTALE);
	assert_non_null(strstr(err.text, "model"));
	h = head;
	h.uid++;
	assert_int_equal(load(&h, 1, 10, NULL), -ESTALE);
	h = head;
	h.block_bytes--;
	assert_int_equal(load(&h, 1, 10, NULL), -ESTALE);
	assert_int_equal(load(&head, 1, TOKENS + 1, NULL), -ESTALE);
	assert_int_equal(load(&head, 1, 0, NULL), -ESTALE);
	h = head;
	h.id[15] = 9;
	assert_int_equal(load(&h, 1, 10, NULL), -ENOENT);
	/* Another session's file under this one's name. */
	{
		char from[256], to[SPILL_NAME_MAX];

		(void)snprintf(from, sizeof from, "%s", file_path(""));
		spill_name(h.id, to);
		assert_int_equal(renameat(AT_FDCWD, from, folder, to), 0);
		assert_int_equal(load(&h, 1, 10, NULL), -EBADMSG);
		assert_int_equal(unlinkat(folder, to, 0), 0);
	}
	h = head;
	h.n = 0;
	assert_int_equal(spill_file_size(&h), 0);
	h.n = UINT32_MAX;
	assert_int_equal(spill_file_size(&h), 0);
	h = head;
	h.block_bytes = UINT64_MAX / 2;
	assert_int_equal(spill_file_size(&h), 0);
	h.block_bytes = 0;
	assert_int_equal(spill_file_size(&h), 0);
}

/* Every byte of the head, and many of each other part: never read as if it were right. */
static void test_flipped(void **state)
{
	size_t size = spill_file_size(&head), refused = 0;
	int fd;

	assert_int_equal(save(3, NULL, NULL), 0);
	fd = open(file_path(""), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	for (size_t at = 0; at < size; at += at < 128 ? 1 : at < 16384 ? 61 : 24001) {
		struct error err = ERROR_NONE;
		char c, other;
		int r;

		assert_int_equal(pread(fd, &c, 1, (off_t)at), 1);
		other = (char)(c ^ (1 << at % 8));
		assert_int_equal(pwrite(fd, &other, 1, (off_t)at), 1);
		r = load(&head, 3, TOKENS, &err);
		/* What is between the parts belongs to none. */
		assert_true(r == 0 || r == -EBADMSG || r == -ESTALE);
		assert_true(r == 0 || *err.text);
		if (at < SPILL_ALIGN)
			assert_true(r < 0);
		refused += r < 0;
		assert_int_equal(pwrite(fd, &c, 1, (off_t)at), 1);
	}
	assert_true(refused > 300);
	close(fd);
	assert_int_equal(load(&head, 3, TOKENS, NULL), 0);
}

static void test_cut(void **state)
{
	size_t size = spill_file_size(&head);

	assert_int_equal(save(3, NULL, NULL), 0);
	assert_int_equal(truncate(file_path(""), (off_t)size + 1), 0);
	assert_int_equal(load(&head, 3, 1, NULL), -EBADMSG);
	for (size_t n = size - 1;; n = n > 20000 ? n - 9973 : n - num_min(n, (size_t)97)) {
		assert_int_equal(truncate(file_path(""), (off_t)n), 0);
		assert_int_equal(load(&head, 3, 1, NULL), -EBADMSG);
		if (n == 0)
			break;
	}
	/* A link and a pipe are no files of ours; neither is followed or waited for. */
	assert_int_equal(unlink(file_path("")), 0);
	assert_int_equal(symlink("/etc/passwd", file_path("")), 0);
	assert_int_equal(load(&head, 3, 1, NULL), -EBADMSG);
	assert_int_equal(unlink(file_path("")), 0);
	assert_int_equal(mkfifo(file_path(""), 0600), 0);
	assert_int_equal(load(&head, 3, 1, NULL), -EBADMSG);
	assert_int_equal(unlink(file_path("")), 0);
}

/* ---- disks that fail ----------------------------------------------------------------------- */

static struct {
	int calls, at, code; /* the at-th call fails so */
	bool dies;	     /* or the process ends there */
	bool shortly;	     /* every call does but a part */
} fault;

static bool fails(void)
{
	if (++fault.calls != fault.at)
		return false;
	if (fault.dies)
		_exit(0);
	errno = fault.code;
	return true;
}

static ssize_t bad_pread(int fd, void *bytes, size_t n, off_t at)
{
	return fails() ? -1
		       : pread(fd, bytes, fault.shortly ? (n + 4096) / 2 / 4096 * 4096 : n, at);
}

static ssize_t bad_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	if (fault.dies && fault.calls + 1 == fault.at)
		/* Half of it reaches the disk. */
		(void)!pwrite(fd, bytes, n / 2 / 4096 * 4096, at);
	return fails() ? -1
		       : pwrite(fd, bytes, fault.shortly ? (n + 4096) / 2 / 4096 * 4096 : n, at);
}

static int bad_fsync(int fd)
{
	return fails() ? -1 : fsync(fd);
}

static int bad_fallocate(int fd, int mode, off_t at, off_t n)
{
	return fails() ? -1 : fallocate(fd, mode, at, n);
}

static const struct spill_io bad = {bad_pread, bad_pwrite, bad_fsync, bad_fallocate};

/* At every call of a write; the old contents stay, but where only the folder was not synced. */
static void test_disk_fails(void **state)
{
	static const int codes[] = {ENOSPC, EIO, EFBIG, EDQUOT};
	int failed = 0;

	for (size_t c = 0; c < ARRAY_SIZE(codes); c++) {
		for (int at = 1;; at++) {
			struct error err = ERROR_NONE;
			int r;

			assert_int_equal(save(5, NULL, NULL), 0);
			memset(&fault, 0, sizeof fault);
			fault.at = at;
			fault.code = codes[c];
			r = save(6, &bad, &err);
			if (r == 0)
				break;
			failed++;
			assert_int_equal(r, -codes[c]);
			assert_non_null(strstr(err.text, strerror(codes[c])));
			assert_false(is_there(".new"));
			r = load(&head, 5, TOKENS, NULL);
			assert_true(r == 0 || (r == -ENOENT && fault.calls == at));
		}
	}
	/* fallocate, 3 pieces, tokens, table, head, fsync twice. */
	assert_int_equal(failed, 9 * ARRAY_SIZE(codes));
	memset(&fault, 0, sizeof fault);
	fault.shortly = true;
	assert_int_equal(save(6, &bad, NULL), 0);
	assert_int_equal(load(&head, 6, TOKENS, NULL), 0);
	/* An old kernel, or a file system that knows neither. */
	memset(&fault, 0, sizeof fault);
	fault.at = 1;
	fault.code = EOPNOTSUPP;
	assert_int_equal(save(7, &bad, NULL), 0);
	assert_int_equal(load(&head, 7, TOKENS, NULL), 0);
}

static void test_read_fails(void **state)
{
	struct spill_way w = way(&bad);
	char name[SPILL_NAME_MAX];

	assert_int_equal(save(5, NULL, NULL), 0);
	spill_name(head.id, name);
	/* head, tokens, table, 3 pieces */
	for (int at = 1; at <= 7; at++) {
		struct error err = ERROR_NONE;
		struct spill_file f;
		int r;

		memset(&fault, 0, sizeof fault);
		fault.at = at;
		fault.code = EIO;
		r = spill_file_open(&f, &w, name, &err);
		if (r == 0) {
			r = spill_file_read(
				&f, &w, &head, tokens, TOKENS, body_write, target, &err);
			spill_file_close(&f);
		}
		assert_int_equal(r, at <= 6 ? -EIO : 0);
	}
}

static struct spill_scan scan_now(void)
{
	struct spill_config config = {.folder = folder};
	struct spill_job job = {.kind = SPILL_SCAN};
	struct spill *s;

	assert_int_equal(spill_new(&s, &config, NULL), 0);
	spill_submit(s, &job);
	spill_wait(s, UINT64_C(60000000000));
	assert_ptr_equal(spill_take(s), &job);
	assert_int_equal(job.result, 0);
	spill_free(s);
	return job.scan;
}

/* The process ends at every call of a write: the next one finds the old file whole, or the new. */
static void test_crash(void **state)
{
	bool over = false;
	int at, new = 0;

	for (at = 1; !over; at++) {
		struct spill_scan scan;
		int status;
		pid_t pid;

		assert_int_equal(save(8, NULL, NULL), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			memset(&fault, 0, sizeof fault);
			fault.at = at;
			fault.dies = true;
			_exit(save(9, &bad, NULL) == 0 ? 7 : 8);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		over = WEXITSTATUS(status) == 7;
		scan = scan_now();
		assert_int_equal(scan.n, 1);
		assert_int_equal(scan.damaged, 0);
		assert_false(is_there(".new"));
		if (load(&head, 9, TOKENS, NULL) == 0)
			new ++;
		else
			assert_int_equal(load(&head, 8, TOKENS, NULL), 0);
		spill_scan_deinit(&scan);
	}
	/* The last call but for the end is the sync of the folder, after the rename. */
	assert_int_equal(at, 11);
	assert_int_equal(new, 2);
}

/* ---- the thread ---------------------------------------------------------------------------- */

static void test_scan(void **state)
{
	struct spill_way w = way(NULL);
	struct spill_head h = head;
	struct spill_scan scan;
	uint64_t chain = 0;
	struct stat st;

	assert_int_equal(save(1, NULL, NULL), 0);
	for (uint8_t i = 0; i < 4; i++) {
		struct timespec times[2] = {{.tv_sec = 1000 + i * 10}, {.tv_sec = 1000 + i * 10}};
		char name[SPILL_NAME_MAX];

		h.id[0] = (uint8_t)(10 + (i ^ 1));
		h.n = 100 + i;
		/* Some by the time that is given, some by that of the file. */
		h.used_ns = i % 2 ? (1000 + i * 10) * INT64_C(1000000000) : 0;
		assert_int_equal(spill_file_write(&w, &h, tokens, body_read, source, NULL), 0);
		spill_name(h.id, name);
		if (i % 2 == 0)
			assert_int_equal(utimensat(folder, name, times, 0), 0);
	}
	assert_int_equal(truncate(file_path(""), 500000), 0);
	assert_int_equal(close(open(file_path(".new"), O_CREAT | O_WRONLY, 0600)), 0);
	/* Left by a crash, of a request without a session. */
	h.id[0] = 99;
	h.passing = true;
	assert_int_equal(spill_file_write(&w, &h, tokens, body_read, source, NULL), 0);
	scan = scan_now();
	assert_int_equal(scan.n, 4);
	assert_int_equal(scan.removed, 1);
	assert_int_equal(scan.damaged, 1);
	assert_non_null(strstr(scan.error.text, "set aside"));
	assert_false(is_there(".new"));
	assert_false(is_there(""));
	assert_int_equal(stat(file_path(".bad"), &st), 0);
	assert_int_equal(st.st_size, LIMIT_SPILL_ASIDE);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(scan.found[i].head.n, 100 + i);
		assert_int_equal(scan.found[i].head.id[0], 10 + (i ^ 1));
		assert_int_equal(scan.found[i].size, 4096 * 3 + 200704);
	}
	chain = spill_chain(0, tokens, 64);
	assert_true(scan.found[2].chain[0] == chain);
	chain = spill_chain(chain, tokens + 64, 102 - 64);
	assert_true(scan.found[2].chain[1] == chain);
	spill_scan_deinit(&scan);
	scan = scan_now();
	assert_int_equal(scan.n, 4);
	assert_int_equal(scan.damaged, 0);
	spill_scan_deinit(&scan);
	assert_int_equal(unlink(file_path(".bad")), 0);
	for (uint8_t i = 0; i < 4; i++) {
		char name[SPILL_NAME_MAX];

		h.id[0] = (uint8_t)(10 + i);
		spill_name(h.id, name);
		assert_int_equal(unlinkat(folder, name, 0), 0);
	}
}

static _Atomic(int) woken;

static void wake(void *arg)
{
	atomic_fetch_add(&woken, 1);
}

static struct spill_job *wait_for(struct spill *s)
{
	struct spill_job *job;

	while (!(job = spill_take(s)))
		spill_wait(s, UINT64_C(60000000000));
	return job;
}

static void test_jobs(void **state)
{
	struct spill_config config = {.folder = folder, .wake = wake};
	struct spill_job saves[3], remove = {.kind = SPILL_REMOVE, .head = head};
	struct spill_job back = {.kind = SPILL_LOAD,
		.head = head,
		.tokens = tokens,
		.n = 100,
		.write = body_write,
		.arg = target};
	struct spill *s;

	assert_int_equal(save(1, NULL, NULL), 0);
	assert_int_equal(spill_new(&s, &config, NULL), 0);
	for (int i = 0; i < 3; i++) {
		saves[i] = (struct spill_job){.kind = SPILL_SAVE,
			.head = head,
			.tokens = tokens,
			.read = body_read,
			.arg = source};
		spill_submit(s, &saves[i]);
	}
	atomic_store(&saves[2].stop, true);
	spill_submit(s, &remove);
	spill_submit(s, &back);
	for (int i = 0, at = -1; i < 5; i++) {
		struct spill_job *job = wait_for(s);

		if (job == &back)
			at = i;
		if (i == 4)
			/* Ahead of those that nobody waits for, but for what was under way. */
			assert_in_range(at, 0, 1);
	}
	assert_int_equal(saves[0].result, 0);
	assert_int_equal(saves[1].result, 0);
	assert_int_equal(saves[2].result, -ECANCELED);
	assert_int_equal(back.result, 0);
	assert_int_equal(remove.result, 0);
	assert_int_equal(atomic_load(&woken), 5);
	assert_false(is_there(""));
	/* Nothing to wait for: at once. */
	spill_wait(s, UINT64_MAX / 4);
	/* Damaged: set aside, and said. */
	assert_int_equal(save(1, NULL, NULL), 0);
	assert_int_equal(truncate(file_path(""), 9000), 0);
	back.result = 0;
	spill_submit(s, &back);
	assert_ptr_equal(wait_for(s), &back);
	assert_int_equal(back.result, -EBADMSG);
	assert_non_null(strstr(back.error.text, "set aside"));
	assert_true(is_there(".bad"));
	assert_int_equal(unlink(file_path(".bad")), 0);
	/* Freed with work left: it ends. */
	for (int i = 0; i < 3; i++) {
		atomic_store(&saves[i].stop, false);
		spill_submit(s, &saves[i]);
	}
	spill_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_disk_fails),
		cmocka_unit_test(test_read_fails),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_jobs),
	};
	int r;

	if (!mkdtemp(path))
		return 1;
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	source = malloc(BODY);
	target = malloc(BODY);
	if (folder < 0 || !source || !target ||
		posix_memalign((void **)&buffer, SPILL_ALIGN, SPILL_PIECE) != 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	(void)unlink(file_path(""));
	(void)unlink(file_path(".new"));
	(void)unlink(file_path(".bad"));
	(void)rmdir(path);
	close(folder);
	free(source);
	free(target);
	free(buffer);
	return r;
}
