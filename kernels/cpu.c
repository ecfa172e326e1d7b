/* SPDX-License-Identifier: MIT */

/*
 * Which tier runs.  A tier needs its instructions from the CPU (cpuid; on ARM the system says what
 * it found), its registers from the system (XGETBV), and leave from the administrator (MOED_CPU, a
 * ceiling).
 */

#include <errno.h>
#include <fenv.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"
#include "num.h"
#include "ref.h"

#define TIER_BIT(tier) (1u << (tier))

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

#define XCR0_AVX 0x6u	  /* SSE and AVX state */
#define XCR0_AVX512 0xe6u /* and mask registers, upper halves, upper registers */
#define XCR0_AMX 0x60000u /* tile configuration and data */

#define CPUID7_AMX_TILE (1u << 24) /* edx */
#define CPUID7_AMX_INT8 (1u << 25)
#define CPUID7_1_AVX_VNNI (1u << 4) /* eax of subleaf 1 */

/* Of arch_prctl(2): leave to use a register state that is off until asked for (Linux 5.16). */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILE_DATA 18

#define MXCSR_ROUND 0x6000u
#define MXCSR_FLUSH 0x8000u
#define MXCSR_DENORMALS 0x0040u

static bool cpu_has_avx_vnni(void)
{
	unsigned a, b, c, d;

	/* eax of subleaf 0 is the last subleaf there is. */
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 &&
	       __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & CPUID7_1_AVX_VNNI);
}

/*
 * The tiers that this machine has, as bits.  They are no chain: servers have VNNI with registers of
 * 512 bits, some without the form for 256, desktops only that.
 */
static unsigned cpu_tiers(void)
{
	const unsigned need1 = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;
	const unsigned need7 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
	unsigned a, b, c, d, low, high, tiers = TIER_BIT(KERNELS_SCALAR);

	if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need1) != need1)
		return tiers;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	if ((low & XCR0_AVX) != XCR0_AVX)
		return tiers;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
		return tiers;
	tiers |= TIER_BIT(KERNELS_AVX2);
	if (cpu_has_avx_vnni())
		tiers |= TIER_BIT(KERNELS_AVXVNNI);
	if ((b & need7) != need7 || !(c & bit_AVX512VNNI) || (low & XCR0_AVX512) != XCR0_AVX512)
		return tiers;
	tiers |= TIER_BIT(KERNELS_VNNI);
	if ((~d & (CPUID7_AMX_TILE | CPUID7_AMX_INT8)) || (low & XCR0_AMX) != XCR0_AMX)
		return tiers;
	return tiers | TIER_BIT(KERNELS_AMX);
}

/* The kernel saves 8 KiB more for each thread that uses tiles, and wants to be asked before. */
static bool cpu_permit(enum kernels_tier tier)
{
	return tier < KERNELS_AMX ||
	       syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA) == 0;
}

int kernels_check_thread(void)
{
	unsigned bad = MXCSR_ROUND | MXCSR_FLUSH | MXCSR_DENORMALS;

	return _mm_getcsr() & bad ? -ENOTSUP : 0;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Of AT_HWCAP and AT_HWCAP2 (the system's asm/hwcap.h, which may be older than what it runs on). */
#define HWCAP_DOT (1ul << 20)
#define HWCAP2_MATRIX (1ul << 13)

#define FPCR_FLUSH_INPUTS 0x1u	   /* FIZ */
#define FPCR_ALTERNATE 0x2u	   /* AH: NaNs, signs of zeros and flushing in another way */
#define FPCR_FLUSH 0x1000000u	   /* FZ: operands and results */
#define FPCR_ROUND 0xc00000u	   /* RMode */
#define FPCR_OTHER_HALF 0x4000000u /* AHP: half floats without infinities */

static unsigned cpu_tiers(void)
{
	unsigned tiers = TIER_BIT(KERNELS_SCALAR);

	if (!(getauxval(AT_HWCAP) & HWCAP_DOT))
		return tiers;
	tiers |= TIER_BIT(KERNELS_DOTPROD);
	return getauxval(AT_HWCAP2) & HWCAP2_MATRIX ? tiers | TIER_BIT(KERNELS_I8MM) : tiers;
}

static bool cpu_permit(enum kernels_tier tier)
{
	return true;
}

int kernels_check_thread(void)
{
	const uint64_t bad =
		FPCR_FLUSH_INPUTS | FPCR_ALTERNATE | FPCR_FLUSH | FPCR_ROUND | FPCR_OTHER_HALF;
	uint64_t fpcr;

	__asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
	return fpcr & bad ? -ENOTSUP : 0;
}
#else
static unsigned cpu_tiers(void)
{
	return TIER_BIT(KERNELS_SCALAR);
}

static bool cpu_permit(enum kernels_tier tier)
{
	return true;
}

int kernels_check_thread(void)
{
	return fegetround() == FE_TONEAREST ? 0 : -ENOTSUP;
}
#endif

static const struct kernels *const tiers[KERNELS_TIER_MAX] = {
	[KERNELS_SCALAR] = &kernels_tier_scalar,
#ifdef KERNELS_HAVE_AVX2
	[KERNELS_AVX2] = &kernels_tier_avx2,
#endif
#ifdef KERNELS_HAVE_AVXVNNI
	[KERNELS_AVXVNNI] = &kernels_tier_avxvnni,
#endif
#ifdef KERNELS_HAVE_VNNI
	[KERNELS_VNNI] = &kernels_tier_vnni,
#endif
#ifdef KERNELS_HAVE_AMX
	[KERNELS_AMX] = &kernels_tier_amx,
#endif
#ifdef KERNELS_HAVE_DOTPROD
	[KERNELS_DOTPROD] = &kernels_tier_dotprod,
#endif
#ifdef KERNELS_HAVE_I8MM
	[KERNELS_I8MM] = &kernels_tier_i8mm,
#endif
};

const struct kernels *kernels_get(enum kernels_tier tier)
{
	return cpu_tiers() & TIER_BIT(tier) && cpu_permit(tier) ? tiers[tier] : NULL;
}

const struct kernels_way *kernels_way(
	const struct kernels *k, uint32_t type, bool packed, size_t cols)
{
	const struct kernels_way *best = NULL;

	if (type >= KERNELS_TYPE_MAX)
		return NULL;
	for (size_t t = 0; t < KERNELS_TIER_MAX; t++) {
		const struct kernels_way *w = tiers[t] ? tiers[t]->ways : NULL;

		for (; w && w->product; w++) {
			if (w->product != (packed ? k->product_packed : k->product)[type])
				continue;
			if (w->from <= cols && (!best || w->from > best->from))
				best = w;
		}
	}
	return best;
}

const char *kernels_words(void)
{
#if defined(__x86_64__)
	return "scalar, avx2, avxvnni, vnni, amx";
#elif defined(__aarch64__)
	return "scalar, dotprod, i8mm";
#else
	return "scalar";
#endif
}

int kernels_init(const struct kernels **ret)
{
	const char *wish = getenv("MOED_CPU");
	size_t ceiling = KERNELS_TIER_MAX - 1;

	if (wish && *wish) {
		/* What was not built here is no word: it would choose nothing. */
		for (ceiling = 0; ceiling < ARRAY_SIZE(tiers); ceiling++)
			if (tiers[ceiling] && !strcmp(wish, tiers[ceiling]->name))
				break;
		if (ceiling == ARRAY_SIZE(tiers))
			return -EINVAL;
	}
	while (!kernels_get((enum kernels_tier)ceiling))
		ceiling--;
	*ret = kernels_get((enum kernels_tier)ceiling);
	return 0;
}
