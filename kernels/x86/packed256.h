/* SPDX-License-Identifier: MIT */

/*
 * Products of packed weights (kernels.h) with registers of 256 bits: the source of the AVX2 and the
 * AVX-VNNI tier, which include it after dot.h of their own.  A lane is a row, so a tile is two
 * halves of eight rows; a register takes four codes of each row, the other operand four activations
 * that are broadcast.  Nothing is added across lanes.
 *
 * Decode (one or two columns): codes come straight from the tile, every line of 64 bytes once from
 * memory.  Per line of Q4_K, 128 codes: 2 loads for the low nibbles and 2 for the high ones, 6
 * instructions to part them, 4 dot products a column; 6 cycles for one column, all told.  Memory
 * gives a core a line in 14: the limit is memory.
 *
 * Prefill: a column of blocks is unpacked once, into 4 KiB that stay in the first cache, and serves
 * all activations; three columns by two halves share 2 loads of codes and 3 of activations.  The
 * limit are the two ports that multiply, or for AVX2 all three.  Instructions for 8 rows by 256
 * elements of one column, without loads, and cycles measured with 96 columns:
 *
 *                        AVX2                        AVX-VNNI
 *             multiply   all   cycles      multiply   all   cycles
 *     Q4_K          82   150       58            90    98       49
 *     Q5_K          90   158       66            90    98       50
 *     Q6_K         108   181       82           108   125       58
 *     Q4_0          96   160       67            88    88       48   (Q4_1: 16 more)
 *     Q8_0         237   302      128            88    88       48
 *
 * Tried: parts of Q4_K as two int16 in one register, so that AVX-VNNI needs one multiplication for
 * a scale instead of the two of vpmulld: 54 cycles, the chain is longer.  Q8_0 of AVX2 as two
 * nibbles, which int16 can add up, instead of signs: 143, the loads are twice as many.
 */

#include <immintrin.h>
#include "inline.h"
#include "quant.h"

/* Columns for which a block is unpacked once; their sums are in the first cache too. */
#define COLS 128

/* Blocks of 32 elements that are unpacked together: as many codes as a block of 256 has. */
#define SMALL 8

/* Columns that share a load of codes. */
#define SHARE 3

/*
 * Bytes from what is multiplied to what is read ahead.  Few: they show the processor's own prefetch
 * the way, which then fetches more at once than the first cache can ask for; from 2 KiB on it stays
 * behind, and of 15.6 GB/s are left 13 to 9.  Blocks of Q6_K are read at two places, codes and
 * their fifth and sixth bits, which it does not follow; all of the block must be there before.
 */
#define AHEAD 1280
#define AHEAD_Q6_K 4608

/* What a column of blocks holds beside its codes; halves of eight rows. */
struct packed_header {
	__m256i scale[16][2]; /* by sub-block, as dot_scaled() wants them */
	__m256i pair[8][2];   /* scales or minima of sub-blocks 2i and 2i + 1, as two int16 */
	__m256 d[SMALL][2];
	__m256 m[SMALL][2];
};

/* Where the codes of a block are: as they lie in the tile, or unpacked, 64 bytes to four elements.
 */
struct packed_codes {
	const uint8_t *words;
	const uint8_t *unpacked; /* or NULL */
};

INLINE __m256i packed_load(const uint8_t *words, int word, int half)
{
	return _mm256_loadu_si256((const void *)(words + 64 * word + 32 * half));
}

/* The low and the high half floats of eight words. */
INLINE void packed_halves(__m256i words, __m256 *ret_low, __m256 *ret_high)
{
	__m256i low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
	__m256i both = _mm256_packus_epi32(low, _mm256_srli_epi32(words, 16));

	both = _mm256_permute4x64_epi64(both, 0xd8);
	*ret_low = _mm256_cvtph_ps(_mm256_castsi256_si128(both));
	*ret_high = _mm256_cvtph_ps(_mm256_extracti128_si256(both, 1));
}

/* Bytes i and j of each word as two int16. */
INLINE __m256i packed_bytes(__m256i words, int i, int j)
{
	return _mm256_shuffle_epi8(words,
		_mm256_add_epi32(
			_mm256_set1_epi32((int)(0x80008000u | (unsigned)i | (unsigned)j << 16)),
			_mm256_setr_epi32(
				0, 0x40004, 0x80008, 0xc000c, 0, 0x40004, 0x80008, 0xc000c)));
}

