/* SPDX-License-Identifier: MIT */

#include "store-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "clock.h"
#include "limit.h"
#include "num.h"
#include "relax.h"

#define BATCH 16u

/*
 * Who waits for a read looks for it so long before going to sleep.  A processor that has halted is
 * slow to come back and finds its caches cold: with reads of a millisecond a fifth of the compute
 * time.  Not where a neighbour wants the processor: who lost it while looking sleeps for a while.
 */
#define SPIN_NS (2 * CLOCK_NS_PER_MS)
#define SPIN_ROUNDS 32u /* from one look at the clock to the next */
#define NO_SPIN_NS (100 * CLOCK_NS_PER_MS)

/* One for each device that files lie on. */
static int find_disks(struct store *s)
{
	s->disks = calloc(s->config.n_files + 1, sizeof *s->disks);
	s->disk_of = calloc(s->config.n_files + 1, sizeof *s->disk_of);
	if (!s->disks || !s->disk_of)
		return -ENOMEM;
	for (size_t i = 0; i < s->config.n_files; i++) {
		dev_t device = s->config.files[i].device;
		uint32_t at = 0;

		while (at < s->n_disks && s->disks[at].device != device)
			at++;
		s->disk_of[i] = at;
		if (at < s->n_disks)
			continue;
		s->disks[at] = (struct store_disk){.device = device, .tuning = probe_default()};
		list_init(&s->disks[at].again);
		for (unsigned rank = 0; rank < STORE_RANKS; rank++)
			list_init(&s->disks[at].ranks[rank]);
		s->n_disks++;
	}
	s->stats.disks = s->n_disks;
	return 0;
}

int store_reads_init(struct store *s, struct error *err)
{
	size_t depth = s->config.io->ops->depth(s->config.io);

	s->bytes_background = UINT64_MAX;
	s->n_requests = (uint32_t)num_min(depth, (size_t)LIMIT_READS_IN_FLIGHT);
	if (s->n_requests == 0)
		return error_set(err, -EINVAL, "reads of depth 0");
	s->requests = calloc(s->n_requests, sizeof *s->requests);
	if (!s->requests || find_disks(s) < 0)
		return error_errno(err, -ENOMEM, "cannot set up the store of experts");
	for (uint32_t i = 0; i < s->n_requests; i++)
		list_append(&s->free_requests, &s->requests[i].link);
	return 0;
}

void store_tune(struct store *s, dev_t device, const struct disk_tuning *tuning)
{
	for (uint32_t i = 0; i < s->n_disks; i++)
		if (s->disks[i].device == device)
			s->disks[i].tuning = *tuning;
}

void store_reads_deinit(struct store *s)
{
	free(s->requests);
	free(s->disks);
	free(s->disk_of);
}

static struct store_disk *disk_of(const struct store *s, const struct store_segment *segment)
{
	return &s->disks[s->disk_of[segment->file]];
}

/* Of the slot's reads, what has not been asked for, up to where another disk has the next. */
static uint64_t left_to_ask(const struct store *s, const struct store_slot *slot)
{
	const struct store_segment *segment = slot->layout.segment;
	uint64_t n = 0;

	for (uint32_t i = slot->segment; i < slot->layout.n_segments; i++) {
		if (disk_of(s, &segment[i]) != disk_of(s, &segment[slot->segment]))
			break;
		n += segment[i].length;
	}
	return n - slot->asked;
}

/* Into the list of its rank on the disk of its next segment, and out of it. */
static void queue(struct store *s, struct store_slot *slot, enum store_rank rank)
{
	struct store_disk *d = disk_of(s, &slot->layout.segment[slot->segment]);

	list_append(&d->ranks[rank], &slot->link);
	slot->rank = (uint8_t)rank;
	if (rank >= STORE_RANK_WANTED)
		d->bytes_waiting += left_to_ask(s, slot);
}

static void unqueue(struct store *s, struct store_slot *slot)
{
	if (list_is_empty(&slot->link))
		return;
	if (slot->rank >= STORE_RANK_WANTED)
		disk_of(s, &slot->layout.segment[slot->segment])->bytes_waiting -=
			left_to_ask(s, slot);
	list_remove(&slot->link);
}

/* The first error of a slot counts.  What is not asked for yet is not asked for any more. */
static void fail(
	struct store *s, struct store_slot *slot, int error, uint32_t file, uint64_t offset)
{
	const struct store_item *item = &s->items[slot->item];

