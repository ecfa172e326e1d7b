/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "num.h"

/*
 * Indices and sleep words are accessed with seq_cst operations rather than fences: the pairs
 * (store my index, load your word) and (store my word, load your index) must not both miss, and
 * ThreadSanitizer can follow operations only.
 */
static uint64_t index_load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void index_store(uint64_t *p, uint64_t value)
{
	__atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

static uint32_t word_load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void word_store(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

/* A new number, so that the other side rings once for this sleep and not for the last one. */
static void word_sleep(uint32_t *p, uint32_t *last)
{
	if (++*last == 0)
		*last = 1;
	word_store(p, *last);
}

static uint64_t record_max_of(uint64_t ring_size)
{
	return num_min((uint64_t)LIMIT_RECORD, ring_size / 4);
}

void ring_reader_init(struct ring_reader *r, struct wire_segment *mine,
	const struct wire_segment *other, const struct wire_geometry *other_geometry)
{
	*r = (struct ring_reader){
		.data = (const uint8_t *)other + other_geometry->ring_offset,
		.size = other_geometry->ring_size,
		.record_max = record_max_of(other_geometry->ring_size),
		.head = &other->head,
		.tail = &mine->tail,
		.sleep = &mine->sleep_empty,
		.peer_full = &other->sleep_full,
	};
	assert(num_is_pow2(r->size));
}

void ring_writer_init(struct ring_writer *w, struct wire_segment *mine,
	const struct wire_segment *other, const struct wire_geometry *my_geometry)
{
	*w = (struct ring_writer){
		.data = (uint8_t *)mine + my_geometry->ring_offset,
		.size = my_geometry->ring_size,
		.record_max = record_max_of(my_geometry->ring_size),
		.head = &mine->head,
		.tail = &other->tail,
		.sleep = &mine->sleep_full,
		.peer_empty = &other->sleep_empty,
	};
	assert(num_is_pow2(w->size));
}

/* Takes over the other side's head.  1: there is something to read, 0: there is not, -EPROTO. */
static int reader_look(struct ring_reader *r)
{
	uint64_t head;

	if (r->head_seen != r->tail_own)
		return 1;
	head = index_load(r->head);
	if (head - r->tail_own > r->size || head % WIRE_ALIGN)
		return -EPROTO;
	r->head_seen = head;
	return head != r->tail_own;
}

/*
 * Copies a record's header, with one load a half, and validates the copy against what the ring can
 * hold at this place.  *ret_space is what it occupies.
 */
static int reader_header(const struct ring_reader *r, struct wire_record *ret, uint64_t *ret_space)
{
	uint64_t offset = r->tail_own & (r->size - 1), halves[2], space;
	const uint64_t *at = (const uint64_t *)(const void *)(r->data + offset);
	struct wire_record record;

	halves[0] = __atomic_load_n(&at[0], __ATOMIC_RELAXED);
	halves[1] = __atomic_load_n(&at[1], __ATOMIC_RELAXED);
	memcpy(&record, halves, sizeof(record));
	if (record.size < sizeof(record) || record.size > r->record_max || record.flags)
		return -EPROTO;
	space = num_align_up(record.size, WIRE_ALIGN);
	if (space > r->head_seen - r->tail_own || space > r->size - offset)
		return -EPROTO;
	if (record.type == WIRE_PAD && record.size != r->size - offset)
		return -EPROTO;
	*ret = record;
	*ret_space = space;
	return 0;
}

int ring_read(struct ring_reader *r, struct wire_record *ret, void *buf)
{
	struct wire_record record;
	uint64_t space;
	int k;

	/* Twice at most: a pad ends at the end of the ring, and one at its start would be too long.
	 */
	for (;;) {
		k = reader_look(r);
		if (k <= 0)
			return k;
		k = reader_header(r, &record, &space);
		if (k < 0)
			return k;
		if (record.type != WIRE_PAD)
			break;
		r->tail_own += space;
	}
	memcpy(buf, r->data + (r->tail_own & (r->size - 1)) + sizeof(record),
		record.size - sizeof(record));
	r->tail_own += space;
	if (r->tail_own - r->tail_published >= r->size / 4)
		ring_reader_publish(r);
	*ret = record;
	return 1;
}

bool ring_reader_sleep(struct ring_reader *r)
{
	if (r->head_seen != r->tail_own)
		return false;
	word_sleep(r->sleep, &r->sleep_last);
	if (index_load(r->head) == r->tail_own)
		return true;
	ring_reader_wake(r);
	return false;
}

void ring_reader_wake(struct ring_reader *r)
{
	word_store(r->sleep, 0);
}

void ring_reader_publish(struct ring_reader *r)
{
	if (r->tail_published == r->tail_own)
		return;
	r->tail_published = r->tail_own;
	index_store(r->tail, r->tail_own);
}

bool ring_reader_bell(struct ring_reader *r)
{
	uint32_t word;

	ring_reader_publish(r);
	if (r->tail_rung == r->tail_published)
		return false;
	r->tail_rung = r->tail_published;
	word = word_load(r->peer_full);
	if (!word || word == r->rung_last)
		return false;
	r->rung_last = word;
	return true;
}

size_t ring_record_space(size_t payload)
{
	return num_align_up(sizeof(struct wire_record) + payload, WIRE_ALIGN);
}

/* Whether `need` bytes are free, looking at the other side's tail where the last look says no. */
static int writer_free(struct ring_writer *w, uint64_t need)
{
	uint64_t tail;

	if (need <= w->size - (w->head_own - w->tail_seen))
		return 1;
	tail = index_load(w->tail);
	if (tail - w->tail_seen > w->head_own - w->tail_seen || tail % WIRE_ALIGN)
		return -EPROTO;
	w->tail_seen = tail;
	return need <= w->size - (w->head_own - tail);
}

/* What a record of that space takes from here on, the pad included where it would not fit. */
static uint64_t writer_need(const struct ring_writer *w, uint64_t space)
{
	uint64_t left = w->size - (w->head_own & (w->size - 1));

	return space <= left ? space : left + space;
}

int ring_writer_room(struct ring_writer *w, size_t payload)
{
	if (payload > w->record_max - sizeof(struct wire_record))
		return 0;
	return writer_free(w, writer_need(w, ring_record_space(payload)));
}

static void writer_header(struct ring_writer *w, const struct wire_record *record)
{
	memcpy(w->data + (w->head_own & (w->size - 1)), record, sizeof(*record));
}

int ring_write(struct ring_writer *w, uint16_t type, uint64_t request, const struct iovec *pieces,
	size_t n_pieces)
{
	struct wire_record record = {.type = type, .request = request};
	uint64_t payload = 0, space, need, left;
	uint8_t *at;
	int k;

	for (size_t i = 0; i < n_pieces; i++) {
		if (!num_add(payload, pieces[i].iov_len, &payload))
			return -EMSGSIZE;
	}
	if (payload > w->record_max - sizeof(record))
		return -EMSGSIZE;
	space = ring_record_space(payload);
	need = writer_need(w, space);
	k = writer_free(w, need);
	if (k <= 0)
		return k;
	if (need > space) {
		left = need - space;
		writer_header(w, &(struct wire_record){.size = (uint32_t)left, .type = WIRE_PAD});
		w->head_own += left;
	}
	record.size = (uint32_t)(sizeof(record) + payload);
	writer_header(w, &record);
	at = w->data + (w->head_own & (w->size - 1)) + sizeof(record);
	for (size_t i = 0; i < n_pieces; i++) {
		if (pieces[i].iov_len)
			memcpy(at, pieces[i].iov_base, pieces[i].iov_len);
		at += pieces[i].iov_len;
	}
	/* The filling too: what lay there before is nobody's business. */
	memset(at, 0, space - record.size);
	w->head_own += space;
	return 1;
}

void ring_writer_publish(struct ring_writer *w)
{
	if (w->head_published == w->head_own)
		return;
	w->head_published = w->head_own;
	index_store(w->head, w->head_own);
}

bool ring_writer_bell(struct ring_writer *w)
{
	uint32_t word;

	ring_writer_publish(w);
	if (w->head_rung == w->head_published)
		return false;
	w->head_rung = w->head_published;
	word = word_load(w->peer_empty);
	if (!word || word == w->rung_last)
		return false;
	w->rung_last = word;
	return true;
}

bool ring_writer_sleep(struct ring_writer *w, size_t payload)
{
	if (ring_writer_room(w, payload))
		return false;
	word_sleep(w->sleep, &w->sleep_last);
	if (!ring_writer_room(w, payload))
		return true;
	ring_writer_wake(w);
	return false;
}

void ring_writer_wake(struct ring_writer *w)
{
	word_store(w->sleep, 0);
}
