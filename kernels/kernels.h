/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The arithmetic of the engine.  docs/NUMERICS.md defines every bit of every result here; the
 * scalar tier is that definition in C, and every other tier gives the same bits.  No files, no
 * threads, no allocation: callers split the outputs between threads.  All functions may be called
 * from any thread at once; the table is immutable after kernels_init().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of the types as GGUF files store them. */
enum kernels_type {
	KERNELS_F32 = 0,
	KERNELS_F16 = 1,
	KERNELS_Q4_0 = 2,
	KERNELS_Q4_1 = 3,
	KERNELS_Q5_0 = 6,
	KERNELS_Q5_1 = 7,
	KERNELS_Q8_0 = 8,
	KERNELS_Q2_K = 10,
	KERNELS_Q3_K = 11,
	KERNELS_Q4_K = 12,
	KERNELS_Q5_K = 13,
	KERNELS_Q6_K = 14,
	KERNELS_BF16 = 30,
	KERNELS_TYPE_MAX = 64, /* one above any type number of the format */
};

/* What the other operand of a product must be. */
enum kernels_input {
	KERNELS_INPUT_F32,  /* float[n] */
	KERNELS_INPUT_Q32,  /* struct kernels_q32[n / 32] */
	KERNELS_INPUT_Q256, /* struct kernels_q256[n / 256] */
};

/*
 * Activations quantised once per row: x ~ d * q; sums are of q, for types with a minimum.  A block
 * with a NaN or an infinity has d = NaN and codes 0, so that it shows in every product.
 */
struct kernels_q32 {
	float d;
	int32_t sum;
	int8_t q[32];
};

/* Whole cache lines: where rows begin on one, no load of codes takes two. */
struct kernels_q256 {
	int8_t q[256];
	int16_t sums[16]; /* of each 16 consecutive q */
	int16_t pairs[8]; /* of each 32 */
	float d;
	uint16_t peak; /* the largest sum of |q| of 16 consecutive q: what a kernel's sums hold */
	uint8_t unused[10]; /* 0 */
};

/* What a weight type is; known also for types that have no product here (see `product`). */
struct kernels_format {
	const char *name; /* "Q4_K" */
	uint32_t type;
	uint32_t block; /* elements of a block; a row is a whole number of blocks */
	uint32_t bytes; /* of a block */
	enum kernels_input input;
	bool product; /* kernels can multiply with it */
};

/* NULL for a number that no format has. */
const struct kernels_format *kernels_format(uint32_t type);

/* Bytes of a row of n elements; false where n does not divide into blocks or overflows. */
bool kernels_row_bytes(const struct kernels_format *f, uint64_t n, uint64_t *ret);

/* Bytes of an input row of n elements, a multiple of 4. */
size_t kernels_input_bytes(enum kernels_input input, size_t n);

/*
 * out[c * out_stride + r] = sum over i < n of w[r][i] * x[c][i], for r < rows, c < cols.
 * Row r of w starts at w + r * w_stride bytes, column c of x at x + c * x_stride bytes; out_stride
 * is in floats.  w has the alignment of its type in the file (possibly 1), x that of 4, out of 4.
 * Nothing past the last byte of the last row of w is read.
 */
struct kernels_product {
	uint32_t type;
	const void *w;
	size_t w_stride;
	size_t rows;
	const void *x;
	size_t x_stride;
	size_t cols;
	size_t n;
	float *out;
	size_t out_stride;
};

/*
 * Packed weights: tiles of 16 rows, in which a vector register's lane is a row, so that products
 * read one stream and add nothing across lanes.  A tile takes the bytes of its 16 native rows, and
 * holds their blocks column by column.  Where a block is a whole number of 32-bit words (Q4_1,
 * Q5_1, Q4_K, Q5_K), a column is word 0 of each of the 16 rows, then word 1 of each, and so on. The
 * others have a half float, d, beside whole words: their columns come in pairs, 16 words of which
 * the low half is d of the first block and the high half d of the second, then the other words of
 * the first block, word by word, then those of the second; a last column without a partner has 16
 * half floats, then its words.  Types of floats are not packed.
 */
