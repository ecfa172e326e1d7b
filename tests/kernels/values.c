/* SPDX-License-Identifier: MIT */

/* The scalar tier against mathematics: libm in double, and hand-made products. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <cmocka.h>
#include <fenv.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif
#include "exp.h"
#include "kernels.h"
#include "num.h"

static const struct kernels *ref;

/* Error in units of the last place of the true value. */
static double error_ulp(float have, double want)
{
	int e;

	frexp(want, &e);
	return fabs((double)have - want) / ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

static float as_float(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

static void test_exp(void **unused)
{
	double worst = 0;

	/* Every 499th float up to 88.72 and down to -104, and the worst of all floats. */
	for (uint32_t u = 0; u < 0x42d00000; u += 499) {
		float x = as_float(u), low = kernels_exp(-x);
		double e = error_ulp(low, exp(-(double)x));

		worst = e > worst ? e : worst;
		if (x > 88.72f)
			continue;
		e = error_ulp(kernels_exp(x), exp((double)x));
		worst = e > worst ? e : worst;
	}
	assert_true(worst < EXP_ERROR_ULP);
	worst = error_ulp(kernels_exp(0x1.da72c4p+5f), exp(0x1.da72c4p+5));
	assert_true(worst > 1.0128 && worst < EXP_ERROR_ULP);
	assert_true(kernels_exp(0) == 1.0f && kernels_exp(-0.0f) == 1.0f);
	assert_true(kernels_exp(-INFINITY) == 0 && kernels_exp(-104.5f) == 0);
	assert_true(isinf(kernels_exp(INFINITY)) && isinf(kernels_exp(88.8f)));
	assert_true(!isinf(kernels_exp(88.7f)));
	assert_true(isnan(kernels_exp(NAN)));
}

static void test_log(void **unused)
{
	for (int e = -126; e < 128; e++)
		for (int i = 0; i < 1000; i++) {
			float x = ldexpf(1.0f + (float)i / 1000, e);

			assert_true(error_ulp(kernels_log(x), log((double)x)) < 0.51);
		}
	assert_true(kernels_log(1) == 0 && kernels_log(0) == -INFINITY);
	assert_true(isnan(kernels_log(-1)) && isnan(kernels_log(NAN)));
	assert_true(isinf(kernels_log(INFINITY)));
	assert_true(error_ulp(kernels_log(0x1p-140f), log(0x1p-140)) < 0.51);
}

static void test_rope(void **unused)
{
	float f[64], c[64], s[64], factors[64];

	for (int base = 0; base < 3; base++) {
		float b = base == 0 ? 1e4f : base == 1 ? 1e6f : 5e5f;

		kernels_rope_frequencies(b, NULL, 128, f);
		for (int i = 0; i < 64; i++)
			assert_true(error_ulp(f[i], pow((double)b, -2.0 * i / 128)) < 0.51);
		for (int k = 0; k < 2000; k++) {
			float position = (float)(k < 1000 ? k : k * 7919);

			kernels_rope_angles(position, f, 128, 1.0f, c, s);
			for (int i = 0; i < 64; i++) {
				double angle = (double)position * (double)f[i];

				assert_true(fabs((double)c[i] - cos(angle)) < 0x1p-24);
				assert_true(fabs((double)s[i] - sin(angle)) < 0x1p-24);
			}
		}
	}
	for (int i = 0; i < 64; i++)
		factors[i] = 2.0f;
	kernels_rope_frequencies(5e5f, factors, 128, c);
	for (int i = 0; i < 64; i++)
		assert_true(c[i] * 2.0f == f[i]);
}

static void test_formats(void **unused)
{
	uint64_t bytes = 7;

	assert_null(kernels_format(4));
	assert_null(kernels_format(999));
	assert_int_equal(kernels_format(39)->bytes, 17);
	assert_string_equal(kernels_format(KERNELS_Q4_K)->name, "Q4_K");
	assert_false(kernels_row_bytes(kernels_format(KERNELS_Q4_K), 255, &bytes));
	assert_false(kernels_row_bytes(kernels_format(28), UINT64_MAX, &bytes));
	assert_int_equal(bytes, 7);
	assert_true(kernels_row_bytes(kernels_format(KERNELS_Q4_K), 512, &bytes));
	assert_int_equal(bytes, 288);
}

/* Products, against double precision on dequantised weights and activations. */
static void test_products(void **unused)
{
	enum { N = 512 };
	static float x[N], back[N], w[N];
	static uint8_t block[N * 4], q[N * 4];
	uint32_t seed = 1;

	for (uint32_t type = 0; type < KERNELS_TYPE_MAX; type++) {
		const struct kernels_format *f = kernels_format(type);
		double want = 0, size = 0;
		uint64_t bytes;
		float have;

		if (!f || !f->product)
			continue;
		assert_true(kernels_row_bytes(f, N, &bytes));
		for (size_t i = 0; i < bytes; i++)
			block[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
		/* Signs and mild exponents for floats; mild factors for blocks. */
		for (size_t i = f->bytes - 1; f->block == 1 && i < bytes; i += f->bytes)
			block[i] = (block[i] & 0x83) | 0x3c;
		for (size_t i = 0; f->block > 1 && i < bytes; i += f->bytes)
			for (int k = 1; k < 4; k += 2)
				block[i + (type == KERNELS_Q6_K ? 208 : 0) * (k == 1) + k] &= 0xb3;
		for (size_t i = 0; i < N; i++)
			x[i] = (float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-31f;
		ref->dequantize(type, block, w, N);
		ref->quantize(f->input, x, q, N);
		for (size_t i = 0; i < N; i++) {
			if (f->input == KERNELS_INPUT_F32) {
				memcpy(&back[i], q + 4 * i, sizeof(float));
			} else if (f->input == KERNELS_INPUT_Q32) {
				struct kernels_q32 *b = (void *)q;

				back[i] = b[i / 32].d * b[i / 32].q[i % 32];
			} else {
				struct kernels_q256 *b = (void *)q;

				back[i] = b[i / 256].d * b[i / 256].q[i % 256];
			}
			assert_true(fabsf(back[i] - x[i]) <= 1.01f / 254);
			want += (double)w[i] * (double)back[i];
			size += fabs((double)w[i] * (double)back[i]);
		}
		ref->product[type](&(struct kernels_product){
			.type = type,
			.w = block,
			.w_stride = bytes,
			.rows = 1,
			.x = q,
			.cols = 1,
			.n = N,
			.out = &have,
		});
		assert_true(isfinite(have) && size > 0);
		assert_true(fabs((double)have - want) < 1e-5 * size);
	}
}

/* Values that another implementation computed: tests/data/kernels/README.md. */
static void test_dequantize(void **unused)
{
	static uint8_t data[1 << 18];
	static float have[4096], want[4096];
	FILE *f = fopen(TEST_DATA "/dequantize.bin", "rb");
	size_t size, at = 0, records = 0;
	uint32_t head[3];

	assert_non_null(f);
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	for (; at + sizeof(head) <= size; records++) {
		memcpy(head, data + at, sizeof(head));
		at += sizeof(head);
		assert_true(head[2] <= 4096 && head[1] + head[2] * 4 <= size - at);
		memcpy(want, data + at + head[1], head[2] * 4);
		ref->dequantize(head[0], data + at, have, head[2]);
		for (uint32_t i = 0; i < head[2]; i++)
			if (have[i] != want[i])
				fail_msg("%s: element %u is %a, not %a",
					kernels_format(head[0])->name, i, (double)have[i],
					(double)want[i]);
		at += head[1] + head[2] * 4;
	}
	assert_int_equal(at, size);
	assert_int_equal(records, 10);
}

/* Attention in three blocks, against a softmax over all keys in double. */
static void test_attention(void **unused)
{
	enum { HEAD = 64, KEYS = 150 };
	static float k[192][HEAD], turned[192 * HEAD], v[192][HEAD], q[HEAD], state[HEAD + 16],
		out[HEAD];
	static _Alignas(64) float work[64 * HEAD + 128 * 69];
	double p[KEYS], sum = 0;
	uint32_t seed = 7;

	for (int i = 0; i < 192 * HEAD; i++) {
		k[i / HEAD][i % HEAD] =
			(float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-30f;
		v[i / HEAD][i % HEAD] =
			(float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-31f;
	}
	for (int i = 0; i < HEAD; i++)
		q[i] = (float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-31f;
	for (int j = 0; j < 192; j++)
		for (size_t i = 0; i < HEAD; i++)
			turned[j / 64 * 64 * HEAD +
				kernels_attention_key(HEAD, (size_t)j % 64, i)] = k[j][i];
	kernels_attention_reset(state, HEAD);
	for (int b = 0; b < 3; b++) {
		uint32_t keys = b < 2 ? 64 : KEYS - 128;

		ref->attention(&(struct kernels_attention){
			.q = q,
			.q_stride = HEAD,
			.k = turned + b * 64 * HEAD,
			.v = v[b * 64],
			.kv_f32 = true,
			.head = HEAD,
			.n_q = 1,
			.keys = &keys,
			.scale = 0.5f,
			.state = state,
			.work = work,
		});
	}
	ref->attention_finish(state, HEAD, out);
	for (int j = 0; j < KEYS; j++) {
		double s = 0;

		for (int i = 0; i < HEAD; i++)
			s += (double)q[i] * (double)k[j][i];
		p[j] = exp(s * 0.5);
		sum += p[j];
	}
	for (int i = 0; i < HEAD; i++) {
		double want = 0;

		for (int j = 0; j < KEYS; j++)
			want += p[j] / sum * (double)v[j][i];
		assert_true(fabs(want - (double)out[i]) < 1e-5);
	}
}

static void test_choice(void **unused)
{
	static const char *const words[] = {
		"scalar", "avx2", "avxvnni", "vnni", "amx", "dotprod", "i8mm"};
	static const char *const wrong[] = {"avx3", "AVX2", " avx2", "avx", "avx2,vnni", "0"};
	const struct kernels *k = NULL;
	int known = 0;

	/* Each word is a ceiling: the best tier of this machine that is not above it. */
	for (int ceiling = 0; ceiling < KERNELS_TIER_MAX; ceiling++) {
		int best = ceiling;

		while (!kernels_get((enum kernels_tier)best))
			best--;
		assert_return_code(setenv("MOED_CPU", words[ceiling], 1), errno);
		if (!strstr(kernels_words(), words[ceiling])) {
			/* It belongs to another architecture. */
			assert_null(kernels_get((enum kernels_tier)ceiling));
			assert_int_equal(kernels_init(&k), -EINVAL);
			continue;
		}
		known++;
		assert_int_equal(kernels_init(&k), 0);
		assert_int_equal(k->tier, best);
		assert_ptr_equal(k, kernels_get((enum kernels_tier)best));
		assert_string_equal(k->name, words[best]);
	}
#if defined(__x86_64__)
	assert_int_equal(known, 5);
#elif defined(__aarch64__)
	assert_int_equal(known, 3);
#endif
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		const struct kernels *kept = k;

		assert_return_code(setenv("MOED_CPU", wrong[i], 1), errno);
		assert_int_equal(kernels_init(&k), -EINVAL);
		assert_ptr_equal(k, kept);
	}
	assert_return_code(setenv("MOED_CPU", "", 1), errno);
	assert_int_equal(kernels_init(&k), 0);
	assert_return_code(unsetenv("MOED_CPU"), errno);
	assert_int_equal(kernels_init(&k), 0);
	for (int t = (int)k->tier + 1; t < KERNELS_TIER_MAX; t++)
		assert_null(kernels_get((enum kernels_tier)t));
	assert_int_equal(kernels_check_thread(), 0);
}

/* A thread that rounds otherwise, or flushes denormals, is told so. */
static void test_thread(void **unused)
{
	assert_int_equal(fesetround(FE_UPWARD), 0);
	assert_int_equal(kernels_check_thread(), -ENOTSUP);
	assert_int_equal(fesetround(FE_TONEAREST), 0);
#ifdef __x86_64__
	for (unsigned bit = 0x40; bit <= 0x8000; bit *= 0x200) {
		_mm_setcsr(_mm_getcsr() | bit);
		assert_int_equal(kernels_check_thread(), -ENOTSUP);
		_mm_setcsr(_mm_getcsr() & ~bit);
	}
#elif defined(__aarch64__)
	/* Flush-to-zero, and half floats of another kind. */
	for (uint64_t bit = UINT64_C(1) << 24; bit <= UINT64_C(1) << 26; bit *= 4) {
		uint64_t kept;

		__asm__ volatile("mrs %0, fpcr" : "=r"(kept));
		__asm__ volatile("msr fpcr, %0" : : "r"(kept | bit));
		assert_int_equal(kernels_check_thread(), -ENOTSUP);
		__asm__ volatile("msr fpcr, %0" : : "r"(kept));
	}
#endif
	assert_int_equal(kernels_check_thread(), 0);
}

/* What people are told of a product: a tier's new one gets a line in its table of ways. */
static void check_ways(const struct kernels *k, uint32_t type, bool packed)
{
	const struct kernels_way *w, *last = NULL;

	for (size_t cols = 1; cols < 300; cols++) {
		w = kernels_way(k, type, packed, cols);
		if (!w)
			fail_msg("%s, %s, %s, %zu columns: no way in the tier's table", k->name,
				kernels_format(type)->name, packed ? "packed" : "native", cols);
		assert_ptr_equal(w->product, (packed ? k->product_packed : k->product)[type]);
		assert_in_range(w->from, 1, cols);
		assert_in_range(w->rows, 1, 64);
		assert_in_range(w->cols, 1, 64);
		assert_true(strlen(w->name) > 0 && (!last || w->from >= last->from));
		last = w;
	}
	assert_ptr_equal(kernels_way(k, type, packed, SIZE_MAX), last);
}

/* A tier tells of its own products, whatever others make of them. */
static void check_owner(const struct kernels *k, const struct kernels *other)
{
	for (const struct kernels_way *a = k->ways; a->product; a++) {
		for (const struct kernels_way *b = other->ways; b->product; b++)
			assert_ptr_not_equal(a->product, b->product);
	}
}

static void test_ways(void **unused)
{
	for (int i = KERNELS_SCALAR; i < KERNELS_TIER_MAX; i++) {
		const struct kernels *k = kernels_get((enum kernels_tier)i);

		for (int j = KERNELS_SCALAR; k && j < i; j++) {
			if (kernels_get((enum kernels_tier)j))
				check_owner(k, kernels_get((enum kernels_tier)j));
		}
		for (uint32_t type = 0; k && type < KERNELS_TYPE_MAX; type++) {
			if (k->product[type])
				check_ways(k, type, false);
			else
				assert_null(kernels_way(k, type, false, 1));
			if (k->product_packed[type])
				check_ways(k, type, true);
			else
				assert_null(kernels_way(k, type, true, 1));
		}
	}
	assert_null(kernels_way(ref, KERNELS_TYPE_MAX, false, 1));
	assert_null(kernels_way(ref, UINT32_MAX, true, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exp),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_rope),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_products),
		cmocka_unit_test(test_dequantize),
		cmocka_unit_test(test_attention),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_thread),
	};

	ref = kernels_get(KERNELS_SCALAR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
