/* SPDX-License-Identifier: MIT */

/*
 * The scheduler on an engine without a model: turns of users, batches, places given up, clients
 * that do not read, ends of every kind.  Each answer is compared with what the tokens alone
 * determine.
 */

#include "sched.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake-engine.h"
#include "log.h"
#include "num.h"

#define REQUESTS_MAX 64

struct taken {
	struct request *r;
	struct session session;
	bool deaf; /* its client does not read */
	bool done;
	uint64_t done_at; /* in the order of ends */
	uint32_t ids[FAKE_CONTEXT], n_ids, n_rows;
	char text[FAKE_CONTEXT + 1];
	size_t n_text;
};

/* A disk whose reads or writes can be held up, or fail. */
static struct {
	char path[32];
	int folder;
	struct spill *spill;
	_Atomic(bool) held; /* calls wait */
	_Atomic(int) waiting, fails_read, fails_write;
} disk = {.path = "/var/tmp/moed-sched-XXXXXX"};

static struct engine engine;
static struct sched *sched;
static struct taken all[REQUESTS_MAX];
static size_t n_all;
static uint64_t ends;
static struct session *found[8];
static size_t n_found, n_forgotten;
static uint64_t identity;

static struct taken *taken_of(const struct request *r)
{
	for (size_t i = 0; i < n_all; ++i)
		if (all[i].r == r)
			return &all[i];
	fail_msg("an unknown request");
	return NULL;
}

static void take(struct taken *t)
{
	struct request_event e;
	char text[REQUEST_TEXT_MAX];
	bool any = false;

	while (!t->deaf && request_out_peek(t->r, &e, text)) {
		any = true;
		if (e.flags & REQUEST_EVENT_TOKEN)
			t->ids[t->n_ids++] = e.id;
		if (e.flags & REQUEST_EVENT_LOGITS) {
			assert_true(t->r->logits[e.id] > 8);
			atomic_store(&t->r->logits_full, false);
			++t->n_rows;
		}
		memcpy(t->text + t->n_text, text, e.text);
		t->n_text += e.text;
		request_out_take(t->r, &e);
	}
	if (any && atomic_exchange(&t->r->starved, false) && !t->done)
		sched_poke(sched, t->r);
}

static void on_post(void *arg, uint32_t message, void *object)
{
	if (message == SCHED_OUTPUT)
		atomic_store(&((struct request *)object)->to_loop, false);
	if (message == SCHED_DONE) {
		struct taken *t = taken_of(object);

		assert_false(t->done);
		t->done = true;
		t->done_at = ++ends;
	}
	if (message == SCHED_FOUND)
		found[n_found++] = object;
	if (message == SCHED_FORGOTTEN)
		++n_forgotten;
}

static void disk_wait(void)
{
	atomic_fetch_add(&disk.waiting, 1);
	while (atomic_load(&disk.held))
		(void)usleep(100);
	atomic_fetch_sub(&disk.waiting, 1);
}

static ssize_t disk_pread(int fd, void *bytes, size_t n, off_t at)
{
	disk_wait();
	errno = atomic_load(&disk.fails_read);
	return errno ? -1 : pread(fd, bytes, n, at);
}

static ssize_t disk_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	disk_wait();
	errno = atomic_load(&disk.fails_write);
	return errno ? -1 : pwrite(fd, bytes, n, at);
}

static const struct spill_io disk_io = {disk_pread, disk_pwrite, fsync, fallocate};

