/* SPDX-License-Identifier: MIT */

#include "cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

const struct kernels *ref;
const struct kernels *tier;
uint64_t state;

uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1d;
}

float draw_float(void)
{
	return (float)((double)(int64_t)draw() * 0x1p-62);
}

bool chosen(void)
{
	static unsigned long share;

	if (!share) {
		const char *text = getenv("TEST_SHARE");

		share = text ? strtoul(text, NULL, 10) : 1;
		share = share ? share : 1;
	}
	return share == 1 || draw() % share == 0;
}

float as_float(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

/* Memory that ends at a page nobody may read. */
uint8_t *guarded(void)
{
	uint8_t *p =
		mmap(NULL, SPAN + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	assert_return_code(mprotect(p + SPAN, 4096, PROT_NONE), 0);
	return p;
}

/* The same bits, or both NaN: signs and payloads of NaNs are not defined. */
void same(const float *a, const float *b, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++) {
		if (!memcmp(&a[i], &b[i], sizeof(float)) || (isnan(a[i]) && isnan(b[i])))
			continue;
		fail_msg("%s: %s: element %zu of %zu: %a, scalar has %a", tier->name, what, i, n,
			(double)a[i], (double)b[i]);
	}
}

/* Makes scales of a random block mild, so that products do not drown in infinities. */
static void tame(uint32_t type, uint8_t *block)
{
	size_t at[2] = {0, 2}, count = 1;

	if (type == KERNELS_Q6_K)
		at[0] = 208;
	if (type == KERNELS_Q4_1 || type == KERNELS_Q5_1 || type == KERNELS_Q4_K ||
		type == KERNELS_Q5_K)
		count = 2;
	for (size_t i = 0; i < count; i++)
		block[at[i] + 1] = (uint8_t)((block[at[i] + 1] & 0x83) | 0x20);
}

void fill_weights(const struct kernels_format *f, uint8_t *w, size_t bytes, enum fill fill)
{
	if (f->bytes == 4 * f->block && fill == FILL_TAME) {
		for (size_t i = 0; i < bytes / 4; i++) {
			float x = draw_float();

			memcpy(w + 4 * i, &x, 4);
		}
		return;
	}
	for (size_t i = 0; i < bytes; i++)
		w[i] = fill == FILL_ONES || fill == FILL_HIGH ? 0xff
		       : fill == FILL_ZERO		      ? 0
		       : fill == FILL_LOW		      ? 0x80
							      : (uint8_t)draw();
	if (fill == FILL_TAME && f->block == 1)
		for (size_t i = 1; i < bytes; i += 2)
			w[i] = (w[i] & 0x80) | 0x38 | (w[i] & 7);
	else if ((fill == FILL_TAME || fill == FILL_HIGH || fill == FILL_LOW) && f->block > 1)
		for (size_t i = 0; i < bytes; i += f->bytes)
			tame(f->type, w + i);
}

void fill_floats(float *x, size_t n, enum fill fill)
{
	for (size_t i = 0; i < n; i++)
		x[i] = fill == FILL_WILD && draw() % 64 == 0	? as_float((uint32_t)draw())
		       : fill == FILL_ONES || fill == FILL_HIGH ? 1.0f
		       : fill == FILL_LOW			? -1.0f
		       : fill == FILL_ZERO			? 0.0f
								: draw_float();
}
