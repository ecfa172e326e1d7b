/* SPDX-License-Identifier: MIT */

/*
 * Products of packed K-quants with many columns: a word of a packed column is a row of a tile, so
 * weights go into the tiles without turning.  What is left are the float steps of NUMERICS rule 1,
 * a lane of a register for each row.
 *
 * The sub-block scales would interrupt the sums every 16 or 32 elements.  So they are multiplied
 * into the codes first, and the product is given to the tiles in two bytes:
 *   Q4_K, Q5_K: scale = 8 h + l, bytes code * h and code * l, at most 31 * 7 = 217, unsigned;
 *   Q6_K: (code - 32) * scale = 256 h + l, at most 32 * 128 in magnitude, h signed, l unsigned.
 * The sum of a block is then 8 H + L or 256 H + L, exactly: |L| <= 256 * 255 * 127 < 2^23 and
 * |H| <= 256 * 217 * 127 < 2^23, or 256 * 17 * 127 < 2^20, so neither can leave an int32.
 */

#include <stdbool.h>
#include <string.h>
#include "amx.h"
#include "packed.h"
#include "quant.h"
#include "tiles.h"
#include "vnni.h"

/* Columns whose accumulators stay in the first cache. */
#define COLS 128u

#define ROWS KERNELS_PACK_ROWS

/* The scaled codes of a block, in two bytes. */
struct scaled {
	__m512i low[64];
	__m512i high[64];
};

/* What is multiplied into its sums. */
struct factors {
	__m512 d;
	__m512 m;
	__m512i pair[4]; /* minima of sub-blocks 2i and 2i + 1, as two int16 */
};

/* Sums of up to 32 columns as the tiles leave them. */
struct sums {
	int32_t low[32][16];
	int32_t high[32][16];
} __attribute__((aligned(64)));

/* Columns whose sums are known, and whose float steps are still to be done. */
struct known {
	const struct factors *w;
	const struct sums *s;
	const uint8_t *x;
	size_t x_stride;
	size_t from, to;
	const uint8_t *before; /* of column `from`: zeros in the first block */
	size_t before_step;
	uint8_t *after; /* of column `from`: the output in the last block */
	size_t after_step;
};

INLINE __m512i shuffle(__m512i words, uint32_t bytes)
{
	const __m512i groups = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);

	return _mm512_shuffle_epi8(words, _mm512_or_si512(groups, _mm512_set1_epi32((int)bytes)));
}

/* Byte i of each word, as two words of 16 bits. */
INLINE __m512i low_of(__m512i words, unsigned i)
{
	return shuffle(words, 0x80008000u | i << 16 | i);
}

/* The same in their high bytes. */
INLINE __m512i high_of(__m512i words, unsigned i)
{
	return shuffle(words, 0x00800080u | i << 24 | i << 8);
}

/* Factors, scales and minima of Q4_K and Q5_K. */
struct header {
	__m512i low[2];
	__m512i high[2];
};

INLINE void unpack_header(const __m512i *words, struct factors *f, struct header *h)
{
	const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f);
	const __m512i two = _mm512_set1_epi32(0x30303030), three = _mm512_set1_epi32(0x07070707);
	__m512i a = _mm512_loadu_si512(words + 1), b = _mm512_loadu_si512(words + 2);
	__m512i c = _mm512_loadu_si512(words + 3), dm = _mm512_loadu_si512(words);
	__m512i s[2], m[2];

	f->d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dm));
	f->m = _mm512_xor_ps(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(dm, 16))),
		_mm512_set1_ps(-0.0f));
	s[0] = _mm512_and_si512(a, six);
	s[1] = _mm512_or_si512(
		_mm512_and_si512(c, four), _mm512_and_si512(_mm512_srli_epi32(a, 2), two));
	m[0] = _mm512_and_si512(b, six);
	m[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), four),
		_mm512_and_si512(_mm512_srli_epi32(b, 2), two));
	for (int i = 0; i < 2; i++) {
		h->low[i] = _mm512_and_si512(s[i], three);
		h->high[i] = _mm512_and_si512(_mm512_srli_epi32(s[i], 3), three);
		f->pair[2 * i] = shuffle(m[i], 0x80018000);
		f->pair[2 * i + 1] = shuffle(m[i], 0x80038002);
	}
}

