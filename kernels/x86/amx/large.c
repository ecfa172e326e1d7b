/* SPDX-License-Identifier: MIT */

/*
 * Products of packed K-quants with many columns: a word of a packed column is a row of a tile, so
 * weights go into the tiles without turning.  What is left are the float steps of NUMERICS rule 1,
 * a lane of a register for each row.
 *
 * The sub-block scales would interrupt the sums every 16 or 32 elements.  So they are multiplied
 * into the codes first, and the product is given to the tiles in two bytes:
 *   Q4_K, Q5_K: scale = 8 h + l, bytes code * h and code * l, unsigned, at most 105 or 217;
 *   Q6_K: (code - 32) * scale = 256 h + l, in magnitude at most 32 * 128, so that of h at most 16,
 *   and l from -128 to 127.
 * The sum of a block is then 8 H + L or 256 H + L, exactly: |H| and |L| are at most 256 * 217 * 127
 * < 2^23, so no int32 is left.  To become a float a sum has to be within 2^22 (see MAGIC): for Q4_K
 * both are at most 256 * 105 * 127 < 3.5e6, for Q6_K 256 * 128 * 127 < 2^22; Q5_K's may be more.
 *
 * A block of 16 rows by 32 columns takes 16 multiplications of 16 cycles.  Beside them port 0 alone
 * multiplies (that of port 5 rests while tiles are in use): 128 codes' scales and 8 for each column
 * of Q4_K are 384 cycles, 340 MAC a cycle.  About 190 are reached: what is not in the first cache
 * holds up stores, and these the tiles.
 */

#include <stdbool.h>
#include <string.h>
#include "amx.h"
#include "packed.h"
#include "quant.h"
#include "tiles.h"
#include "vnni.h"

#define ROWS KERNELS_PACK_ROWS

/* Columns of one go over the rows: their activations stay in the second cache. */
#define COLS 64u
#define COLS_MAX (COLS + 32)

/* Accumulators of a group of row tiles, vectors that stay in the first cache. */
#define ACCS 128u

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

/* Columns that the tiles multiply at a time: 32, or up to 16. */
struct pass {
	const struct scaled *w;
	const int8_t *x;
	unsigned tiles; /* of sums: 4, or 2; before the first pass 0 */
};

/* Columns whose sums are known, and whose float steps are still to be done. */
struct known {
	const struct factors *w;
	const uint8_t *x;
	const uint8_t *sums; /* low ones of the first column */
	float *acc;
	size_t cols;
	float *out; /* after the last block, else NULL */
};

/* The block that is unpacked while another is multiplied, and what is read ahead. */
struct next {
	struct packed_at at; /* .words NULL: there is none */
	struct scaled *to;
	struct factors *f;
	const uint8_t *ahead; /* a block that is read ahead, or NULL */
};

/* What is kept in registers between parts of a block. */
struct part {
	__m512i low[2], high[2]; /* of scales of 6 bits the lower and upper three, as bytes */
	__m512i l0, l1, h0, h1;
};

/*
 * Integers as the low bits of floats: MAGIC + i is the float 1.5 * 2^23 + i while |i| <= 2^22, and
 * with a larger exponent the float 8 * (1.5 * 2^23 + i), or 256 *.  Sums of minima are at most
 * 8 * 63 * 32 * 127 < 2^22 too.  It is one instruction more than to convert, but on a port that has
 * time.
 */
