/* SPDX-License-Identifier: MIT */
#pragma once

/* For loops that look for something: tells the processor so.  Any thread. */

static inline void relax_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}
