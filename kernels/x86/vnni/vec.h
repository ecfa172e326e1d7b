/* SPDX-License-Identifier: MIT */
#pragma once

/* Sixteen floats as one register: the lanes of NUMERICS rule 2.  Static functions only. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

struct vec {
	__m512 v;
};

/* Columns of a product of floats that share a pass over four rows. */
#define VEC_COLS 4

/* Attention: queries by vectors of keys or dimensions whose sums stay in registers. */
#define VEC_QUERIES 4
#define VEC_PARTS 4
#define VEC_SUMS 16
#define VEC_MANY 6 /* queries, where values come in f32 */

static inline __mmask16 vec_mask(size_t n)
{
	return (__mmask16)((1u << n) - 1);
}

static inline struct vec vec_set(float x)
{
	return (struct vec){_mm512_set1_ps(x)};
}

static inline struct vec vec_load(const float *p)
{
	return (struct vec){_mm512_loadu_ps(p)};
}

/* n < 16 elements; the other lanes are 0 and their memory is not touched. */
static inline struct vec vec_load_part(const float *p, size_t n)
{
	return (struct vec){_mm512_maskz_loadu_ps(vec_mask(n), p)};
}

static inline void vec_store(float *p, struct vec a)
{
	_mm512_storeu_ps(p, a.v);
}

static inline void vec_store_part(float *p, struct vec a, size_t n)
{
	_mm512_mask_storeu_ps(p, vec_mask(n), a.v);
}

static inline struct vec vec_load_f16(const uint16_t *p)
{
	return (struct vec){_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p))};
}

static inline struct vec vec_load_f16_part(const uint16_t *p, size_t n)
{
	return (struct vec){_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_mask(n), p))};
}

static inline struct vec vec_load_bf16(const uint16_t *p)
{
	__m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));

	return (struct vec){_mm512_castsi512_ps(_mm512_slli_epi32(w, 16))};
}

static inline struct vec vec_load_bf16_part(const uint16_t *p, size_t n)
{
	__m512i w = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vec_mask(n), p));

	return (struct vec){_mm512_castsi512_ps(_mm512_slli_epi32(w, 16))};
}

static inline void vec_store_f16(uint16_t *p, struct vec a)
{
	_mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

static inline void vec_store_f16_part(uint16_t *p, struct vec a, size_t n)
{
	_mm256_mask_storeu_epi16(p, vec_mask(n), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

static inline struct vec vec_add(struct vec a, struct vec b)
{
	return (struct vec){_mm512_add_ps(a.v, b.v)};
}

static inline struct vec vec_sub(struct vec a, struct vec b)
{
	return (struct vec){_mm512_sub_ps(a.v, b.v)};
}

static inline struct vec vec_mul(struct vec a, struct vec b)
{
	return (struct vec){_mm512_mul_ps(a.v, b.v)};
}

static inline struct vec vec_div(struct vec a, struct vec b)
{
	return (struct vec){_mm512_div_ps(a.v, b.v)};
}

static inline struct vec vec_fma(struct vec a, struct vec b, struct vec c)
{
	return (struct vec){_mm512_fmadd_ps(a.v, b.v, c.v)};
}

/* a > b ? a : b, so b where either is NaN */
static inline struct vec vec_max(struct vec a, struct vec b)
{
	return (struct vec){_mm512_max_ps(a.v, b.v)};
}

/* a < b ? a : b */
static inline struct vec vec_min(struct vec a, struct vec b)
{
	return (struct vec){_mm512_min_ps(a.v, b.v)};
}

/* The first n lanes of a, the others of b. */
static inline struct vec vec_first(struct vec a, struct vec b, size_t n)
{
	return (struct vec){_mm512_mask_blend_ps(vec_mask(n), b.v, a.v)};
}

/* Tree 8-4-2-1. */
static inline float vec_tree(struct vec a)
{
	__m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
	__m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_add_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* The same of four, side by side. */
static inline void vec_trees(struct vec a, struct vec b, struct vec c, struct vec d, float out[4])
{
	__m512 x = _mm512_add_ps(
		_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee));
	__m512 y = _mm512_add_ps(
		_mm512_shuffle_f32x4(c.v, d.v, 0x44), _mm512_shuffle_f32x4(c.v, d.v, 0xee));

	x = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
	x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
	x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
	/* The first of each four lanes. */
	x = _mm512_maskz_compress_ps(0x1111, x);
	_mm_storeu_ps(out, _mm512_castps512_ps128(x));
}

static inline float vec_largest(struct vec a)
{
	return _mm512_reduce_max_ps(a.v);
}

/* True where no lane is NaN or infinite. */
static inline int vec_finite(struct vec a)
{
	return !_mm512_fpclass_ps_mask(a.v, 0x99);
}

/* p * 2^n, rounded once, for integers n; exp.h says how large. */
static inline struct vec vec_scale(struct vec p, struct vec n)
{
	return (struct vec){_mm512_scalef_ps(p.v, n.v)};
}
