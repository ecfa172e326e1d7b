/* SPDX-License-Identifier: MIT */

/*
 * The loops for 64-bit ARM; peak-x86.c says what their names mean.  Only the assembler knows of the
 * instructions, so that the compiler makes none.
 */

#include "peak.h"

#include <stdint.h>

#ifdef __aarch64__
#include <sys/auxv.h>

#define STEPS UINT64_C(1000)

/* Of AT_HWCAP and AT_HWCAP2. */
#define HWCAP_DOT (1ul << 20)
#define HWCAP2_MATRIX (1ul << 13)

static bool has_neon(void)
{
	return true;
}

static bool has_dotprod(void)
{
	return getauxval(AT_HWCAP) & HWCAP_DOT;
}

static bool has_i8mm(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_MATRIX;
}

#define X4(f) f(0) f(1) f(2) f(3)
#define X8(f) X4(f) f(4) f(5) f(6) f(7)
#define X16(f) X8(f) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)

#define CLOBBERS                                                                                   \
	"cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",  \
		"v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22",       \
		"v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"

#define CLEAR(i) "movi v" #i ".4s, #0\n"

/* Registers 28 to 31 from the weights, sums from 0; then `body` n times, p going up by `stride`. */
#define LOOP(body, count, stride)                                                                  \
	do {                                                                                       \
		const char *p = weights;                                                           \
		uint64_t n = (count);                                                              \
                                                                                                   \
		__asm__ volatile(".arch armv8.2-a+dotprod+i8mm\n"                                  \
				 "ldp q28, q29, [%0]\n ldp q30, q31, [%0, #32]\n" X16(             \
					 CLEAR) ".balign 64\n 1:\n" body                           \
						"add %0, %0, %2\n subs %1, %1, #1\n b.ne 1b"       \
				 : "+r"(p), "+r"(n)                                                \
				 : "i"(stride)                                                     \
				 : CLOBBERS);                                                      \
	} while (0)

#define DOT(sum, w, x, lane) "sdot v" #sum ".4s, v" #w ".16b, v" #x ".4b[" #lane "]\n"
#define DOT_REGISTERS(i) DOT(i, 28, 29, 0)
/* Register i of eight, one column, or four. */
#define DOT_1(i) "ldr q24, [%0, #16*" #i "]\n" DOT(i, 24, 28, 0)
#define DOT_4(i, w, a, b, c, d)                                                                    \
	"ldr q" #w ", [%0, #16*" #i "]\n" DOT(a, w, 28, 0) DOT(b, w, 29, 0) DOT(c, w, 30, 0)       \
		DOT(d, w, 31, 0)

static void dotprod_registers(const void *weights)
{
	LOOP(X16(DOT_REGISTERS), STEPS, 0);
}

static void dotprod_one(const void *weights)
{
	LOOP(X8(DOT_1), PEAK_WEIGHTS / 128, 128);
}

static void dotprod_four(const void *weights)
{
	LOOP(DOT_4(0, 24, 0, 1, 2, 3) DOT_4(1, 25, 4, 5, 6, 7) DOT_4(2, 26, 8, 9, 10, 11)
			DOT_4(3, 27, 12, 13, 14, 15),
		PEAK_WEIGHTS / 64, 64);
}

#define MATRIX(sum, w, x) "smmla v" #sum ".4s, v" #w ".16b, v" #x ".16b\n"
#define MATRIX_REGISTERS(i) MATRIX(i, 28, 29)
/* Eight codes of two rows, four columns. */
#define MATRIX_4(i, w, a, b) "ldr q" #w ", [%0, #16*" #i "]\n" MATRIX(a, w, 28) MATRIX(b, w, 29)

static void i8mm_registers(const void *weights)
{
	LOOP(X16(MATRIX_REGISTERS), STEPS, 0);
}

static void i8mm_four(const void *weights)
{
	LOOP(MATRIX_4(0, 24, 0, 1) MATRIX_4(1, 25, 2, 3) MATRIX_4(2, 26, 4, 5)
			MATRIX_4(3, 27, 6, 7),
		PEAK_WEIGHTS / 64, 64);
}

#define FMA(i) "fmla v" #i ".4s, v28.4s, v29.4s\n"

static void neon_fma(const void *weights)
{
	LOOP(X16(FMA), STEPS, 0);
}

/* Weights are bytes. */
static const struct peak_loop int8_loops[] = {
	{"dotprod", "registers", has_dotprod, dotprod_registers, STEPS * 16 * 16.0},
	{"dotprod", "l2_1_column", has_dotprod, dotprod_one, PEAK_WEIGHTS},
	{"dotprod", "l2_4_columns", has_dotprod, dotprod_four, PEAK_WEIGHTS * 4.0},
	{"i8mm", "registers", has_i8mm, i8mm_registers, STEPS * 16 * 32.0},
	{"i8mm", "l2_4_columns", has_i8mm, i8mm_four, PEAK_WEIGHTS * 4.0},
};

static const struct peak_loop f32_loops[] = {
	{"neon", "registers", has_neon, neon_fma, STEPS * 16 * 4 * 2.0},
};

const struct peak_loop *peak_int8(size_t *ret_n)
{
	*ret_n = sizeof(int8_loops) / sizeof(int8_loops[0]);
	return int8_loops;
}

const struct peak_loop *peak_f32(size_t *ret_n)
{
	*ret_n = sizeof(f32_loops) / sizeof(f32_loops[0]);
	return f32_loops;
}
#endif
