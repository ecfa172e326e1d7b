/* SPDX-License-Identifier: MIT */

#include "store-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "limit.h"
#include "num.h"

/*
 * Slots that every class gets before the rest is divided in proportion, as far as memory goes: two
 * layers' top-8.
 */
#define CLASS_SLOTS_MIN 16u

static void locate(const struct store *s, uint32_t group, uint32_t expert, struct store_expert *x)
{
	*x = (struct store_expert){0};
	s->config.locate(s->config.locate_arg, group, expert, x);
	/* An absent part is one thing, whatever else is written there. */
	for (uint32_t i = 0; i < STORE_PARTS; i++)
		if (x->part[i].size == 0)
			x->part[i] = (struct store_extent){0};
}

static bool is_same(const struct store_expert *a, const struct store_expert *b)
{
	for (uint32_t i = 0; i < STORE_PARTS; i++)
		if (a->part[i].file != b->part[i].file || a->part[i].offset != b->part[i].offset ||
			a->part[i].size != b->part[i].size)
			return false;
	return true;
}

static uint64_t hash(const struct store_expert *x)
{
	uint64_t h = 0;

	for (uint32_t i = 0; i < STORE_PARTS; i++) {
		h = (h ^ x->part[i].file) * UINT64_C(0x9e3779b97f4a7c15);
		h = (h ^ h >> 32 ^ x->part[i].offset) * UINT64_C(0xff51afd7ed558ccd);
		h = (h ^ h >> 32 ^ x->part[i].size) * UINT64_C(0xc4ceb9fe1a85ec53);
	}
	return h ^ h >> 32;
}

static int check(const struct store *s, uint32_t group, uint32_t expert,
	const struct store_expert *x, struct error *err)
{
	struct store_layout layout;

	for (uint32_t i = 0; i < STORE_PARTS; i++)
		if (x->part[i].size > 0 && x->part[i].file >= s->config.n_files)
			return error_set(err, -EINVAL,
				"expert %u of group %u lies in file %u of %zu", expert, group,
				x->part[i].file, s->config.n_files);
	if (!store_layout_make(&layout, x, s->align) || store_slot_size(x, s->align) == SIZE_MAX)
		return error_set(
			err, -ERANGE, "expert %u of group %u: its extents overflow", expert, group);
	if (layout.size == 0)
		return error_set(err, -EINVAL, "expert %u of group %u has no bytes", expert, group);
	return 0;
}

/* The item of these extents, a new one where they are; table is open-addressed, of item + 1. */
static uint32_t intern(struct store *s, uint32_t *table, uint64_t mask, uint32_t group,
	uint32_t expert, const struct store_expert *x)
{
	for (uint64_t i = hash(x) & mask;; i = (i + 1) & mask) {
		struct store_expert other;
		struct store_item *item;

		if (!table[i]) {
			s->items[s->n_items] = (struct store_item){group, expert, STORE_NONE, 0};
			table[i] = ++s->n_items;
			return s->n_items - 1;
		}
		item = &s->items[table[i] - 1];
		locate(s, item->group, item->expert, &other);
		if (is_same(x, &other))
			return table[i] - 1;
	}
}

