/* SPDX-License-Identifier: MIT */
#pragma once

/* Sixteen floats as two registers: the lanes of NUMERICS rule 2.  Static functions only. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct vec {
	__m256 a; /* lanes 0 to 7 */
	__m256 b; /* 8 to 15 */
};

/* Columns of a product of floats that share a pass over four rows. */
#define VEC_COLS 4

/* Attention: queries by vectors of keys or dimensions whose sums stay in registers. */
#define VEC_QUERIES 2
#define VEC_PARTS 2
#define VEC_SUMS 4
#define VEC_MANY 2 /* queries, where values come in f32 */

/* All ones in lanes base + i below n. */
static inline __m256i vec_mask(size_t n, int base)
{
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - base), lane);
}

static inline struct vec vec_set(float x)
{
	return (struct vec){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline struct vec vec_load(const float *p)
{
	return (struct vec){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

/* n < 16 elements; the other lanes are 0 and their memory is not touched. */
static inline struct vec vec_load_part(const float *p, size_t n)
{
	float t[16] = {0};

	memcpy(t, p, n * sizeof(float));
	return vec_load(t);
}

static inline void vec_store(float *p, struct vec x)
{
	_mm256_storeu_ps(p, x.a);
	_mm256_storeu_ps(p + 8, x.b);
}

static inline void vec_store_part(float *p, struct vec x, size_t n)
{
	float t[16];

	vec_store(t, x);
	memcpy(p, t, n * sizeof(float));
}

static inline struct vec vec_load_f16(const uint16_t *p)
{
	return (struct vec){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
		_mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}

static inline struct vec vec_load_f16_part(const uint16_t *p, size_t n)
{
	uint16_t t[16] = {0};

	memcpy(t, p, n * sizeof(uint16_t));
	return vec_load_f16(t);
}

static inline struct vec vec_load_bf16(const uint16_t *p)
{
	__m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
	__m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p + 8)));

	return (struct vec){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
		_mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}

static inline struct vec vec_load_bf16_part(const uint16_t *p, size_t n)
{
	uint16_t t[16] = {0};

	memcpy(t, p, n * sizeof(uint16_t));
	return vec_load_bf16(t);
}

static inline void vec_store_f16(uint16_t *p, struct vec x)
{
	_mm_storeu_si128((void *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
	_mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}

static inline void vec_store_f16_part(uint16_t *p, struct vec x, size_t n)
{
	uint16_t t[16];

	vec_store_f16(t, x);
	memcpy(p, t, n * sizeof(uint16_t));
}

static inline struct vec vec_add(struct vec x, struct vec y)
{
	return (struct vec){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}

static inline struct vec vec_sub(struct vec x, struct vec y)
{
	return (struct vec){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}

static inline struct vec vec_mul(struct vec x, struct vec y)
{
	return (struct vec){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}

static inline struct vec vec_div(struct vec x, struct vec y)
{
	return (struct vec){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}

static inline struct vec vec_fma(struct vec x, struct vec y, struct vec z)
{
	return (struct vec){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

/* x > y ? x : y, so y where either is NaN */
static inline struct vec vec_max(struct vec x, struct vec y)
{
	return (struct vec){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}

/* x < y ? x : y */
static inline struct vec vec_min(struct vec x, struct vec y)
{
	return (struct vec){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}

/* The first n lanes of x, the others of y. */
static inline struct vec vec_first(struct vec x, struct vec y, size_t n)
{
	return (struct vec){
		_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(vec_mask(n, 0))),
		_mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(vec_mask(n, 8))),
	};
}

/* Tree 8-4-2-1. */
static inline float vec_tree(struct vec x)
{
	__m256 h = _mm256_add_ps(x.a, x.b);
	__m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_add_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* The same of four, side by side. */
static inline void vec_trees(struct vec x, struct vec y, struct vec z, struct vec w, float out[4])
{
	__m256 a = _mm256_add_ps(x.a, x.b), b = _mm256_add_ps(y.a, y.b);
	__m256 c = _mm256_add_ps(z.a, z.b), d = _mm256_add_ps(w.a, w.b);

	a = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
	c = _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
	/* Two of x and two of z in the lower half, of y and w in the upper. */
	a = _mm256_add_ps(_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xee));
	a = _mm256_add_ps(a, _mm256_permute_ps(a, 0xb1));
	a = _mm256_permute_ps(a, 0x08);
	_mm_storeu_ps(out, _mm_unpacklo_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)));
}

static inline float vec_largest(struct vec x)
{
	__m256 h = _mm256_max_ps(x.a, x.b);
	__m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_max_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

/* True where no lane is NaN or infinite. */
static inline int vec_finite(struct vec x)
{
	__m256i e = _mm256_set1_epi32(0x7f800000);
	__m256i a = _mm256_and_si256(_mm256_castps_si256(x.a), e);
	__m256i b = _mm256_and_si256(_mm256_castps_si256(x.b), e);

	a = _mm256_or_si256(_mm256_cmpeq_epi32(a, e), _mm256_cmpeq_epi32(b, e));
	return _mm256_testz_si256(a, a);
}

static inline __m256 vec_exponent(__m256i k)
{
	return _mm256_castsi256_ps(
		_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
}

/* p * 2^n, rounded once, for integers n; exp.h says how large.  In two factors of about the root.
 */
static inline struct vec vec_scale(struct vec p, struct vec n)
{
	__m256i a = _mm256_cvtps_epi32(n.a), b = _mm256_cvtps_epi32(n.b);
	__m256i half_a = _mm256_srai_epi32(a, 1), half_b = _mm256_srai_epi32(b, 1);

	p.a = _mm256_mul_ps(p.a, vec_exponent(half_a));
	p.b = _mm256_mul_ps(p.b, vec_exponent(half_b));
	p.a = _mm256_mul_ps(p.a, vec_exponent(_mm256_sub_epi32(a, half_a)));
	p.b = _mm256_mul_ps(p.b, vec_exponent(_mm256_sub_epi32(b, half_b)));
	return p;
}
