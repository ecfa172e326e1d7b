/* SPDX-License-Identifier: MIT */

/*
 * Products of quantised weights in native rows, a few at a time; each block is unpacked once for up
 * to four columns.  Codes are unsigned bytes for vpdpbusd, which adds four products of u8 and s8 to
 * an int32 and does not saturate (vpdpbusds would); where the type has an offset, it is taken off
 * with the sum of the activations, exactly.
 *
 * A lane after vpdpbusd on a K-quant is at most 4 * 63 * 127 = 32004 in magnitude, so its low 16
 * bits are its value, and vpdpwssd multiplies it with a sub-block scale in the low half of the lane
 * (the high half is 0) and adds, exactly and in one instruction.  A whole block stays below 2^29.
 */

#include <immintrin.h>
#include "quant.h"
#include "vnni.h"
#include "tile.h"

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

/* Scales and minima, which lie side by side, of four rows. */
INLINE void rows_pairs(const uint8_t *const p[4], __m128 *ret_d, __m128 *ret_m)
{
	__m128i h = _mm_cvtsi32_si128((int)quant_u32(p[0]));
	__m256 f;

	h = _mm_insert_epi32(h, (int)quant_u32(p[1]), 1);
	h = _mm_insert_epi32(h, (int)quant_u32(p[2]), 2);
	h = _mm_insert_epi32(h, (int)quant_u32(p[3]), 3);
	f = _mm256_cvtph_ps(h);
	*ret_d = _mm_shuffle_ps(_mm256_castps256_ps128(f), _mm256_extractf128_ps(f, 1), 0x88);
	*ret_m = _mm_shuffle_ps(_mm256_castps256_ps128(f), _mm256_extractf128_ps(f, 1), 0xdd);
}

/* Sums of the lanes of four registers, as four lanes. */
INLINE __m128i rows_sums(const __m256i s[4])
{
	__m256i a = _mm256_hadd_epi32(s[0], s[1]), b = _mm256_hadd_epi32(s[2], s[3]);

	a = _mm256_hadd_epi32(a, b);
	return _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}

INLINE __m256i rows_fold(__m512i a)
{
	return _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
}

/* A block of a K-quant: codes in natural order, and scales in the low halves of their lanes. */
struct rows_large {
	__m512i q[4];
	__m512i scale[4];
	__m256i min; /* what multiplies the sums of each 16 activations */
};

/* Byte j of s goes to the 8 lanes of sub-block j. */
INLINE void rows_scales(uint64_t s, __m512i out[4])
{
	__m512i all = _mm512_set1_epi64((long long)s);
	__m512i at = _mm512_inserti64x4(
		_mm512_set1_epi32((int)0x80808000), _mm256_set1_epi32((int)0x80808001), 1);

	for (int k = 0; k < 4; k++)
		out[k] = _mm512_shuffle_epi8(all, _mm512_add_epi32(at, _mm512_set1_epi32(2 * k)));
}

INLINE void rows_scales_mins(const uint8_t packed[12], struct rows_large *o)
{
	uint64_t scale, min;
	__m128i m;

	quant_k_scales(packed, &scale, &min);
	rows_scales(scale, o->scale);
	m = _mm_cvtsi64_si128((long long)min);
	o->min = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(m, m));
}

/* 32 bytes, low nibbles to the lower half and high nibbles to the upper. */
INLINE __m512i rows_nibbles(const uint8_t *p)
{
	__m256i a = _mm256_loadu_si256((const void *)p);
	__m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(a), _mm256_srli_epi16(a, 4), 1);

	return _mm512_and_si512(both, _mm512_set1_epi8(15));
}

INLINE void rows_unpack_q4_k(const uint8_t *w, struct rows_large *o)
{
	const struct quant_q4_k *b = (const void *)w;

	rows_scales_mins(b->scales, o);
	for (int k = 0; k < 4; k++)
		o->q[k] = rows_nibbles(b->q + 32 * k);
}

INLINE void rows_unpack_q5_k(const uint8_t *w, struct rows_large *o)
{
	const struct quant_q5_k *b = (const void *)w;
	__m256i high = _mm256_loadu_si256((const void *)b->high);
	/* Bit 2k of the lower half and of the upper one goes to bit 4 of codes k. */
	__m512i e = _mm512_inserti64x4(_mm512_castsi256_si512(high), _mm256_srli_epi16(high, 1), 1);
	const __m512i bits[4] = {
		_mm512_slli_epi16(e, 4), _mm512_slli_epi16(e, 2), e, _mm512_srli_epi16(e, 2)};

	rows_scales_mins(b->scales, o);
	for (int k = 0; k < 4; k++)
		/* codes | (bits & 16) */
		o->q[k] = _mm512_ternarylogic_epi32(
			rows_nibbles(b->q + 32 * k), bits[k], _mm512_set1_epi8(16), 0xf8);
}

