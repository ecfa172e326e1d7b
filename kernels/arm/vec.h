/* SPDX-License-Identifier: MIT */
#pragma once

/* Sixteen floats as four registers: the lanes of NUMERICS rule 2.  Static functions only. */

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct vec {
	float32x4_t q[4]; /* lanes 4i to 4i + 3 */
};

/* Columns of a product of floats that share a pass over four rows: more sums would not fit. */
#define VEC_COLS 1

/* Attention: queries by vectors of keys or dimensions whose sums stay in registers. */
#define VEC_QUERIES 2
#define VEC_PARTS 2
#define VEC_SUMS 4
#define VEC_MANY 2 /* queries, where values come in f32 */

/* x = f of each quad i */
#define VEC_EACH(x, f)                                                                             \
	do {                                                                                       \
		for (int i = 0; i < 4; i++)                                                        \
			(x).q[i] = f;                                                              \
	} while (0)

static inline struct vec vec_set(float x)
{
	float32x4_t v = vdupq_n_f32(x);

	return (struct vec){{v, v, v, v}};
}

static inline struct vec vec_load(const float *p)
{
	struct vec x;

	VEC_EACH(x, vld1q_f32(p + 4 * i));
	return x;
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
	for (int i = 0; i < 4; i++)
		vst1q_f32(p + 4 * i, x.q[i]);
}

static inline void vec_store_part(float *p, struct vec x, size_t n)
{
	float t[16];

	vec_store(t, x);
	memcpy(p, t, n * sizeof(float));
}

static inline struct vec vec_load_f16(const uint16_t *p)
{
	struct vec x;

	VEC_EACH(x, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
	return x;
}

static inline struct vec vec_load_f16_part(const uint16_t *p, size_t n)
{
	uint16_t t[16] = {0};

	memcpy(t, p, n * sizeof(uint16_t));
	return vec_load_f16(t);
}

static inline struct vec vec_load_bf16(const uint16_t *p)
{
	struct vec x;

	VEC_EACH(x, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
	return x;
}

static inline struct vec vec_load_bf16_part(const uint16_t *p, size_t n)
{
	uint16_t t[16] = {0};

	memcpy(t, p, n * sizeof(uint16_t));
	return vec_load_bf16(t);
}

static inline void vec_store_f16(uint16_t *p, struct vec x)
{
	for (int i = 0; i < 4; i++)
		vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.q[i])));
}

static inline void vec_store_f16_part(uint16_t *p, struct vec x, size_t n)
{
	uint16_t t[16];

	vec_store_f16(t, x);
	memcpy(p, t, n * sizeof(uint16_t));
}

static inline struct vec vec_add(struct vec x, struct vec y)
{
	VEC_EACH(x, vaddq_f32(x.q[i], y.q[i]));
	return x;
}

static inline struct vec vec_sub(struct vec x, struct vec y)
{
	VEC_EACH(x, vsubq_f32(x.q[i], y.q[i]));
	return x;
}

static inline struct vec vec_mul(struct vec x, struct vec y)
{
	VEC_EACH(x, vmulq_f32(x.q[i], y.q[i]));
	return x;
}

static inline struct vec vec_div(struct vec x, struct vec y)
{
	VEC_EACH(x, vdivq_f32(x.q[i], y.q[i]));
	return x;
}

/* x y + z, rounded once */
static inline struct vec vec_fma(struct vec x, struct vec y, struct vec z)
{
	VEC_EACH(x, vfmaq_f32(z.q[i], x.q[i], y.q[i]));
	return x;
}

/* x > y ? x : y, so y where either is NaN: fmax would prefer neither. */
static inline struct vec vec_max(struct vec x, struct vec y)
{
	VEC_EACH(x, vbslq_f32(vcgtq_f32(x.q[i], y.q[i]), x.q[i], y.q[i]));
	return x;
}

/* x < y ? x : y */
static inline struct vec vec_min(struct vec x, struct vec y)
{
	VEC_EACH(x, vbslq_f32(vcltq_f32(x.q[i], y.q[i]), x.q[i], y.q[i]));
	return x;
}

/* The first n lanes of x, the others of y. */
static inline struct vec vec_first(struct vec x, struct vec y, size_t n)
{
	static const uint32_t lane[4] = {0, 1, 2, 3};
	const uint32x4_t at = vld1q_u32(lane), end = vdupq_n_u32((uint32_t)n);

	VEC_EACH(x, vbslq_f32(vcltq_u32(vaddq_u32(at, vdupq_n_u32(4 * (uint32_t)i)), end), x.q[i],
			    y.q[i]));
	return x;
}

/* Steps 8 and 4 of the tree: lane i of four has lanes i, i + 4, i + 8 and i + 12. */
static inline float32x4_t vec_quad(struct vec x)
{
	return vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
}

/* Step 2 of two, side by side. */
static inline float32x4_t vec_halves(float32x4_t x, float32x4_t y)
{
	float64x2_t a = vreinterpretq_f64_f32(x), b = vreinterpretq_f64_f32(y);

	return vaddq_f32(
		vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b)));
}

/* Tree 8-4-2-1. */
static inline float vec_tree(struct vec x)
{
	float32x4_t q = vec_quad(x);

	return vpadds_f32(vadd_f32(vget_low_f32(q), vget_high_f32(q)));
}

/* The same of four, side by side. */
static inline void vec_trees(struct vec x, struct vec y, struct vec z, struct vec w, float out[4])
{
	vst1q_f32(out, vpaddq_f32(vec_halves(vec_quad(x), vec_quad(y)),
			       vec_halves(vec_quad(z), vec_quad(w))));
}

static inline float vec_largest(struct vec x)
{
	float t[16], m;

	vec_store(t, x);
	m = t[0];
	for (int i = 1; i < 16; i++)
		m = m > t[i] ? m : t[i];
	return m;
}

/* True where no lane is NaN or infinite. */
static inline int vec_finite(struct vec x)
{
	const float32x4_t limit = vdupq_n_f32(__builtin_inff());
	uint32x4_t a = vandq_u32(vcaltq_f32(x.q[0], limit), vcaltq_f32(x.q[1], limit));
	uint32x4_t b = vandq_u32(vcaltq_f32(x.q[2], limit), vcaltq_f32(x.q[3], limit));

	return vminvq_u32(vandq_u32(a, b)) != 0;
}

static inline float32x4_t vec_exponent(int32x4_t k)
{
	return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k, vdupq_n_s32(127)), 23));
}

/* p * 2^n, rounded once, for integers n; exp.h says how large.  In two factors of about the root.
 */
static inline struct vec vec_scale(struct vec p, struct vec n)
{
	for (int i = 0; i < 4; i++) {
		int32x4_t k = vcvtq_s32_f32(n.q[i]), half = vshrq_n_s32(k, 1);

		p.q[i] = vmulq_f32(p.q[i], vec_exponent(half));
		p.q[i] = vmulq_f32(p.q[i], vec_exponent(vsubq_s32(k, half)));
	}
	return p;
}