#define KERNELS_PACK_ROWS 16u

/* True for types that can be packed. */
bool kernels_can_pack(uint32_t type);

/* Native bytes of row `row` (below 16) of a packed tile of rows of n elements. */
void kernels_packed_row(uint32_t type, const void *tile, unsigned row, size_t n, void *out);

#define KERNELS_ATTENTION_BLOCK ((size_t)64)  /* positions (NUMERICS rule 3) */
#define KERNELS_ATTENTION_BATCH ((size_t)128) /* queries that share what is made of a block */

/*
 * One block of up to 64 positions of one key-value head, against n_q queries that use that head.
 * Both are f16 (kv_f32: f32); keys lie as kernels_attention_key() says, values are [64][head].  All
 * of them may be read, whatever they hold.  For query i the first keys[i] keys (1 to 64) of the
 * block take part.  state[i] holds the running weighted values, maximum and sum; it must be
 * kernels_attention_reset() before block 0. Blocks are given in ascending order; next_k and next_v
 * are where those of the next one stand, to be fetched ahead, or NULL.
 */
struct kernels_attention {
	const float *q; /* [n_q][q_stride], `head` floats each */
	size_t q_stride;
	const void *k;
	const void *v;
	bool kv_f32;
	size_t head;
	size_t n_q;
	const uint32_t *keys;
	float scale;
	float *state; /* [n_q][kernels_attention_state(head)] */
	float *work;  /* [kernels_attention_work(head)], aligned to 64 bytes, nothing between calls
		       */
	const void *next_k, *next_v;
};

/*
 * Where element i of key j stands in a block: four panels of sixteen keys, in a panel an element of
 * all sixteen after the other, so that the lanes of a vector are keys.
 */
static inline size_t kernels_attention_key(size_t head, size_t j, size_t i)
{
	return (j / 16 * head + i) * 16 + j % 16;
}

/* Where maximum and sum stand in a state: after the weighted values, whole lines of them. */
static inline size_t kernels_attention_padded(size_t head)
{
	return (head + 15) / 16 * 16;
}

/* Floats of one query's state. */
static inline size_t kernels_attention_state(size_t head)
{
	return kernels_attention_padded(head) + 16;
}

/* Floats of room: keys or values of a block, and five numbers and the scores of each query. */
static inline size_t kernels_attention_work(size_t head)
{
	return KERNELS_ATTENTION_BLOCK * kernels_attention_padded(head) +
	       KERNELS_ATTENTION_BATCH * (KERNELS_ATTENTION_BLOCK + 5);
}

/*
 * How a product goes about it, for people: the instruction that does the work, and how many rows
 * and columns share a pass over weights and activations, from so many columns on.  Tables of these
 * end with a NULL.
 */
struct kernels_way {
	void (*product)(const struct kernels_product *p);
	const char *name;
	uint16_t from, rows, cols;
};

enum kernels_tier {
	KERNELS_SCALAR,
	KERNELS_AVX2,
	KERNELS_AVXVNNI, /* the int8 dot product of 256 bits, without AVX-512 */
	KERNELS_VNNI,	 /* AVX-512 F, BW, DQ, VL and VNNI */
	KERNELS_AMX,
	KERNELS_DOTPROD, /* 64-bit ARM: NEON with sdot */
	KERNELS_I8MM,	 /* and smmla */
	KERNELS_TIER_MAX,
};

struct kernels {
	enum kernels_tier tier;
	const char *name; /* "scalar", "avx2", "avxvnni", "vnni", "amx"; "dotprod", "i8mm" */

	/* Rounds a row to the input form; n is a multiple of its block. */
	void (*quantize)(enum kernels_input input, const float *x, void *out, size_t n);

	/* By type; NULL where kernels_format().product is false. */
	void (*product[KERNELS_TYPE_MAX])(const struct kernels_product *p);

