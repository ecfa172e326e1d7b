/* SPDX-License-Identifier: MIT */

/*
 * Products of packed weights.  A lane is a row: each vpdpbusd takes four codes of each of 16 rows
 * and four activations of a column, broadcast, so sums need no folding.  Everything before the
 * float steps is int32 and exact, so the order of additions is free.
 *
 * Up to 4 columns (decode): a tile is one stream, each block column unpacked in registers.  Limit:
 * memory.  Q4_K takes 2304 bytes for 256 x 16 weights and about 190 + 95 (cols - 1) operations on
 * two ports, so one thread computes 50 GB/s with one column, and 20 with four.
 *
 * More (prefill): the block columns of two tiles are unpacked to the first cache, once for up to
 * MANY_COLS columns, then multiplied with 4 columns at a time: 16 chains of sums in registers, 6
 * loads for 8 multiplications.  Limit: the two ports of vpdpbusd.  Operations for a block of 256,
 * 16 rows and a column: Q4_K 64 vpdpbusd of 82, Q5_K 90, Q6_K 83, Q8_0 (8 blocks) 64 of 92.  Loads
 * that hit the first cache cost part of that, too: vpdpbusd with so many of them runs at 80% of its
 * peak in registers, with 4 for 8 (four tiles by four columns) at 86%.
 *
 * Sums of sub-blocks are multiplied by their scale.  A vpdpwssd does that and adds in one step if
 * they fit into 16 bits, with the scale in the low half of its lane and 0 in the high one.  The sum
 * of 16 codes times activations is at most code * peak (struct kernels_q256): with a peak up to
 * CALM Q4_K's sub-block of 32 is within 15 * 2 * 1023 = 30690; Q5_K, taken by 16, within
 * 31 * 1023 = 31713; Q6_K, whose sums start at -32 times that of the activations, within
 * 32 * 1023 = 32736.  Activations of which a large part is near their maximum exceed it; then the
 * product is 32 bits wide: vpmulld and an addition.  Neither can overflow: a block stays below
 * 2^29.
 */

#include <immintrin.h>
#include "quant.h"
#include "packed.h"
#include "vnni.h"

#define CALM 1023
#define ROWS KERNELS_PACK_ROWS

/*
 * How far ahead of their use weights are asked for, a line at a time, into the second cache.  Two
 * threads that read 36 GB/s at most take Q4_K at 34 with 2 KB ahead and 31 to 33 with more, Q5_K at
 * 33, 35 with 3.5 KB and 32 with 7 KB, Q6_K at 26 and 30 with 7 KB; without any Q4_K at 26, with
 * all lines of a block at once at 18 to 26.
 */
#define AHEAD 2048
#define AHEAD_Q5_K 3584
#define AHEAD_Q6_K 6912

/* Columns whose accumulators stay in the first cache, and they in the second. */
#define MANY_COLS 128

/* How many small blocks ahead they are asked for; of K-quants it is one. */
#define MANY_AHEAD 6

INLINE void ahead(uint32_t type, const uint8_t *line)
{
	/* Written out, so that compilers leave each where it is. */
	__asm__ volatile("prefetcht1 %0" ::"m"(line[type == KERNELS_Q6_K   ? AHEAD_Q6_K
						    : type == KERNELS_Q5_K ? AHEAD_Q5_K
									   : AHEAD]));
}

/* acc + four products of codes and activations in each lane; the intrinsic costs gcc copies. */
INLINE __m512i dot(__m512i acc, __m512i codes, __m512i x)
{
	__asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(x));
	return acc;
}

/* acc + two products of 16 bits. */
INLINE __m512i dot_wide(__m512i acc, __m512i a, __m512i b)
{
	__asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
	return acc;
}

/* The four activations 4k to 4k + 3, in every lane. */
INLINE __m512i four(const int8_t *q, int k)
{
	return _mm512_set1_epi32((int)quant_u32(q + 4 * k));
}

INLINE __m512i two(const int16_t *sums, int k)
{
	return _mm512_set1_epi32((int)quant_u32(sums + 2 * k));
}