INLINE void scale_k(
	uint32_t type, const __m512i *words, const struct header *h, unsigned k, struct scaled *to)
{
	const __m512i nibble = _mm512_set1_epi8(15), five = _mm512_set1_epi8(31);
	const unsigned j = 2 * k;
	__m512i l0 = low_of(h->low[j / 4], j % 4), h0 = low_of(h->high[j / 4], j % 4);
	__m512i l1, h1;

	if (type == KERNELS_Q4_K) {
		l1 = high_of(_mm512_slli_epi32(h->low[j / 4], 4), j % 4 + 1);
		h1 = high_of(_mm512_slli_epi32(h->high[j / 4], 4), j % 4 + 1);
		for (unsigned i = 0; i < 8; i++) {
			__m512i v = _mm512_loadu_si512(words + 4 + 8 * k + i);
			__m512i e = _mm512_and_si512(v, nibble), o = _mm512_andnot_si512(nibble, v);

			to->low[16 * k + i] = _mm512_mullo_epi16(e, l0);
			to->high[16 * k + i] = _mm512_mullo_epi16(e, h0);
			to->low[16 * k + 8 + i] = _mm512_mulhi_epu16(o, l1);
			to->high[16 * k + 8 + i] = _mm512_mulhi_epu16(o, h1);
		}
		return;
	}
	l1 = low_of(h->low[j / 4], j % 4 + 1);
	h1 = low_of(h->high[j / 4], j % 4 + 1);
	for (unsigned i = 0; i < 8; i++) {
		__m512i v = _mm512_loadu_si512(words + 12 + 8 * k + i);
		__m512i bits = _mm512_loadu_si512(words + 4 + i);
		/* The fifth bits to bit 4; what is above it goes. */
		__m512i be = _mm512_slli_epi32(_mm512_srli_epi32(bits, j), 4);
		__m512i bo = _mm512_slli_epi32(_mm512_srli_epi32(bits, j + 1), 4);
		__m512i e, o;

		e = _mm512_ternarylogic_epi32(nibble, v, be, 0xca);
		o = _mm512_ternarylogic_epi32(nibble, _mm512_srli_epi32(v, 4), bo, 0xca);
		e = _mm512_and_si512(e, five);
		o = _mm512_and_si512(o, five);
		to->low[16 * k + i] = _mm512_mullo_epi16(e, l0);
		to->high[16 * k + i] = _mm512_mullo_epi16(e, h0);
		to->low[16 * k + 8 + i] = _mm512_mullo_epi16(o, l1);
		to->high[16 * k + 8 + i] = _mm512_mullo_epi16(o, h1);
	}
}

/* Quarter k of a block of Q6_K: (code - 32) * scale by even and odd bytes, in 16 bits each. */
INLINE void scale_6(const __m512i *words, unsigned k, struct scaled *to)
{
	const __m512i nibble = _mm512_set1_epi8(15), six = _mm512_set1_epi8(63);
	const __mmask64 odd = 0xaaaaaaaaaaaaaaaa;
	__m512i scales = _mm512_loadu_si512(words + 48 + k);

	for (unsigned g = 0; g < 4; g++) {
		__m512i se = low_of(scales, g), so = high_of(scales, g);
		__m512i less = _mm512_maddubs_epi16(_mm512_set1_epi8(32), se);

		for (unsigned i = 4 * g; i < 4 * g + 4; i++) {
			__m512i v = _mm512_loadu_si512(words + k / 2 * 16 + i);
			__m512i bits = _mm512_loadu_si512(words + 32 + k / 2 * 8 + i % 8);
			__m512i a, b, q;

			v = k % 2 ? _mm512_srli_epi32(v, 4) : v;
			bits = _mm512_slli_epi32(_mm512_srli_epi32(bits, k % 2 * 4 + i / 8 * 2), 4);
			q = _mm512_ternarylogic_epi32(nibble, v, bits, 0xca);
			q = _mm512_and_si512(q, six);
			a = _mm512_sub_epi16(_mm512_maddubs_epi16(q, se), less);
			b = _mm512_sub_epi16(_mm512_maddubs_epi16(q, so), less);
			to->low[16 * k + i] =
				_mm512_mask_blend_epi8(odd, a, _mm512_slli_epi16(b, 8));
			to->high[16 * k + i] =
				_mm512_mask_blend_epi8(odd, _mm512_srli_epi16(a, 8), b);
		}
	}
}

