/* SPDX-License-Identifier: MIT */

/*
 * The kernels on floats, once for all x86 tiers: included by one source file of each, after its
 * vec.h (sixteen lanes, however many registers they take) and TIER().  Element i stands in lane
 * i mod 16, so sums are those of NUMERICS rule 2; a lane that has no element in the last step keeps
 * its sum untouched, because adding a zero product could turn -0 into 0.
 */

#include <math.h>
#include "exp.h"
#include "tier.h"

static inline struct vec float_exp(struct vec x)
{
	struct vec n, r, p, low, high;

	x = vec_min(vec_set(EXP_MAX), x);
	x = vec_max(vec_set(EXP_MIN), x);
	n = vec_fma(x, vec_set(EXP_LOG2E), vec_set(EXP_ROUND));
	vec_power(n, &low, &high);
	n = vec_sub(n, vec_set(EXP_ROUND));
	r = vec_fma(n, vec_set(-EXP_LN2_HIGH), x);
	r = vec_fma(n, vec_set(-EXP_LN2_LOW), r);
	p = vec_fma(vec_set(EXP_P4), r, vec_set(EXP_P3));
	p = vec_fma(p, r, vec_set(EXP_P2));
	p = vec_fma(p, r, vec_set(EXP_P1));
	p = vec_fma(p, r, vec_set(EXP_P0));
	p = vec_add(vec_fma(p, vec_mul(r, r), r), vec_set(1.0f));
	return vec_mul(vec_mul(p, low), high);
}

/* How weights of a float type come into lanes. */
enum float_type {
	FLOAT_F32,
	FLOAT_F16,
	FLOAT_BF16,
};

static inline struct vec float_load(enum float_type type, const uint8_t *w, size_t i)
{
	switch (type) {
	case FLOAT_F16:
		return vec_load_f16((const uint16_t *)(const void *)(w + 2 * i));
	case FLOAT_BF16:
		return vec_load_bf16((const uint16_t *)(const void *)(w + 2 * i));
	case FLOAT_F32:
		break;
	}
	return vec_load((const float *)(const void *)(w + 4 * i));
}

static inline struct vec float_load_part(enum float_type type, const uint8_t *w, size_t i, size_t n)
{
	switch (type) {
	case FLOAT_F16:
		return vec_load_f16_part((const uint16_t *)(const void *)(w + 2 * i), n);
	case FLOAT_BF16:
		return vec_load_bf16_part((const uint16_t *)(const void *)(w + 2 * i), n);
	case FLOAT_F32:
		break;
	}
	return vec_load_part((const float *)(const void *)(w + 4 * i), n);
}

/* `rows` weight rows by `cols` columns, each a sum of its own: latency hides behind the others. */
static inline __attribute__((always_inline)) void float_dots(enum float_type type, const uint8_t *w,
	size_t w_stride, size_t rows, const uint8_t *x, size_t x_stride, size_t cols, size_t n,
	float *out, size_t out_stride)
{
	struct vec sum[16], a, b[4];
	size_t i, left = n % 16;

	for (size_t k = 0; k < rows * cols; k++)
		sum[k] = vec_set(0);
	for (i = 0; i + 16 <= n; i += 16) {
		for (size_t c = 0; c < cols; c++)
			b[c] = vec_load((const float *)(const void *)(x + c * x_stride) + i);
		for (size_t r = 0; r < rows; r++) {
			a = float_load(type, w + r * w_stride, i);
			for (size_t c = 0; c < cols; c++)
				sum[r * cols + c] = vec_fma(a, b[c], sum[r * cols + c]);
		}
	}
	for (size_t r = 0; left && r < rows; r++) {
		a = float_load_part(type, w + r * w_stride, i, left);
		for (size_t c = 0; c < cols; c++) {
			b[0] = vec_load_part(
				(const float *)(const void *)(x + c * x_stride) + i, left);
			sum[r * cols + c] = vec_first(
				vec_fma(a, b[0], sum[r * cols + c]), sum[r * cols + c], left);
		}
	}
	for (size_t c = 0; c < cols; c++) {
		if (rows == 4) {
			vec_trees(sum[c], sum[cols + c], sum[2 * cols + c], sum[3 * cols + c],
				out + c * out_stride);
			continue;
		}
		for (size_t r = 0; r < rows; r++)
			out[c * out_stride + r] = vec_tree(sum[r * cols + c]);
	}
}