#define MAGIC 0x4b400000
#define MAGIC_8 0x4cc00000
#define MAGIC_256 0x4f400000
#define MAGIC_VALUE 12582912.0f

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
INLINE void unpack_header(const struct next *n, struct part *p)
{
	const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f);
	const __m512i two = _mm512_set1_epi32(0x30303030), three = _mm512_set1_epi32(0x07070707);
	const uint8_t *words = n->at.words;
	__m512i a = packed_word(words, 1), b = packed_word(words, 2), c = packed_word(words, 3);
	__m512i s[2], m[2];
	struct factors f;

	packed_factors(words, &f.d, &f.m);
	f.m = _mm512_xor_ps(f.m, _mm512_set1_ps(-0.0f));
	s[0] = _mm512_and_si512(a, six);
	s[1] = _mm512_or_si512(
		_mm512_and_si512(c, four), _mm512_and_si512(_mm512_srli_epi32(a, 2), two));
	m[0] = _mm512_and_si512(b, six);
	m[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), four),
		_mm512_and_si512(_mm512_srli_epi32(b, 2), two));
	for (int i = 0; i < 2; i++) {
		p->low[i] = _mm512_and_si512(s[i], three);
		p->high[i] = _mm512_and_si512(_mm512_srli_epi32(s[i], 3), three);
		f.pair[2 * i] = shuffle(m[i], 0x80018000);
		f.pair[2 * i + 1] = shuffle(m[i], 0x80038002);
	}
	*n->f = f;
}

/*
 * Words 8 k + 2 g and the next of codes.  Two bytes are scaled at once: no product of a low byte
 * reaches the high one.  High nibbles are scaled where they are, by 2^12 l: the high half of that
 * product is theirs by l, moved down.
 */
INLINE void scale_q4_k(const struct next *n, struct part *p, unsigned k, unsigned g)
{
	const __m512i nibble = _mm512_set1_epi8(15);
	const uint8_t *words = n->at.words;
	const unsigned j = 2 * k % 4;
	__m512i *low = n->to->low + 16 * k, *high = n->to->high + 16 * k;

	if (g == 0) {
		p->l0 = low_of(p->low[k / 2], j);
		p->h0 = low_of(p->high[k / 2], j);
		p->l1 = high_of(_mm512_slli_epi32(p->low[k / 2], 4), j + 1);
		p->h1 = high_of(_mm512_slli_epi32(p->high[k / 2], 4), j + 1);
	}
	for (unsigned i = 2 * g; i < 2 * g + 2; i++) {
		__m512i v = packed_word(words, (int)(4 + 8 * k + i));
		__m512i e = _mm512_and_si512(v, nibble), o = _mm512_andnot_si512(nibble, v);

		low[i] = _mm512_mullo_epi16(e, p->l0);
		high[i] = _mm512_mullo_epi16(e, p->h0);
		low[8 + i] = _mm512_mulhi_epu16(o, p->l1);
		high[8 + i] = _mm512_mulhi_epu16(o, p->h1);
	}
}

INLINE void scale_q5_k(const struct next *n, struct part *p, unsigned k, unsigned g)
{
	const __m512i nibble = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16);
	const uint8_t *words = n->at.words;
	const unsigned j = 2 * k % 4;
	__m512i *low = n->to->low + 16 * k, *high = n->to->high + 16 * k;

	if (g == 0) {
		p->l0 = low_of(p->low[k / 2], j);
		p->h0 = low_of(p->high[k / 2], j);
		p->l1 = low_of(p->low[k / 2], j + 1);
		p->h1 = low_of(p->high[k / 2], j + 1);
	}
	for (unsigned i = 2 * g; i < 2 * g + 2; i++) {
		__m512i v = packed_word(words, (int)(12 + 8 * k + i));
		__m512i b = packed_word(words, (int)(4 + i)), e, o;

		/* Bits 2 k and 2 k + 1 to bit 4. */
		e = k < 2 ? _mm512_slli_epi32(b, 4 - 2 * k) : _mm512_srli_epi32(b, 2 * k - 4);
		o = k < 2 ? _mm512_slli_epi32(b, 3 - 2 * k) : _mm512_srli_epi32(b, 2 * k - 3);
		e = _mm512_ternarylogic_epi32(_mm512_and_si512(v, nibble), e, fifth, 0xf8);
		v = _mm512_and_si512(_mm512_srli_epi32(v, 4), nibble);
		o = _mm512_ternarylogic_epi32(v, o, fifth, 0xf8);
		low[i] = _mm512_mullo_epi16(e, p->l0);
		high[i] = _mm512_mullo_epi16(e, p->h0);
		low[8 + i] = _mm512_mullo_epi16(o, p->l1);
		high[8 + i] = _mm512_mullo_epi16(o, p->h1);
	}
}