/* The block that is unpacked while another is multiplied. */
struct next {
	const uint8_t *words; /* NULL: there is none */
	const uint8_t *halves;
	unsigned odd; /* column of a pair */
	bool alone;
	struct scaled *to;
	struct factors *f;
	struct header h;
};

INLINE void unpack(uint32_t type, struct next *n, unsigned k)
{
	const __m512i *words = (const void *)n->words;

	if (type == KERNELS_Q6_K) {
		if (k == 0 && n->alone)
			n->f->d = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)n->halves));
		else if (k == 0)
			n->f->d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(
				_mm512_srl_epi32(_mm512_loadu_si512(n->halves),
					_mm_cvtsi32_si128(16 * (int)n->odd))));
		scale_6(words, k, n->to);
		return;
	}
	if (k == 0)
		unpack_header(words, n->f, &n->h);
	scale_k(type, words, &n->h, k, n->to);
}

/* The float steps of up to 8 columns from column 8 k of those known. */
INLINE void add(uint32_t type, const struct known *k, size_t first)
{
	const struct factors *w = k->w;
	size_t to = k->to - k->from < first + 8 ? k->to - k->from : first + 8;

	for (size_t i = first; i < to; i++) {
		size_t c = k->from + i;
		const struct kernels_q256 *b = (const void *)(k->x + c * k->x_stride);
		__m512 dx = _mm512_set1_ps(b->d),
		       a = _mm512_loadu_ps(k->before + i * k->before_step);
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
		_mm512_storeu_ps(k->after + i * k->after_step, a);
	}
}

/*
 * Sums of 32 columns, or only 16, stay in the tiles.  While they multiply, the float steps of the
 * columns before are done, in pieces small enough for the processor to have both in view.
 */
INLINE void multiply(uint32_t type, bool two, const struct scaled *w, const int8_t *x,
	size_t x_stride, const struct known *before, struct next *next, struct sums *out)
{
	const size_t row = 64;

	TILE_ZERO(0);
	TILE_ZERO(1);
	if (two) {
		TILE_ZERO(2);
		TILE_ZERO(3);
	}
#pragma GCC unroll 4
	for (unsigned k = 0; k < 4; k++) {
		TILE_LOAD(4, x + 64 * k, x_stride);
		TILE_LOAD(6, w->low + 16 * k, row);
		TILE_LOAD(7, w->high + 16 * k, row);
		TILE_UNSIGNED(0, 4, 6);
		if (type == KERNELS_Q6_K)
			TILE_SIGNED(1, 4, 7);
		else
			TILE_UNSIGNED(1, 4, 7);
		if (two) {
			TILE_LOAD(5, x + 16 * x_stride + 64 * k, x_stride);
			TILE_UNSIGNED(2, 5, 6);
			if (type == KERNELS_Q6_K)
				TILE_SIGNED(3, 5, 7);
			else
				TILE_UNSIGNED(3, 5, 7);
		}
		if (next->words)
			unpack(type, next, k);
		add(type, before, 8 * k);
	}
	TILE_STORE(0, out->low[0], row);
	TILE_STORE(1, out->high[0], row);
	if (two) {
		TILE_STORE(2, out->low[16], row);
		TILE_STORE(3, out->high[16], row);
	}
}

INLINE void locate(uint32_t type, const uint8_t *tile, size_t blocks, size_t b, struct next *n)
{
	size_t bytes = type == KERNELS_Q4_K   ? sizeof(struct quant_q4_k)
		       : type == KERNELS_Q5_K ? sizeof(struct quant_q5_k)
					      : sizeof(struct quant_q6_k);

	if (type != KERNELS_Q6_K) {
		n->words = tile + b * ROWS * bytes;
		return;
	}
	n->halves = tile + b / 2 * 2 * ROWS * bytes;
	n->odd = b % 2;
	n->alone = b % 2 == 0 && b + 1 == blocks;
	n->words = n->halves + (n->alone ? 32 : 64) + n->odd * (size_t)(52 * 64);
}