static inline __attribute__((always_inline)) void float_product(
	enum float_type type, const struct kernels_product *p)
{
	size_t r = 0, c;

	for (size_t rows; r < p->rows; r += rows) {
		const uint8_t *w = (const uint8_t *)p->w + r * p->w_stride;

		rows = p->rows - r >= 4 ? 4 : 1;
		for (c = 0; c < p->cols;) {
			const uint8_t *x = (const uint8_t *)p->x + c * p->x_stride;
			float *out = p->out + c * p->out_stride + r;

			if (rows == 4 && p->cols - c >= 4) {
				float_dots(type, w, p->w_stride, 4, x, p->x_stride, 4, p->n, out,
					p->out_stride);
				c += 4;
			} else if (rows == 4) {
				float_dots(type, w, p->w_stride, 4, x, p->x_stride, 1, p->n, out,
					p->out_stride);
				c++;
			} else {
				float_dots(type, w, p->w_stride, 1, x, p->x_stride, 1, p->n, out,
					p->out_stride);
				c++;
			}
		}
	}
}

void TIER(product_f32)(const struct kernels_product *p)
{
	float_product(FLOAT_F32, p);
}

void TIER(product_f16)(const struct kernels_product *p)
{
	float_product(FLOAT_F16, p);
}

void TIER(product_bf16)(const struct kernels_product *p)
{
	float_product(FLOAT_BF16, p);
}

void TIER(rms_norm)(float *out, const float *x, const float *w, size_t n, float eps)
{
	struct vec a, s = vec_set(0), r;
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16) {
		a = vec_load(x + i);
		s = vec_fma(a, a, s);
	}
	if (left) {
		a = vec_load_part(x + i, left);
		s = vec_first(vec_fma(a, a, s), s, left);
	}
	r = vec_set(1.0f / sqrtf(vec_tree(s) / (float)n + eps));
	for (i = 0; i + 16 <= n; i += 16) {
		a = vec_mul(vec_load(x + i), r);
		vec_store(out + i, w ? vec_mul(a, vec_load(w + i)) : a);
	}
	if (left) {
		a = vec_mul(vec_load_part(x + i, left), r);
		a = w ? vec_mul(a, vec_load_part(w + i, left)) : a;
		vec_store_part(out + i, a, left);
	}
}

void TIER(rope)(float *x, const float *cos, const float *sin, size_t n_rot, bool neighbours)
{
	size_t half = n_rot / 2, i = 0;

	if (neighbours) {
		ref_rope(x, cos, sin, n_rot, true);
		return;
	}
	for (; i + 16 <= half; i += 16) {
		struct vec u = vec_load(x + i), v = vec_load(x + i + half);
		struct vec c = vec_load(cos + i), s = vec_load(sin + i);

		/* u c - (v s rounded): the subtraction of a product, not a second fused one. */
		vec_store(x + i, vec_fma(u, c, vec_sub(vec_set(-0.0f), vec_mul(v, s))));
		vec_store(x + i + half, vec_fma(u, s, vec_mul(v, c)));
	}
	for (; i < half; i++) {
		float u = x[i], v = x[i + half];

		x[i] = fmaf(u, cos[i], -(v * sin[i]));
		x[i + half] = fmaf(u, sin[i], v * cos[i]);
	}
}

static inline struct vec float_swiglu(struct vec gate, struct vec up)
{
	struct vec e = float_exp(vec_sub(vec_set(-0.0f), gate));

	return vec_mul(vec_div(gate, vec_add(vec_set(1.0f), e)), up);
}

void TIER(swiglu)(float *out, const float *gate, const float *up, size_t n)
{
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		vec_store(out + i, float_swiglu(vec_load(gate + i), vec_load(up + i)));
	if (left)
		vec_store_part(out + i,
			float_swiglu(vec_load_part(gate + i, left), vec_load_part(up + i, left)),
			left);
}

void TIER(add)(float *acc, const float *y, size_t n)
{
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		vec_store(acc + i, vec_add(vec_load(acc + i), vec_load(y + i)));
	if (left)
		vec_store_part(acc + i,
			vec_add(vec_load_part(acc + i, left), vec_load_part(y + i, left)), left);
}