/*
 * Elements 64 k + 16 g and on, of one scale: (code - 32) * scale + 128 of even and odd bytes in 16
 * bits each; the high byte is h, and the low one, less 128, l.
 */
INLINE void scale_q6_k(const struct next *n, unsigned k, unsigned g)
{
	const __m512i nibble = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
	const __m512i up = _mm512_set1_epi32((int)0x02800080), down = _mm512_set1_epi32(0x80038001);
	const __m512i sign = _mm512_set1_epi8((char)0x80), half = _mm512_set1_epi16(128);
	const __m512i groups = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
	const __mmask64 odd = 0xaaaaaaaaaaaaaaaa;
	const uint8_t *words = n->at.words;
	__m512i *low = n->to->low + 16 * k, *high = n->to->high + 16 * k;
	__m512i s = packed_word(words, (int)(48 + k)), s0 = low_of(s, g), s1 = high_of(s, g);
	__m512i less = _mm512_maddubs_epi16(_mm512_set1_epi8(32), s0);

	less = _mm512_sub_epi16(less, half);
	for (unsigned i = 4 * g; i < 4 * g + 4; i++) {
		__m512i v = packed_word(words, (int)(k / 2 * 16 + i));
		__m512i b = packed_word(words, (int)(32 + k / 2 * 8 + i % 8)), q;

		/* Of four pairs of bits the first two are of low nibbles. */
		if (k % 2 == 0)
			b = _mm512_slli_epi32(b, g < 2 ? 4 : 2);
		else if (g >= 2)
			b = _mm512_srli_epi32(b, 2);
		v = k % 2 ? _mm512_srli_epi32(v, 4) : v;
		q = _mm512_ternarylogic_epi32(_mm512_and_si512(v, nibble), b, two, 0xf8);
		v = _mm512_sub_epi16(_mm512_maddubs_epi16(q, s0), less);
		b = _mm512_sub_epi16(_mm512_maddubs_epi16(q, s1), less);
		q = _mm512_mask_shuffle_epi8(v, odd, b, _mm512_or_si512(up, groups));
		low[i] = _mm512_xor_si512(q, sign);
		high[i] = _mm512_mask_shuffle_epi8(b, ~odd, v, _mm512_or_si512(down, groups));
	}
}

/* A block in 16 parts. */
#define PARTS 16u

INLINE void unpack(uint32_t type, const struct next *n, struct part *p, unsigned i)
{
	if (i == 0 && type == KERNELS_Q6_K)
		n->f->d = packed_d(&n->at);
	else if (i == 0)
		unpack_header(n, p);
	if (type == KERNELS_Q4_K)
		scale_q4_k(n, p, i / 4, i % 4);
	else if (type == KERNELS_Q5_K)
		scale_q5_k(n, p, i / 4, i % 4);
	else
		scale_q6_k(n, i / 4, i % 4);
}

/* (float)(8 high + low), or 256 high, of the column whose low sums are at `low`: rounded once. */
INLINE __m512 sum_of(uint32_t type, const uint8_t *low)
{
	const bool six = type == KERNELS_Q6_K;
	__m512i l = _mm512_load_si512(low);
	__m512i h = _mm512_load_si512(low + offsetof(struct sums, high));
	__m512 all;

	if (type == KERNELS_Q5_K)
		return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(h, 3), l));
	/* Both differences are exact: multiples of 8 or 256 below 2^24 of them, and the sum. */
	l = _mm512_add_epi32(l, _mm512_set1_epi32(MAGIC));
	h = _mm512_add_epi32(h, _mm512_set1_epi32(six ? MAGIC_256 : MAGIC_8));
	all = _mm512_set1_ps(((six ? 256.0f : 8.0f) + 1.0f) * MAGIC_VALUE);
	return _mm512_add_ps(_mm512_castsi512_ps(l), _mm512_sub_ps(_mm512_castsi512_ps(h), all));
}

