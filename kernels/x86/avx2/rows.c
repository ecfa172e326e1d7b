/* SPDX-License-Identifier: MIT */

/*
 * Products of quantised weights, four native rows by one column at a time: for
 * the rows that no packed tile takes, at most 15 of a matrix, so nothing here
 * is shared between columns.
 *
 * vpmaddubsw multiplies u8 by s8 and adds pairs into an int16, with saturation.
 * It is not reached: unsigned codes are at most 63, so a pair is at most 2 * 63
 * * 127 = 16002; for Q8_0 the unsigned operand is |w| <= 128 and the signed one
 * is x with the sign of w, |x| <= 127: 2 * 128 * 127 = 32512. Activations are
 * within 127 by rule 1.  vpmaddwd then works on pairs of int16 without
 * saturation (only -32768 in all four operands could overflow it, and no
 * operand here is that small).
 */

#include "avx2.h"
#include "quant.h"
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Half floats of four rows as four lanes. */
INLINE __m128 rows_halves(const uint8_t *const p[4])
{
	__m128i h = _mm_cvtsi32_si128(quant_u16(p[0]));

	h = _mm_insert_epi16(h, quant_u16(p[1]), 1);
	h = _mm_insert_epi16(h, quant_u16(p[2]), 2);
	h = _mm_insert_epi16(h, quant_u16(p[3]), 3);
	return _mm_cvtph_ps(h);
}

/* Sums of the lanes of four registers, as four lanes. */
INLINE __m128i rows_sums(const __m256i s[4])
{
	__m256i a = _mm256_hadd_epi32(s[0], s[1]), b = _mm256_hadd_epi32(s[2], s[3]);

	a = _mm256_hadd_epi32(a, b);
	return _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}

/* A block of a K-quant: unsigned codes, scales and what multiplies the sums of
 * activations. */
struct rows_large {
	__m256i q[8];
	__m256i scale; /* int16 of each 16 elements */
	__m256i min;
};

INLINE __m256i rows_twice(uint64_t s)
{
	__m128i t = _mm_cvtsi64_si128((long long)s);

	return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(t, t));
}

INLINE void rows_scales_mins(const uint8_t packed[12], struct rows_large *o)
{
	uint64_t scale, min;

	quant_k_scales(packed, &scale, &min);
	o->scale = rows_twice(scale);
	o->min = rows_twice(min);
}

INLINE __m256i rows_load(const void *p)
{
	return _mm256_loadu_si256(p);
}

INLINE void rows_unpack_q4_k(const uint8_t *w, struct rows_large *o)
{
	const struct quant_q4_k *b = (const void *)w;
	const __m256i nibble = _mm256_set1_epi8(15);

	rows_scales_mins(b->scales, o);
	for (int k = 0; k < 4; k++) {
		__m256i q = rows_load(b->q + 32 * k);

		o->q[2 * k] = _mm256_and_si256(q, nibble);
		o->q[2 * k + 1] = _mm256_and_si256(_mm256_srli_epi16(q, 4), nibble);
	}
}

INLINE void rows_unpack_q5_k(const uint8_t *w, struct rows_large *o)
{
	const struct quant_q5_k *b = (const void *)w;
	const __m256i nibble = _mm256_set1_epi8(15), sixteen = _mm256_set1_epi8(16);
	__m256i high = rows_load(b->high);

	rows_scales_mins(b->scales, o);
	for (int k = 0; k < 4; k++) {
		__m256i q = rows_load(b->q + 32 * k), bit;
		__m256i even = _mm256_set1_epi8((char)(1 << 2 * k));
		__m256i odd = _mm256_set1_epi8((char)(2 << 2 * k));

		bit = _mm256_cmpeq_epi8(_mm256_and_si256(high, even), even);
		o->q[2 * k] = _mm256_or_si256(
			_mm256_and_si256(q, nibble), _mm256_and_si256(bit, sixteen));
		bit = _mm256_cmpeq_epi8(_mm256_and_si256(high, odd), odd);
		o->q[2 * k + 1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(q, 4), nibble),
			_mm256_and_si256(bit, sixteen));
	}
}