/* The same with their signs. */
INLINE __m256i packed_signed(__m256i words, int i, int j)
{
	return _mm256_srai_epi16(_mm256_slli_epi16(packed_bytes(words, i, j), 8), 8);
}

/* Header of Q4_K and Q5_K: factors, scales and minima, of the four words that a block begins with.
 */
INLINE void packed_header_k(const uint8_t *w, struct packed_header *o)
{
	const __m256i six = _mm256_set1_epi8(0x3f), four = _mm256_set1_epi8(0x0f);
	const __m256i two = _mm256_set1_epi8(0x30);

	for (int h = 0; h < 2; h++) {
		__m256i a = packed_load(w, 1, h), b = packed_load(w, 2, h);
		__m256i c = packed_load(w, 3, h), s[2], m[2];

		packed_halves(packed_load(w, 0, h), &o->d[0][h], &o->m[0][h]);
		o->m[0][h] = _mm256_xor_ps(o->m[0][h], _mm256_set1_ps(-0.0f));
		s[0] = _mm256_and_si256(a, six);
		s[1] = _mm256_or_si256(
			_mm256_and_si256(c, four), _mm256_and_si256(_mm256_srli_epi32(a, 2), two));
		m[0] = _mm256_and_si256(b, six);
		m[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(c, 4), four),
			_mm256_and_si256(_mm256_srli_epi32(b, 2), two));
		for (int j = 0; j < 8; j++)
			o->scale[j][h] = dot_scale(packed_bytes(s[j / 4], j % 4, j % 4));
		for (int j = 0; j < 4; j++)
			o->pair[j][h] = packed_bytes(m[j / 2], j % 2 * 2, j % 2 * 2 + 1);
	}
}

/* Of Q6_K: scales behind the codes. */
INLINE void packed_header_q6_k(const uint8_t *w, struct packed_header *o)
{
	for (int h = 0; h < 2; h++)
		for (int k = 0; k < 4; k++) {
			__m256i s = packed_load(w, 48 + k, h);

			for (int i = 0; i < 4; i++)
				o->scale[4 * k + i][h] = dot_scale(packed_signed(s, i, i));
			o->pair[2 * k][h] = packed_signed(s, 0, 1);
			o->pair[2 * k + 1][h] = packed_signed(s, 2, 3);
		}
}

/* The low nibbles of a word, or the high ones. */
INLINE __m256i packed_nibbles(__m256i word, int high)
{
	return _mm256_and_si256(high ? _mm256_srli_epi16(word, 4) : word, _mm256_set1_epi8(15));
}

/* Bits `at` and up of each byte, moved to `to`, of which `mask` stay. */
INLINE __m256i packed_bits(__m256i word, int at, int to, int mask)
{
	word = at < to ? _mm256_slli_epi16(word, to - at) : _mm256_srli_epi16(word, at - to);
	return _mm256_and_si256(word, _mm256_set1_epi8((char)(mask << to)));
}

