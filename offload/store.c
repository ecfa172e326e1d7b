/* SPDX-License-Identifier: MIT */

#include "store.h"

#include <errno.h>
#include <stdlib.h>

#include "clock.h"
#include "num.h"
#include "store-internal.h"

int store_new(struct store **ret, const struct store_config *config, struct error *err)
{
	struct store *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, "cannot set up the store of experts");
	s->config = *config;
	list_init(&s->free_requests);
	r = store_slots_init(s, err);
	if (r == 0)
		r = store_reads_init(s, err);
	if (r < 0) {
		store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct store *store_free(struct store *s)
{
	if (!s)
		return NULL;
	/* No pump: what has not been submitted never is. */
	while (s->in_flight > 0)
		if (store_read_reap(s, CLOCK_NS_PER_S) < 0)
			break;
	store_reads_deinit(s);
	store_slots_deinit(s);
	free(s);
	return NULL;
}

static struct store_slot *slot_of(struct store *s, const struct store_item *item)
{
	return item && item->slot != STORE_NONE ? &s->slots[item->slot] : NULL;
}

static void let_go(struct store *s, struct store_slot *slot)
{
	if (--slot->holds == 0 && (slot->state == SLOT_FAILED || store_read_call_off(s, slot)))
		store_slot_clear(s, slot);
}

/* Of an expert that is in no slot. */
static int begin(struct store *s, struct store_item *item, enum store_rank rank)
{
	struct store_slot *slot = store_slot_take(s, item, rank);

	if (!slot)
		return STORE_BUSY;
	slot->holds = 1;
	store_read_start(s, slot, rank);
	return STORE_READING;
}

static int no_such(struct store *s, uint32_t group, uint32_t expert)
{
	s->error = ERROR_NONE;
	return error_set(&s->error, -EINVAL, "there is no expert %u in layer %u", expert, group);
}

int store_acquire(struct store *s, uint32_t group, uint32_t expert, unsigned flags)
{
	enum store_rank rank = flags & STORE_URGENT ? STORE_RANK_URGENT : STORE_RANK_WANTED;
	struct store_item *item = store_item_find(s, group, expert);
	struct store_slot *slot = slot_of(s, item);

	if (!item)
		return no_such(s, group, expert);
	if (flags & STORE_PRESENT && !slot)
		return STORE_BUSY;
	if (flags & STORE_DEMAND && slot && slot->state == SLOT_READY)
		s->stats.hits++;
	else if (flags & STORE_DEMAND)
		s->stats.misses++;
	if (flags & STORE_DEMAND)
		policy_touch(s->policy, store_item_cell(s, item));
	if (!slot)
		return begin(s, item, rank);
	if (slot->state == SLOT_FAILED)
		return slot->error;
	slot->holds++;
	store_read_hurry(s, slot, rank);
	return slot->state == SLOT_READY ? STORE_READY : STORE_READING;
}

static int fetch(struct store *s, uint32_t group, uint32_t expert, enum store_rank rank)
{
	struct store_item *item = store_item_find(s, group, expert);

	if (!item)
		return no_such(s, group, expert);
	return item->slot == STORE_NONE ? begin(s, item, rank) : STORE_READY;
}

int store_fetch(struct store *s, uint32_t group, uint32_t expert)
{
	return fetch(s, group, expert, STORE_RANK_BACKGROUND);
}

int store_fetch_ahead(struct store *s, uint32_t group, uint32_t expert)
{
	return fetch(s, group, expert, STORE_RANK_AHEAD);
}

bool store_call_off(struct store *s, uint32_t group, uint32_t expert)
{
	struct store_item *item = store_item_find(s, group, expert);
	bool was_reading = item && item->slot != STORE_NONE;

	store_release(s, group, expert);
	return was_reading && item->slot == STORE_NONE;
}

void store_set_background(struct store *s, uint64_t bytes)
{
	s->bytes_background = bytes;
}

int store_poll(struct store *s, uint32_t group, uint32_t expert, struct store_view *ret)
{
	struct store_slot *slot = slot_of(s, store_item_find(s, group, expert));

	if (!slot || slot->holds == 0)
		return -EINVAL;
	if (slot->state == SLOT_FAILED)
		return slot->error;
	if (slot->state != SLOT_READY)
		return STORE_READING;
	store_slot_view(slot, ret);
	return STORE_READY;
}

void store_release(struct store *s, uint32_t group, uint32_t expert)
{
	struct store_slot *slot = slot_of(s, store_item_find(s, group, expert));

	if (slot && slot->holds > 0)
		let_go(s, slot);
}

void store_submit(struct store *s)
{
	store_read_pump(s);
}

int store_reap(struct store *s, uint64_t timeout_ns)
{
	int n = 0, r = 0;

	store_read_pump(s);
	if (s->in_flight > 0)
		r = store_read_reap(s, timeout_ns);
	store_read_pump(s);
	if (r < 0 && r != -EINTR) {
		s->error = ERROR_NONE;
		return error_errno(&s->error, r, "cannot take the results of reads (%s)",
			s->config.io->ops->name);
	}
	n = s->finished;
	s->finished = 0;
	return n;
}

bool store_is_here(struct store *s, uint32_t group, uint32_t expert)
{
	const struct store_item *item = store_item_find(s, group, expert);

	return item && item->slot != STORE_NONE && s->slots[item->slot].state == SLOT_READY;
}

void store_service(struct store *s)
{
	struct io *io = s->config.io;

	if (s->in_flight == 0 || !io->ops->ready(io))
		return;
	/* An error comes again with the next store_reap(). */
	(void)store_read_reap(s, 0);
	store_read_pump(s);
}

size_t store_in_flight(const struct store *s)
{
	return s->in_flight;
}

void store_get_stats(const struct store *s, struct store_stats *ret)
{
	*ret = s->stats;
	ret->experts = s->n_items;
}

const char *store_error(const struct store *s)
{
	return s->error.text;
}

size_t store_state_size(const struct store *s)
{
	return policy_state_size(s->policy);
}

void store_state_get(const struct store *s, void *ret)
{
	policy_get(s->policy, ret);
}

int store_state_set(struct store *s, const void *bytes, size_t n)
{
	return policy_set(s->policy, bytes, n);
}

bool store_was_here(struct store *s, uint32_t group, uint32_t expert)
{
	const struct store_item *item = store_item_find(s, group, expert);

	return item && policy_was_in(s->policy, store_item_cell(s, item));
}