/* The float steps of a column. */
INLINE void add(
	uint32_t type, const struct factors *w, const uint8_t *x, const uint8_t *sums, float *acc)
{
	const struct kernels_q256 *b = (const void *)x;
	__m512 dx = _mm512_set1_ps(b->d), a = _mm512_load_ps(acc), f;
	__m512i min = _mm512_set1_epi32(MAGIC);

	a = _mm512_fmadd_ps(_mm512_mul_ps(w->d, dx), sum_of(type, sums), a);
	if (type != KERNELS_Q6_K) {
		for (int j = 0; j < 4; j++)
			min = _mm512_dpwssd_epi32(min, w->pair[j],
				_mm512_set1_epi32((int)quant_u32(&b->pairs[2 * j])));
		f = _mm512_sub_ps(_mm512_castsi512_ps(min), _mm512_set1_ps(MAGIC_VALUE));
		a = _mm512_fmadd_ps(_mm512_mul_ps(w->m, dx), f, a);
	}
	_mm512_store_ps(acc, a);
}

INLINE void add_all(uint32_t type, const struct factors *w, const struct known *k, size_t x_stride,
	size_t from, size_t to)
{
	for (size_t c = from; c < to && c < k->cols; c++)
		add(type, w, k->x + c * x_stride, k->sums + 64 * c, k->acc + 16 * c);
}

/* Accumulators to the output, and to zero for the next rows. */
INLINE void finish(const struct known *k, size_t out_stride)
{
	for (size_t c = 0; c < k->cols; c++) {
		_mm512_storeu_ps(k->out + c * out_stride, _mm512_load_ps(k->acc + 16 * c));
		_mm512_store_ps(k->acc + 16 * c, _mm512_setzero_ps());
	}
}

/* Sums of the last pass out of tile q. */
INLINE void store(struct sums *out, unsigned q)
{
	const size_t row = 64;

	if (q == 0)
		TILE_STORE(0, out->low[0], row);
	else if (q == 1)
		TILE_STORE(1, out->high[0], row);
	else if (q == 2)
		TILE_STORE(2, out->low[16], row);
	else
		TILE_STORE(3, out->high[16], row);
}

INLINE void zero(unsigned q)
{
	if (q == 0)
		TILE_ZERO(0);
	else if (q == 1)
		TILE_ZERO(1);
	else if (q == 2)
		TILE_ZERO(2);
	else
		TILE_ZERO(3);
}

INLINE void product_of(uint32_t type, unsigned q)
{
	if (type == KERNELS_Q6_K && q == 0)
		TILE_SIGNED(0, 4, 6);
	else if (type == KERNELS_Q6_K && q == 1)
		TILE_SIGNED(1, 4, 7);
	else if (type == KERNELS_Q6_K && q == 2)
		TILE_SIGNED(2, 5, 6);
	else if (type == KERNELS_Q6_K)
		TILE_SIGNED(3, 5, 7);
	else if (q == 0)
		TILE_UNSIGNED(0, 4, 6);
	else if (q == 1)
		TILE_UNSIGNED(1, 4, 7);
	else if (q == 2)
		TILE_UNSIGNED(2, 5, 6);
	else
		TILE_UNSIGNED(3, 5, 7);
}

/* Operands of elements 64 k to 64 k + 63 into tile t. */
INLINE void load(const struct pass *p, size_t x_stride, unsigned k, unsigned t)
{
	const size_t row = 64;

	if (t == 4)
		TILE_LOAD(4, p->x + 64 * k, x_stride);
	else if (t == 5)
		TILE_LOAD(5, p->x + 16 * x_stride + 64 * k, x_stride);
	else if (t == 6)
		TILE_LOAD(6, p->w->low + 16 * k, row);
	else
		TILE_LOAD(7, p->w->high + 16 * k, row);
}