void TIER(add_scaled)(float *acc, const float *y, float a, size_t n)
{
	struct vec f = vec_set(a);
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		vec_store(acc + i, vec_fma(f, vec_load(y + i), vec_load(acc + i)));
	if (left)
		vec_store_part(acc + i,
			vec_fma(f, vec_load_part(y + i, left), vec_load_part(acc + i, left)), left);
}

static inline float float_maximum(const float *x, size_t n)
{
	struct vec low = vec_set(-INFINITY), m = low;
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		m = vec_max(vec_load(x + i), m);
	if (left)
		m = vec_max(vec_first(vec_load_part(x + i, left), low, left), m);
	return vec_largest(m) + 0.0f;
}

/* exp(x - m) into out (or nowhere), and their sum. */
static inline float float_exps(const float *x, float *out, size_t n, float m)
{
	struct vec e, s = vec_set(0), top = vec_set(m);
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16) {
		e = float_exp(vec_sub(vec_load(x + i), top));
		s = vec_add(s, e);
		if (out)
			vec_store(out + i, e);
	}
	if (left) {
		e = float_exp(vec_sub(vec_load_part(x + i, left), top));
		s = vec_first(vec_add(s, e), s, left);
		if (out)
			vec_store_part(out + i, e, left);
	}
	return vec_tree(s);
}

void TIER(sum_exp)(const float *x, size_t n, float *ret_max, float *ret_sum)
{
	float m = float_maximum(x, n);

	*ret_sum = float_exps(x, NULL, n, m);
	*ret_max = m;
}

void TIER(softmax)(float *x, size_t n)
{
	struct vec sum = vec_set(float_exps(x, x, n, float_maximum(x, n)));
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		vec_store(x + i, vec_div(vec_load(x + i), sum));
	if (left)
		vec_store_part(x + i, vec_div(vec_load_part(x + i, left), sum), left);
}

bool TIER(is_finite)(const float *x, size_t n)
{
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		if (!vec_finite(vec_load(x + i)))
			return false;
	return !left || vec_finite(vec_load_part(x + i, left));
}

void TIER(f32_to_f16)(uint16_t *out, const float *x, size_t n)
{
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		vec_store_f16(out + i, vec_load(x + i));
	if (left)
		vec_store_f16_part(out + i, vec_load_part(x + i, left), left);
}

void TIER(f16_to_f32)(float *out, const uint16_t *x, size_t n)
{
	size_t i, left = n % 16;

	for (i = 0; i + 16 <= n; i += 16)
		vec_store(out + i, vec_load_f16(x + i));
	if (left)
		vec_store_part(out + i, vec_load_f16_part(x + i, left), left);
}

/* A few queries of one call, with what their block of keys gives them. */
struct float_queries {
	const struct kernels_attention *a;
	enum float_type type;
	size_t first;
	size_t common;		/* keys that all of them have */
	float p[VEC_BLOCK][64]; /* scores, then weights */
	float old[VEC_BLOCK], new[VEC_BLOCK];
};

static inline float *float_state(const struct float_queries *t, size_t i)
{
	return t->a->state + (t->first + i) * kernels_attention_state(t->a->head);
}

static inline __attribute__((always_inline)) void float_scores(struct float_queries *t, size_t n)
{
	const struct kernels_attention *a = t->a;
	size_t stride = a->head * (t->type == FLOAT_F32 ? 4 : 2), j, step = n == 1 ? 4 : VEC_BLOCK;
	const float *q = a->q + t->first * a->q_stride;
	const uint8_t *k = a->k;

	for (j = 0; j + step <= t->common; j += step)
		float_dots(t->type, k + j * stride, stride, step, (const void *)q, a->q_stride * 4,
			n, a->head, &t->p[0][j], 64);
	for (size_t i = 0, from = j; i < n; i++, q += a->q_stride) {
		for (j = from; j + 4 <= a->keys[t->first + i]; j += 4)
			float_dots(t->type, k + j * stride, stride, 4, (const void *)q, 0, 1,
				a->head, &t->p[i][j], 0);
		for (; j < a->keys[t->first + i]; j++)
			float_dots(t->type, k + j * stride, stride, 1, (const void *)q, 0, 1,
				a->head, &t->p[i][j], 0);
	}
}

