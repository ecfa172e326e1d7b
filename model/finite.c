/* SPDX-License-Identifier: MIT */
#include "finite.h"

#include <string.h>

#include "kernels.h"
#include "num.h"

#define NONE 0xffu

/* Where the half-precision scales lie in a block. */
static const struct {
	uint8_t known, at[2];
} scales[] = {
	[KERNELS_Q4_0] = {1, {0, NONE}},
	[KERNELS_Q4_1] = {1, {0, 2}},
	[KERNELS_Q5_0] = {1, {0, NONE}},
	[KERNELS_Q5_1] = {1, {0, 2}},
	[KERNELS_Q8_0] = {1, {0, NONE}},
	[KERNELS_Q2_K] = {1, {80, 82}},
	[KERNELS_Q3_K] = {1, {108, NONE}},
	[KERNELS_Q4_K] = {1, {0, 2}},
	[KERNELS_Q5_K] = {1, {0, 2}},
	[KERNELS_Q6_K] = {1, {208, NONE}},
	/* Without a product here, so that they have no name but their number. */
	[16] = {1, {0, NONE}},	/* IQ2_XXS */
	[17] = {1, {0, NONE}},	/* IQ2_XS */
	[18] = {1, {0, NONE}},	/* IQ3_XXS */
	[19] = {1, {0, NONE}},	/* IQ1_S */
	[20] = {1, {0, NONE}},	/* IQ4_NL */
	[21] = {1, {0, NONE}},	/* IQ3_S */
	[22] = {1, {0, NONE}},	/* IQ2_S */
	[23] = {1, {0, NONE}},	/* IQ4_XS */
	[34] = {1, {52, NONE}}, /* TQ1_0 */
	[35] = {1, {64, NONE}}, /* TQ2_0 */
};

static bool has_scales(uint32_t type)
{
	return type < ARRAY_SIZE(scales) && scales[type].known;
}

bool finite_is_known(uint32_t type)
{
	return kernels_format(type) && (has_scales(type) || type == KERNELS_F32 ||
					       type == KERNELS_F16 || type == KERNELS_BF16);
}

/* All bits of the exponent set: not a number, or infinite. */
static bool check_16(const uint8_t *p, uint16_t exponent)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return (v & exponent) != exponent;
}

static bool check_32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return (v & 0x7f800000) != 0x7f800000;
}

static bool check_floats(uint32_t type, const uint8_t *p, size_t n, size_t *at)
{
	size_t step = type == KERNELS_F32 ? 4 : 2;
	uint16_t exponent = type == KERNELS_F16 ? 0x7c00 : 0x7f80;

	for (size_t i = (*at + step - 1) / step * step; i + step <= n; i += step) {
		if (step == 4 ? check_32(p + i) : check_16(p + i, exponent))
			continue;
		*at = i;
		return false;
	}
	return true;
}

bool finite_check(uint32_t type, const void *bytes, size_t n, size_t *at)
{
	const uint8_t *p = bytes;
	size_t block;

	if (!has_scales(type))
		return check_floats(type, p, n, at);
	block = kernels_format(type)->bytes;
	for (size_t i = *at / block * block; i + block <= n; i += block)
		for (int s = 0; s < 2; s++) {
			if (scales[type].at[s] == NONE || i + scales[type].at[s] < *at ||
				check_16(p + i + scales[type].at[s], 0x7c00))
				continue;
			*at = i + scales[type].at[s];
			return false;
		}
	return true;
}