INLINE void rows_unpack_q6_k(const uint8_t *w, struct rows_large *o)
{
	const struct quant_q6_k *b = (const void *)w;
	const __m512i nibble = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
	__m256i s = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)b->scales));
	/* Words 0 to 3 of a register of 8: one for each four lanes. */
	const __m512i at = _mm512_set_epi32((int)0x80800706, (int)0x80800706, (int)0x80800706,
		(int)0x80800706, (int)0x80800504, (int)0x80800504, (int)0x80800504, (int)0x80800504,
		(int)0x80800302, (int)0x80800302, (int)0x80800302, (int)0x80800302, (int)0x80800100,
		(int)0x80800100, (int)0x80800100, (int)0x80800100);
	const __m512i next = _mm512_add_epi32(at, _mm512_set1_epi32(0x0808));

	o->min = s;
	for (int h = 0; h < 2; h++) {
		__m512i q = _mm512_loadu_si512(b->q + 64 * h);
		__m256i e = _mm256_loadu_si256((const void *)(b->high + 32 * h));
		__m512i low = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_slli_epi16(e, 4)),
			_mm256_slli_epi16(e, 2), 1);
		__m512i up =
			_mm512_inserti64x4(_mm512_castsi256_si512(e), _mm256_srli_epi16(e, 2), 1);
		__m512i all = _mm512_broadcast_i32x4(
			h ? _mm256_extracti128_si256(s, 1) : _mm256_castsi256_si128(s));

		o->q[2 * h] =
			_mm512_or_si512(_mm512_and_si512(q, nibble), _mm512_and_si512(low, two));
		o->q[2 * h + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(q, 4), nibble),
			_mm512_and_si512(up, two));
		o->scale[2 * h] = _mm512_shuffle_epi8(all, at);
		o->scale[2 * h + 1] = _mm512_shuffle_epi8(all, next);
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

/* Where the rows of a piece begin; missing ones repeat the last, and are not stored. */
struct rows_piece {
	const uint8_t *w[4];
	const uint8_t *ahead; /* of the next piece, or NULL */
	size_t stride;
	size_t rows;
};

INLINE void rows_ahead(const struct rows_piece *t, size_t at, size_t bytes)
{
	for (size_t r = 0; t->ahead && r < 4; r++)
		for (size_t i = 0; i < bytes; i += 64)
			_mm_prefetch((const char *)t->ahead + r * t->stride + at + i, _MM_HINT_T0);
}

INLINE void rows_store(const struct rows_piece *t, float *out, __m128 acc)
{
	_mm_mask_storeu_ps(out, (__mmask8)((1u << t->rows) - 1), acc);
}

INLINE void rows_large(uint32_t type, size_t bytes, const struct kernels_product *p,
	const struct rows_piece *t, size_t c0, size_t cols, float *out)
{
	size_t factor = type == KERNELS_Q6_K ? offsetof(struct quant_q6_k, d) : 0;
	__m128 acc[4];

	for (size_t c = 0; c < cols; c++)
		acc[c] = _mm_setzero_ps();
	for (size_t b = 0; b < p->n / 256; b++) {
		const struct kernels_q256 *x[4];
		const uint8_t *d[4];
		__m256i sum[4][4], min[4][4];
		__m128 dw, mw;

		rows_ahead(t, b * bytes, bytes);
		for (size_t c = 0; c < cols; c++)
			x[c] = (const void *)((const uint8_t *)p->x + (c0 + c) * p->x_stride +
					      b * sizeof(*x[c]));
		for (size_t r = 0; r < 4; r++) {
			struct rows_large w;

			d[r] = t->w[r] + b * bytes + factor;
			rows_unpack_large(type, t->w[r] + b * bytes, &w);
			for (size_t c = 0; c < cols; c++) {
				__m512i s = _mm512_setzero_si512(), v;

				for (int k = 0; k < 4; k++) {
					v = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.q[k],
						_mm512_loadu_si512(x[c]->q + 64 * k));
					s = _mm512_dpwssd_epi32(s, v, w.scale[k]);
				}
				sum[c][r] = rows_fold(s);
				min[c][r] = _mm256_madd_epi16(
					w.min, _mm256_loadu_si256((const void *)x[c]->sums));
			}
		}
		if (type == KERNELS_Q6_K)
			dw = mw = rows_halves(d);
		else
			rows_pairs(d, &dw, &mw);
		mw = _mm_xor_ps(mw, _mm_set1_ps(-0.0f));
		for (size_t c = 0; c < cols; c++) {
			__m128i i = rows_sums(sum[c]), s = rows_sums(min[c]);
			__m128 dx = _mm_set1_ps(x[c]->d);

			if (type == KERNELS_Q6_K)
				i = _mm_sub_epi32(i, _mm_slli_epi32(s, 5));
			acc[c] = _mm_fmadd_ps(_mm_mul_ps(dw, dx), _mm_cvtepi32_ps(i), acc[c]);
			if (type != KERNELS_Q6_K)
				acc[c] = _mm_fmadd_ps(
					_mm_mul_ps(mw, dx), _mm_cvtepi32_ps(s), acc[c]);
		}
	}
	for (size_t c = 0; c < cols; c++)
		rows_store(t, out + c * p->out_stride, acc[c]);
}