static void disk_begin(void)
{
	struct spill_config config = {.io = &disk_io};

	if (!disk.folder) {
		assert_non_null(mkdtemp(disk.path));
		disk.folder = open(disk.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	config.folder = disk.folder;
	assert_int_equal(spill_new(&disk.spill, &config, NULL), 0);
}

/* So many files; gone afterwards, where asked for. */
static unsigned disk_files(bool empty)
{
	int fd = openat(disk.folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fdopendir(fd);
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(folder);
	while ((e = readdir(folder))) {
		if (e->d_name[0] == '.')
			continue;
		++n;
		if (empty)
			assert_int_equal(unlinkat(disk.folder, e->d_name, 0), 0);
	}
	(void)closedir(folder);
	return n;
}

static void begin(uint32_t positions, uint32_t live, uint32_t bulk, uint32_t bulk_tiles)
{
	struct sched_config config = {.engine = &engine,
		.vocabulary = FAKE_VOCABULARY,
		.context = num_min(positions, FAKE_CONTEXT),
		.live_rows = live,
		.bulk_rows = bulk,
		.post = on_post,
		.spill = disk.spill,
		.spill_quota = 1 << 20};

	engine = (struct engine){.free = positions,
		.identity = identity,
		.all = positions,
		.seqs_max = 16,
		.tiles = {1, bulk_tiles},
		.rows_most = {live, bulk}};
	memset(all, 0, sizeof all);
	n_all = 0;
	ends = 0;
	n_found = n_forgotten = 0;
	assert_int_equal(sched_new(&sched, &config), 0);
}

static struct taken *submit(uid_t uid, uint32_t prompt, uint32_t n, uint32_t flags)
{
	struct taken *t = &all[n_all++];

	t->r = request_new(flags, FAKE_VOCABULARY);
	assert_non_null(t->r);
	list_init(&t->session.idle);
	list_init(&t->session.file.link);
	t->session.id[0] = (uint8_t)n_all;
	t->session.uid = uid;
	t->session.named = true;
	t->r->session = &t->session;
	t->r->uid = uid;
	t->r->n_prompt = prompt;
	t->r->max_tokens = n;
	t->r->sampling = SAMPLER_DEFAULT;
	t->r->tokens = calloc(prompt, sizeof *t->r->tokens);
	for (uint32_t i = 0; i < prompt; ++i)
		t->r->tokens[i] = (uint32_t)(n_all * 7 + i * 5) % 50;
	sched_submit(sched, t->r);
	return t;
}

static bool run_once(void)
{
	enum sched_result r = sched_run(sched);

	for (size_t i = 0; i < n_all; ++i)
		take(&all[i]);
	return r != SCHED_RUN_IDLE;
}

/* Until there is nothing to do, for the disk neither. */
static void run(void)
{
	unsigned rounds = 0;
	bool more = true;

	while (more) {
		struct sched_figures f;

		assert_in_range(rounds++, 0, 100000);
		more = run_once();
		if (more || !disk.spill)
			continue;
		sched_figures_get(sched, &f);
		for (unsigned i = 0; i < 1000 && f.active + f.queued && !run_once(); ++i) {
			spill_wait(disk.spill, 1000000);
			sched_figures_get(sched, &f);
		}
		more = f.active + f.queued;
	}
}

/* What the tokens alone determine. */
static void check_answer(const struct taken *t, uint32_t prompt, uint32_t n)
{
	uint32_t tokens[2 * FAKE_CONTEXT], seed = (uint32_t)(t - all) + 1;

	assert_true(t->done);
	assert_int_equal(t->n_ids, n);
	assert_int_equal(t->n_text, n);
	for (uint32_t i = 0; i < prompt; ++i)
		tokens[i] = (seed * 7 + i * 5) % 50;
	for (uint32_t i = 0; i < n; ++i) {
		tokens[prompt + i] = fake_next(tokens, prompt + i);
		assert_int_equal(t->ids[i], tokens[prompt + i]);
		assert_int_equal(t->text[i], ' ' + (int)t->ids[i]);
	}
}

/* Nothing is left behind in the engine. */
static void end(void)
{
	for (size_t i = 0; i < n_all; ++i)
		if (all[i].done)
			sched_forget(sched, &all[i].session);
	sched = sched_free(sched);
	disk.spill = spill_free(disk.spill);
	for (size_t i = 0; i < n_all; ++i) {
		assert_true(all[i].done);
		request_free(all[i].r);
	}
	assert_int_equal(engine.free, engine.all);
	assert_int_equal(engine.seqs, 0);
}

static void test_one(void **state)
{
	begin(400, 4, 8, 1);
	submit(1, 20, 10, 0);
	submit(1, 1, 3, 0);
	run();
	check_answer(&all[0], 20, 10);
	check_answer(&all[1], 1, 3);
	assert_int_equal(all[0].r->finish, REQUEST_LENGTH);
	end();
}

/* Five decode as one batch: about as many steps as one has tokens. */
static void test_batch(void **state)
{
	begin(512, 8, 64, 1);
	for (int i = 0; i < 5; ++i)
		submit(1, 4, 40, 0);
	run();
	for (int i = 0; i < 5; ++i)
		check_answer(&all[i], 4, 40);
	assert_in_range(engine.steps[ENGINE_LIVE], 39, 50);
	end();
}

/* One user's many requests do not make another wait for all of them. */
static void test_turns(void **state)
{
	begin(512, 1, 16, 1);
	for (int i = 0; i < 20; ++i)
		submit(1, 4, 10, 0);
	submit(2, 4, 10, 0);
	run();
	assert_in_range(all[20].done_at, 1, 4);
	for (int i = 0; i <= 20; ++i)
		check_answer(&all[i], 4, 10);
	end();
}

/* A long prompt of one user is computed between the tokens of another's answer. */
static void test_long_prompt(void **state)
{
	unsigned during = 0;

	begin(512, 4, 16, 10);
	submit(1, 2, 100, 0);
	for (int i = 0; i < 50; ++i)
		(void)run_once();
	submit(2, 300, 2, 0);
	while (!all[1].n_ids && run_once())
		during = all[0].n_ids;
	/* 19 chunks of 10 tiles, and a token for each tile. */
	assert_in_range(during, 80, 100);
	run();
	check_answer(&all[0], 2, 100);
	check_answer(&all[1], 300, 2);
	end();
}

/* The pool holds half of what they need: some give their place up, and say the same. */
static void test_preempted(void **state)
{
	struct sched_figures f;

	begin(200, 8, 16, 1);
	for (int i = 0; i < 6; ++i)
		submit((uid_t)(i % 2), 10, 60, 0);
	run();
	sched_figures_get(sched, &f);
	assert_true(f.preemptions > 0);
	for (int i = 0; i < 6; ++i)
		check_answer(&all[i], 10, 60);
	end();
}

/* More sessions than the engine has places for. */
static void test_many_sessions(void **state)
{
	begin(4000, 4, 16, 1);
	engine.seqs_max = 3;
	for (int i = 0; i < 10; ++i)
		submit((uid_t)i, 5, 5, 0);
	run();
	for (int i = 0; i < 10; ++i)
		check_answer(&all[i], 5, 5);
	end();
}

/* Clients that do not read hold nobody up, and go on when they read. */
static void test_deaf(void **state)
{
	begin(512, 2, 16, 1);
	engine.seqs_max = 12;
	for (int i = 0; i < 20; ++i) {
		submit(1, 4, 300, 0);
		/* The ring is full from the start: as if a long answer lay there. */
		all[i].deaf = true;
		atomic_store(&all[i].r->out_head, LIMIT_REQUEST_OUTPUT);
	}
	run();
	submit(1, 30, 100, 0);
	submit(2, 30, 100, 0);
	run();
	check_answer(&all[20], 30, 100);
	check_answer(&all[21], 30, 100);
	for (int i = 0; i < 20; ++i) {
		assert_false(all[i].done);
		all[i].deaf = false;
		atomic_store(&all[i].r->out_head, 0);
		atomic_store(&all[i].r->starved, false);
		sched_poke(sched, all[i].r);
	}
	run();
	for (int i = 0; i < 20; ++i)
		check_answer(&all[i], 4, 300);
	end();
}

/* Cancelled while queued, while computed and after; places come back at once. */
static void test_cancel(void **state)
{
	begin(512, 1, 16, 100);
	submit(1, 300, 5, 0);
	for (int i = 0; i < 5; ++i)
		submit(1, 4, 5, 0);
	(void)run_once();
	assert_true(engine.context[ENGINE_BULK].running);
	for (int i = 0; i < 6; i += 2) {
		atomic_store(&all[i].r->cancel, true);
		sched_poke(sched, all[i].r);
	}
	(void)run_once();
	(void)run_once();
	assert_true(all[0].done && all[2].done && all[4].done);
	assert_int_equal(all[0].r->finish, REQUEST_CANCELLED);
	run();
	check_answer(&all[1], 4, 5);
	check_answer(&all[3], 4, 5);
	atomic_store(&all[1].r->cancel, true);
	sched_poke(sched, all[1].r);
	run();
	assert_int_equal(all[1].r->finish, REQUEST_LENGTH);
	end();
}

/* A row that cannot be computed fails its request alone, and leaves no positions behind. */
static void test_failed(void **state)
{
	begin(512, 4, 64, 1);
	submit(1, 20, 10, 0);
	submit(1, 20, 10, 0);
	all[1].r->tokens[7] = engine.fail_token = FAKE_VOCABULARY - 2;
	run();
	check_answer(&all[0], 20, 10);
	assert_int_equal(all[1].r->finish, REQUEST_FAILED);
	assert_int_equal(all[1].r->error.code, -EIO);
	assert_int_equal(atomic_load(&all[1].session.held), 0);
	end();
}

/* A conversation goes on: what it holds is not computed again, and the answer is as without it. */
static void test_reuse(void **state)
{
	struct taken *a, *b = &all[1];

	begin(512, 4, 64, 1);
	a = submit(1, 50, 10, 0);
	run();
	submit(1, 50, 10, 0);
	b->r->session = &a->session;
	/* As the first one's prompt, but for its end. */
	for (uint32_t i = 0; i < 45; ++i)
		b->r->tokens[i] = (7 + i * 5) % 50;
	run();
	assert_int_equal(b->r->figures.reused, 45);
	assert_int_equal(b->n_ids, 10);
	end();
}

/* Scoring gives every token of the prompt out once, also where it had to give its place up. */
static void test_score(void **state)
{
	begin(150, 4, 16, 1);
	for (int i = 0; i < 3; ++i)
		submit(1, 100, 0, REQUEST_SCORE);
	for (int i = 0; i < 3; ++i)
		submit(2, 10, 60, 0);
	run();
	for (uint32_t i = 0; i < 3; ++i) {
		assert_int_equal(all[i].n_ids, 100);
		for (uint32_t k = 0; k < 100; ++k)
			assert_int_equal(all[i].ids[k], ((i + 1) * 7 + k * 5) % 50);
	}
	for (int i = 3; i < 6; ++i)
		check_answer(&all[i], 10, 60);
	end();
}

/* A row of logits for every token, also while its text is held back for a stop string. */
static void test_logits(void **state)
{
	char stop[8];
	struct taken *t;

	begin(512, 4, 16, 1);
	submit(1, 10, 30, 0);
	run();
	check_answer(&all[0], 10, 30);
	t = submit(1, 10, 30, REQUEST_LOGITS);
	memcpy(t->r->tokens, all[0].r->session->tokens, 10 * sizeof(uint32_t));
	/* All but the last letter of it comes. */
	memcpy(stop, all[0].text + 5, 7);
	stop[7] = '~';
	t->r->stops[0] = (struct answer_stop){strndup(stop, 8), 8};
	t->r->n_stops = 1;
	run();
	assert_true(t->done);
	assert_int_equal(t->n_ids, 30);
	assert_int_equal(t->n_rows, 30);
	assert_memory_equal(t->text, all[0].text, 30);
	end();
}

/* A prompt that never fits is refused; an answer that fills the pool ends. */
static void test_too_long(void **state)
{
	begin(64, 4, 16, 1);
	submit(1, 65, 1, 0);
	submit(1, 60, 50, 0);
	run();
	assert_int_equal(all[0].r->finish, REQUEST_FAILED);
	assert_int_equal(all[0].r->error.code, -ENOSPC);
	assert_int_equal(all[1].r->finish, REQUEST_LENGTH);
	assert_in_range(all[1].n_ids, 4, 5);
	end();
}

/* All that is under way comes back when the engine stops. */
static void test_stop(void **state)
{
	begin(200, 1, 16, 50);
	for (int i = 0; i < 8; ++i)
		submit((uid_t)(i % 3), 40, 20, 0);
	for (int i = 0; i < 20; ++i)
		(void)run_once();
	end();
}

/* ---- sessions on disk ---------------------------------------------------------------------- */

static struct sched_figures figures(void)
{
	struct sched_figures f;

	sched_figures_get(sched, &f);
	return f;
}

/* Waits for a call of the disk that is held up; what else there is to do goes on. */
static void run_until_held(void)
{
	for (unsigned i = 0; i < 100000 && !atomic_load(&disk.waiting); ++i)
		if (!run_once())
			(void)usleep(100);
	assert_int_equal(atomic_load(&disk.waiting), 1);
}

/* Half of the positions that they need: those that give way come back from disk. */
static void test_spilled(void **state)
{
	disk_begin();
	begin(200, 8, 16, 1);
	for (int i = 0; i < 6; ++i)
		submit((uid_t)(i % 2), 10, 60, 0);
	run();
	for (int i = 0; i < 6; ++i)
		check_answer(&all[i], 10, 60);
	assert_true(figures().disk.preempted > 0);
	assert_true(figures().disk.resumed > 0);
	end();
	assert_int_equal(n_forgotten, 6);
	assert_int_equal(disk_files(false), 0);
}

/* While a slow disk writes one's positions, another's answer goes on. */
static void test_slow(void **state)
{
	size_t other;

	disk_begin();
	begin(100, 8, 16, 1);
	submit(1, 10, 50, 0);
	submit(2, 10, 50, 0);
	atomic_store(&disk.held, true);
	run_until_held();
	other = all[0].n_ids + all[1].n_ids;
	for (int i = 0; i < 100; ++i)
		(void)run_once();
	assert_false(all[0].done && all[1].done);
	/* The one that stays has no room but what the other gives back, and waits. */
	assert_true(all[0].n_ids + all[1].n_ids >= other);
	/* Cancelled meanwhile, and a newcomer. */
	submit(3, 4, 10, 0);
	for (int i = 0; i < 100; ++i)
		(void)run_once();
	atomic_store(&disk.held, false);
	run();
	check_answer(&all[0], 10, 50);
	check_answer(&all[1], 10, 50);
	check_answer(&all[2], 4, 10);
	assert_true(figures().disk.resumed > 0);
	end();
}

static void test_disk_fails(void **state)
{
	disk_begin();
	begin(200, 8, 16, 1);
	atomic_store(&disk.fails_write, ENOSPC);
	for (int i = 0; i < 6; ++i)
		submit((uid_t)(i % 2), 10, 60, 0);
	run();
	for (int i = 0; i < 6; ++i)
		check_answer(&all[i], 10, 60);
	assert_int_equal(figures().disk.refused[SCHED_REFUSED_FULL], 1);
	assert_int_equal(figures().disk.resumed, 0);
	assert_int_equal(figures().disk.bytes, 0);
	assert_true(figures().disk.resting);
	assert_true(figures().preemptions > 1);
	atomic_store(&disk.fails_write, 0);
	end();
	disk_begin();
	begin(200, 8, 16, 1);
	atomic_store(&disk.fails_read, EIO);
	for (int i = 0; i < 6; ++i)
		submit((uid_t)(i % 2), 10, 60, 0);
	run();
	for (int i = 0; i < 6; ++i)
		check_answer(&all[i], 10, 60);
	assert_true(figures().disk.refused[SCHED_REFUSED_ERROR] > 0);
	assert_int_equal(figures().disk.restored, 0);
	atomic_store(&disk.fails_read, 0);
	end();
	assert_int_equal(disk_files(false), 0);
}

static void adopt(size_t n, unsigned foreign)
{
	struct spill_job scan = {.kind = SPILL_SCAN};

	spill_submit(disk.spill, &scan);
	sched_adopt(sched, &scan);
	assert_int_equal(n_found, n);
	assert_int_equal(figures().disk.refused[SCHED_REFUSED_FOREIGN], foreign);
}

/* The turn after the one of 50 tokens whose answer `ids` is. */
static struct taken *submit_next(uid_t uid, const uint32_t *ids)
{
	struct taken *t = submit(uid, 65, 10, 0);

	for (uint32_t i = 0; i < 50; ++i)
		t->r->tokens[i] = (7 + i * 5) % 50;
	memcpy(t->r->tokens + 50, ids, 10 * sizeof *ids);
	return t;
}

/* Written at the end, found at the next start, by the same model and user alone. */
static void test_restart(void **state)
{
	struct taken *other, *same;
	uint32_t ids[10];

	disk_begin();
	begin(512, 4, 64, 1);
	submit(1, 50, 10, 0);
	run();
	memcpy(ids, all[0].ids, sizeof ids);
	sched = sched_free(sched);
	disk.spill = spill_free(disk.spill);
	request_free(all[0].r);
	assert_int_equal(disk_files(false), 1);
	identity = 1;
	disk_begin();
	begin(512, 4, 64, 1);
	adopt(0, 1);
	end();
	identity = 0;
	disk_begin();
	begin(512, 4, 64, 1);
	adopt(1, 0);
	assert_int_equal(found[0]->uid, 1);
	assert_int_equal(atomic_load(&found[0]->held), 59);
	other = submit_next(2, ids);
	same = submit_next(1, ids);
	same->r->session = found[0];
	run();
	assert_int_equal(other->r->figures.reused, 0);
	assert_int_equal(same->r->figures.reused, 59);
	assert_int_equal(figures().disk.restored, 1);
	assert_int_equal(same->n_ids, 10);
	/* Their prompts differ in what is new, so they are compared with the engine's word. */
	for (uint32_t i = 0; i < 10; ++i) {
		same->r->session->tokens[65 + i] = same->ids[i];
		assert_int_equal(same->ids[i], fake_next(same->r->session->tokens, 65 + i));
	}
	sched_forget(sched, found[0]);
	assert_int_equal(n_forgotten, 1);
	free(found[0]);
	end();
	assert_int_equal(disk_files(false), 0);
}

/* Forgotten while it is written, and cancelled while it is read. */
static void test_held_up(void **state)
{
	uint32_t ids[10];
	struct taken *t;

	disk_begin();
	begin(128, 4, 64, 1);
	submit(1, 50, 10, 0);
	run();
	memcpy(ids, all[0].ids, sizeof ids);
	/* It pushes the first one out. */
	submit(2, 80, 20, 0);
	atomic_store(&disk.held, true);
	run_until_held();
	sched_forget(sched, &all[0].session);
	assert_int_equal(n_forgotten, 0);
	atomic_store(&disk.held, false);
	run();
	assert_int_equal(n_forgotten, 1);
	check_answer(&all[1], 80, 20);
	assert_int_equal(disk_files(false), 0);
	submit(1, 50, 10, 0);
	for (uint32_t i = 0; i < 50; ++i)
		all[2].r->tokens[i] = (7 + i * 5) % 50;
	run();
	submit(2, 80, 20, 0);
	run();
	assert_int_equal(disk_files(false), 2);
	/* Nobody has to give way. */
	sched_forget(sched, &all[3].session);
	t = submit_next(1, ids);
	t->r->session = &all[2].session;
	atomic_store(&disk.held, true);
	run_until_held();
	atomic_store(&t->r->cancel, true);
	sched_poke(sched, t->r);
	for (int i = 0; i < 10; ++i)
		(void)run_once();
	assert_false(t->done);
	atomic_store(&disk.held, false);
	while (!t->done)
		if (!run_once())
			spill_wait(disk.spill, 1000000);
	assert_int_equal(t->r->finish, REQUEST_CANCELLED);
	t = submit_next(1, ids);
	t->r->session = &all[2].session;
	run();
	assert_int_equal(t->r->figures.reused, 59);
	end();
}

static void quiet(enum log_level level, const char *line, const struct log_field *fields, size_t n)
{
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_long_prompt),
		cmocka_unit_test(test_preempted),
		cmocka_unit_test(test_many_sessions),
		cmocka_unit_test(test_deaf),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_failed),
		cmocka_unit_test(test_reuse),
		cmocka_unit_test(test_score),
		cmocka_unit_test(test_logits),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_spilled),
		cmocka_unit_test(test_slow),
		cmocka_unit_test(test_disk_fails),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_held_up),
	};

	int r;

	log_set_sink(quiet);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	if (disk.folder) {
		(void)rmdir(disk.path);
		close(disk.folder);
	}
	return r;
}