/* All rows by up to COLS columns. */
INLINE void columns(uint32_t type, const struct kernels_product *p)
{
	static const float zero[16];
	float acc[COLS][16] __attribute__((aligned(64)));
	struct scaled codes[2];
	struct factors factors[3];
	struct sums sums;
	struct known known = {.s = &sums, .x_stride = p->x_stride};
	struct next next = {.to = &codes[0], .f = &factors[0]};
	size_t blocks = p->n / 256, i = 0;

	locate(type, p->w, blocks, 0, &next);
	for (unsigned k = 0; k < 4; k++)
		unpack(type, &next, k);
	for (size_t r = 0; r < p->rows; r += ROWS) {
		const uint8_t *w = (const uint8_t *)p->w + r * p->w_stride;

		for (size_t b = 0; b < blocks; b++, i++) {
			next.to = &codes[(i + 1) % 2];
			next.f = &factors[(i + 1) % 3];
			if (b + 1 < blocks)
				locate(type, w, blocks, b + 1, &next);
			else if (r + ROWS < p->rows)
				locate(type, w + ROWS * p->w_stride, blocks, 0, &next);
			else
				next.words = NULL;
			for (size_t c = 0; c < p->cols; c += 32) {
				size_t left = p->cols - c, at = c;

				if (left < 32 && p->cols > 32)
					at = p->cols - (left > 16 ? 32 : 16);
				const uint8_t *x = (const uint8_t *)p->x + at * p->x_stride +
						   b * sizeof(struct kernels_q256);

				if (left > 16)
					multiply(type, true, &codes[i % 2], (const int8_t *)x,
						p->x_stride, &known, &next, &sums);
				else
					multiply(type, false, &codes[i % 2], (const int8_t *)x,
						p->x_stride, &known, &next, &sums);
				next.words = NULL;
				known.w = &factors[i % 3];
				known.x = x;
				known.from = c - at;
				known.to = known.from + (left < 32 ? left : 32);
				known.before = (const void *)(b ? acc[c] : zero);
				known.before_step = b ? sizeof(acc[c]) : 0;
				known.after = (void *)acc[c];
				known.after_step = sizeof(acc[c]);
				if (b + 1 == blocks) {
					known.after = (void *)(p->out + c * p->out_stride + r);
					known.after_step = p->out_stride * sizeof(float);
				}
			}
		}
	}
	for (unsigned k = 0; k < 4; k++)
		add(type, &known, 8 * k);
}

/* A call's columns, or a chunk of them: tiles of so many rows. */
INLINE void configure(size_t cols)
{
	struct tile_config config = {.palette = 1};
	uint8_t first = cols < 16 ? (uint8_t)cols : 16;
	uint8_t second = cols > 16 && cols < 32 ? (uint8_t)(cols - 16) : 16;

	for (int i = 0; i < 8; i++) {
		config.bytes[i] = 64;
		config.rows[i] = 16;
	}
	config.rows[0] = config.rows[1] = config.rows[4] = first;
	config.rows[2] = config.rows[3] = config.rows[5] = second;
	tile_configure(&config);
}

/* From so many columns on tiles beat the VNNI tier, even where most of them are padding. */
#define FROM 8

INLINE void product(uint32_t type, const struct kernels_product *p,
	void (*few)(const struct kernels_product *p))
{
	size_t chunks = (p->cols + COLS - 1) / COLS;
	size_t cols = (p->cols / chunks + 31) / 32 * 32;
	struct kernels_product part = *p;

	if (p->cols < FROM) {
		few(p);
		return;
	}
	for (size_t c = 0; c < p->cols; c += cols) {
		part.cols = p->cols - c < cols ? p->cols - c : cols;
		part.x = (const uint8_t *)p->x + c * p->x_stride;
		part.out = p->out + c * p->out_stride;
		configure(part.cols);
		columns(type, &part);
	}
	tile_release();
}

void amx_packed_q4_k(const struct kernels_product *p)
{
	product(KERNELS_Q4_K, p, vnni_packed_q4_k);
}

void amx_packed_q5_k(const struct kernels_product *p)
{
	product(KERNELS_Q5_K, p, vnni_packed_q5_k);
}

void amx_packed_q6_k(const struct kernels_product *p)
{
	product(KERNELS_Q6_K, p, vnni_packed_q6_k);
}