/* 32 codes, less their offset. */
INLINE __m256i rows_unpack_small(uint32_t type, const uint8_t *w)
{
	__m256i all;
	size_t at = type == KERNELS_Q4_0   ? 2
		    : type == KERNELS_Q4_1 ? 4
		    : type == KERNELS_Q5_0 ? 6
					   : 8;

	if (type == KERNELS_Q8_0)
		return _mm256_xor_si256(
			_mm256_loadu_si256((const void *)(w + 2)), _mm256_set1_epi8((char)0x80));
	/* Low nibbles below, high ones above. */
	all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(w + at)));
	all = _mm256_srlv_epi64(all, _mm256_set_epi64x(4, 4, 0, 0));
	all = _mm256_and_si256(all, _mm256_set1_epi8(15));
	if (type == KERNELS_Q5_0 || type == KERNELS_Q5_1)
		all = _mm256_mask_add_epi8(all, quant_u32(w + at - 4), all, _mm256_set1_epi8(16));
	return all;
}

/* The binary logarithm of what is taken off the codes; 0 for types that have a minimum instead. */
INLINE int rows_offset(uint32_t type)
{
	return type == KERNELS_Q4_0 ? 3 : type == KERNELS_Q5_0 ? 4 : type == KERNELS_Q8_0 ? 7 : 0;
}

INLINE void rows_small(uint32_t type, size_t bytes, const struct kernels_product *p,
	const struct rows_piece *t, size_t c0, size_t cols, float *out)
{
	int offset = rows_offset(type);
	__m128 acc[4];

	for (size_t c = 0; c < cols; c++)
		acc[c] = _mm_setzero_ps();
	for (size_t b = 0; b < p->n / 32; b++) {
		const struct kernels_q32 *x[4];
		const uint8_t *d[4];
		__m256i sum[4][4];
		__m128 dw, mw;

		/* One line in two to four blocks: the same line again costs little. */
		rows_ahead(t, b * bytes, 1);
		for (size_t c = 0; c < cols; c++)
			x[c] = (const void *)((const uint8_t *)p->x + (c0 + c) * p->x_stride +
					      b * sizeof(*x[c]));
		for (size_t r = 0; r < 4; r++) {
			__m256i w = rows_unpack_small(type, t->w[r] + b * bytes);

			d[r] = t->w[r] + b * bytes;
			for (size_t c = 0; c < cols; c++)
				sum[c][r] = _mm256_dpbusd_epi32(_mm256_setzero_si256(), w,
					_mm256_loadu_si256((const void *)x[c]->q));
		}
		if (offset)
			dw = mw = rows_halves(d);
		else
			rows_pairs(d, &dw, &mw);
		for (size_t c = 0; c < cols; c++) {
			__m128i i = rows_sums(sum[c]), sums = _mm_set1_epi32(x[c]->sum);
			__m128 dx = _mm_set1_ps(x[c]->d);

			if (offset)
				i = _mm_sub_epi32(i, _mm_slli_epi32(sums, rows_offset(type)));
			acc[c] = _mm_fmadd_ps(_mm_mul_ps(dw, dx), _mm_cvtepi32_ps(i), acc[c]);
			if (!offset)
				acc[c] = _mm_fmadd_ps(
					_mm_mul_ps(mw, dx), _mm_cvtepi32_ps(sums), acc[c]);
		}
	}
	for (size_t c = 0; c < cols; c++)
		rows_store(t, out + c * p->out_stride, acc[c]);
}

