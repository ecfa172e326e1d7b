/* SPDX-License-Identifier: MIT */

#include "policy.h"

#include <errno.h>
#include <stdlib.h>

/*
 * Least recently used: a doubly linked ring of slot numbers, oldest after the head, newest before
 * it.  The head is link number n_slots.  A slot that is in no ring links to itself.
 */
struct link {
	uint32_t next, prev;
};

struct policy {
	uint32_t n_slots;
	struct link links[];
};

int policy_new(struct policy **ret, uint32_t n_slots, uint32_t n_groups)
{
	struct policy *p;

	(void)n_groups; /* recency alone does not need it */
	if (n_slots == UINT32_MAX)
		return -EINVAL;
	p = malloc(sizeof *p + ((size_t)n_slots + 1) * sizeof p->links[0]);
	if (!p)
		return -ENOMEM;
	p->n_slots = n_slots;
	for (uint32_t i = 0; i <= n_slots; i++)
		p->links[i] = (struct link){i, i};
	*ret = p;
	return 0;
}

struct policy *policy_free(struct policy *p)
{
	free(p);
	return NULL;
}

static void unlink_slot(struct policy *p, uint32_t slot)
{
	struct link *l = &p->links[slot];

	p->links[l->prev].next = l->next;
	p->links[l->next].prev = l->prev;
	*l = (struct link){slot, slot};
}

static void link_newest(struct policy *p, uint32_t slot)
{
	uint32_t head = p->n_slots, newest = p->links[head].prev;

	p->links[slot] = (struct link){.next = head, .prev = newest};
	p->links[newest].next = slot;
	p->links[head].prev = slot;
}

void policy_insert(struct policy *p, uint32_t slot, uint32_t group, uint32_t expert)
{
	(void)group;
	(void)expert;
	if (slot >= p->n_slots)
		return;
	unlink_slot(p, slot);
	link_newest(p, slot);
}

void policy_touch(struct policy *p, uint32_t slot)
{
	if (slot >= p->n_slots || p->links[slot].next == slot)
		return;
	unlink_slot(p, slot);
	link_newest(p, slot);
}

void policy_remove(struct policy *p, uint32_t slot)
{
	if (slot < p->n_slots)
		unlink_slot(p, slot);
}

int64_t policy_victim(struct policy *p, bool (*may_evict)(void *arg, uint32_t slot), void *arg)
{
	uint32_t head = p->n_slots;

	for (uint32_t slot = p->links[head].next; slot != head; slot = p->links[slot].next)
		if (may_evict(arg, slot))
			return slot;
	return -1;
}
