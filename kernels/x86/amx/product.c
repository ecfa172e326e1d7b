/* SPDX-License-Identifier: MIT */

/*
 * Products of quantised weights with many columns by tile multiplication: sixteen columns of
 * activations, as they lie in memory, times sixteen turned rows of weights (turn.h) make 256 sums
 * of int8 products in int32, which do not saturate.  What is left are the float steps of NUMERICS
 * rule 1, a lane of a register for each row.
 *
 * The sub-block scales of K-quants would interrupt the sums every 16 or 32 elements.  So they are
 * multiplied into the codes first, and the product is given to the tiles in two bytes:
 *   Q4_K, Q5_K: scale = 8 h + l, bytes code * h and code * l, at most 31 * 7 = 217, unsigned;
 *   Q6_K: (code - 32) * scale = 256 h + l, at most 32 * 128 in magnitude, h signed, l unsigned.
 * The sum of a block is then 8 H + L or 256 H + L, exactly: |L| <= 256 * 255 * 127 < 2^23 and
 * |H| <= 256 * 217 * 127 < 2^23, or 256 * 17 * 127 < 2^20, so neither can leave an int32.
 *
 * The instructions are written out: gcc 12 declares those that read memory as reading none or too
 * little of it.
 */

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>
#include "amx.h"
#include "quant.h"
#include "turn.h"
#include "vnni.h"

#define ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::: "memory")
#define LOAD(t, from, stride)                                                                      \
	__asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(from), "r"(stride) : "memory")
#define STORE(t, to, stride)                                                                       \
	__asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(to), "r"(stride) : "memory")
/* c += a (columns by bytes, signed) times b (words of bytes by rows). */
#define UNSIGNED(c, a, b)                                                                          \
	__asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::: "memory")
#define SIGNED(c, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::: "memory")

struct config {
	uint8_t palette;
	uint8_t start;
	uint8_t reserved[14];
	uint16_t bytes[16]; /* of a row of each tile */
	uint8_t rows[16];
};

_Static_assert(sizeof(struct config) == 64, "format");

