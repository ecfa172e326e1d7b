/* SPDX-License-Identifier: MIT */

/* The ring alone, in plain memory: order, wrap, fullness, and an other side that lies. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "num.h"
#include "ring.h"

#define RING 65536u
#define BASE 4096u

struct pair {
	struct wire_segment *a, *b; /* a produces, b consumes */
	struct ring_writer w;
	struct ring_reader r;
	uint8_t buf[RING_PAYLOAD_MAX];
};

static const struct wire_geometry geometry = {BASE + RING, BASE, RING};

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	p->a = aligned_alloc(4096, BASE + RING);
	p->b = aligned_alloc(4096, BASE + RING);
	memset(p->a, 0, BASE + RING);
	memset(p->b, 0, BASE + RING);
	ring_writer_init(&p->w, p->a, p->b, &geometry);
	ring_reader_init(&p->r, p->b, p->a, &geometry);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	free(p->a);
	free(p->b);
	free(p);
	return 0;
}

static uint8_t *ring_of(struct pair *p)
{
	return (uint8_t *)p->a + BASE;
}

static void fill(uint8_t *buf, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = (uint8_t)(seed * 31 + i);
}

static int put(struct pair *p, uint16_t type, uint64_t request, const void *data, size_t n)
{
	struct iovec v[2] = {
		{(void *)(uintptr_t)data, n / 2}, {(uint8_t *)(uintptr_t)data + n / 2, n - n / 2}};
	int k = ring_write(&p->w, type, request, v, 2);

	ring_writer_publish(&p->w);
	return k;
}

/* Every size, so that every distance from the end of the ring and every pad occurs. */
static void test_wrap(void **state)
{
	struct pair *p = *state;
	uint8_t data[RING_PAYLOAD_MAX];
	struct wire_record record;
	uint64_t pads = 0, before;

	for (uint64_t i = 1; i < 20000; i++) {
		size_t n = (i * 37) % (RING_PAYLOAD_MAX + 1);

		fill(data, n, i);
		before = p->w.head_own;
		assert_int_equal(put(p, 1 + i % 7, i, data, n), 1);
		pads += p->w.head_own - before != ring_record_space(n);
		assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
		assert_int_equal(record.request, i);
		assert_int_equal(record.type, 1 + i % 7);
		assert_int_equal(record.size, sizeof(record) + n);
		assert_memory_equal(p->buf, data, n);
		assert_int_equal(ring_read(&p->r, &record, p->buf), 0);
		ring_reader_publish(&p->r);
	}
	assert_true(pads > 100);
}

static void test_full(void **state)
{
	struct pair *p = *state;
	struct wire_record record;
	uint8_t data[1008];
	int n = 0, k;

	fill(data, sizeof(data), 5);
	while ((k = put(p, 3, 9, data, sizeof(data))) == 1)
		n++;
	assert_int_equal(k, 0);
	assert_int_equal(n, RING / 1024);
	assert_int_equal(ring_writer_room(&p->w, 0), 0);
	assert_true(ring_writer_sleep(&p->w, 0));
	assert_int_not_equal(p->a->sleep_full, 0);
	assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
	/* The bell is due once a sleep. */
	assert_true(ring_reader_bell(&p->r));
	assert_false(ring_reader_bell(&p->r));
	assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
	assert_false(ring_reader_bell(&p->r));
	ring_writer_wake(&p->w);
	assert_int_equal(put(p, 3, 9, data, sizeof(data)), 1);
	for (int i = 0; i < n - 1; i++)
		assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
	assert_int_equal(ring_read(&p->r, &record, p->buf), 0);
}

static void test_too_large(void **state)
{
	struct pair *p = *state;
	static uint8_t data[RING_PAYLOAD_MAX + 1];
	struct iovec huge[2] = {{data, SIZE_MAX}, {data, 2}};

	assert_int_equal(put(p, 1, 1, data, RING_PAYLOAD_MAX + 1), -EMSGSIZE);
	assert_int_equal(ring_write(&p->w, 1, 1, huge, 2), -EMSGSIZE);
	assert_int_equal(p->a->head, 0);
	assert_int_equal(put(p, 1, 1, data, RING_PAYLOAD_MAX), 1);
}