	if (slot->error)
		return;
	slot->error = error;
	s->error = ERROR_NONE;
	(void)error_errno(&s->error, error,
		"cannot read expert %u of layer %u from '%s' at offset %llu", item->expert,
		item->group, s->config.files[file].path, (unsigned long long)offset);
	if (error == -ESTALE)
		error_prefix(&s->error, "the model file changed while in use");
	unqueue(s, slot);
	slot->segment = (uint8_t)slot->layout.n_segments;
	slot->asked = 0;
}

static void check_files(struct store *s, struct store_slot *slot)
{
	for (uint32_t i = 0; i < slot->layout.n_segments && !slot->error; i++) {
		const struct store_segment *segment = &slot->layout.segment[i];
		int r;

		if (i > 0 && segment->file == segment[-1].file)
			continue;
		r = file_check(&s->config.files[segment->file]);
		if (r < 0)
			fail(s, slot, r, segment->file, segment->offset);
	}
}

/* All reads of the slot are back: it becomes ready or failed. */
static void finish(struct store *s, struct store_slot *slot)
{
	struct store_item *item = &s->items[slot->item];
	struct store_view view;

	/* Bytes of a file that was written to meanwhile may be of neither version. */
	check_files(s, slot);
	for (uint32_t i = 0; i < slot->layout.n_segments; i++) {
		const struct store_segment *segment = &slot->layout.segment[i];

		file_drop(&s->config.files[segment->file], segment->offset, segment->length);
	}
	s->finished++;
	if (slot->error) {
		s->stats.errors++;
		slot->state = SLOT_FAILED;
		if (slot->holds == 0)
			store_slot_clear(s, slot);
		return;
	}
	s->stats.bytes_useful += slot->layout.useful;
	slot->mark = false;
	if (s->config.fill) {
		store_slot_view(slot, &view);
		s->config.fill(s->config.fill_arg, item->group, item->expert, &view);
	}
	slot->state = SLOT_READY;
	s->stats.ready++;
	s->stats.ready_bytes += slot->layout.useful;
}

static void finish_if_done(struct store *s, struct store_slot *slot)
{
	if (slot->requests == 0 && slot->segment >= slot->layout.n_segments)
		finish(s, slot);
}

static void end_request(struct store *s, struct store_request *q)
{
	struct store_slot *slot = q->slot;

	q->slot = NULL;
	q->generation++;
	list_remove(&q->link);
	list_append(&s->free_requests, &q->link);
	slot->requests--;
	finish_if_done(s, slot);
}

static void fail_request(struct store *s, struct store_request *q, int error, uint64_t offset)
{
	fail(s, q->slot, error, q->slot->layout.segment[q->segment].file, offset);
	end_request(s, q);
}

/* Where in the file the request goes on: after whole units of what has arrived. */
static uint64_t resume_at(const struct store *s, const struct store_request *q)
{
	return num_align_down(q->done, s->align);
}

static uint64_t file_offset(const struct store_request *q, uint64_t done)
{
	return q->slot->layout.segment[q->segment].offset + q->from + done;
}

void store_read_start(struct store *s, struct store_slot *slot, enum store_rank rank)
{
	queue(s, slot, rank);
}

void store_read_hurry(struct store *s, struct store_slot *slot, enum store_rank rank)
{
	if (slot->state != SLOT_READING || slot->rank >= rank)
		return;
	if (list_is_empty(&slot->link)) {
		slot->rank = (uint8_t)rank; /* all asked for; somebody waits for it now */
		return;
	}
	unqueue(s, slot);
	queue(s, slot, rank);
}

static bool has_begun(const struct store_slot *slot)
{
	return slot->segment > 0 || slot->asked > 0;
}

bool store_read_call_off(struct store *s, struct store_slot *slot)
{
	if (slot->state != SLOT_READING || has_begun(slot))
		return false;
	unqueue(s, slot);
	return true;
}

/* The slot whose reads are next, where `bytes` are in flight. */
static struct store_slot *next_slot(
	const struct store *s, const struct store_disk *d, uint64_t bytes)
{
	for (unsigned rank = STORE_RANKS; rank-- > 0;) {
		const struct list *waiting = &d->ranks[rank];
		struct store_slot *slot;

		if (list_is_empty(waiting))
			continue;
		slot = list_entry(waiting->next, struct store_slot, link);
		if (rank == STORE_RANK_BACKGROUND && bytes >= s->bytes_background)
			continue;
		if (rank == STORE_RANK_AHEAD && bytes > 0 && !has_begun(slot))
			continue;
		return slot;
	}
	return NULL;
}

