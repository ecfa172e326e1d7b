/* SPDX-License-Identifier: MIT */

/*
 * The loops for x86-64, written out in instructions: a compiler would remove them, or choose
 * others. "registers": independent chains, as many as hide the latency.  "l2": the weights stream
 * from the second cache, each line multiplied with 1 or 4 columns of activations, or two tiles
 * with 32.
 */

#include "peak.h"

#include <stdint.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STEPS UINT64_C(1000)

#define XCR0_AVX 0x6u
#define XCR0_AVX512 0xe6u
#define XCR0_AMX 0x60000u
#define CPUID7_AVX_VNNI (1u << 4) /* eax of sub-leaf 1 */
#define CPUID7_AMX (3u << 24)	  /* edx: tiles, and int8 */
/* Of arch_prctl(2): leave to use tiles, which is off until asked for. */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILE_DATA 18

static bool system_saves(unsigned state)
{
	unsigned a, b, c, d, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return false;
	__asm__("xgetbv" : "=a"(a), "=d"(high) : "c"(0));
	return (a & state) == state;
}

static bool has_avx2(void)
{
	unsigned a, b, c, d;

	return system_saves(XCR0_AVX) && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_FMA) &&
	       __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static bool has_avxvnni(void)
{
	unsigned a, b, c, d;

	return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & CPUID7_AVX_VNNI);
}

static bool has_avx512(void)
{
	unsigned a, b, c, d;

	return has_avx2() && system_saves(XCR0_AVX512) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
	       (b & bit_AVX512F);
}

static bool has_avx512vnni(void)
{
	unsigned a, b, c, d;

	return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VNNI);
}

static bool has_amx(void)
{
	unsigned a, b, c, d;

	return system_saves(XCR0_AMX) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
	       (d & CPUID7_AMX) == CPUID7_AMX &&
	       syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA) == 0;
}

#define X4(f) f(0) f(1) f(2) f(3)
#define X8(f) X4(f) f(4) f(5) f(6) f(7)
#define X12(f) X8(f) f(8) f(9) f(10) f(11)

#define CLOBBERS                                                                                   \
	"cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",    \
		"xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/* Registers 12 to 15 from the weights, sums from 0; then `body` n times, p going up by `stride`. */
#define LOOP(r, body, count, stride, ...)                                                          \
	do {                                                                                       \
		const char *p = weights;                                                           \
		uint64_t n = (count);                                                              \
                                                                                                   \
		__asm__ volatile("vmovups (%0), %%" r "12\n vmovups 64(%0), %%" r "13\n"           \
				 "vmovups 128(%0), %%" r "14\n vmovups 192(%0), %%" r              \
				 "15\n" X12(CLEAR) ".balign 64\n 1:\n" body                        \
						   "add %2, %0\n dec %1\n jnz 1b\n vzeroupper"     \
				 : "+r"(p), "+r"(n)                                                \
				 : "i"(stride)                                                     \
				 : CLOBBERS __VA_ARGS__);                                          \
	} while (0)
/* All of a register: VEX instructions zero what lies above. */
#define CLEAR(i) "vxorps %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n"

/*
 * AVX2 has no sum of four products: two go into 16 bits, two of these into 32, and then the sum.
 * 32 products in three instructions; temporaries are 8 to 10, and 11 is a column too.
 */
#define MADD(a, temp, from, activations)                                                           \
	"vpmaddubsw " from ", %%ymm" activations ", %%ymm" temp "\n"                               \
	"vpmaddwd %%ymm15, %%ymm" temp ", %%ymm" temp "\n"                                         \
	"vpaddd %%ymm" temp ", %%ymm" a ", %%ymm" a "\n"
