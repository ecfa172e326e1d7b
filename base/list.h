/* SPDX-License-Identifier: MIT */
#pragma once

/* Intrusive circular doubly linked list.  The head is a link too; an unlinked link points to
 * itself. */

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(l) ((struct list){.next = &(l), .prev = &(l)})

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *l)
{
	l->prev = at->prev;
	l->next = at;
	at->prev->next = l;
	at->prev = l;
}

#define list_append(head, l) list_insert_before((head), (l))
#define list_prepend(head, l) list_insert_before((head)->next, (l))

/* Safe on an unlinked link; leaves it unlinked. */
static inline void list_remove(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

#define list_entry(l, type, member) ((type *)(void *)((char *)(l)-offsetof(type, member)))

#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)

/* The body may remove `it`. */
#define list_for_each_safe(it, head)                                                               \
	for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                  \
		it = it##_next, it##_next = it->next)