static int find_items(struct store *s, struct error *err)
{
	cleanup_free_ uint32_t *table = NULL;
	uint64_t all = 0, room = 16;

	if (s->config.groups > LIMIT_LAYERS)
		return error_set(err, -ERANGE, "%u groups of experts are too many (%u)",
			s->config.groups, LIMIT_LAYERS);
	s->groups = calloc((size_t)s->config.groups + 1, sizeof *s->groups);
	if (!s->groups)
		return -ENOMEM;
	for (uint32_t g = 0; g < s->config.groups; g++) {
		if (s->config.experts[g] > LIMIT_EXPERTS)
			return error_set(err, -ERANGE, "%u experts in group %u are too many (%u)",
				s->config.experts[g], g, LIMIT_EXPERTS);
		all += s->config.experts[g];
		s->groups[g + 1] = (uint32_t)all;
	}
	while (room < 2 * all)
		room *= 2;
	table = calloc(room, sizeof *table);
	s->item_of = calloc(all + 1, sizeof *s->item_of);
	s->items = calloc(all + 1, sizeof *s->items);
	s->has_shared = calloc((size_t)s->config.groups + 1, sizeof *s->has_shared);
	if (!table || !s->item_of || !s->items || !s->has_shared)
		return -ENOMEM;

	for (uint32_t g = 0; g < s->config.groups; g++)
		for (uint32_t e = 0; e < s->config.experts[g]; e++) {
			struct store_expert x;
			uint32_t at;
			int r;

			locate(s, g, e, &x);
			r = check(s, g, e, &x, err);
			if (r < 0)
				return r;
			at = intern(s, table, room - 1, g, e, &x);
			s->item_of[s->groups[g] + e] = at;
			if (store_item_cell(s, &s->items[at]) != s->groups[g] + e)
				s->has_shared[g] = true;
		}
	return 0;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t item_size(const struct store *s, const struct store_item *item)
{
	struct store_expert x;

	locate(s, item->group, item->expert, &x);
	return store_slot_size(&x, s->align);
}

/* Joins the two neighbours for which it wastes least: the smaller are lifted to the larger. */
static void join_classes(struct store *s)
{
	uint64_t best = UINT64_MAX;
	uint32_t at = 0;

	for (uint32_t i = 0; i + 1 < s->n_classes; i++) {
		const struct store_class *c = &s->classes[i];
		uint64_t waste;

		if (!num_mul(c[1].size - c->size, c->items, &waste))
			waste = UINT64_MAX;
		if (waste <= best) {
			best = waste;
			at = i;
		}
	}
	s->classes[at + 1].items += s->classes[at].items;
	memmove(&s->classes[at], &s->classes[at + 1],
		(s->n_classes - at - 1) * sizeof s->classes[0]);
	s->n_classes--;
}

/* One class for each size that occurs, at most LIMIT_SLOT_CLASSES. */
static int find_classes(struct store *s)
{
	cleanup_free_ uint64_t *sizes = calloc((size_t)s->n_items + 1, sizeof *sizes);

	s->classes = calloc(LIMIT_SLOT_CLASSES + 1, sizeof *s->classes);
	if (!sizes || !s->classes)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n_items; i++)
		sizes[i] = item_size(s, &s->items[i]);
	qsort(sizes, s->n_items, sizeof *sizes, compare_u64);
	for (uint32_t i = 0; i < s->n_items; i++) {
		if (i == 0 || sizes[i] != sizes[i - 1]) {
			if (s->n_classes > LIMIT_SLOT_CLASSES - 1)
				join_classes(s);
			s->classes[s->n_classes++] = (struct store_class){.size = sizes[i]};
		}
		s->classes[s->n_classes - 1].items++;
	}
	for (uint32_t i = 0; i < s->n_items; i++) {
		uint64_t size = item_size(s, &s->items[i]);
		uint16_t c = 0;

		while (s->classes[c].size < size)
			c++;
		s->items[i].class = c;
	}
	return 0;
}

/* Bytes of n slots in each class, none of which gets more than it has items; saturates. */
static uint64_t bytes_of(const struct store *s, uint32_t n)
{
	uint64_t sum = 0, part;

	for (uint32_t i = 0; i < s->n_classes; i++) {
		const struct store_class *c = &s->classes[i];

		if (!num_mul(c->size, num_min(c->items, n), &part) || !num_add(sum, part, &sum))
			return UINT64_MAX;
	}
	return sum;
}

/* Another slot for the class with the smallest share of its items, as long as one fits. */
static void divide_rest(struct store *s, uint64_t left)
{
	for (;;) {
		struct store_class *poorest = NULL;

		for (uint32_t i = 0; i < s->n_classes; i++) {
			struct store_class *c = &s->classes[i];

			if (c->slots == c->items || c->size > left)
				continue;
			if (!poorest || (uint64_t)c->slots * poorest->items <
						(uint64_t)poorest->slots * c->items)
				poorest = c;
		}
		if (!poorest)
			return;
		poorest->slots++;
		left -= poorest->size;
	}
}

static int divide(struct store *s, struct error *err)
{
	uint64_t left = s->config.size, all = bytes_of(s, UINT32_MAX);
	uint32_t n = CLASS_SLOTS_MIN;
	double share;

	while (n > 1 && bytes_of(s, n) > left)
		n--;
	if (bytes_of(s, n) > left)
		return error_set(err, -ENOMEM,
			"%zu bytes are too few for one expert of each size: at least %llu are "
			"needed",
			s->config.size, (unsigned long long)bytes_of(s, 1));
	share = all > 0 ? (double)left / (double)all : 0;
	left -= bytes_of(s, n);
	for (uint32_t i = 0; i < s->n_classes; i++) {
		struct store_class *c = &s->classes[i];
		double fair = share * c->items;
		uint32_t more;

		c->slots = num_min(c->items, n);
		if (fair <= c->slots)
			continue;
		more = (uint32_t)num_min(fair, (double)c->items) - c->slots;
		more = (uint32_t)num_min((uint64_t)more, left / c->size);
		c->slots += more;
		left -= more * c->size;
	}
	divide_rest(s, left);
	return 0;
}