/*
 * What a pass goes by.  Pointers, for what is copied in wide registers just after it was stored in
 * narrow ones waits for the stores.
 */
struct job {
	const struct pass *now, *then;
	const struct known *before;
	struct next next;
	struct sums *sums;
	unsigned stored; /* tiles of sums of the pass before */
	size_t x_stride, out_stride;
};

/* Slot s, a constant, of 4 * tiles. */
INLINE void slot(uint32_t type, unsigned tiles, unsigned s, const struct job *j,
	const struct factors *w, struct part *part)
{
	const unsigned q = s % tiles, k = (s / tiles + 1) % 4;
	const struct pass *from = k ? j->now : j->then;
	const size_t x_stride = j->x_stride;

	if (s < tiles) {
		if (q < j->stored)
			store(j->sums, q);
		zero(q);
		if (tiles == 2 && q + 2 < j->stored)
			store(j->sums, q + 2);
	}
	product_of(type, q);
	if (tiles == 4 && q == 1)
		load(from, x_stride, k, 4);
	if (q == tiles - 2)
		load(from, x_stride, k, 6);
	if (q == tiles - 1)
		load(from, x_stride, k, 7);
	if (tiles == 2 && q == 1)
		load(from, x_stride, k, 4);
	if (k ? q == 3 : q == tiles - 1 && j->then->tiles == 4)
		load(from, x_stride, k, 5);
	if (j->next.ahead)
		for (size_t at = 64 * s; at < ROWS * packed_bytes(type); at += 256 * tiles)
			_mm_prefetch(j->next.ahead + at, _MM_HINT_T1);
	if (j->next.at.words && tiles == 4)
		unpack(type, &j->next, part, s);
	if (j->next.at.words && tiles == 2) {
		unpack(type, &j->next, part, 2 * s);
		unpack(type, &j->next, part, 2 * s + 1);
	}
	if (j->before->out)
		for (unsigned c = 32 / (4 * tiles) * s; c < 32 / (4 * tiles) * (s + 1); c++)
			__builtin_prefetch(j->before->out + c * j->out_stride, 1);
	if (s < 3)
		return;
	if (tiles == 4 && j->before->cols == 32) {
		const unsigned c = 32 * (s - 3) / 13, end = 32 * (s - 2) / 13;
		const uint8_t *x = j->before->x + c * x_stride;

		add(type, w, x, j->before->sums + 64 * c, j->before->acc + 16 * c);
		x += x_stride;
		add(type, w, x, j->before->sums + 64 * (c + 1), j->before->acc + 16 * (c + 1));
		x += x_stride;
		if (c + 2 < end)
			add(type, w, x, j->before->sums + 64 * (c + 2),
				j->before->acc + 16 * (c + 2));
	} else {
		const unsigned n = 4 * tiles - 3;

		add_all(type, w, j->before, x_stride, j->before->cols * (s - 3) / n,
			j->before->cols * (s - 2) / n);
	}
}

/*
 * One pass, in slots: a multiplication takes 16 cycles of the tiles and each slot has work of as
 * many for the other ports, so that the processor, which sees about four slots at once, never waits
 * for either.  So operands are loaded two slots before they are multiplied, the last ones of a pass
 * are the first of the next, and sums are stored one pass later.  The first slots unpack, until the
 * sums of the pass before are there, the others do its float steps.
 */
INLINE void multiply(uint32_t type, unsigned tiles, const struct job *job)
{
	const struct job j = *job;
	const struct factors w = *j.before->w;
	struct part part = {0};

	slot(type, tiles, 0, &j, &w, &part);
	slot(type, tiles, 1, &j, &w, &part);
	slot(type, tiles, 2, &j, &w, &part);
	slot(type, tiles, 3, &j, &w, &part);
	slot(type, tiles, 4, &j, &w, &part);
	slot(type, tiles, 5, &j, &w, &part);
	slot(type, tiles, 6, &j, &w, &part);
	slot(type, tiles, 7, &j, &w, &part);
	if (tiles == 2)
		return;
	slot(type, tiles, 8, &j, &w, &part);
	slot(type, tiles, 9, &j, &w, &part);
	slot(type, tiles, 10, &j, &w, &part);
	slot(type, tiles, 11, &j, &w, &part);
	slot(type, tiles, 12, &j, &w, &part);
	slot(type, tiles, 13, &j, &w, &part);
	slot(type, tiles, 14, &j, &w, &part);
	slot(type, tiles, 15, &j, &w, &part);
}