/* Bits 4e to 4e + 3 of each lane, each as bit 4 of its byte. */
INLINE __m256i packed_fifths(__m256i bits, int e)
{
	const __m256i lanes = _mm256_setr_epi32(
		0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
	const __m256i each = _mm256_set1_epi32(e % 2 ? (int)0x80402010 : 0x08040201);

	bits = _mm256_shuffle_epi8(bits, _mm256_add_epi8(_mm256_set1_epi8((char)(e / 2)), lanes));
	bits = _mm256_cmpeq_epi8(_mm256_and_si256(bits, each), each);
	return _mm256_and_si256(bits, _mm256_set1_epi8(16));
}

/* Unsigned codes 4e to 4e + 3 of eight rows (of Q8_0 what dot_q8() wants). */
INLINE __m256i packed_code(uint32_t type, const uint8_t *w, int e, int h)
{
	int line = e / 16 * 8 + e % 8, half = e / 32, e6 = e % 32;

	switch (type) {
	case KERNELS_Q4_K:
		return packed_nibbles(packed_load(w, 4 + line, h), e / 8 % 2);
	case KERNELS_Q5_K:
		return _mm256_or_si256(packed_nibbles(packed_load(w, 12 + line, h), e / 8 % 2),
			packed_bits(packed_load(w, 4 + e % 8, h), e / 8, 4, 1));
	case KERNELS_Q6_K:
		return _mm256_or_si256(
			packed_nibbles(packed_load(w, 16 * half + e6 % 16, h), e6 / 16),
			packed_bits(packed_load(w, 32 + 8 * half + e6 % 8, h), e6 / 8 * 2, 4, 3));
	case KERNELS_Q4_0:
		return packed_nibbles(packed_load(w, e % 4, h), e / 4);
	case KERNELS_Q4_1:
		return packed_nibbles(packed_load(w, 1 + e % 4, h), e / 4);
	case KERNELS_Q5_0:
		return _mm256_or_si256(packed_nibbles(packed_load(w, 1 + e % 4, h), e / 4),
			packed_fifths(packed_load(w, 0, h), e));
	case KERNELS_Q5_1:
		return _mm256_or_si256(packed_nibbles(packed_load(w, 2 + e % 4, h), e / 4),
			packed_fifths(packed_load(w, 1, h), e));
	default:
		return dot_q8_code(packed_load(w, e, h));
	}
}

INLINE __m256i packed_fetch(uint32_t type, const struct packed_codes *codes, int e, int h)
{
	if (codes->unpacked)
		return packed_load(codes->unpacked, e, h);
	return packed_code(type, codes->words, e, h);
}

INLINE void packed_unpack(uint32_t type, const uint8_t *w, int words, uint8_t *out)
{
	UNROLL
	for (int e = 0; e < words; e++)
		for (int h = 0; h < 2; h++)
			_mm256_store_si256(
				(void *)(out + 64 * e + 32 * h), packed_code(type, w, e, h));
}

/* Four activations in every lane. */
INLINE __m256i packed_four(const void *q)
{
	return _mm256_set1_epi32((int)quant_u32(q));
}

/* Codes of the type are at most this. */
INLINE int packed_most(uint32_t type)
{
	switch (type) {
	case KERNELS_Q6_K:
		return 63;
	case KERNELS_Q5_K:
	case KERNELS_Q5_0:
	case KERNELS_Q5_1:
		return 31;
	default:
		return 15;
	}
}

/* Adds sub-blocks from `j` on, `count` of them. */
INLINE void packed_parts(uint32_t type, struct packed_codes *codes, int j, int count,
	const struct packed_header *o, const int8_t *const q[SHARE], size_t cols,
	__m256i sum[2][SHARE])
{
	const int words = type == KERNELS_Q6_K ? 4 : 8;
	const int ahead = type == KERNELS_Q6_K ? AHEAD_Q6_K : AHEAD;
	const int lines = type == KERNELS_Q6_K ? 52 : type == KERNELS_Q5_K ? 44 : 36;
	const int chain =
		DOT_CHAIN(packed_most(type)) < words ? DOT_CHAIN(packed_most(type)) : words;

	UNROLL
	for (int k = 0; k < words * count; k += chain) {
		__m256i part[2][SHARE] = {{{0}}};

		/* Or compilers keep words whose other nibbles come later, and spill them. */
		if (!codes->unpacked)
			__asm__("" : "+r"(codes->words));
		UNROLL
		for (int i = 0; i < chain; i++) {
			int e = words * j + k + i;

			__m256i w0 = packed_fetch(type, codes, e, 0);
			__m256i w1 = packed_fetch(type, codes, e, 1);

			if (!codes->unpacked && e < lines)
				_mm_prefetch(
					(const char *)codes->words + ahead + 64 * e, _MM_HINT_T0);
			for (size_t c = 0; c < cols; c++) {
				__m256i x = packed_four(q[c] + 4 * e);

				part[0][c] = i ? dot(part[0][c], w0, x) : dot_first(w0, x);
				part[1][c] = i ? dot(part[1][c], w1, x) : dot_first(w1, x);
			}
		}
		for (int h = 0; h < 2; h++)
			for (size_t c = 0; c < cols; c++)
				sum[h][c] = dot_scaled(
					sum[h][c], part[h][c], o->scale[j + k / words][h]);
	}
}

/* A block of 256 elements by up to SHARE columns; acc is [cols][16]. */
INLINE void packed_large(uint32_t type, struct packed_codes *codes, const struct packed_header *o,
	const uint8_t *x, size_t x_stride, size_t cols, float *acc)
{
	const int parts = type == KERNELS_Q6_K ? 16 : 8;
	const struct kernels_q256 *b[SHARE];
	const int8_t *q[SHARE];
	__m256i sum[2][SHARE];

	for (size_t c = 0; c < cols; c++) {
		b[c] = (const void *)(x + c * x_stride);
		q[c] = b[c]->q;
		sum[0][c] = sum[1][c] = _mm256_setzero_si256();
	}
	if (codes->unpacked)
		for (int j = 0; j < parts; j += 2)
			packed_parts(type, codes, j, 2, o, q, cols, sum);
	else
		packed_parts(type, codes, 0, parts, o, q, cols, sum);
	for (size_t c = 0; c < cols; c++)
		for (int h = 0; h < 2; h++) {
			__m256 dx = _mm256_set1_ps(b[c]->d);
			float *to = acc + 16 * c + 8 * h;
			__m256i min = _mm256_setzero_si256();
			__m256 a = _mm256_loadu_ps(to);

			for (int j = 0; j < parts / 2; j++)
				min = dot_pairs(min, o->pair[j][h],
					packed_four(type == KERNELS_Q6_K ? &b[c]->sums[2 * j]
									 : &b[c]->pairs[2 * j]));
			if (type == KERNELS_Q6_K)
				sum[h][c] = _mm256_sub_epi32(sum[h][c], _mm256_slli_epi32(min, 5));
			a = _mm256_fmadd_ps(
				_mm256_mul_ps(o->d[0][h], dx), _mm256_cvtepi32_ps(sum[h][c]), a);
			if (type != KERNELS_Q6_K)
				a = _mm256_fmadd_ps(
					_mm256_mul_ps(o->m[0][h], dx), _mm256_cvtepi32_ps(min), a);
			_mm256_storeu_ps(to, a);
		}
}

/* Sums of a block of 32 elements, with the offset of its codes. */
INLINE void packed_sums(uint32_t type, const struct packed_codes *codes,
	const struct kernels_q32 *const x[SHARE], size_t cols, __m256i sum[2][SHARE])
{
	const int offset = type == KERNELS_Q4_0	  ? 8
			   : type == KERNELS_Q5_0 ? 16
			   : type == KERNELS_Q8_0 ? DOT_Q8_OFFSET
						  : 0;
	const int chain = DOT_CHAIN(packed_most(type)) < 8 ? DOT_CHAIN(packed_most(type)) : 8;

	for (size_t c = 0; c < cols; c++)
		sum[0][c] = sum[1][c] =
			offset ? _mm256_set1_epi32(-offset * x[c]->sum) : _mm256_setzero_si256();
	UNROLL
	for (int k = 0; k < 8; k += chain) {
		__m256i part[2][SHARE] = {{{0}}};

		UNROLL
		for (int e = k; e < k + chain; e++) {
			__m256i w0 = packed_fetch(type, codes, e, 0);
			__m256i w1 = packed_fetch(type, codes, e, 1);

			for (size_t c = 0; c < cols; c++) {
				__m256i q = packed_four(x[c]->q + 4 * e);

				if (type == KERNELS_Q8_0) {
					sum[0][c] = dot_q8(sum[0][c], w0, q);
					sum[1][c] = dot_q8(sum[1][c], w1, q);
				} else if (e == k) {
					part[0][c] = dot_begin(sum[0][c], w0, q);
					part[1][c] = dot_begin(sum[1][c], w1, q);
				} else {
					part[0][c] = dot(part[0][c], w0, q);
					part[1][c] = dot(part[1][c], w1, q);
				}
			}
		}
		for (size_t c = 0; c < cols && type != KERNELS_Q8_0; c++)
			for (int h = 0; h < 2; h++)
				sum[h][c] = dot_end(sum[h][c], part[h][c]);
	}
}

/* Block i of those that `o` has the factors of, by up to SHARE columns. */
INLINE void packed_small(uint32_t type, const struct packed_codes *codes,
	const struct packed_header *o, size_t i, const uint8_t *x, size_t x_stride, size_t cols,
	__m256 acc[2][SHARE])
{
	const struct kernels_q32 *b[SHARE];
	__m256i sum[2][SHARE];

	for (size_t c = 0; c < cols; c++)
		b[c] = (const struct kernels_q32 *)(const void *)(x + c * x_stride) + i;
	packed_sums(type, codes, b, cols, sum);
	for (size_t c = 0; c < cols; c++) {
		__m256 dx = _mm256_set1_ps(b[c]->d);

		for (int h = 0; h < 2; h++) {
			acc[h][c] = _mm256_fmadd_ps(_mm256_mul_ps(o->d[i][h], dx),
				_mm256_cvtepi32_ps(sum[h][c]), acc[h][c]);
			if (type == KERNELS_Q4_1 || type == KERNELS_Q5_1)
				acc[h][c] = _mm256_fmadd_ps(_mm256_mul_ps(o->m[i][h], dx),
					_mm256_set1_ps((float)b[c]->sum), acc[h][c]);
		}
	}
}

/* What the loops below know of a type, all of it constant where they are expanded. */
struct packed_type {
	uint32_t type;
	size_t bytes; /* of a block */
	bool large;
	bool pairs; /* columns of blocks come in pairs */
};

/* Where the words of block b begin, d apart from them. */
INLINE const uint8_t *packed_words(
	const struct packed_type *t, const uint8_t *tile, size_t blocks, size_t b)
{
	const uint8_t *at = tile + 16 * t->bytes * (t->pairs ? b / 2 * 2 : b);

	if (!t->pairs)
		return at;
	if (b % 2)
		return at + 64 + 16 * (t->bytes - 2);
	return at + (b + 1 == blocks ? 32 : 64);
}

/* The factors of block b of a pair, of which d[i] is the first that is wanted. */
INLINE void packed_factors(
	const struct packed_type *t, const uint8_t *tile, size_t blocks, size_t b, __m256 d[][2])
{
	const uint8_t *at = tile + 16 * t->bytes * (b / 2 * 2);
	__m256 low, high;

	for (int h = 0; h < 2; h++) {
		if (b % 2 == 0 && b + 1 == blocks) {
			d[0][h] = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(at + 16 * h)));
			continue;
		}
		packed_halves(packed_load(at, 0, h), &low, &high);
		d[0][h] = b % 2 ? high : low;
		if (b % 2 == 0)
			d[1][h] = high;
	}
}