static const struct config config_large = {
	.palette = 1,
	.bytes = {64, 64, 64, 64, 64, 64, 64, 64},
	.rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* Tiles 0 to 3 are sums, 4 and 5 columns of 32 bytes, 6 and 7 weights. */
static const struct config config_small = {
	.palette = 1,
	.bytes = {64, 64, 64, 64, 32, 32, 64, 64},
	.rows = {16, 16, 16, 16, 16, 16, 8, 8},
};

INLINE void configure(const struct config *c)
{
	__asm__ volatile("ldtilecfg %0" ::"m"(*c));
}

INLINE void release(void)
{
	__asm__ volatile("tilerelease" ::: "memory");
}

/* Columns whose accumulators stay in the first cache beside a tile. */
#define COLS 128u

struct work {
	const uint8_t *x; /* of the chunk of columns */
	size_t x_stride;
	size_t cols;
	float acc[COLS][16] __attribute__((aligned(64)));
};

/* The scaled codes of a block, in two bytes. */
struct scaled {
	__m512i low[64];
	__m512i high[64];
	__m512i pair[4]; /* minima of sub-blocks 2i and 2i + 1, as two int16 */
	__m512 d;
	__m512 m;
};

INLINE __m512i both_words(__m512i s)
{
	return _mm512_mask_blend_epi16(0xaaaaaaaa, s, _mm512_slli_epi32(s, 16));
}

INLINE void scale_block(uint32_t type, const struct tile *t, struct scaled *w)
{
	const __m512i even = _mm512_set1_epi16(255), offset = _mm512_set1_epi16(32);
	const __mmask64 odd = 0xaaaaaaaaaaaaaaaa;

	w->d = t->d;
	w->m = t->m;
	if (type == KERNELS_Q6_K) {
		for (int k = 0; k < 64; k++) {
			__m512i s = both_words(t->scale[k / 4]);
			__m512i a = _mm512_and_si512(t->q[k], even);
			__m512i b = _mm512_srli_epi16(t->q[k], 8);

			a = _mm512_mullo_epi16(_mm512_sub_epi16(a, offset), s);
			b = _mm512_mullo_epi16(_mm512_sub_epi16(b, offset), s);
			w->low[k] = _mm512_mask_blend_epi8(odd, a, _mm512_slli_epi16(b, 8));
			w->high[k] = _mm512_mask_blend_epi8(odd, _mm512_srli_epi16(a, 8), b);
		}
		return;
	}
	for (int j = 0; j < 8; j++) {
		__m512i s = both_words(t->scale[j]);
		__m512i h = _mm512_srli_epi16(s, 3), l = _mm512_and_si512(s, _mm512_set1_epi16(7));

		/* Two bytes at once: no product of a low byte reaches the high one. */
		for (int k = 8 * j; k < 8 * j + 8; k++) {
			w->low[k] = _mm512_mullo_epi16(t->q[k], l);
			w->high[k] = _mm512_mullo_epi16(t->q[k], h);
		}
	}
	for (int j = 0; j < 4; j++)
		w->pair[j] = t->pair[j];
}

/* Sums of up to 32 columns as the tiles leave them. */
struct sums {
	int32_t low[32][16];
	int32_t high[32][16];
} __attribute__((aligned(64)));

/* Columns whose sums are known, and whose float steps are still to be done. */
struct known {
	const struct scaled *w;
	const struct sums *s;
	const uint8_t *x;
	size_t x_stride;
	size_t cols;
	float (*acc)[16];
};

/* The float steps of columns [from, to) of a block. */
INLINE void add_large(uint32_t type, const struct known *k, size_t from, size_t to)
{
	const struct scaled *w = k->w;

	for (size_t c = from; c < to && c < k->cols; c++) {
		const struct kernels_q256 *b = (const void *)(k->x + c * k->x_stride);
		__m512 dx = _mm512_set1_ps(b->d), a = _mm512_load_ps(k->acc[c]);
		__m512i sum = _mm512_load_si512(k->s->high[c]), min = _mm512_setzero_si512();

		sum = _mm512_slli_epi32(sum, type == KERNELS_Q6_K ? 8 : 3);
		sum = _mm512_add_epi32(sum, _mm512_load_si512(k->s->low[c]));
		a = _mm512_fmadd_ps(_mm512_mul_ps(w->d, dx), _mm512_cvtepi32_ps(sum), a);
		if (type != KERNELS_Q6_K) {
			for (int j = 0; j < 4; j++)
				min = _mm512_dpwssd_epi32(min, w->pair[j],
					_mm512_set1_epi32((int)quant_u32(&b->pairs[2 * j])));
			a = _mm512_fmadd_ps(_mm512_mul_ps(w->m, dx), _mm512_cvtepi32_ps(min), a);
		}
		_mm512_store_ps(k->acc[c], a);
	}
}

/*
 * Sums of 32 columns, or only 16, stay in the tiles.  While they multiply, the float steps of the
 * columns before are done, in pieces small enough for the processor to have both in view.
 */
INLINE void multiply_large(uint32_t type, bool two, const struct scaled *w, const int8_t *x,
	size_t x_stride, const struct known *before)
{
	const size_t row = 64;

	ZERO(0);
	ZERO(1);
	if (two) {
		ZERO(2);
		ZERO(3);
	}
	for (size_t k = 0; k < 4; k++) {
		LOAD(4, x + 64 * k, x_stride);
		LOAD(6, w->low + 16 * k, row);
		LOAD(7, w->high + 16 * k, row);
		UNSIGNED(0, 4, 6);
		if (type == KERNELS_Q6_K)
			SIGNED(1, 4, 7);
		else
			UNSIGNED(1, 4, 7);
		if (two) {
			LOAD(5, x + 16 * x_stride + 64 * k, x_stride);
			UNSIGNED(2, 5, 6);
			if (type == KERNELS_Q6_K)
				SIGNED(3, 5, 7);
			else
				UNSIGNED(3, 5, 7);
		}
		add_large(type, before, 8 * k, 8 * k + 8);
	}
}

INLINE void store_large(bool two, struct sums *out)
{
	const size_t row = 64;

	STORE(0, out->low[0], row);
	STORE(1, out->high[0], row);
	if (two) {
		STORE(2, out->low[16], row);
		STORE(3, out->high[16], row);
	}
}

/* One block of all columns, 32 at a time. */
INLINE void block_large(uint32_t type, const struct scaled *w, struct work *k, size_t at)
{
	int8_t padded[32][256] __attribute__((aligned(64)));
	struct sums sums;
	struct known known = {.w = w, .s = &sums, .x_stride = k->x_stride};

	for (size_t c = 0; c < k->cols; c += 32) {
		const uint8_t *x = k->x + at + c * k->x_stride;
		const int8_t *q = (const int8_t *)(x + offsetof(struct kernels_q256, q));
		size_t left = k->cols - c, stride = k->x_stride;

		if (left < 32 && left % 16) {
			for (size_t i = 0; i < left; i++)
				memcpy(padded[i], q + i * stride, 256);
			q = padded[0];
			stride = 256;
		}
		if (left > 16)
			multiply_large(type, true, w, q, stride, &known);
		else
			multiply_large(type, false, w, q, stride, &known);
		store_large(left > 16, &sums);
		known.x = x;
		known.acc = k->acc + c;
		known.cols = left < 32 ? left : 32;
	}
	add_large(type, &known, 0, 32);
}

INLINE void rows_large(uint32_t type, size_t bytes, const struct kernels_product *p, struct work *k)
{
	struct scaled s;
	struct tile t;

	for (size_t b = 0; b < p->n / 256; b++) {
		const uint8_t *row[16];

		for (size_t r = 0; r < 16; r++)
			row[r] = (const uint8_t *)p->w + r * p->w_stride + b * bytes;
		tile_ahead(p, p->n / 256 * bytes, (b + TILE_AHEAD) * bytes, bytes);
		tile_unpack_large(type, row, &t);
		scale_block(type, &t, &s);
		block_large(type, &s, k, b * sizeof(struct kernels_q256));
	}
}

/* Blocks of 32 whose codes are unpacked before their products, so that sums stay in registers. */
#define BLOCKS TILE_BLOCKS

struct codes {
	__m512i q[8];
	__m512 d;
	__m512 m;
};

INLINE void multiply_small(const struct codes *w, const int8_t *x, size_t x_stride, int32_t *out)
{
	const size_t row = 64;

	ZERO(0);
	LOAD(4, x, x_stride);
	LOAD(6, w->q, row);
	SIGNED(0, 4, 6);
	STORE(0, out, row);
}

INLINE void add_small(bool minimum, const struct codes *w, const int32_t s[16][16],
	const uint8_t *x, size_t x_stride, size_t cols, __m512 acc[16])
{
	for (size_t c = 0; c < cols; c++) {
		const struct kernels_q32 *b = (const void *)(x + c * x_stride);
		__m512 dx = _mm512_set1_ps(b->d);

		acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(w->d, dx),
			_mm512_cvtepi32_ps(_mm512_load_si512(s[c])), acc[c]);
		if (minimum)
			acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(w->m, dx),
				_mm512_cvtepi32_ps(_mm512_set1_epi32(b->sum)), acc[c]);
	}
}

