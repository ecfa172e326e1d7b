/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Scope-bound cleanup.  A local marked cleanup_(fn) is released when it leaves scope;
 * ownership moves out with steal_ptr() or steal_fd(), which leave a harmless value behind.
 */

#include <stdlib.h>

#define cleanup_(fn) __attribute__((cleanup(fn)))

/* Declares `fn`p(type *p), which calls fn(*p) unless *p equals `none`. */
#define DEFINE_CLEANUP(type, fn, none)                                                             \
	static inline __attribute__((unused)) void fn##p(type *p)                                  \
	{                                                                                          \
		if (*p != (none))                                                                  \
			fn(*p);                                                                    \
	}

static inline void freep(void *p)
{
	free(*(void **)p);
}

#define cleanup_free_ cleanup_(freep)

#define steal_ptr(p)                                                                               \
	({                                                                                         \
		__auto_type stolen_ = (p);                                                         \
		(p) = NULL;                                                                        \
		stolen_;                                                                           \
	})