/* Headers of `count` blocks from b on: one of 256 elements, or an even b and up to SMALL of 32. */
INLINE void packed_headers(const struct packed_type *t, const uint8_t *tile, size_t blocks,
	size_t b, size_t count, struct packed_header *o)
{
	if (t->large) {
		if (t->pairs) {
			__m256 d[2][2];

			packed_factors(t, tile, blocks, b, d);
			o->d[0][0] = d[0][0];
			o->d[0][1] = d[0][1];
			packed_header_q6_k(packed_words(t, tile, blocks, b), o);
		} else {
			packed_header_k(packed_words(t, tile, blocks, b), o);
		}
		return;
	}
	for (size_t i = 0; i < count; i += t->pairs ? 2 : 1)
		if (t->pairs)
			packed_factors(t, tile, blocks, b + i, o->d + i);
		else
			for (int h = 0; h < 2; h++)
				packed_halves(
					packed_load(packed_words(t, tile, blocks, b + i), 0, h),
					&o->d[i][h], &o->m[i][h]);
}

/* Keeps the compiler from holding parts of a header in registers, which are wanted for sums. */
INLINE void packed_in_memory(const struct packed_header *o)
{
	__asm__("" : : "r"(o) : "memory");
}

INLINE void packed_ahead(const uint8_t *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64)
		_mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