/* Ranges that a slot waits for at first. */
static uint32_t chunks_of(const struct store *s, const char *memory, uint64_t size)
{
	uint64_t at = (uint64_t)(memory - (char *)s->config.memory), n = s->config.chunk;

	return n ? (uint32_t)((at + size - 1) / n - at / n + 1) : 0;
}

static int make_slots(struct store *s)
{
	uint64_t n = 0;
	char *at = s->config.memory;

	for (uint32_t i = 0; i < s->n_classes; i++)
		n += s->classes[i].slots;
	s->n_slots = (uint32_t)n;
	s->slots = calloc(n + 1, sizeof *s->slots);
	if (!s->slots)
		return -ENOMEM;
	s->stats.slots = s->config.chunk ? 0 : n;
	n = 0;
	for (uint32_t i = 0; i < s->n_classes; i++) {
		struct store_class *c = &s->classes[i];
		c->first = (uint32_t)n;
		list_init(&c->free);
		for (uint32_t k = 0; k < c->slots; k++, n++) {
			struct store_slot *slot = &s->slots[n];

			slot->memory = at;
			slot->item = STORE_NONE;
			slot->index = k;
			slot->class = (uint16_t)i;
			slot->withdrawn = chunks_of(s, at, c->size);
			if (slot->withdrawn)
				c->withdrawn++;
			else
				list_append(&c->free, &slot->link);
			at += c->size;
		}
	}
	return 0;
}

int store_slots_init(struct store *s, struct error *err)
{
	int r;

	/* One alignment for all: the largest that any file asks of offset, length or memory. */
	s->align = 512;
	for (size_t i = 0; i < s->config.n_files; i++) {
		const struct file *f = &s->config.files[i];

		s->align = num_max(s->align, f->align);
		s->align = num_max(s->align, f->memory_align);
	}
	if ((uintptr_t)s->config.memory & (s->align - 1))
		return error_set(err, -EINVAL, "the memory for experts is not aligned to %u bytes",
			s->align);
	r = find_items(s, err);
	if (r == 0)
		r = find_classes(s);
	if (r == 0)
		r = divide(s, err);
	if (r == 0)
		r = make_slots(s);
	if (r == 0)
		r = policy_new(&s->policy, &(struct policy_config){.kind = s->config.policy,
						   .groups = s->config.groups,
						   .experts = s->config.experts,
						   .classes = num_max(s->n_classes, 1u)});
	return r < 0 ? error_errno(err, r, "cannot set up the store of experts") : 0;
}

void store_slots_deinit(struct store *s)
{
	policy_free(s->policy);
	free(s->has_shared);
	free(s->classes);
	free(s->slots);
	free(s->items);
	free(s->item_of);
	free(s->groups);
}

struct store_item *store_item_find(struct store *s, uint32_t group, uint32_t expert)
{
	if (group >= s->config.groups || expert >= s->config.experts[group])
		return NULL;
	return &s->items[s->item_of[s->groups[group] + expert]];
}

/* Ready, and nobody computes with it: may give way. */
static bool is_idle(const struct store_slot *slot)
{
	return slot->state == SLOT_READY && slot->holds == 0;
}

static bool may_give_way(void *arg, uint32_t cell)
{
	const struct store *s = arg;
	const struct store_item *item = &s->items[s->item_of[cell]];

	return item->slot != STORE_NONE && is_idle(&s->slots[item->slot]);
}

uint32_t store_item_cell(const struct store *s, const struct store_item *item)
{
	return s->groups[item->group] + item->expert;
}

void store_visit(struct store *s, const struct forecast_visit *v)
{
	struct forecast_visit last = *v;

	/* Where all have slots nothing ever gives way. */
	if (v->group >= s->config.groups || v->k > LIMIT_TOP_K || s->stats.slots >= s->n_items)
		return;
	/* Nothing gives way where all are here: then 10 us a layer would be for nothing. */
	if (s->stats.ready == s->n_items)
		return;
	/* Of more rows, the last count. */
	last.rows = num_min(v->rows, FORECAST_ROWS);
	last.choices += (size_t)(v->rows - last.rows) * v->stride;
	for (uint32_t i = 0; s->has_shared[v->group] && i < last.rows * v->k; i++) {
		const uint32_t *row = last.choices + (size_t)(i / v->k) * v->stride;
		const struct store_item *item = store_item_find(s, v->group, row[i % v->k]);

		s->choices[i] = item && item->group == v->group ? item->expert : UINT32_MAX;
	}
	if (s->has_shared[v->group]) {
		last.choices = s->choices;
		last.stride = v->k;
	}
	policy_visit(s->policy, &last);
}