	/*
	 * The same with packed weights: rows is a multiple of KERNELS_PACK_ROWS, and w_stride is
	 * that of native rows, so a tile is KERNELS_PACK_ROWS * w_stride bytes.  NULL where the
	 * tier has only native products.
	 */
	void (*product_packed[KERNELS_TYPE_MAX])(const struct kernels_product *p);

	/*
	 * Packs KERNELS_PACK_ROWS consecutive native rows of n elements in place.  scratch has
	 * room for their bytes.  For types that kernels_can_pack().
	 */
	void (*pack)(uint32_t type, void *w, size_t n, void *scratch);

	/* Value of n elements (a multiple of the block) of a weight row, rounded once. */
	void (*dequantize)(uint32_t type, const void *w, float *out, size_t n);

	/* out = x / rms(x) * w; w may be NULL (no weight); out may be x. */
	void (*rms_norm)(float *out, const float *x, const float *w, size_t n, float eps);

	/*
	 * Rotates n_rot elements of one head by the angles of kernels_rope_angles(); the rest
	 * stays. neighbours: pairs (2i, 2i+1); else (i, i + n_rot / 2).
	 */
	void (*rope)(float *x, const float *cos, const float *sin, size_t n_rot, bool neighbours);

	/* out = silu(gate) * up; out may be either. */
	void (*swiglu)(float *out, const float *gate, const float *up, size_t n);

	void (*add)(float *acc, const float *y, size_t n);
	/* acc = fmaf(a, y, acc) */
	void (*add_scaled)(float *acc, const float *y, float a, size_t n);

	/* In place; returns nothing is left undefined by -inf entries as long as one is finite. */
	void (*softmax)(float *x, size_t n);

	/* Maximum of x, and the sum over i of exp(x[i] - maximum), in the order of NUMERICS rule 2.
	 */
	void (*sum_exp)(const float *x, size_t n, float *ret_max, float *ret_sum);

	void (*attention)(const struct kernels_attention *a);
	/* Turns a query's state into the output, [head] floats. */
	void (*attention_finish)(const float *state, size_t head, float *out);

	/* False where an element is NaN or infinite. */
	bool (*is_finite)(const float *x, size_t n);

	void (*f32_to_f16)(uint16_t *out, const float *x, size_t n);
	void (*f16_to_f32)(float *out, const uint16_t *x, size_t n);

	/* Of the products that are this tier's own. */
	const struct kernels_way *ways;
};

/*
 * The best tier that the CPU, the system and MOED_CPU allow.  MOED_CPU is a ceiling, the name of a
 * tier of this architecture: one above what the machine has is met by the best below it; empty is
 * none.  -EINVAL for another word, and *ret is not set.
 */
int kernels_init(const struct kernels **ret);

/* The words that MOED_CPU may be, with commas between them. */
const char *kernels_words(void);

/* A given tier, NULL where this machine lacks it: for tests that compare tiers. */
const struct kernels *kernels_get(enum kernels_tier tier);

/* The way of k's product of a type, native or packed, with so many columns; NULL: there is none. */
const struct kernels_way *kernels_way(
	const struct kernels *k, uint32_t type, bool packed, size_t cols);

/* Rounding mode, flush-to-zero and denormals-are-zero as NUMERICS wants them; -ENOTSUP else. */
int kernels_check_thread(void);

/* Sets a query's state before its first block. */
void kernels_attention_reset(float *state, size_t head);
/* 1 / sqrt(head), what most families scale their scores by. */
float kernels_attention_scale(size_t head);

/*
 * Angles position * frequency[i] of n_rot / 2 pairs: cos and sin times `scale`.  Own polynomials in
 * double precision, so the same on every machine.
 */
void kernels_rope_angles(
	float position, const float *frequency, size_t n_rot, float scale, float *cos, float *sin);

/* base^(-2i / n_rot) for i < n_rot / 2, own polynomials; `out` divided by factors[i] unless NULL.
 */
void kernels_rope_frequencies(float base, const float *factors, size_t n_rot, float *out);

/* Scalar transcendentals of NUMERICS rule 5; the vector tiers have the same steps. */
float kernels_exp(float x);
float kernels_log(float x);