INLINE bool is_calm(const struct kernels_q256 *const x[], int cols)
{
	unsigned peak = 0;

	for (int c = 0; c < cols; c++)
		peak = x[c]->peak > peak ? x[c]->peak : peak;
	return peak <= CALM;
}

/* sum + part * scale */
INLINE __m512i scaled(uint32_t type, bool calm, __m512i sum, __m512i part, __m512i scale)
{
	if (calm)
		return dot_wide(sum, part, scale);
	if (type == KERNELS_Q6_K)
		scale = _mm512_srai_epi32(_mm512_slli_epi32(scale, 16), 16);
	return _mm512_add_epi32(sum, _mm512_mullo_epi32(part, scale));
}

/* The float steps of a block; `sum` has its offset off already. */
INLINE __m512 add_large(
	uint32_t type, const struct tile *t, const struct kernels_q256 *x, __m512i sum, __m512 acc)
{
	const __m512 d = _mm512_set1_ps(x->d);
	__m512i min = _mm512_setzero_si512();

	acc = _mm512_fmadd_ps(_mm512_mul_ps(t->d, d), _mm512_cvtepi32_ps(sum), acc);
	if (type == KERNELS_Q6_K)
		return acc;
	for (int j = 0; j < 4; j++)
		min = dot_wide(min, t->pair[j], two(x->pairs, j));
	return _mm512_fmadd_ps(_mm512_mul_ps(t->m, d), _mm512_cvtepi32_ps(min), acc);
}

/* What is taken off the codes of blocks of 32; 0 for types that have a minimum instead. */
INLINE int offset_of(uint32_t type)
{
	return type == KERNELS_Q4_0   ? 8
	       : type == KERNELS_Q5_0 ? 16
	       : type == KERNELS_Q8_0 ? 128
				      : 0;
}

INLINE __m512 add_small(
	uint32_t type, __m512 d, __m512 m, const struct kernels_q32 *x, __m512i sum, __m512 acc)
{
	const __m512 dx = _mm512_set1_ps(x->d);

	acc = _mm512_fmadd_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(sum), acc);
	if (!offset_of(type))
		acc = _mm512_fmadd_ps(_mm512_mul_ps(m, dx), _mm512_set1_ps((float)x->sum), acc);
	return acc;
}

/* Column c at block b; the last one for those past it, whose results are thrown away. */
INLINE const void *column(uint32_t type, const struct kernels_product *p, size_t c, size_t b)
{
	return (const uint8_t *)p->x + (c < p->cols ? c : p->cols - 1) * p->x_stride +
	       b * (type >= KERNELS_Q2_K ? sizeof(struct kernels_q256)
					 : sizeof(struct kernels_q32));
}

/* Sub-blocks, two at once, in pieces whose sums `scaled` takes. */
INLINE void few_large_sums(uint32_t type, bool calm, int cols, const uint8_t *words,
	const struct tile *t, const struct kernels_q256 *const x[], __m512i sum[])
{
	const int n = packed_sub(type), step = calm && type == KERNELS_Q5_K ? 4 : n;
	/* Bytes of a piece, and its lines: asked for one after the other, as memory likes it. */
	const int bytes = (int)packed_bytes(type) * step / 2, lines = (bytes + 63) / 64;

	for (int i = 0; i < 32; i += step) {
		__m512i low[4], high[4];
		int next, j = packed_sub_of(type, i / n, &next);

		EACH (c, cols) {
			low[c] = high[c] = _mm512_setzero_si512();
			if (type == KERNELS_Q6_K) {
				low[c] = _mm512_set1_epi32(-32 * x[c]->sums[j]);
				high[c] = _mm512_set1_epi32(-32 * x[c]->sums[j + next]);
			}
		}
		EACH (k, step) {
			const int at = i % n + k;
			__m512i a, b;

			for (int l = k * lines / step; l < (k + 1) * lines / step; l++)
				ahead(type, words + i / step * bytes + 64 * l);
			packed_codes(type, words, i + k, &a, &b);
			EACH (c, cols) {
				low[c] = dot(low[c], a, four(x[c]->q, j * n + at));
				high[c] = dot(high[c], b, four(x[c]->q, (j + next) * n + at));
			}
		}
		EACH (c, cols) {
			sum[c] = scaled(type, calm, sum[c], low[c], t->scale[j]);
			sum[c] = scaled(type, calm, sum[c], high[c], t->scale[j + next]);
		}
	}
}

