/* SPDX-License-Identifier: MIT */

/* Rule 3.  A state is {weighted values, maximum, sum}; a block's own three are merged into it. */

#include <math.h>
#include "quant.h"
#include "ref.h"

static float attention_element(const struct kernels_attention *a, const void *base, size_t i)
{
	return a->kv_f32 ? ((const float *)base)[i] : quant_half_value(((const uint16_t *)base)[i]);
}

static float attention_score(const struct kernels_attention *a, const float *q, size_t j)
{
	float s[16] = {0}, k;

	for (size_t i = 0; i < a->head; i++) {
		k = attention_element(a, a->k, kernels_attention_key(a->head, j, i));
		s[i % 16] = fmaf(q[i], k, s[i % 16]);
	}
	return ref_tree(s) * a->scale;
}

static void attention_query(
	const struct kernels_attention *a, const float *q, size_t keys, float *values)
{
	float *state = values + kernels_attention_padded(a->head);
	float p[64], s[16] = {0}, m, sum, largest, old, new;

	for (size_t j = 0; j < keys; j++)
		p[j] = attention_score(a, q, j);
	m = -INFINITY;
	for (size_t j = 0; j < keys; j++)
		m = p[j] > m ? p[j] : m;
	m += 0.0f;
	for (size_t j = 0; j < keys; j++) {
		p[j] = kernels_exp(p[j] - m);
		s[j % 16] += p[j];
	}
	sum = ref_tree(s);
	largest = m > state[0] ? m : state[0];
	old = kernels_exp(state[0] - largest);
	new = kernels_exp(m - largest);
	state[0] = largest;
	state[1] = fmaf(state[1], old, sum * new);
	for (size_t i = 0; i < a->head; i++) {
		float v = 0;

		for (size_t j = 0; j < keys; j++)
			v = fmaf(p[j], attention_element(a, a->v, j * a->head + i), v);
		values[i] = fmaf(values[i], old, v * new);
	}
}

void ref_attention(const struct kernels_attention *a)
{
	for (size_t i = 0; i < a->n_q; i++)
		attention_query(a, a->q + i * a->q_stride, a->keys[i],
			a->state + i * kernels_attention_state(a->head));
}

float kernels_attention_scale(size_t head)
{
	return 1.0f / sqrtf((float)head);
}

void kernels_attention_reset(float *state, size_t head)
{
	memset(state, 0, kernels_attention_state(head) * sizeof(float));
	state[kernels_attention_padded(head)] = -INFINITY;
}

void ref_attention_finish(const float *state, size_t head, float *out)
{
	float sum = state[kernels_attention_padded(head) + 1];

	for (size_t i = 0; i < head; i++)
		out[i] = state[i] / sum;
}
