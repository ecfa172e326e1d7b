/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * INLINE: a function that is expanded where it is called, so that the types and counts it is given
 * are constants; UNROLL: a loop that is expanded altogether.  Sanitizers check each access, and
 * took compilers minutes over such code: for them both are ordinary.
 */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INLINE_ORDINARY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INLINE_ORDINARY 1
#endif
#endif

#ifdef INLINE_ORDINARY
#define INLINE static __attribute__((unused, noinline))
#define UNROLL
#else
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")
#endif