INLINE void rows_tile(uint32_t type, size_t bytes, const struct kernels_product *p,
	const struct rows_piece *t, size_t c, size_t cols, float *out)
{
	if (type >= KERNELS_Q2_K)
		rows_large(type, bytes, p, t, c, cols, out);
	else
		rows_small(type, bytes, p, t, c, cols, out);
}

/* As many rows as tiles take; returns their number. */
INLINE size_t rows_tiles(uint32_t type, const struct kernels_product *p,
	void (*tile)(const struct kernels_product *p))
{
	struct kernels_product q = *p;
	size_t r = 0;

	/* From this many columns on, turning 16 rows costs less than it saves. */
	if (p->cols < (type == KERNELS_Q6_K ? 5 : 3))
		return 0;
	for (; r + 16 <= p->rows; r += 16) {
		q.w = (const uint8_t *)p->w + r * p->w_stride;
		q.out = p->out + r;
		q.rows = p->rows - r;
		tile(&q);
	}
	return r;
}

INLINE void rows_columns(uint32_t type, size_t bytes, const struct kernels_product *p,
	void (*tile)(const struct kernels_product *p))
{
	struct rows_piece t = {.stride = p->w_stride};

	for (size_t r = rows_tiles(type, p, tile); r < p->rows; r += 4) {
		size_t left = p->rows - r, c = 0;

		t.rows = left < 4 ? left : 4;
		t.ahead = left >= 8 ? (const uint8_t *)p->w + (r + 4) * p->w_stride : NULL;
		for (size_t k = 0; k < 4; k++)
			t.w[k] = (const uint8_t *)p->w +
				 (r + (k < t.rows ? k : t.rows - 1)) * p->w_stride;
		for (; c + 4 <= p->cols; c += 4) {
			rows_tile(type, bytes, p, &t, c, 4, p->out + c * p->out_stride + r);
			t.ahead = NULL;
		}
		if (c + 2 <= p->cols) {
			rows_tile(type, bytes, p, &t, c, 2, p->out + c * p->out_stride + r);
			t.ahead = NULL;
			c += 2;
		}
		if (c < p->cols)
			rows_tile(type, bytes, p, &t, c, 1, p->out + c * p->out_stride + r);
	}
}

INLINE void rows_product(uint32_t type, size_t bytes, const struct kernels_product *p,
	void (*tile)(const struct kernels_product *p))
{
	struct kernels_product q = *p;

	/* Columns stay in the second cache while all rows pass by. */
	for (size_t c = 0; c < p->cols; c += TILE_COLS) {
		q.cols = p->cols - c < TILE_COLS ? p->cols - c : TILE_COLS;
		q.x = (const uint8_t *)p->x + c * p->x_stride;
		q.out = p->out + c * p->out_stride;
		rows_columns(type, bytes, &q, tile);
	}
}

void vnni_product_q4_0(const struct kernels_product *p)
{
	rows_product(KERNELS_Q4_0, sizeof(struct quant_q4_0), p, tile_product_q4_0);
}

void vnni_product_q4_1(const struct kernels_product *p)
{
	rows_product(KERNELS_Q4_1, sizeof(struct quant_q4_1), p, tile_product_q4_1);
}

void vnni_product_q5_0(const struct kernels_product *p)
{
	rows_product(KERNELS_Q5_0, sizeof(struct quant_q5_0), p, tile_product_q5_0);
}

void vnni_product_q5_1(const struct kernels_product *p)
{
	rows_product(KERNELS_Q5_1, sizeof(struct quant_q5_1), p, tile_product_q5_1);
}

void vnni_product_q8_0(const struct kernels_product *p)
{
	rows_product(KERNELS_Q8_0, sizeof(struct quant_q8_0), p, tile_product_q8_0);
}

void vnni_product_q4_k(const struct kernels_product *p)
{
	rows_product(KERNELS_Q4_K, sizeof(struct quant_q4_k), p, tile_product_q4_k);
}

void vnni_product_q5_k(const struct kernels_product *p)
{
	rows_product(KERNELS_Q5_K, sizeof(struct quant_q5_k), p, tile_product_q5_k);
}

void vnni_product_q6_k(const struct kernels_product *p)
{
	rows_product(KERNELS_Q6_K, sizeof(struct quant_q6_k), p, tile_product_q6_k);
}