/* The order: of a group of row tiles block 0 of each, then block 1, and all columns of each. */
struct place {
	size_t begin, end; /* of the group */
	size_t block, tile;
};

struct work {
	const struct kernels_product *p;
	size_t tiles, blocks, group;
	struct place place, coming, ahead; /* now, to be unpacked, two further */
	size_t count;			   /* of blocks before this one */
	size_t c;			   /* first column of the pass */
	size_t each;			   /* columns of a pass */
	size_t skip;			   /* columns of the pass before c, done by another */
	struct sums sums;
	struct scaled codes;
	struct factors factors[3];
	float acc[ACCS][16];
};

INLINE void place_group(const struct work *w, struct place *p, size_t begin)
{
	p->block = 0;
	p->tile = p->begin = begin;
	p->end = begin + w->group;
	if (begin < w->tiles && p->end > w->tiles)
		p->end = w->tiles;
}

INLINE void place_step(const struct work *w, struct place *p)
{
	if (++p->tile < p->end)
		return;
	if (++p->block < w->blocks)
		p->tile = p->begin;
	else
		place_group(w, p, p->end);
}

INLINE struct packed_at place_at(uint32_t type, const struct work *w, const struct place *p)
{
	return packed_column(type, (const uint8_t *)w->p->w + p->tile * ROWS * w->p->w_stride,
		w->blocks, p->block);
}

INLINE const uint8_t *work_x(const struct work *w, size_t column, size_t block)
{
	return (const uint8_t *)w->p->x + column * w->p->x_stride +
	       block * sizeof(struct kernels_q256);
}

/* The pass at w->c; where not enough columns are left, it takes some again. */
INLINE void work_pass(struct work *w, struct pass *p)
{
	size_t left = w->p->cols - w->c;

	w->skip = left < w->each ? w->each - left : 0;
	p->w = &w->codes;
	p->x = (const int8_t *)work_x(w, w->c - w->skip, w->place.block);
	p->tiles = w->each > 16 ? 4 : 2;
}

/* What there is to do beside the first pass of a block. */
INLINE void work_next(uint32_t type, struct work *w, struct next *n)
{
	n->to = &w->codes;
	n->f = &w->factors[(w->count + 1) % 3];
	n->at.words = NULL;
	if (w->coming.tile < w->tiles)
		n->at = place_at(type, w, &w->coming);
	n->ahead = place_at(type, w, &w->ahead).words;
}

/* The float steps that follow the pass at w->c. */
INLINE void work_known(struct work *w, struct known *k)
{
	size_t left = w->p->cols - w->c;

	k->w = &w->factors[w->count % 3];
	k->x = work_x(w, w->c, w->place.block);
	k->sums = (const uint8_t *)w->sums.low[w->skip];
	k->acc = w->acc[(w->place.tile - w->place.begin) * w->p->cols + w->c];
	k->cols = left < w->each ? left : w->each;
	k->out = NULL;
	if (w->place.block + 1 == w->blocks)
		k->out = w->p->out + w->c * w->p->out_stride + w->place.tile * ROWS;
}

/* To the next pass; false where there is none. */
INLINE bool work_step(struct work *w)
{
	w->c += w->each;
	if (w->c < w->p->cols)
		return true;
	w->c = 0;
	w->count++;
	w->place = w->coming;
	place_step(w, &w->coming);
	place_step(w, &w->ahead);
	return w->place.tile < w->tiles;
}