INLINE void few_large(uint32_t type, int cols, const struct packed_at *at,
	const struct kernels_q256 *const x[], __m512 acc[])
{
	__m512i sum[4];
	struct tile t;

	packed_header(type, at, &t);
	EACH (c, cols)
		sum[c] = _mm512_setzero_si512();
	if (is_calm(x, cols))
		few_large_sums(type, true, cols, at->words, &t, x, sum);
	else
		few_large_sums(type, false, cols, at->words, &t, x, sum);
	EACH (c, cols)
		acc[c] = add_large(type, &t, x[c], sum[c], acc[c]);
}

INLINE void few_small(uint32_t type, int cols, const struct packed_at *at,
	const struct kernels_q32 *const x[], __m512 acc[])
{
	const int words = type == KERNELS_Q8_0 ? 8 : 4;
	__m512 d, m = _mm512_setzero_ps();
	__m512i sum[4];

	EACH (c, cols)
		sum[c] = _mm512_set1_epi32(-offset_of(type) * x[c]->sum);
	if (offset_of(type))
		d = packed_d(at);
	else
		packed_factors(at->words, &d, &m);
	EACH (k, words) {
		__m512i low, high;

		if (type == KERNELS_Q8_0)
			low = _mm512_xor_si512(
				packed_word(at->words, k), _mm512_set1_epi8((char)0x80));
		else
			packed_codes(type, at->words, k, &low, &high);
		EACH (c, cols) {
			sum[c] = dot(sum[c], low, four(x[c]->q, k));
			if (type != KERNELS_Q8_0)
				sum[c] = dot(sum[c], high, four(x[c]->q, k + 4));
		}
	}
	EACH (c, cols)
		acc[c] = add_small(type, d, m, x[c], sum[c], acc[c]);
}

/* A tile by 1 to 4 columns, all that there are. */
INLINE void few_tile(
	uint32_t type, int cols, const struct kernels_product *p, const uint8_t *w, float *out)
{
	const bool large = type >= KERNELS_Q2_K;
	const int bytes = (int)packed_bytes(type) * (int)ROWS;
	const size_t blocks = p->n / (large ? 256 : 32);
	__m512 acc[4];

	EACH (c, cols)
		acc[c] = _mm512_setzero_ps();
	for (size_t b = 0; b < blocks; b++) {
		const struct packed_at at = packed_column(type, w, blocks, b);
		const struct kernels_q256 *x[4];
		const struct kernels_q32 *y[4];

		EACH (c, cols) {
			x[c] = column(type, p, (size_t)c, b);
			y[c] = column(type, p, (size_t)c, b);
		}
		if (large) {
			few_large(type, cols, &at, x, acc);
			continue;
		}
		EACH (i, (bytes + 63) / 64)
			ahead(type, w + b * (size_t)bytes + 64 * i);
		few_small(type, cols, &at, y, acc);
	}
	EACH (c, cols)
		_mm512_storeu_ps(out + (size_t)c * p->out_stride, acc[c]);
}

INLINE void few(uint32_t type, const struct kernels_product *p)
{
	for (size_t r = 0; r < p->rows; r += ROWS) {
		const uint8_t *w = (const uint8_t *)p->w + r * p->w_stride;

		if (p->cols == 1)
			few_tile(type, 1, p, w, p->out + r);
		else if (p->cols == 2)
			few_tile(type, 2, p, w, p->out + r);
		else if (p->cols == 3)
			few_tile(type, 3, p, w, p->out + r);
		else
			few_tile(type, 4, p, w, p->out + r);
	}
}

/* Where one or two tiles meet up to MANY_COLS columns. */
struct many {
	const struct kernels_product *p; /* of these rows and columns */
	/* Of the columns and, so that they come in fours, some to throw away. */
	float acc[MANY_COLS + 4][2][ROWS] __attribute__((aligned(64)));
	struct tile tile[2][2]; /* by tile, then by block where two are taken at once */
};