/* Up to SHARE columns by the blocks that `o` is of. */
INLINE void packed_share(const struct packed_type *t, const struct packed_header *o,
	const uint8_t *tile, size_t blocks, size_t b, size_t count, const uint8_t *unpacked,
	const uint8_t *x, size_t x_stride, size_t cols, float *acc)
{
	struct packed_codes codes = {NULL, unpacked};
	__m256 a[2][SHARE];

	if (t->large) {
		codes.words = packed_words(t, tile, blocks, b);
		packed_large(t->type, &codes, o, x, x_stride, cols, acc);
		return;
	}
	for (size_t c = 0; c < cols; c++)
		for (int h = 0; h < 2; h++)
			a[h][c] = _mm256_loadu_ps(acc + 16 * c + 8 * h);
	for (size_t i = 0; i < count; i++) {
		codes.words = packed_words(t, tile, blocks, b + i);
		codes.unpacked = unpacked ? unpacked + 512 * i : NULL;
		packed_small(t->type, &codes, o, i, x, x_stride, cols, a);
	}
	for (size_t c = 0; c < cols; c++)
		for (int h = 0; h < 2; h++)
			_mm256_storeu_ps(acc + 16 * c + 8 * h, a[h][c]);
}

/* A tile by one or two columns, whose codes are not stored in between. */
INLINE void packed_stream(const struct packed_type *t, const uint8_t *tile, const uint8_t *x,
	size_t x_stride, size_t cols, size_t n, float *acc)
{
	const size_t unit = t->large ? sizeof(struct kernels_q256) : sizeof(struct kernels_q32);
	const size_t blocks = n / (t->large ? 256 : 32), step = t->large ? 1 : 2;
	struct packed_header o;

	for (size_t b = 0; b < blocks; b += step) {
		size_t count = blocks - b < step ? 1 : step;

		if (!t->large)
			packed_ahead(tile + 16 * t->bytes * b, 16 * t->bytes * step);
		packed_headers(t, tile, blocks, b, count, &o);
		packed_in_memory(&o);
		packed_share(
			t, &o, tile, blocks, b, count, NULL, x + b * unit, x_stride, cols, acc);
	}
}