/* So much more of the slot has been asked for. */
static void move_on(struct store *s, struct store_disk *d, struct store_slot *slot, uint64_t n)
{
	const struct store_segment *segment = &slot->layout.segment[slot->segment];

	slot->asked += n;
	if (slot->rank >= STORE_RANK_WANTED)
		d->bytes_waiting -= n;
	if (slot->asked < segment->length)
		return;
	slot->asked = 0;
	if (++slot->segment == slot->layout.n_segments) {
		list_remove(&slot->link);
	} else if (disk_of(s, segment + 1) != d) {
		list_remove(&slot->link);
		queue(s, slot, slot->rank);
	}
}

/* The next request: one to be tried again, else the next piece of the first slot. */
static struct store_request *next_request(struct store *s, struct store_disk *d, uint64_t bytes)
{
	struct store_request *q;
	struct store_slot *slot;
	uint64_t left;

	while (!list_is_empty(&d->again)) {
		q = list_entry(d->again.next, struct store_request, link);
		list_remove(&q->link);
		if (!q->slot->error)
			return q;
		end_request(s, q); /* the slot is lost: no use in the rest */
	}
	slot = next_slot(s, d, bytes);
	if (!slot || list_is_empty(&s->free_requests))
		return NULL;
	q = list_entry(s->free_requests.next, struct store_request, link);
	list_remove(&q->link);
	left = slot->layout.segment[slot->segment].length - slot->asked;
	q->slot = slot;
	q->segment = slot->segment;
	q->from = slot->asked;
	q->length = left > 2 * d->tuning.piece ? d->tuning.piece : left;
	q->done = 0;
	q->retries = 0;
	slot->requests++;
	move_on(s, d, slot, q->length);
	return q;
}

static struct store_disk *request_disk(const struct store *s, const struct store_request *q)
{
	return disk_of(s, &q->slot->layout.segment[q->segment]);
}

static struct io_read describe(const struct store *s, const struct store_request *q)
{
	const struct store_segment *segment = &q->slot->layout.segment[q->segment];
	uint64_t from = resume_at(s, q);

	return (struct io_read){
		.tag = (uint64_t)q->generation << 32 | (uint64_t)(q - s->requests),
		.file = segment->file,
		.length = (uint32_t)(q->length - from),
		.offset = file_offset(q, from),
		.buffer = q->slot->memory + segment->at + q->from + from,
	};
}

/* The io took the first `taken` of the batch, and refuses the others for good where error < 0. */
static void account(
	struct store *s, struct store_request **batch, size_t n, size_t taken, int error)
{
	for (size_t i = 0; i < taken; i++) {
		struct store_disk *d = request_disk(s, batch[i]);

		batch[i]->in_flight = true;
		s->in_flight++;
		d->in_flight++;
		d->bytes_in_flight += batch[i]->length - resume_at(s, batch[i]);
		s->stats.reads++;
	}
	/* Put back in front from the last on, so that their order stays. */
	for (size_t i = n; i > taken; i--) {
		struct store_request *q = batch[i - 1];

		if (error < 0) {
			fail_request(s, q, error, file_offset(q, resume_at(s, q)));
		} else {
			list_prepend(&request_disk(s, q)->again, &q->link);
		}
	}
}

static bool is_passing(int error)
{
	return error == -EINTR || error == -EAGAIN || error == -EBUSY;
}

/*
 * Half of all that is wanted and has not arrived.  The more, the fuller the disk; but there are
 * disks, virtual ones, that tell of the reads they have taken only when all are done, and what
 * arrives at the end of a layer is computed with alone: so less and less.  The background has
 * nobody who waits for it: it keeps the disk full.
 */
static uint64_t most_in_flight(const struct store_disk *d)
{
	uint64_t half = (d->bytes_in_flight + d->bytes_waiting) / 2;

	if (d->bytes_waiting == 0)
		return d->tuning.most;
	half = num_max(half, d->tuning.least);
	return num_min(half, d->tuning.most);
}

