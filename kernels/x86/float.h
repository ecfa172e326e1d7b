/* SPDX-License-Identifier: MIT */

/*
 * The kernels on floats, once for all x86 tiers: included by one source file of each, after its
 * vec.h (sixteen lanes, however many registers they take) and TIER().  Element i stands in lane
 * i mod 16, so sums are those of NUMERICS rule 2; a lane that has no element in the last step keeps
 * its sum untouched, because adding a zero product could turn -0 into 0.
 */

#include "lanes.h"
#include "tier.h"

/* `rows` weight rows by `cols` columns, each a sum of its own: latency hides behind the others. */
static inline __attribute__((always_inline)) void float_dots(enum lanes_type type, const uint8_t *w,
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
			a = lanes_load(type, w + r * w_stride, i);
			for (size_t c = 0; c < cols; c++)
				sum[r * cols + c] = vec_fma(a, b[c], sum[r * cols + c]);
		}
	}
	for (size_t r = 0; left && r < rows; r++) {
		a = lanes_load_part(type, w + r * w_stride, i, left);
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
	enum lanes_type type, const struct kernels_product *p)
{
	size_t r = 0, c;

	for (size_t rows; r < p->rows; r += rows) {
		const uint8_t *w = (const uint8_t *)p->w + r * p->w_stride;

		rows = p->rows - r >= 4 ? 4 : 1;
		for (c = 0; c < p->cols;) {
			const uint8_t *x = (const uint8_t *)p->x + c * p->x_stride;
			float *out = p->out + c * p->out_stride + r;

			if (rows == 4 && p->cols - c >= VEC_COLS) {
				float_dots(type, w, p->w_stride, 4, x, p->x_stride, VEC_COLS, p->n,
					out, p->out_stride);
				c += VEC_COLS;
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
	float_product(LANES_F32, p);
}

void TIER(product_f16)(const struct kernels_product *p)
{
	float_product(LANES_F16, p);
}

void TIER(product_bf16)(const struct kernels_product *p)
{
	float_product(LANES_BF16, p);
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
	struct vec e = lanes_exp(vec_sub(vec_set(-0.0f), gate));

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
		e = lanes_exp(vec_sub(vec_load(x + i), top));
		s = vec_add(s, e);
		if (out)
			vec_store(out + i, e);
	}
	if (left) {
		e = lanes_exp(vec_sub(vec_load_part(x + i, left), top));
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