INLINE void rows_unpack_q6_k(const uint8_t *w, struct rows_large *o)
{
	const struct quant_q6_k *b = (const void *)w;
	const __m256i nibble = _mm256_set1_epi8(15), two = _mm256_set1_epi8(0x30);

	o->scale = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)b->scales));
	o->min = o->scale;
	for (int h = 0; h < 2; h++) {
		__m256i q = rows_load(b->q + 64 * h), r = rows_load(b->q + 64 * h + 32);
		__m256i e = rows_load(b->high + 32 * h), *to = o->q + 4 * h;

		to[0] = _mm256_or_si256(_mm256_and_si256(q, nibble),
			_mm256_and_si256(_mm256_slli_epi16(e, 4), two));
		to[1] = _mm256_or_si256(_mm256_and_si256(r, nibble),
			_mm256_and_si256(_mm256_slli_epi16(e, 2), two));
		to[2] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(q, 4), nibble),
			_mm256_and_si256(e, two));
		to[3] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(r, 4), nibble),
			_mm256_and_si256(_mm256_srli_epi16(e, 2), two));
	}
}

INLINE void rows_unpack_large(uint32_t type, const uint8_t *w, struct rows_large *o)
{
	if (type == KERNELS_Q4_K)
		rows_unpack_q4_k(w, o);
	else if (type == KERNELS_Q5_K)
		rows_unpack_q5_k(w, o);
	else
		rows_unpack_q6_k(w, o);
}

/* Scales of sub-blocks 2k and 2k + 1, each over the 8 words of its 16 elements.
 */
INLINE __m256i rows_scale(__m256i all, int k)
{
	/* Both lanes hold the eight scales of the half that k lies in. */
	__m256i half =
		k < 4 ? _mm256_permute4x64_epi64(all, 0x44) : _mm256_permute4x64_epi64(all, 0xee);
	short low = (short)(4 * (k % 4) | (4 * (k % 4) + 1) << 8);
	__m256i at = _mm256_inserti128_si256(
		_mm256_set1_epi16(low), _mm_set1_epi16((short)(low + 0x0202)), 1);

	return _mm256_shuffle_epi8(half, at);
}

/* Where four rows begin; missing ones repeat the last, and are not stored. */
struct rows_piece {
	const uint8_t *w[4];
	size_t rows;
};

INLINE void rows_store(const struct rows_piece *t, float *out, __m128 acc)
{
	float lanes[4];

	_mm_storeu_ps(lanes, acc);
	memcpy(out, lanes, t->rows * sizeof(float));
}

INLINE void rows_large(uint32_t type, size_t bytes, size_t blocks, const struct rows_piece *t,
	const struct kernels_q256 *x, float *out)
{
	size_t factor = type == KERNELS_Q6_K ? offsetof(struct quant_q6_k, d) : 0;
	__m128 acc = _mm_setzero_ps();

	for (size_t b = 0; b < blocks; b++, x++) {
		__m256i sum[4], min[4];
		const uint8_t *d[4], *m[4];
		__m128i i, s;
		__m128 dw, dx = _mm_set1_ps(x->d);

		for (size_t r = 0; r < 4; r++) {
			struct rows_large w;

			d[r] = t->w[r] + b * bytes + factor;
			m[r] = d[r] + 2;
			rows_unpack_large(type, t->w[r] + b * bytes, &w);
			sum[r] = _mm256_setzero_si256();
			for (int k = 0; k < 8; k++) {
				__m256i v = _mm256_maddubs_epi16(w.q[k], rows_load(x->q + 32 * k));

				v = _mm256_madd_epi16(v, rows_scale(w.scale, k));
				sum[r] = _mm256_add_epi32(sum[r], v);
			}
			min[r] = _mm256_madd_epi16(w.min, rows_load(x->sums));
		}
		dw = rows_halves(d);
		i = rows_sums(sum);
		s = rows_sums(min);
		if (type == KERNELS_Q6_K)
			i = _mm_sub_epi32(i, _mm_slli_epi32(s, 5));
		acc = _mm_fmadd_ps(_mm_mul_ps(dw, dx), _mm_cvtepi32_ps(i), acc);
		if (type != KERNELS_Q6_K) {
			__m128 mw = _mm_xor_ps(rows_halves(m), _mm_set1_ps(-0.0f));

			acc = _mm_fmadd_ps(_mm_mul_ps(mw, dx), _mm_cvtepi32_ps(s), acc);
		}
	}
	rows_store(t, out, acc);
}