/* Scores into weights, and maximum and sum into the state. */
static inline void float_weights(struct float_queries *t, size_t i)
{
	float *state = float_state(t, i), *p = t->p[i], m, sum, largest;
	size_t keys = t->a->keys[t->first + i];
	struct vec scale = vec_set(t->a->scale);

	/* Past the last key lies room, which nobody reads. */
	for (size_t j = 0; j < keys; j += 16)
		vec_store(p + j, vec_mul(vec_load(p + j), scale));
	m = float_maximum(p, keys);
	sum = float_exps(p, p, keys, m);
	largest = m > state[0] ? m : state[0];
	t->old[i] = kernels_exp(state[0] - largest);
	t->new[i] = kernels_exp(m - largest);
	state[0] = largest;
	state[1] = fmaf(state[1], t->old[i], sum * t->new[i]);
}

/* Weighted values of dimensions at + [0, 16 * parts), keys ascending, merged into the state. */
static inline __attribute__((always_inline)) void float_values(
	const struct float_queries *t, size_t n, size_t at, size_t parts)
{
	const struct kernels_attention *a = t->a;
	struct vec s[VEC_BLOCK][4];
	const uint8_t *v = a->v;

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < parts; k++)
			s[i][k] = vec_set(0);
	for (size_t j = 0; j < t->common; j++) {
		struct vec x[4];

		for (size_t k = 0; k < parts; k++)
			x[k] = float_load(t->type, v, j * a->head + at + 16 * k);
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < parts; k++)
				s[i][k] = vec_fma(vec_set(t->p[i][j]), x[k], s[i][k]);
	}
	for (size_t i = 0; i < n; i++) {
		float *o = float_state(t, i) + 2 + at;

		for (size_t j = t->common; j < a->keys[t->first + i]; j++)
			for (size_t k = 0; k < parts; k++)
				s[i][k] = vec_fma(vec_set(t->p[i][j]),
					float_load(t->type, v, j * a->head + at + 16 * k), s[i][k]);
		for (size_t k = 0; k < parts; k++)
			vec_store(o + 16 * k, vec_fma(vec_load(o + 16 * k), vec_set(t->old[i]),
						      vec_mul(s[i][k], vec_set(t->new[i]))));
	}
}

/* One dimension, where a head is no multiple of 16. */
static inline void float_value(const struct float_queries *t, size_t i, size_t at)
{
	float *o = float_state(t, i) + 2 + at, v = 0, x[16];

	for (size_t j = 0; j < t->a->keys[t->first + i]; j++) {
		vec_store(x, float_load_part(t->type, t->a->v, j * t->a->head + at, 1));
		v = fmaf(t->p[i][j], x[0], v);
	}
	*o = fmaf(*o, t->old[i], v * t->new[i]);
}

static inline __attribute__((always_inline)) void float_queries(
	const struct kernels_attention *a, enum float_type type, size_t first, size_t n)
{
	struct float_queries t = {.a = a, .type = type, .first = first, .common = 64};
	/* One query alone has latency to hide. */
	size_t parts = n == 1 ? 4 : VEC_BLOCK, at;

	for (size_t i = 0; i < n; i++)
		t.common = a->keys[first + i] < t.common ? a->keys[first + i] : t.common;
	float_scores(&t, n);
	for (size_t i = 0; i < n; i++)
		float_weights(&t, i);
	for (at = 0; at + 16 * parts <= a->head; at += 16 * parts)
		float_values(&t, n, at, parts);
	for (; at + 16 <= a->head; at += 16)
		float_values(&t, n, at, 1);
	for (; at < a->head; at++)
		for (size_t i = 0; i < n; i++)
			float_value(&t, i, at);
}

static inline __attribute__((always_inline)) void float_attention(
	const struct kernels_attention *a, enum float_type type)
{
	size_t i = 0;

	for (; i + VEC_BLOCK <= a->n_q; i += VEC_BLOCK)
		float_queries(a, type, i, VEC_BLOCK);
	if (VEC_BLOCK > 2 && i + 2 <= a->n_q) {
		float_queries(a, type, i, 2);
		i += 2;
	}
	for (; i < a->n_q; i++)
		float_queries(a, type, i, 1);
}

void TIER(attention)(const struct kernels_attention *a)
{
	if (a->kv_f32)
		float_attention(a, FLOAT_F32);
	else
		float_attention(a, FLOAT_F16);
}
