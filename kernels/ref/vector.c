/* SPDX-License-Identifier: MIT */

#include <math.h>
#include "quant.h"
#include "ref.h"

void ref_rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
	float s[16] = {0}, r;

	for (size_t i = 0; i < n; i++)
		s[i % 16] = fmaf(x[i], x[i], s[i % 16]);
	r = 1.0f / sqrtf(ref_tree(s) / (float)n + eps);
	for (size_t i = 0; i < n; i++)
		out[i] = w ? x[i] * r * w[i] : x[i] * r;
}

void ref_rope(float *x, const float *cos, const float *sin, size_t n_rot, bool neighbours)
{
	size_t half = n_rot / 2;

	for (size_t i = 0; i < half; i++) {
		float *a = neighbours ? &x[2 * i] : &x[i];
		float *b = neighbours ? &x[2 * i + 1] : &x[i + half];
		float u = *a, v = *b;

		*a = fmaf(u, cos[i], -(v * sin[i]));
		*b = fmaf(u, sin[i], v * cos[i]);
	}
}

void ref_swiglu(float *out, const float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = gate[i] / (1.0f + kernels_exp(-gate[i])) * up[i];
}

void ref_add(float *acc, const float *y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		acc[i] += y[i];
}

void ref_add_scaled(float *acc, const float *y, float a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		acc[i] = fmaf(a, y[i], acc[i]);
}

/* A NaN is passed over here and shows in the sum; adding 0 makes one zero of the two. */
static float maximum(const float *x, size_t n)
{
	float m = -INFINITY;

	for (size_t i = 0; i < n; i++)
		m = x[i] > m ? x[i] : m;
	return m + 0.0f;
}

void ref_sum_exp(const float *x, size_t n, float *ret_max, float *ret_sum)
{
	float m = maximum(x, n), s[16] = {0};

	for (size_t i = 0; i < n; i++)
		s[i % 16] += kernels_exp(x[i] - m);
	*ret_max = m;
	*ret_sum = ref_tree(s);
}

void ref_softmax(float *x, size_t n)
{
	float m, sum;

	ref_sum_exp(x, n, &m, &sum);
	for (size_t i = 0; i < n; i++)
		x[i] = kernels_exp(x[i] - m) / sum;
}

bool ref_is_finite(const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((quant_bits(x[i]) & 0x7f800000) == 0x7f800000)
			return false;
	return true;
}