INLINE void work_begin(uint32_t type, const struct kernels_product *p, size_t each, struct work *w)
{
	struct next next = {.to = &w->codes, .f = &w->factors[0]};
	struct part part = {0};

	w->p = p;
	w->tiles = p->rows / ROWS;
	w->blocks = p->n / 256;
	w->group = ACCS / p->cols;
	w->each = each;
	w->count = w->c = 0;
	place_group(w, &w->place, 0);
	w->coming = w->place;
	place_step(w, &w->coming);
	w->ahead = w->coming;
	place_step(w, &w->ahead);
	place_step(w, &w->ahead);
	next.at = place_at(type, w, &w->place);
	for (unsigned i = 0; i < PARTS; i++)
		unpack(type, &next, &part, i);
	memset(w->acc, 0,
		p->cols * (w->tiles < w->group ? w->tiles : w->group) * sizeof(w->acc[0]));
}

/* All rows by up to COLS_MAX columns. */
INLINE void columns(uint32_t type, const struct kernels_product *p, size_t each)
{
	struct work w;
	struct known known[2] = {{.w = &w.factors[0]}};
	struct pass pass[2];
	struct job j = {.sums = &w.sums, .x_stride = p->x_stride, .out_stride = p->out_stride};
	bool more = true;

	work_begin(type, p, each, &w);
	work_pass(&w, &pass[0]);
	for (unsigned t = 4; t < 8; t++)
		if (t != 5 || pass[0].tiles == 4)
			load(&pass[0], j.x_stride, 0, t);
	for (unsigned i = 0; more; i = !i) {
		j.before = &known[i];
		work_known(&w, &known[!i]);
		j.next.at.words = j.next.ahead = NULL;
		if (w.c + each >= p->cols)
			work_next(type, &w, &j.next);
		more = work_step(&w);
		j.now = j.then = &pass[i];
		if (more) {
			work_pass(&w, &pass[!i]);
			j.then = &pass[!i];
		}
		if (j.now->tiles == 4)
			multiply(type, 4, &j);
		else
			multiply(type, 2, &j);
		if (j.before->out)
			finish(j.before, p->out_stride);
		j.stored = j.now->tiles;
		j.before = &known[!i];
	}
	for (unsigned q = 0; q < j.stored; q++)
		store(&w.sums, q);
	add_all(type, j.before->w, j.before, j.x_stride, 0, 32);
	finish(j.before, p->out_stride);
}

/* Tiles of as many rows as a pass has columns: the fewer, the faster. */
INLINE void configure(size_t cols)
{
	struct tile_config config = {.palette = 1};
	uint8_t first = cols < 16 ? (uint8_t)cols : 16;
	uint8_t second = cols > 16 ? (uint8_t)(cols - 16) : 16;

	for (int i = 0; i < 8; i++) {
		config.bytes[i] = 64;
		config.rows[i] = 16;
	}
	config.rows[0] = config.rows[1] = config.rows[4] = first;
	config.rows[2] = config.rows[3] = config.rows[5] = second;
	tile_configure(&config);
}

/* From so many columns on tiles beat the VNNI tier: at 5 by half, of Q6_K by a quarter. */
#define FROM 5

INLINE void product(uint32_t type, const struct kernels_product *p,
	void (*few)(const struct kernels_product *p))
{
	size_t chunks = p->cols <= COLS_MAX ? 1 : (p->cols - 32 + COLS - 1) / COLS;
	size_t cols = ((p->cols + chunks - 1) / chunks + 31) / 32 * 32;
	struct kernels_product part = *p;
	size_t passes, each;

	if (p->cols < FROM || !p->rows) {
		few(p);
		return;
	}
	for (size_t c = 0; c < p->cols; c += cols) {
		part.cols = p->cols - c < cols ? p->cols - c : cols;
		part.x = (const uint8_t *)p->x + c * p->x_stride;
		part.out = p->out + c * p->out_stride;
		passes = (part.cols + 31) / 32;
		each = (part.cols + passes - 1) / passes;
		configure(each);
		columns(type, &part, each);
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