/* Up to 16 columns of up to 8 blocks. */
INLINE void blocks_small(bool minimum, const struct codes *w, size_t blocks, const uint8_t *x,
	size_t x_stride, size_t cols, float out[][16])
{
	int8_t padded[BLOCKS][16][32] __attribute__((aligned(64)));
	int32_t sums[2][16][16] __attribute__((aligned(64)));
	const int8_t *q = (const int8_t *)(x + offsetof(struct kernels_q32, q));
	size_t stride = x_stride, step = sizeof(struct kernels_q32);
	__m512 acc[16];

	if (cols < 16) {
		for (size_t b = 0; b < blocks; b++)
			for (size_t c = 0; c < cols; c++)
				memcpy(padded[b][c], q + c * stride + b * step, 32);
		q = padded[0][0];
		stride = 32;
		step = sizeof(padded[0]);
	}
	for (size_t c = 0; c < cols; c++)
		acc[c] = _mm512_load_ps(out[c]);
	multiply_small(w, q, stride, sums[0][0]);
	for (size_t b = 0; b < blocks; b++) {
		if (b + 1 < blocks)
			multiply_small(w + b + 1, q + (b + 1) * step, stride, sums[(b + 1) % 2][0]);
		add_small(minimum, w + b, sums[b % 2], x + b * sizeof(struct kernels_q32), x_stride,
			cols, acc);
	}
	for (size_t c = 0; c < cols; c++)
		_mm512_store_ps(out[c], acc[c]);
}