/* A tile by more. */
INLINE void packed_many(const struct packed_type *t, const uint8_t *tile, const uint8_t *x,
	size_t x_stride, size_t cols, size_t n, float *acc)
{
	const size_t unit = t->large ? sizeof(struct kernels_q256) : sizeof(struct kernels_q32);
	const size_t blocks = n / (t->large ? 256 : 32), step = t->large ? 1 : SMALL;
	_Alignas(64) uint8_t codes[4096];
	struct packed_header o;

	for (size_t b = 0; b < blocks; b += step) {
		size_t count = blocks - b < step ? blocks - b : step, c = 0;
		const uint8_t *xb = x + b * unit;

		packed_ahead(tile + 16 * t->bytes * b, 16 * t->bytes * step);
		for (size_t i = 0; i < count; i++)
			packed_unpack(t->type, packed_words(t, tile, blocks, b + i),
				t->large ? 64 : 8, codes + 512 * i);
		packed_headers(t, tile, blocks, b, count, &o);
		packed_in_memory(&o);
		/* Never one alone but where there is one: it would wait for its own sums. */
		for (; cols - c > 4 || cols - c == 3; c += 3)
			packed_share(t, &o, tile, blocks, b, count, codes, xb + c * x_stride,
				x_stride, 3, acc + 16 * c);
		for (; cols - c >= 2; c += 2)
			packed_share(t, &o, tile, blocks, b, count, codes, xb + c * x_stride,
				x_stride, 2, acc + 16 * c);
		if (c < cols)
			packed_share(t, &o, tile, blocks, b, count, codes, xb + c * x_stride,
				x_stride, 1, acc + 16 * c);
	}
}

INLINE void packed_product(uint32_t type, size_t bytes, const struct kernels_product *p)
{
	const struct packed_type t = {type, bytes, type >= KERNELS_Q2_K, bytes % 4 != 0};
	float acc[16 * COLS];

	for (size_t c0 = 0; c0 < p->cols; c0 += COLS) {
		const uint8_t *x = (const uint8_t *)p->x + c0 * p->x_stride;
		size_t cols = p->cols - c0 < COLS ? p->cols - c0 : COLS;

		for (size_t r = 0; r < p->rows; r += 16) {
			const uint8_t *tile = (const uint8_t *)p->w + r * p->w_stride;

			memset(acc, 0, 16 * cols * sizeof(float));
			if (cols == 1)
				packed_stream(&t, tile, x, p->x_stride, 1, p->n, acc);
			else if (cols == 2)
				packed_stream(&t, tile, x, p->x_stride, 2, p->n, acc);
			else
				packed_many(&t, tile, x, p->x_stride, cols, p->n, acc);
			for (size_t c = 0; c < cols; c++)
				memcpy(p->out + (c0 + c) * p->out_stride + r, acc + 16 * c,
					16 * sizeof(float));
		}
	}
}

void PACKED(q4_0)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q4_0, sizeof(struct quant_q4_0), p);
}

void PACKED(q4_1)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q4_1, sizeof(struct quant_q4_1), p);
}

void PACKED(q5_0)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q5_0, sizeof(struct quant_q5_0), p);
}

void PACKED(q5_1)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q5_1, sizeof(struct quant_q5_1), p);
}

void PACKED(q8_0)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q8_0, sizeof(struct quant_q8_0), p);
}

void PACKED(q4_k)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q4_K, sizeof(struct quant_q4_k), p);
}

void PACKED(q5_k)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q5_K, sizeof(struct quant_q5_k), p);
}

void PACKED(q6_k)(const struct kernels_product *p)
{
	packed_product(KERNELS_Q6_K, sizeof(struct quant_q6_k), p);
}