static void pump_disk(struct store *s, struct store_disk *d)
{
	size_t depth = num_max(s->n_requests / s->n_disks, 1u);

	for (;;) {
		struct store_request *batch[BATCH];
		struct io_read reads[BATCH];
		uint64_t bytes = d->bytes_in_flight, most = most_in_flight(d);
		size_t n = 0;
		int r;

		while (n < BATCH && bytes < most && d->in_flight + n < depth) {
			batch[n] = next_request(s, d, bytes);
			if (!batch[n])
				break;
			reads[n] = describe(s, batch[n]);
			bytes += reads[n].length;
			n++;
		}
		if (n == 0)
			return;
		r = s->config.io->ops->submit(s->config.io, reads, n);
		if (r > 0) {
			s->refused = 0;
			account(s, batch, n, num_min((size_t)r, n), 0);
			if ((size_t)r < n)
				return;
			continue;
		}
		/* Full: the next results make room.  With nothing in flight none will come. */
		if (r == 0 || is_passing(r)) {
			if (s->in_flight > 0 || ++s->refused <= LIMIT_READ_RETRIES) {
				account(s, batch, n, 0, 0);
				return;
			}
			s->refused = 0;
			r = r == 0 ? -EAGAIN : r;
		}
		account(s, batch, n, 0, r);
	}
}

void store_read_pump(struct store *s)
{
	for (uint32_t i = 0; i < s->n_disks; i++)
		pump_disk(s, &s->disks[i]);
}

static void try_again(struct store *s, struct store_request *q, int error, uint64_t at)
{
	if (++q->retries > LIMIT_READ_RETRIES) {
		fail_request(s, q, error, at);
		return;
	}
	s->stats.retries++;
	list_append(&request_disk(s, q)->again, &q->link);
}

static void arrive(struct store *s, struct store_request *q, int32_t res)
{
	const struct store_segment *segment = &q->slot->layout.segment[q->segment];
	uint64_t from = resume_at(s, q),
		 need = segment->need > q->from ? segment->need - q->from : 0;
	uint64_t at = file_offset(q, from), progress;

	need = num_min(need, q->length);
	if (res < 0) {
		if (is_passing(res)) {
			try_again(s, q, res, at);
			return;
		}
		fail_request(s, q, res, at);
		return;
	}
	s->stats.bytes_read += (uint32_t)res;
	if (res == 0) {
		fail_request(s, q, -ENODATA, at);
		return;
	}
	progress = num_min(from + (uint32_t)res, q->length);
	q->done = num_max(q->done, progress);
	if (q->done >= need) {
		end_request(s, q);
		return;
	}
	/* A read that did not get past a unit will not get far: the file ends in it. */
	progress = resume_at(s, q) - from;
	if (progress > 0) {
		q->retries = 0;
		s->stats.retries++;
		list_append(&request_disk(s, q)->again, &q->link);
		return;
	}
	try_again(s, q, -ENODATA, file_offset(q, q->done));
}

static bool is_awaited(const struct store *s)
{
	for (uint32_t i = 0; i < s->n_requests; i++)
		if (s->requests[i].in_flight && s->requests[i].slot->rank >= STORE_RANK_WANTED)
			return true;
	return false;
}

/* Times that this thread lost its processor without giving it up. */
static long preemptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

static void spin(struct store *s, uint64_t timeout_ns)
{
	struct io *io = s->config.io;
	uint64_t start = clock_now(), most = num_min(timeout_ns, SPIN_NS), now = start;
	long before;

	if (start < s->no_spin_until || io->ops->ready(io) || !is_awaited(s))
		return;
	before = preemptions();
	while (!io->ops->ready(io) && now - start < most) {
		for (unsigned i = 0; i < SPIN_ROUNDS && !io->ops->ready(io); i++)
			relax_cpu();
		now = clock_now();
	}
	if (preemptions() != before)
		s->no_spin_until = now + NO_SPIN_NS;
}

int store_read_reap(struct store *s, uint64_t timeout_ns)
{
	struct io_result results[BATCH];
	int n;

	if (timeout_ns)
		spin(s, timeout_ns);
	n = s->config.io->ops->reap(s->config.io, results, BATCH, timeout_ns);

	for (int i = 0; i < n; i++) {
		uint32_t index = (uint32_t)results[i].tag;
		struct store_request *q = index < s->n_requests ? &s->requests[index] : NULL;
		struct store_disk *d;

		/* A result that nobody waits for must not touch a slot that is another's now. */
		if (!q || !q->in_flight || q->generation != (uint32_t)(results[i].tag >> 32))
			continue;
		q->in_flight = false;
		s->in_flight--;
		d = request_disk(s, q);
		d->in_flight--;
		d->bytes_in_flight -= q->length - resume_at(s, q);
		arrive(s, q, results[i].res);
	}
	return n;
}