#define MADD_REGISTERS(i) MADD(#i, "8", "%%ymm13", "12")
#define MADD_1(i) MADD(#i, "8", "32*" #i "(%0)", "12")
#define MADD_4(i)                                                                                  \
	MADD("0", "8", "32*" #i "(%0)", "12")                                                      \
	MADD("1", "9", "32*" #i "(%0)", "13")                                                      \
	MADD("2", "10", "32*" #i "(%0)", "14")                                                     \
	MADD("3", "8", "32*" #i "(%0)", "11")

static void avx2_registers(const void *weights)
{
	LOOP("ymm", X8(MADD_REGISTERS), STEPS, 0);
}

static void avx2_one(const void *weights)
{
	LOOP("ymm", X8(MADD_1), PEAK_WEIGHTS / 256, 256);
}

static void avx2_four(const void *weights)
{
	LOOP("ymm", X4(MADD_4), PEAK_WEIGHTS / 128, 128);
}

#define Y_REGISTERS(i) "%{vex%} vpdpbusd %%ymm13, %%ymm12, %%ymm" #i "\n"
#define Y_1(i) "%{vex%} vpdpbusd 32*" #i "(%0), %%ymm12, %%ymm" #i "\n"
/* Row i of two by way of register w, four columns. */
#define Y_4(i, w, a, b, c, d)                                                                      \
	"vmovdqu 32*" #i "(%0), %%ymm" #w "\n"                                                     \
	"%{vex%} vpdpbusd %%ymm" #w ", %%ymm12, %%ymm" #a "\n"                                     \
	"%{vex%} vpdpbusd %%ymm" #w ", %%ymm13, %%ymm" #b "\n"                                     \
	"%{vex%} vpdpbusd %%ymm" #w ", %%ymm14, %%ymm" #c "\n"                                     \
	"%{vex%} vpdpbusd %%ymm" #w ", %%ymm15, %%ymm" #d "\n"

static void avxvnni_registers(const void *weights)
{
	LOOP("ymm", X12(Y_REGISTERS), STEPS, 0);
}

static void avxvnni_one(const void *weights)
{
	LOOP("ymm", X8(Y_1), PEAK_WEIGHTS / 256, 256);
}

static void avxvnni_four(const void *weights)
{
	LOOP("ymm", Y_4(0, 8, 0, 1, 2, 3) Y_4(1, 9, 4, 5, 6, 7), PEAK_WEIGHTS / 64, 64);
}

#define Z_REGISTERS(i) "vpdpbusd %%zmm13, %%zmm12, %%zmm" #i "\n"
#define Z_1(i) "vpdpbusd 64*" #i "(%0), %%zmm12, %%zmm" #i "\n"
/* Row i of three by way of register w, four columns. */
#define Z_4(i, w, a, b, c, d)                                                                      \
	"vmovdqu64 64*" #i "(%0), %%zmm" #w "\n"                                                   \
	"vpdpbusd %%zmm" #w ", %%zmm12, %%zmm" #a "\n"                                             \
	"vpdpbusd %%zmm" #w ", %%zmm13, %%zmm" #b "\n"                                             \
	"vpdpbusd %%zmm" #w ", %%zmm14, %%zmm" #c "\n"                                             \
	"vpdpbusd %%zmm" #w ", %%zmm15, %%zmm" #d "\n"

static void avx512vnni_registers(const void *weights)
{
	LOOP("zmm", X12(Z_REGISTERS), STEPS, 0);
}

static void avx512vnni_one(const void *weights)
{
	LOOP("zmm", X8(Z_1), PEAK_WEIGHTS / 512, 512);
}

/* Only this instruction set has registers from 16 on. */
__attribute__((target("avx512f"))) static void avx512vnni_four(const void *weights)
{
	LOOP("zmm", Z_4(0, 16, 0, 1, 2, 3) Z_4(1, 17, 4, 5, 6, 7) Z_4(2, 18, 8, 9, 10, 11),
		PEAK_WEIGHTS / 192, 192, , "xmm16", "xmm17", "xmm18");
}

#define FMA_Y(i) "vfmadd213ps %%ymm13, %%ymm12, %%ymm" #i "\n"
#define FMA_Z(i) "vfmadd213ps %%zmm13, %%zmm12, %%zmm" #i "\n"

static void avx2_fma(const void *weights)
{
	LOOP("ymm", X12(FMA_Y), STEPS, 0);
}

static void avx512_fma(const void *weights)
{
	LOOP("zmm", X12(FMA_Z), STEPS, 0);
}

#define TILE_BYTES 1024

/* Eight tiles of 16 rows of 64 bytes. */
static const struct {
	uint8_t palette, start, reserved[14];
	uint16_t bytes[16];
	uint8_t rows[16];
} tiles = {
	.palette = 1,
	.bytes = {64, 64, 64, 64, 64, 64, 64, 64},
	.rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* Columns in tiles 4 and 5, weights in 6 and 7, sums in 0 to 3. */
#define TILE_ZERO(i) "tilezero %%tmm" #i "\n"
#define TILE_PRODUCTS                                                                              \
	"tdpbusd %%tmm6, %%tmm4, %%tmm0\n tdpbusd %%tmm7, %%tmm4, %%tmm1\n"                        \
	"tdpbusd %%tmm6, %%tmm5, %%tmm2\n tdpbusd %%tmm7, %%tmm5, %%tmm3\n"

static void amx_registers(const void *weights)
{
	uint64_t n = STEPS;

	__asm__ volatile("ldtilecfg (%1)\n" X8(
		TILE_ZERO) "tileloadd (%2,%3,1), %%tmm4\n tileloadd (%2,%3,1), %%tmm5\n"
			   "tileloadd (%2,%3,1), %%tmm6\n tileloadd (%2,%3,1), %%tmm7\n"
			   ".balign 64\n 1:\n" TILE_PRODUCTS TILE_PRODUCTS
			   "dec %0\n jnz 1b\n tilerelease"
			 : "+r"(n)
			 : "r"(&tiles), "r"(weights), "r"(UINT64_C(64))
			 : "cc", "memory");
}

/* Two tiles of weights from the second cache, two of columns from the first, four products. */
static void amx_stream(const void *weights)
{
	const char *p = weights;
	uint64_t n = PEAK_WEIGHTS / (2 * TILE_BYTES);

	__asm__ volatile("ldtilecfg (%2)\n" X8(
		TILE_ZERO) ".balign 64\n 1:\n"
			   "tileloadd (%3,%4,1), %%tmm4\n tileloadd 1024(%3,%4,1), %%tmm5\n"
			   "tileloadd (%0,%4,1), %%tmm6\n tileloadd 1024(%0,%4,1), "
			   "%%tmm7\n" TILE_PRODUCTS "add %5, %0\n dec %1\n jnz 1b\n tilerelease"
			 : "+r"(p), "+r"(n)
			 : "r"(&tiles), "r"(weights), "r"(UINT64_C(64)), "i"(2 * TILE_BYTES)
			 : "cc", "memory");
}

/* Weights are bytes. */
static const struct peak_loop int8_loops[] = {
	{"avx2", "registers", has_avx2, avx2_registers, STEPS * 8 * 32.0},
	{"avx2", "l2_1_column", has_avx2, avx2_one, PEAK_WEIGHTS},
	{"avx2", "l2_4_columns", has_avx2, avx2_four, PEAK_WEIGHTS * 4.0},
	{"avxvnni", "registers", has_avxvnni, avxvnni_registers, STEPS * 12 * 32.0},
	{"avxvnni", "l2_1_column", has_avxvnni, avxvnni_one, PEAK_WEIGHTS},
	{"avxvnni", "l2_4_columns", has_avxvnni, avxvnni_four, PEAK_WEIGHTS * 4.0},
	{"avx512vnni", "registers", has_avx512vnni, avx512vnni_registers, STEPS * 12 * 64.0},
	{"avx512vnni", "l2_1_column", has_avx512vnni, avx512vnni_one, PEAK_WEIGHTS},
	{"avx512vnni", "l2_4_columns", has_avx512vnni, avx512vnni_four,
		PEAK_WEIGHTS / 192 * 192 * 4.0},
	{"amx", "registers", has_amx, amx_registers, STEPS * 8 * 16 * 16 * 64.0},
	{"amx", "l2_32_columns", has_amx, amx_stream, PEAK_WEIGHTS * 32.0},
};

static const struct peak_loop f32_loops[] = {
	{"avx2", "registers", has_avx2, avx2_fma, STEPS * 12 * 8 * 2.0},
	{"avx512", "registers", has_avx512, avx512_fma, STEPS * 12 * 16 * 2.0},
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
#elif !defined(__aarch64__)
const struct peak_loop *peak_int8(size_t *ret_n)
{
	*ret_n = 0;
	return NULL;
}

const struct peak_loop *peak_f32(size_t *ret_n)
{
	*ret_n = 0;
	return NULL;
}
#endif
