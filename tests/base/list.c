/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "list.h"

struct item {
	int value;
	struct list link;
};

static int digits(struct list *head)
{
	int n = 0;

	list_for_each(l, head) n = n * 10 + list_entry(l, struct item, link)->value;
	return n;
}

static void test_list(void **state)
{
	struct list head = LIST_INIT(head);
	struct item items[5];

	assert_true(list_is_empty(&head));
	for (int i = 0; i < 5; i++) {
		items[i].value = i + 1;
		list_init(&items[i].link);
	}
	list_append(&head, &items[1].link);
	list_append(&head, &items[2].link);
	list_prepend(&head, &items[0].link);
	assert_int_equal(digits(&head), 123);
	list_insert_before(&items[2].link, &items[3].link);
	assert_int_equal(digits(&head), 1243);
	list_remove(&items[1].link);
	list_remove(&items[1].link); /* a second time: nothing */
	list_remove(&items[4].link); /* never in */
	assert_int_equal(digits(&head), 143);
	list_for_each_safe(l, &head) if (list_entry(l, struct item, link)->value != 4)
		list_remove(l);
	assert_int_equal(digits(&head), 4);
	list_remove(&items[3].link);
	assert_true(list_is_empty(&head));
	assert_ptr_equal(head.prev, &head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_list)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