/* 32 codes: unsigned with their offset, but those of Q8_0 signed. */
INLINE __m256i rows_unpack_small(uint32_t type, const uint8_t *w)
{
	size_t at = type == KERNELS_Q4_0   ? 2
		    : type == KERNELS_Q4_1 ? 4
		    : type == KERNELS_Q5_0 ? 6
					   : 8;
	const __m256i bits = _mm256_set1_epi64x((long long)0x8040201008040201);
	__m256i all, high;
	__m128i q;

	if (type == KERNELS_Q8_0)
		return rows_load(w + 2);
	q = _mm_loadu_si128((const void *)(w + at));
	all = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
	all = _mm256_and_si256(all, _mm256_set1_epi8(15));
	if (type == KERNELS_Q4_0 || type == KERNELS_Q4_1)
		return all;
	/* Byte i / 8 of the high bits to place i, where its bit i mod 8 counts. */
	high = _mm256_shuffle_epi8(_mm256_set1_epi32((int)quant_u32(w + at - 4)),
		_mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
	high = _mm256_cmpeq_epi8(_mm256_and_si256(high, bits), bits);
	return _mm256_or_si256(all, _mm256_and_si256(high, _mm256_set1_epi8(16)));
}

INLINE __m256i rows_dot_small(uint32_t type, __m256i w, __m256i x)
{
	if (type == KERNELS_Q8_0) {
		x = _mm256_sign_epi8(x, w);
		w = _mm256_abs_epi8(w);
	}
	return _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
}

INLINE void rows_small(uint32_t type, size_t bytes, size_t blocks, const struct rows_piece *t,
	const struct kernels_q32 *x, float *out)
{
	int offset = type == KERNELS_Q4_0 ? 8 : type == KERNELS_Q5_0 ? 16 : 0;
	__m128 acc = _mm_setzero_ps();

	for (size_t b = 0; b < blocks; b++, x++) {
		const uint8_t *d[4], *m[4];
		__m256i sum[4];
		__m128 dx = _mm_set1_ps(x->d);
		__m128i i;

		for (size_t r = 0; r < 4; r++) {
			d[r] = t->w[r] + b * bytes;
			m[r] = d[r] + 2;
			sum[r] = rows_dot_small(
				type, rows_unpack_small(type, d[r]), rows_load(x->q));
		}
		i = _mm_sub_epi32(rows_sums(sum), _mm_set1_epi32(offset * x->sum));
		acc = _mm_fmadd_ps(_mm_mul_ps(rows_halves(d), dx), _mm_cvtepi32_ps(i), acc);
		if (type == KERNELS_Q4_1 || type == KERNELS_Q5_1)
			acc = _mm_fmadd_ps(
				_mm_mul_ps(rows_halves(m), dx), _mm_set1_ps((float)x->sum), acc);
	}
	rows_store(t, out, acc);
}

INLINE void rows_product(uint32_t type, size_t bytes, const struct kernels_product *p)
{
	struct rows_piece t;

	for (size_t r = 0; r < p->rows; r += 4) {
		t.rows = p->rows - r < 4 ? p->rows - r : 4;
		for (size_t k = 0; k < 4; k++)
			t.w[k] = (const uint8_t *)p->w +
				 (r + (k < t.rows ? k : t.rows - 1)) * p->w_stride;
		for (size_t c = 0; c < p->cols; c++) {
			const void *x = (const uint8_t *)p->x + c * p->x_stride;
			float *out = p->out + c * p->out_stride + r;

			if (type >= KERNELS_Q2_K)
				rows_large(type, bytes, p->n / 256, &t, x, out);
			else
				rows_small(type, bytes, p->n / 32, &t, x, out);
		}
	}
}

void avx2_product_q4_0(const struct kernels_product *p)
{
	rows_product(KERNELS_Q4_0, sizeof(struct quant_q4_0), p);
}

void avx2_product_q4_1(const struct kernels_product *p)
{
	rows_product(KERNELS_Q4_1, sizeof(struct quant_q4_1), p);
}

void avx2_product_q5_0(const struct kernels_product *p)
{
	rows_product(KERNELS_Q5_0, sizeof(struct quant_q5_0), p);
}

void avx2_product_q5_1(const struct kernels_product *p)
{
	rows_product(KERNELS_Q5_1, sizeof(struct quant_q5_1), p);
}

void avx2_product_q8_0(const struct kernels_product *p)
{
	rows_product(KERNELS_Q8_0, sizeof(struct quant_q8_0), p);
}

void avx2_product_q4_k(const struct kernels_product *p)
{
	rows_product(KERNELS_Q4_K, sizeof(struct quant_q4_k), p);
}

void avx2_product_q5_k(const struct kernels_product *p)
{
	rows_product(KERNELS_Q5_K, sizeof(struct quant_q5_k), p);
}

void avx2_product_q6_k(const struct kernels_product *p)
{
	rows_product(KERNELS_Q6_K, sizeof(struct quant_q6_k), p);
}