/* Empties a slot of the class; false where none may be. */
static bool make_room(struct store *s, uint16_t class, enum store_rank rank)
{
	int64_t victim = rank > STORE_RANK_BACKGROUND
				 ? policy_victim(s->policy, class, may_give_way, s)
				 : -1;

	if (victim < 0 ||
		(rank == STORE_RANK_AHEAD && !policy_is_cold(s->policy, (uint32_t)victim)))
		return false;
	store_slot_clear(s, &s->slots[s->items[s->item_of[victim]].slot]);
	s->stats.evictions++;
	return true;
}

struct store_slot *store_slot_take(struct store *s, struct store_item *item, enum store_rank rank)
{
	struct store_class *c = &s->classes[item->class];
	struct store_slot *slot;
	struct store_expert x;

	if (list_is_empty(&c->free) && !make_room(s, item->class, rank))
		return NULL;
	slot = list_entry(c->free.next, struct store_slot, link);
	locate(s, item->group, item->expert, &x);
	/* Checked in store_new(); a locate() that is not constant gets no slot. */
	if (!store_layout_make(&slot->layout, &x, s->align) || slot->layout.size > c->size)
		return NULL;
	list_remove(&slot->link);
	slot->item = (uint32_t)(item - s->items);
	slot->error = 0;
	slot->segment = 0;
	slot->asked = 0;
	slot->state = SLOT_READING;
	item->slot = (uint32_t)(slot - s->slots);
	policy_insert(s->policy, store_item_cell(s, item), item->class);
	s->stats.slots_used++;
	return slot;
}

void store_slot_clear(struct store *s, struct store_slot *slot)
{
	struct store_class *c = &s->classes[slot->class];

	if (slot->state == SLOT_READY) {
		s->stats.ready--;
		s->stats.ready_bytes -= slot->layout.useful;
	}
	policy_remove(s->policy, store_item_cell(s, &s->items[slot->item]));
	s->items[slot->item].slot = STORE_NONE;
	slot->item = STORE_NONE;
	slot->state = SLOT_EMPTY;
	list_prepend(&c->free, &slot->link);
	s->stats.slots_used--;
}

static bool touches(const struct store *s, const struct store_slot *slot, const char *p, size_t n)
{
	return slot->memory < p + n && slot->memory + s->classes[slot->class].size > p;
}

static int may_withdraw(const struct store *s, const char *p, size_t n)
{
	for (uint32_t c = 0, i = 0; c < s->n_classes; c++) {
		const struct store_class *class = &s->classes[c];
		uint32_t left = class->slots - class->withdrawn, taken = 0;

		for (; i < class->first + class->slots; i++) {
			const struct store_slot *slot = &s->slots[i];

			if (!touches(s, slot, p, n))
				continue;
			if (slot->state != SLOT_EMPTY && !is_idle(slot))
				return -EBUSY;
			taken += slot->withdrawn == 0;
		}
		if (taken > 0 && left - taken < num_min(class->items, CLASS_SLOTS_MIN))
			return -ENOSPC;
	}
	return 0;
}

int store_withdraw(struct store *s, const void *p, size_t n)
{
	int r = may_withdraw(s, p, n);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < s->n_slots; i++) {
		struct store_slot *slot = &s->slots[i];

		if (!touches(s, slot, p, n) || slot->withdrawn++ > 0)
			continue;
		if (slot->state != SLOT_EMPTY) {
			store_slot_clear(s, slot);
			s->stats.evictions++;
		}
		list_remove(&slot->link);
		s->classes[slot->class].withdrawn++;
		s->stats.slots--;
	}
	return 0;
}

void store_restore(struct store *s, const void *p, size_t n)
{
	for (uint32_t i = 0; i < s->n_slots; i++) {
		struct store_slot *slot = &s->slots[i];
		struct store_class *class = &s->classes[slot->class];

		if (!touches(s, slot, p, n) || slot->withdrawn == 0 || --slot->withdrawn > 0)
			continue;
		list_append(&class->free, &slot->link);
		class->withdrawn--;
		s->stats.slots++;
	}
}

bool store_holds_least(const struct store *s, const void *p, size_t n, uint32_t least)
{
	for (uint32_t c = 0; c < s->n_classes; c++) {
		const struct store_class *class = &s->classes[c];
		uint32_t end = class->first + num_min(class->slots, least);

		for (uint32_t i = class->first; i < end; i++)
			if (touches(s, &s->slots[i], p, n))
				return true;
	}
	return false;
}

void store_slot_view(struct store_slot *slot, struct store_view *ret)
{
	ret->mark = &slot->mark;
	for (uint32_t i = 0; i < STORE_PARTS; i++)
		ret->part[i] = slot->layout.part_at[i] == UINT64_MAX
				       ? NULL
				       : slot->memory + slot->layout.part_at[i];
}