/* A block of 4 columns: two sub-blocks at once, in `step` words each. */
INLINE void many_large(uint32_t type, bool calm, int tiles, struct tile t[2][2],
	const struct kernels_q256 *const x[], float (*acc)[2][ROWS])
{
	const int step = type == KERNELS_Q4_K ? 8 : 4;
	const int each = packed_sub(type) / step;
	int32_t start[4][16] __attribute__((aligned(64)));
	__m512i sum[2][4];

	EACH (c, 4) {
		EACH (i, tiles)
			sum[i][c] = _mm512_setzero_si512();
		if (type == KERNELS_Q6_K) {
			__m512i s =
				_mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)x[c]->sums));

			_mm512_store_si512(start[c],
				_mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(s, 5)));
		}
	}
	for (int j = 0; j < 64 / step; j += 2) {
		__m512i part[2][2][4];

		EACH (u, 2)
			EACH (c, 4)
				EACH (i, tiles)
					part[u][i][c] = type == KERNELS_Q6_K
								? _mm512_set1_epi32(start[c][j + u])
								: _mm512_setzero_si512();
		EACH (k, step)
			EACH (u, 2)
				EACH (c, 4) {
					__m512i q = four(x[c]->q, (j + u) * step + k);

					EACH (i, tiles)
						part[u][i][c] = dot(part[u][i][c],
							t[i][0].q[(j + u) * step + k], q);
				}
		EACH (u, 2)
			EACH (c, 4)
				EACH (i, tiles)
					sum[i][c] = scaled(type, calm, sum[i][c], part[u][i][c],
						t[i][0].scale[(j + u) / each]);
	}
	EACH (c, 4)
		EACH (i, tiles) {
			__m512 a = _mm512_load_ps(acc[c][i]);

			a = add_large(type, &t[i][0], x[c], sum[i][c], a);
			_mm512_store_ps(acc[c][i], a);
		}
}

/*
 * Asks for `bytes` from `at` on of each tile, a share of them for each four columns: all at once
 * they would wait for each other.  Behind a tile come the next ones.
 */
INLINE void many_ahead(
	const struct many *m, int tiles, const uint8_t *w, size_t at, size_t bytes, size_t c)
{
	const size_t tile = ROWS * m->p->w_stride, cols = m->p->cols;
	const size_t from = bytes * c / cols / 64 * 64;
	const size_t to = c + 4 < cols ? bytes * (c + 4) / cols / 64 * 64 : bytes;

	if (at >= tile)
		w += (size_t)(tiles - 1) * tile;
	for (size_t k = from; k < to; k += 64)
		for (int i = 0; i < tiles; i++)
			__asm__ volatile("prefetcht1 %0" ::"m"(w[at + (size_t)i * tile + k]));
}

INLINE void many_tiles_large(uint32_t type, int tiles, struct many *m, const uint8_t *w)
{
	const size_t bytes = packed_bytes(type) * ROWS, blocks = m->p->n / 256;

	for (size_t b = 0; b < blocks; b++) {
		for (int i = 0; i < tiles; i++)
			packed_unpack(type, w + (size_t)i * ROWS * m->p->w_stride, blocks, b,
				&m->tile[i][0]);
		for (size_t c = 0; c < m->p->cols; c += 4) {
			const struct kernels_q256 *x[4];

			EACH (i, 4)
				x[i] = column(type, m->p, c + (size_t)i, b);
			many_ahead(m, tiles, w, (b + 1) * bytes, bytes, c);
			if (is_calm(x, 4))
				many_large(type, true, tiles, m->tile, x, m->acc + c);
			else
				many_large(type, false, tiles, m->tile, x, m->acc + c);
		}
	}
}

