/* SPDX-License-Identifier: MIT */

#include "kernels.h"
#include "num.h"

/* Types without a product are here so that the model reader can size, and name, every tensor. */
static const struct kernels_format formats[] = {
	{"F32", 0, 1, 4, KERNELS_INPUT_F32, true},
	{"F16", 1, 1, 2, KERNELS_INPUT_F32, true},
	{"Q4_0", 2, 32, 18, KERNELS_INPUT_Q32, true},
	{"Q4_1", 3, 32, 20, KERNELS_INPUT_Q32, true},
	{"Q5_0", 6, 32, 22, KERNELS_INPUT_Q32, true},
	{"Q5_1", 7, 32, 24, KERNELS_INPUT_Q32, true},
	{"Q8_0", 8, 32, 34, KERNELS_INPUT_Q32, true},
	{"Q8_1", 9, 32, 36, KERNELS_INPUT_Q32, false},
	{"Q2_K", 10, 256, 84, KERNELS_INPUT_Q256, false},
	{"Q3_K", 11, 256, 110, KERNELS_INPUT_Q256, false},
	{"Q4_K", 12, 256, 144, KERNELS_INPUT_Q256, true},
	{"Q5_K", 13, 256, 176, KERNELS_INPUT_Q256, true},
	{"Q6_K", 14, 256, 210, KERNELS_INPUT_Q256, true},
	{"Q8_K", 15, 256, 292, KERNELS_INPUT_Q256, false},
	{"IQ2_XXS", 16, 256, 66, KERNELS_INPUT_Q256, false},
	{"IQ2_XS", 17, 256, 74, KERNELS_INPUT_Q256, false},
	{"IQ3_XXS", 18, 256, 98, KERNELS_INPUT_Q256, false},
	{"IQ1_S", 19, 256, 50, KERNELS_INPUT_Q256, false},
	{"IQ4_NL", 20, 32, 18, KERNELS_INPUT_Q32, false},
	{"IQ3_S", 21, 256, 110, KERNELS_INPUT_Q256, false},
	{"IQ2_S", 22, 256, 82, KERNELS_INPUT_Q256, false},
	{"IQ4_XS", 23, 256, 136, KERNELS_INPUT_Q256, false},
	{"I8", 24, 1, 1, KERNELS_INPUT_F32, false},
	{"I16", 25, 1, 2, KERNELS_INPUT_F32, false},
	{"I32", 26, 1, 4, KERNELS_INPUT_F32, false},
	{"I64", 27, 1, 8, KERNELS_INPUT_F32, false},
	{"F64", 28, 1, 8, KERNELS_INPUT_F32, false},
	{"IQ1_M", 29, 256, 56, KERNELS_INPUT_Q256, false},
	{"BF16", 30, 1, 2, KERNELS_INPUT_F32, true},
	{"TQ1_0", 34, 256, 54, KERNELS_INPUT_Q256, false},
	{"TQ2_0", 35, 256, 66, KERNELS_INPUT_Q256, false},
	{"MXFP4", 39, 32, 17, KERNELS_INPUT_Q32, false},
	{"NVFP4", 40, 64, 36, KERNELS_INPUT_Q32, false},
	{"Q1_0", 41, 128, 18, KERNELS_INPUT_Q32, false},
};

const struct kernels_format *kernels_format(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i].type == type)
			return &formats[i];
	return NULL;
}

bool kernels_row_bytes(const struct kernels_format *f, uint64_t n, uint64_t *ret)
{
	if (n % f->block)
		return false;
	return num_mul(n / f->block, f->bytes, ret);
}

size_t kernels_input_bytes(enum kernels_input input, size_t n)
{
	switch (input) {
	case KERNELS_INPUT_Q32:
		return n / 32 * sizeof(struct kernels_q32);
	case KERNELS_INPUT_Q256:
		return n / 256 * sizeof(struct kernels_q256);
	case KERNELS_INPUT_F32:
		break;
	}
	return n * sizeof(float);
}