static void test_sleep(void **state)
{
	struct pair *p = *state;
	struct wire_record record;

	assert_true(ring_reader_sleep(&p->r));
	uint32_t first = p->b->sleep_empty;
	assert_int_not_equal(first, 0);
	assert_int_equal(ring_write(&p->w, 1, 1, NULL, 0), 1);
	assert_true(ring_writer_bell(&p->w));
	assert_int_equal(ring_write(&p->w, 1, 2, NULL, 0), 1);
	assert_false(ring_writer_bell(&p->w)); /* rung for this sleep already */
	/* Not asleep while there is something to read, published or seen. */
	ring_reader_wake(&p->r);
	assert_false(ring_reader_sleep(&p->r));
	assert_int_equal(p->b->sleep_empty, 0);
	assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
	assert_false(ring_reader_sleep(&p->r));
	assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
	assert_true(ring_reader_sleep(&p->r));
	assert_int_not_equal(p->b->sleep_empty, first);
	assert_int_equal(ring_write(&p->w, 1, 3, NULL, 0), 1);
	assert_true(ring_writer_bell(&p->w));
	/* The number after the last one is not 0. */
	p->r.sleep_last = UINT32_MAX;
	ring_reader_wake(&p->r);
	assert_int_equal(ring_read(&p->r, &record, p->buf), 1);
	assert_true(ring_reader_sleep(&p->r));
	assert_int_equal(p->b->sleep_empty, 1);
}

static void hostile_head(struct pair *p, uint64_t head)
{
	struct wire_record record;

	p->a->head = head;
	assert_int_equal(ring_read(&p->r, &record, p->buf), -EPROTO);
}

static void test_hostile_head(void **state)
{
	struct pair *p = *state;

	hostile_head(p, RING + 16);
	hostile_head(p, 8);
	hostile_head(p, UINT64_MAX);
	hostile_head(p, UINT64_MAX - 15);
	hostile_head(p, (uint64_t)1 << 63);
}

static void hostile_record(uint32_t size, uint16_t type, uint16_t flags, uint64_t at, uint64_t head)
{
	struct wire_record record = {size, type, flags, 1}, got;
	struct pair *p;
	void *state;

	setup(&state);
	p = state;
	p->r.tail_own = p->r.tail_published = p->r.head_seen = at;
	memcpy(ring_of(p) + at % RING, &record, sizeof(record));
	p->a->head = at + head;
	assert_int_equal(ring_read(&p->r, &got, p->buf), -EPROTO);
	teardown(&state);
}

static void test_hostile_size(void **state)
{
	static const uint32_t sizes[] = {0, 1, 15, LIMIT_RECORD + 1, LIMIT_RECORD + 16, RING,
		RING - 1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		hostile_record(sizes[i], 1, 0, 0, RING);
		hostile_record(sizes[i], WIRE_PAD, 0, 0, RING);
	}
	hostile_record(32, 1, 0, 0, 16);	   /* beyond the head */
	hostile_record(17, 1, 0, 0, 16);	   /* only its filling is */
	hostile_record(32, 1, 0, RING - 16, RING); /* across the end */
	hostile_record(17, 1, 0, RING - 16, RING);
	hostile_record(16, 1, 1, 0, 16);		  /* reserved flags */
	hostile_record(32, WIRE_PAD, 0, RING - 64, RING); /* a pad that stops short */
	hostile_record(16384, WIRE_PAD, 0, 0, RING);	  /* and one in the middle */
	hostile_record(64, WIRE_PAD, 0, RING - 64, 32);	  /* beyond the head */
}

static void test_hostile_tail(void **state)
{
	struct pair *p = *state;
	static uint8_t data[RING_PAYLOAD_MAX];
	static const uint64_t tails[] = {8, RING + 16, UINT64_MAX, (uint64_t)1 << 63, 5 * RING};

	while (put(p, 1, 1, data, sizeof(data)) == 1)
		;
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		p->b->tail = tails[i];
		assert_int_equal(put(p, 1, 1, data, sizeof(data)), -EPROTO);
	}
	p->b->tail = 16384;
	assert_int_equal(put(p, 1, 1, data, sizeof(data)), 1);
	p->b->tail = 0; /* backwards */
	assert_int_equal(put(p, 1, 1, data, sizeof(data)), -EPROTO);
}

