/* SPDX-License-Identifier: MIT */

/*
 * The attention and the kernels on floats of bench-kernels.  Prefill, with all in the caches, as a
 * share of what independent chains of multiply-adds reach with this tier's registers in the same
 * run; decode, with keys and values out of memory, beside a plain read (report_limits).
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "peak.h"

#define QUERIES KERNELS_ATTENTION_BATCH
#define HEAD_MAX 128u
#define BLOCKS 16u /* of the part that is in the caches */
#define ROW 2048u

/* Thousand million operations a second, two to a multiply-add; 0: not known. */
static double peak(const struct kernels *k, const struct weights *w)
{
	static const char *const names[KERNELS_TIER_MAX] = {
		[KERNELS_AVX2] = "avx2",
		[KERNELS_AVXVNNI] = "avx2",
		[KERNELS_VNNI] = "avx512",
		[KERNELS_AMX] = "avx512",
		[KERNELS_DOTPROD] = "neon",
		[KERNELS_I8MM] = "neon",
	};
	size_t n;
	const struct peak_loop *loops = peak_f32(&n);

	return names[k->tier] ? peak_registers(loops, n, names[k->tier], w->base) : 0;
}

struct attention {
	const struct kernels *kernels;
	struct kernels_attention a;
	const uint16_t *kv;	 /* BLOCKS of keys and values, or NULL: */
	struct weights *weights; /* a portion of them */
};

/* Blocks of one head lie far apart, so that no prefetcher of the machine knows the next. */
static void run_attention(void *arg)
{
	struct attention *t = arg;
	size_t half = 64 * t->a.head, n = t->kv ? BLOCKS : PORTION / (4 * half);
	const uint16_t *base = t->kv ? t->kv : (const void *)portion(t->weights);

	for (size_t b = 0; b < n; b++) {
		const uint16_t *k = base + b * 37 % n * 2 * half;
		const uint16_t *next = base + (b + 1) * 37 % n * 2 * half;

		t->a.k = k;
		t->a.v = k + half;
		t->a.next_k = next;
		t->a.next_v = next + half;
		t->kernels->attention(&t->a);
	}
}

static double attention_seconds(struct attention *t, size_t n_q, size_t head)
{
	t->a.head = head;
	t->a.q_stride = head;
	t->a.n_q = n_q;
	t->a.scale = kernels_attention_scale(head);
	for (size_t i = 0; i < n_q; i++)
		kernels_attention_reset(t->a.state + i * kernels_attention_state(head), head);
	return fastest(run_attention, t);
}

void bench_attention(const struct kernels *k, struct weights *w, const float *values)
{
	static _Alignas(64) uint16_t kv[BLOCKS * 2 * 64 * HEAD_MAX];
	static _Alignas(64) float work[64 * HEAD_MAX + QUERIES * 69];
	static _Alignas(64) float state[QUERIES * (HEAD_MAX + 16)];
	static const size_t heads[] = {128, 64}, queries[] = {128, 32, 16, 8, 4, 1};
	static uint32_t keys[QUERIES];
	struct attention t = {.kernels = k, .weights = w};
	double fma = peak(k, w), rate;

	for (size_t i = 0; i < QUERIES; i++)
		keys[i] = 64;
	for (size_t i = 0; i < ARRAY_SIZE(kv); i += 16384)
		k->f32_to_f16(kv + i, values, 16384);
	t.a = (struct kernels_attention){.q = values, .keys = keys, .state = state, .work = work};
	printf("    {\"tier\": \"%s\", \"fma_gflop_per_s\": %.0f", k->name, fma);
	for (size_t h = 0; h < ARRAY_SIZE(heads); h++)
		for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
			t.kv = kv;
			rate = 2.0 * 2 * 64 * BLOCKS * (double)(heads[h] * queries[i]) /
			       attention_seconds(&t, queries[i], heads[h]) * 1e-9;
			printf(",\n     \"head_%zu_queries_%zu\": {\"gflop_per_s\": %.0f", heads[h],
				queries[i], rate);
			if (fma > 0)
				printf(", \"of_fma\": %.2f", rate / fma);
			t.kv = NULL;
			if (queries[i] <= 16)
				printf(", \"kv_gb_per_s\": %.2f",
					(double)PORTION /
						attention_seconds(&t, queries[i], heads[h]) * 1e-9);
			printf("}");
		}
}

enum vector { NORM, SOFTMAX, SWIGLU, ADD, ROPE, HALVES, QUANTIZE_32, QUANTIZE_256, VECTOR_MAX };

struct vectors {
	const struct kernels *kernels;
	enum vector what;
	float x[ROW], y[ROW], out[ROW];
};

#define TIMES 1000u

static void run_vector(void *arg)
{
	struct vectors *v = arg;
	const struct kernels *k = v->kernels;

	for (unsigned i = 0; i < TIMES; i++) {
		switch (v->what) {
		case NORM:
			k->rms_norm(v->out, v->x, v->y, ROW, 1e-6f);
			break;
		case SOFTMAX:
			k->softmax(v->out, ROW);
			break;
		case SWIGLU:
			k->swiglu(v->out, v->x, v->y, ROW);
			break;
		case ADD:
			k->add_scaled(v->out, v->y, 0.25f, ROW);
			break;
		case ROPE:
			for (size_t h = 0; h < ROW; h += 128)
				k->rope(v->out + h, v->x, v->y, 128, false);
			break;
		case HALVES:
			k->f32_to_f16((uint16_t *)(void *)v->out, v->x, ROW);
			break;
		case QUANTIZE_32:
			k->quantize(KERNELS_INPUT_Q32, v->x, v->out, ROW);
			break;
		default:
			k->quantize(KERNELS_INPUT_Q256, v->x, v->out, ROW);
			break;
		}
	}
}

void bench_vectors(const struct kernels *k, const float *values)
{
	static const char *const names[VECTOR_MAX] = {"rms_norm", "softmax", "swiglu", "add_scaled",
		"rope", "f32_to_f16", "quantize_q32", "quantize_q256"};
	static _Alignas(64) struct vectors v;

	v.kernels = k;
	printf("    {\"tier\": \"%s\"", k->name);
	for (int i = 0; i < VECTOR_MAX; i++) {
		memcpy(v.x, values, sizeof(v.x));
		memcpy(v.y, values + ROW, sizeof(v.y));
		memcpy(v.out, values + 2 * ROW, sizeof(v.out));
		/* Turned again and again, lengths must stay. */
		for (size_t e = 0; i == ROPE && e < ROW; e++) {
			v.x[e] = 0.8f;
			v.y[e] = 0.6f;
		}
		v.what = (enum vector)i;
		printf(", \"%s_ns\": %.0f", names[i], fastest(run_vector, &v) / TIMES * 1e9);
	}
}