/* One block, or two, from b on, of 4 columns from c0 on. */
INLINE void many_small(uint32_t type, int tiles, int blocks, struct many *m, size_t c0, size_t b)
{
	const struct kernels_q32 *x[4][2];
	__m512i sum[2][2][4];

	EACH (c, 4)
		EACH (u, blocks) {
			x[c][u] = column(type, m->p, c0 + (size_t)c, b + (size_t)u);
			EACH (i, tiles)
				sum[u][i][c] = _mm512_set1_epi32(-offset_of(type) * x[c][u]->sum);
		}
	EACH (k, 8)
		EACH (u, blocks)
			EACH (c, 4) {
				__m512i q = four(x[c][u]->q, k);

				EACH (i, tiles)
					sum[u][i][c] = dot(sum[u][i][c], m->tile[i][u].q[k], q);
			}
	EACH (c, 4)
		EACH (i, tiles) {
			float *to = m->acc[c0 + (size_t)c][i];
			__m512 acc = _mm512_load_ps(to);

			EACH (u, blocks)
				acc = add_small(type, m->tile[i][u].d, m->tile[i][u].m, x[c][u],
					sum[u][i][c], acc);
			_mm512_store_ps(to, acc);
		}
}

INLINE void many_tiles_small(uint32_t type, int tiles, struct many *m, const uint8_t *w)
{
	const size_t bytes = packed_bytes(type) * ROWS, blocks = m->p->n / 32;

	for (size_t b = 0; b < blocks; b += 2) {
		const int n = b + 2 <= blocks ? 2 : 1;

		for (int i = 0; i < tiles; i++)
			for (int u = 0; u < n; u++)
				packed_unpack(type, w + (size_t)i * ROWS * m->p->w_stride, blocks,
					b + (size_t)u, &m->tile[i][u]);
		for (size_t c = 0; c < m->p->cols; c += 4) {
			many_ahead(m, tiles, w, (b + MANY_AHEAD) * bytes, 2 * bytes, c);
			if (n == 2)
				many_small(type, tiles, 2, m, c, b);
			else
				many_small(type, tiles, 1, m, c, b);
		}
	}
}

/* One tile, or two, of m->p from row r on. */
INLINE void many_tiles(uint32_t type, int tiles, struct many *m, size_t r)
{
	const uint8_t *w = (const uint8_t *)m->p->w + r * m->p->w_stride;

	memset(m->acc, 0, (m->p->cols + 3) * sizeof(m->acc[0]));
	if (type >= KERNELS_Q2_K)
		many_tiles_large(type, tiles, m, w);
	else
		many_tiles_small(type, tiles, m, w);
	for (size_t c = 0; c < m->p->cols; c++)
		memcpy(m->p->out + c * m->p->out_stride + r, m->acc[c],
			(size_t)tiles * sizeof(m->acc[c][0]));
}

INLINE void product(uint32_t type, const struct kernels_product *p)
{
	struct kernels_product q = *p;
	struct many m;

	if (p->cols <= 4) {
		few(type, p);
		return;
	}
	m.p = &q;
	for (size_t c = 0; c < p->cols; c += MANY_COLS) {
		size_t r = 0;

		q.cols = p->cols - c < MANY_COLS ? p->cols - c : MANY_COLS;
		q.x = (const uint8_t *)p->x + c * p->x_stride;
		q.out = p->out + c * p->out_stride;
		for (; r + 2 * ROWS <= p->rows; r += 2 * ROWS)
			many_tiles(type, 2, &m, r);
		if (r < p->rows)
			many_tiles(type, 1, &m, r);
	}
}

void vnni_packed_q4_0(const struct kernels_product *p)
{
	product(KERNELS_Q4_0, p);
}

void vnni_packed_q4_1(const struct kernels_product *p)
{
	product(KERNELS_Q4_1, p);
}

void vnni_packed_q5_0(const struct kernels_product *p)
{
	product(KERNELS_Q5_0, p);
}

void vnni_packed_q5_1(const struct kernels_product *p)
{
	product(KERNELS_Q5_1, p);
}

void vnni_packed_q8_0(const struct kernels_product *p)
{
	product(KERNELS_Q8_0, p);
}

void vnni_packed_q4_k(const struct kernels_product *p)
{
	product(KERNELS_Q4_K, p);
}

void vnni_packed_q5_k(const struct kernels_product *p)
{
	product(KERNELS_Q5_K, p);
}

void vnni_packed_q6_k(const struct kernels_product *p)
{
	product(KERNELS_Q6_K, p);
}