/* Whatever the bytes are, the reader ends and stays within the ring (ASan watches). */
static void test_random(void **state)
{
	struct pair *p = *state;
	struct wire_record record;
	uint64_t x = 88172645463325252u;

	for (int round = 0; round < 300; round++) {
		for (size_t i = 0; i < RING; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			ring_of(p)[i] = i % 4 > 1 || i % 16 > 3 ? 0 : (uint8_t)(x >> 11);
		}
		ring_reader_init(&p->r, p->b, p->a, &geometry);
		p->a->head = x % (RING + 1) & ~UINT64_C(15);
		int n = 0, k;
		while ((k = ring_read(&p->r, &record, p->buf)) == 1)
			assert_true(++n <= (int)(RING / 16));
		assert_true(k == 0 || k == -EPROTO);
	}
}

/* Another process writes all over its segment, index and all, while we read. */
static void test_scribble(void **state)
{
	struct wire_segment *a =
		mmap(NULL, BASE + RING, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pair *p = *state;
	struct wire_record record;
	uint64_t x = 88172645463325252u, ends = 0;
	pid_t pid;
	int k;

	assert_true(a != MAP_FAILED);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		(void)alarm(60); /* where the test fails before it ends this */
	while (pid == 0) {
		uint64_t *ring = (uint64_t *)a + BASE / 8;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		ring[x % (RING / 16) * 2] = (x >> 20) % 5000 | (x >> 40 & 7) << 32;
		__atomic_store_n(
			&a->head, (x >> 8) % 64 ? (x >> 14) % RING & ~15ull : x, __ATOMIC_SEQ_CST);
	}
	while (ends < 300) {
		(void)sched_yield();
		ring_reader_init(&p->r, p->b, a, &geometry);
		k = 1;
		for (int i = 0; i < 100 && (k = ring_read(&p->r, &record, p->buf)) == 1; i++) {
			assert_true(record.size >= sizeof(record) && record.size <= LIMIT_RECORD);
			assert_int_equal(record.flags, 0);
			assert_int_not_equal(record.type, WIRE_PAD);
		}
		assert_true(k >= 0 || k == -EPROTO);
		ends += k == -EPROTO;
	}
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	(void)munmap(a, BASE + RING);
}

#define TORTURE 60000u

static size_t torture_size(uint64_t i)
{
	return i % 101 ? (i * 7919) % 300 : RING_PAYLOAD_MAX - i % 64;
}

static void *torture_writer(void *arg)
{
	struct pair *p = arg;
	uint8_t data[RING_PAYLOAD_MAX];

	for (uint64_t i = 1; i <= TORTURE; i++) {
		size_t n = torture_size(i);

		fill(data, n, i);
		while (put(p, 2, i, data, n) == 0)
			(void)sched_yield();
	}
	return NULL;
}

static void test_torture(void **state)
{
	struct pair *p = *state;
	uint8_t data[RING_PAYLOAD_MAX];
	struct wire_record record;
	pthread_t thread;
	int k;

	assert_int_equal(pthread_create(&thread, NULL, torture_writer, p), 0);
	for (uint64_t i = 1; i <= TORTURE; i++) {
		while ((k = ring_read(&p->r, &record, p->buf)) == 0) {
			ring_reader_publish(&p->r);
			(void)sched_yield();
		}
		assert_int_equal(k, 1);
		assert_int_equal(record.request, i);
		size_t n = torture_size(i);
		assert_int_equal(record.size, sizeof(record) + n);
		fill(data, n, i);
		assert_memory_equal(p->buf, data, n);
	}
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sleep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_head, setup, teardown),
		cmocka_unit_test(test_hostile_size),
		cmocka_unit_test_setup_teardown(test_hostile_tail, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scribble, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torture, setup, teardown),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
