/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The instructions on tiles (internal to kernels/x86/amx), written out: gcc 12 declares those that
 * read memory as reading none or too little of it.  Sums of int8 products in int32 do not saturate;
 * they wrap, so every user proves that they stay inside.
 */

#include <stdint.h>
#include "turn.h"

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define TILE_LOAD(t, from, stride)                                                                 \
	__asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(from), "r"(stride) : "memory")
#define TILE_STORE(t, to, stride)                                                                  \
	__asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(to), "r"(stride) : "memory")
/* c += a (columns by bytes, signed) times b (words of bytes by rows). */
#define TILE_UNSIGNED(c, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
#define TILE_SIGNED(c, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

struct tile_config {
	uint8_t palette;
	uint8_t start;
	uint8_t reserved[14];
	uint16_t bytes[16]; /* of a row of each tile */
	uint8_t rows[16];
};

_Static_assert(sizeof(struct tile_config) == 64, "format");

INLINE void tile_configure(const struct tile_config *c)
{
	__asm__ volatile("ldtilecfg %0" ::"m"(*c));
}

INLINE void tile_release(void)
{
	__asm__ volatile("tilerelease" ::: "memory");
}