INLINE void rows_small(uint32_t type, size_t bytes, const struct kernels_product *p, struct work *k)
{
	const char offset = type == KERNELS_Q4_0   ? 8
			    : type == KERNELS_Q5_0 ? 16
			    : type == KERNELS_Q8_0 ? (char)128
						   : 0;
	struct codes codes[BLOCKS];
	struct tile_factors f;
	struct tile t;

	for (size_t b0 = 0; b0 < p->n / 32; b0 += BLOCKS) {
		size_t blocks = p->n / 32 - b0 < BLOCKS ? p->n / 32 - b0 : BLOCKS, c = 0;
		const uint8_t *x = k->x + b0 * sizeof(struct kernels_q32);
		const uint8_t *row[16];

		for (size_t r = 0; r < 16; r++)
			row[r] = (const uint8_t *)p->w + r * p->w_stride + b0 * bytes;
		tile_ahead(
			p, p->n / 32 * bytes, (b0 + TILE_AHEAD * BLOCKS) * bytes, BLOCKS * bytes);
		tile_read_factors(type, bytes, row, blocks, &f);
		for (size_t b = 0; b < blocks; b++) {
			tile_unpack_small(type, row, &f, b, &t);
			for (int i = 0; i < 8; i++)
				codes[b].q[i] = _mm512_sub_epi8(t.q[i], _mm512_set1_epi8(offset));
			codes[b].d = t.d;
			if (!offset)
				codes[b].m = t.m;
		}
		for (; c + 16 <= k->cols; c += 16)
			blocks_small(!offset, codes, blocks, x + c * k->x_stride, k->x_stride, 16,
				k->acc + c);
		if (c < k->cols)
			blocks_small(!offset, codes, blocks, x + c * k->x_stride, k->x_stride,
				k->cols - c, k->acc + c);
	}
}

/* From so many columns on tiles beat the VNNI tier, even where most of them are padding. */
#define FROM_SMALL 16
#define FROM_LARGE 9

INLINE void product(uint32_t type, size_t bytes, const struct kernels_product *p,
	void (*rest)(const struct kernels_product *p))
{
	struct kernels_product left = *p;
	size_t from = type >= KERNELS_Q2_K ? FROM_LARGE : FROM_SMALL;
	size_t rows = p->cols < from ? 0 : p->rows / 16 * 16;
	struct work k;

	k.x_stride = p->x_stride;
	if (rows)
		configure(type >= KERNELS_Q2_K ? &config_large : &config_small);
	/* Columns stay in the second cache while all rows pass by. */
	for (size_t c0 = 0; c0 < p->cols; c0 += COLS)
		for (size_t r = 0; r < rows; r += 16) {
			left.w = (const uint8_t *)p->w + r * p->w_stride;
			left.rows = p->rows - r;
			k.x = (const uint8_t *)p->x + c0 * p->x_stride;
			k.cols = p->cols - c0 < COLS ? p->cols - c0 : COLS;
			memset(k.acc, 0, k.cols * sizeof(k.acc[0]));
			if (type >= KERNELS_Q2_K)
				rows_large(type, bytes, &left, &k);
			else
				rows_small(type, bytes, &left, &k);
			for (size_t c = 0; c < k.cols; c++)
				memcpy(p->out + (c0 + c) * p->out_stride + r, k.acc[c],
					sizeof(k.acc[c]));
		}
	if (rows)
		release();
	left.w = (const uint8_t *)p->w + rows * p->w_stride;
	left.out += rows;
	left.rows = p->rows - rows;
	if (left.rows)
		rest(&left);
}

void amx_product_q4_0(const struct kernels_product *p)
{
	product(KERNELS_Q4_0, sizeof(struct quant_q4_0), p, vnni_product_q4_0);
}

void amx_product_q4_1(const struct kernels_product *p)
{
	product(KERNELS_Q4_1, sizeof(struct quant_q4_1), p, vnni_product_q4_1);
}

void amx_product_q5_0(const struct kernels_product *p)
{
	product(KERNELS_Q5_0, sizeof(struct quant_q5_0), p, vnni_product_q5_0);
}

void amx_product_q5_1(const struct kernels_product *p)
{
	product(KERNELS_Q5_1, sizeof(struct quant_q5_1), p, vnni_product_q5_1);
}

void amx_product_q8_0(const struct kernels_product *p)
{
	product(KERNELS_Q8_0, sizeof(struct quant_q8_0), p, vnni_product_q8_0);
}

void amx_product_q4_k(const struct kernels_product *p)
{
	product(KERNELS_Q4_K, sizeof(struct quant_q4_k), p, vnni_product_q4_k);
}

void amx_product_q5_k(const struct kernels_product *p)
{
	product(KERNELS_Q5_K, sizeof(struct quant_q5_k), p, vnni_product_q5_k);
}

void amx_product_q6_k(const struct kernels_product *p)
{
	product(KERNELS_Q6_K, sizeof(struct quant_q6_k), p, vnni_product_q6_k);
}
