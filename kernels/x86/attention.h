/* SPDX-License-Identifier: MIT */

/*
 * Attention over one block, once for all x86 tiers (internal to kernels/x86): included by one
 * source file of each, after its vec.h (sixteen lanes, however many registers) and TIER().
 *
 * Scores: lanes are the sixteen keys of a panel, so that a residue of rule 2 is a chain of head /
 * 16 multiply-adds with one element of the query, and the tree over the residues is fifteen
 * additions without a shuffle.  Values: lanes are dimensions.  One query costs 2 * 64 * head
 * multiply-adds, 15 * 64 additions, 64 exp of 14 operations and the merge of `head` values; the
 * block costs the reading of 256 * head bytes (f16) and 128 * head conversions.  More than FEW
 * queries share f32 copies of keys and values, and approach the rate of multiply-adds; fewer
 * convert while they multiply, so that nothing is written but results, and approach that of memory,
 * from which the next block is fetched ahead in equal steps.
 */

#include "lanes.h"
#include "tier.h"

#define BLOCK KERNELS_ATTENTION_BLOCK
#define BATCH KERNELS_ATTENTION_BATCH
#define FEW (2 * VEC_QUERIES)
#define LINE 64u /* bytes of a cache line */
#define STEP 4u	 /* keys whose values are weighted between two fetches */

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

/* Lines that are fetched ahead, some at each step of the work under way. */
struct attend_ahead {
	const char *next, *end;
	size_t lines; /* at each step */
};

/* Queries of one call, and what the block gives them: the parts of kernels_attention.work. */
struct attend {
	const struct kernels_attention *a;
	size_t first, n;
	size_t padded;			  /* head, whole vectors */
	float *kv;			  /* a copy of the keys, then of the values [64][padded] */
	float *p;			  /* [n][64] scores, then weights */
	float *largest, *sum, *old, *new; /* [n], whole vectors */
	struct attend_ahead k, v;
};

ALWAYS void attend_fetch(struct attend_ahead *f)
{
	for (size_t i = 0; i < f->lines && f->next < f->end; i++, f->next += LINE)
		__builtin_prefetch(f->next, 0, 2);
}

static inline struct attend_ahead attend_ahead(const void *p, size_t bytes, size_t steps)
{
	const char *c = p;

	return (struct attend_ahead){c, c ? c + bytes : c, bytes / LINE / steps + 1};
}

static inline size_t attend_keys(const struct attend *t, size_t i)
{
	return t->a->keys[t->first + i];
}

static inline float *attend_state(const struct attend *t, size_t i)
{
	return t->a->state + (t->first + i) * kernels_attention_state(t->a->head);
}

/*
 * How the work on n queries is blocked: VEC_SUMS sums at once, of n queries by so many panels (or
 * vectors of dimensions) by so many residues.
 */
#define UP(n) ((size_t)((n) > 4 ? 8 : (n) > 2 ? 4 : (n)))
#define PARTS(n) (VEC_SUMS / UP(n) < VEC_PARTS ? VEC_SUMS / UP(n) : VEC_PARTS)
#define RESIDUES(n, parts) (VEC_SUMS / (UP(n) * (parts)) < 4 ? VEC_SUMS / (UP(n) * (parts)) : 4)

/* Element i of query e and of `parts` panels, for the sums of one residue. */
ALWAYS void attend_element(const struct kernels_attention *a, enum lanes_type type, const void *k,
	const float *q, size_t i, size_t n, size_t parts, struct vec *s)
{
	struct vec x[VEC_PARTS], w;

	UNROLL
	for (size_t c = 0; c < parts; c++)
		x[c] = lanes_load(type, k, (c * a->head + i) * 16);
	UNROLL
	for (size_t e = 0; e < n; e++) {
		w = vec_set(q[e * a->q_stride + i]);
		UNROLL
		for (size_t c = 0; c < parts; c++)
			s[e * parts + c] = vec_fma(w, x[c], s[e * parts + c]);
	}
}

ALWAYS void attend_add(struct vec *s, const struct vec *x, size_t n)
{
	UNROLL
	for (size_t c = 0; c < n; c++)
		s[c] = vec_add(x[c], s[c]);
}

/* Puts sums aside; in memory, because the registers are for the sums that are made meanwhile. */
ALWAYS void attend_put(struct vec x[VEC_SUMS], const struct vec *s, size_t n)
{
	UNROLL
	for (size_t c = 0; c < n; c++) {
		x[c] = s[c];
		__asm__("" : "+m"(x[c]));
	}
}

/* Sums of residues r, r + 8, r + 4 and r + 12, the first `many` of them, added as the tree has it.
 */
ALWAYS void attend_residues(const struct kernels_attention *a, enum lanes_type type, const void *k,
	const float *q, size_t r, size_t n, size_t parts, size_t many, struct vec *s)
{
	static const size_t order[4] = {0, 8, 4, 12};
	size_t each = n * parts, whole = a->head / 16 * 16, i;

	UNROLL
	for (size_t c = 0; c < many * each; c++)
		s[c] = vec_set(0);
	for (i = 0; i < whole; i += 16)
		UNROLL
	for (size_t m = 0; m < many; m++)
		attend_element(a, type, k, q, i + r + order[m], n, parts, s + m * each);
	UNROLL
	for (size_t m = 0; m < many; m++)
		if (i + r + order[m] < a->head)
			attend_element(a, type, k, q, i + r + order[m], n, parts, s + m * each);
	if (many > 1)
		attend_add(s, s + each, each);
	if (many > 2) {
		attend_add(s + 2 * each, s + 3 * each, each);
		attend_add(s, s + 2 * each, each);
	}
}

/* The same of all four. */
ALWAYS void attend_quarter(struct attend *t, enum lanes_type type, const void *k, const float *q,
	size_t r, size_t n, size_t parts, size_t many, struct vec *s)
{
	const struct kernels_attention *a = t->a;
	struct vec x[VEC_SUMS], y[VEC_SUMS];
	size_t each = n * parts;

	attend_residues(a, type, k, q, r, n, parts, many, s);
	attend_fetch(&t->k);
	if (many == 1) {
		attend_put(x, s, each);
		attend_residues(a, type, k, q, r + 8, n, parts, 1, s);
		attend_add(s, x, each);
		attend_fetch(&t->k);
	}
	if (many == 4)
		return;
	attend_put(x, s, each);
	attend_residues(a, type, k, q, r + 4, n, parts, many, s);
	attend_fetch(&t->k);
	if (many == 1) {
		attend_put(y, s, each);
		attend_residues(a, type, k, q, r + 12, n, parts, 1, s);
		attend_add(s, y, each);
		attend_fetch(&t->k);
	}
	attend_add(s, x, each);
}

/*
 * Scores of n queries with the `parts` panels at k, `many` residues at a time.  The residues come
 * in the order in which the tree wants them, so that few sums wait for their other half.
 */
ALWAYS void attend_scores(struct attend *t, enum lanes_type type, const void *k, const float *q,
	float *p, size_t n, size_t parts, size_t many)
{
	struct vec half[VEC_SUMS], x[VEC_SUMS], s[VEC_SUMS];
	size_t each = n * parts;

	for (size_t z = 0; z < 2; z++) {
		attend_quarter(t, type, k, q, z, n, parts, many, s);
		attend_put(x, s, each);
		attend_quarter(t, type, k, q, z + 2, n, parts, many, s);
		attend_add(s, x, each);
		if (z == 0)
			attend_put(half, s, each);
	}
	attend_add(s, half, each);
	UNROLL
	for (size_t c = 0; c < each; c++)
		vec_store(p + c / parts * BLOCK + c % parts * 16, s[c]);
}

/* Of queries i to i + n, with as many panels as the one with the most keys takes. */
ALWAYS void attend_scores_of(
	struct attend *t, enum lanes_type type, const void *k, size_t i, size_t n)
{
	const float *q = t->a->q + (t->first + i) * t->a->q_stride;
	size_t panel = 16 * t->a->head * (type == LANES_F32 ? 4 : 2), parts = PARTS(n), at = 0,
	       most = 0;
	float *p = t->p + i * BLOCK;

	for (size_t e = 0; e < n; e++)
		most = attend_keys(t, i + e) > most ? attend_keys(t, i + e) : most;
	most = (most + 15) / 16;
	for (; parts > 1 ? at + parts / 2 < most : at < most; at += parts)
		attend_scores(t, type, (const char *)k + at * panel, q, p + at * 16, n, parts,
			RESIDUES(n, parts));
	if (parts > 1 && at < most)
		attend_scores(t, type, (const char *)k + at * panel, q, p + at * 16, n, parts / 2,
			RESIDUES(n, parts / 2));
}

/* Scores scaled, past the last key -inf; the block's maximum. */
static inline void attend_largest(struct attend *t, size_t i)
{
	struct vec scale = vec_set(t->a->scale), low = vec_set(-INFINITY), m = low, x;
	size_t keys = attend_keys(t, i);
	float *p = t->p + i * BLOCK;

	UNROLL
	for (size_t c = 0; c < BLOCK / 16; c++) {
		x = vec_mul(vec_load(p + 16 * c), scale);
		if (keys < 16 * c + 16)
			x = keys > 16 * c ? vec_first(x, low, keys - 16 * c) : low;
		m = vec_max(x, m);
		vec_store(p + 16 * c, x);
	}
	t->largest[i] = vec_largest(m) + 0.0f;
}

/* Scores into weights, past the last key 0; their sums by lane. */
static inline struct vec attend_weights(struct attend *t, size_t i)
{
	struct vec m = vec_set(t->largest[i]), s = vec_set(0), x;
	float *p = t->p + i * BLOCK;

	UNROLL
	for (size_t c = 0; c < BLOCK / 16; c++) {
		x = lanes_exp_low(vec_sub(vec_load(p + 16 * c), m));
		s = vec_add(s, x);
		vec_store(p + 16 * c, x);
	}
	return s;
}

/* Maxima and sums into the states; what old values and the block's are to be multiplied with. */
static inline void attend_merge(struct attend *t)
{
	float before[16] = {0}, total[16] = {0};

	for (size_t i = 0; i < t->n; i += 16) {
		size_t n = t->n - i < 16 ? t->n - i : 16;
		struct vec m, s, largest, old, new;

		for (size_t e = 0; e < n; e++) {
			const float *state = attend_state(t, i + e) + t->padded;

			before[e] = state[0];
			total[e] = state[1];
		}
		m = vec_load(t->largest + i);
		s = vec_load(before);
		largest = vec_max(m, s);
		old = lanes_exp_low(vec_sub(s, largest));
		new = lanes_exp_low(vec_sub(m, largest));
		vec_store(t->old + i, old);
		vec_store(t->new + i, new);
		vec_store(before, largest);
		vec_store(total, vec_fma(vec_load(total), old, vec_mul(vec_load(t->sum + i), new)));
		for (size_t e = 0; e < n; e++) {
			float *state = attend_state(t, i + e) + t->padded;

			state[0] = before[e];
			state[1] = total[e];
		}
	}
}

/* One key's values of some dimensions, weighted for n queries. */
ALWAYS void attend_value(enum lanes_type type, const void *v, size_t at, const float *p, size_t n,
	size_t parts, struct vec *s)
{
	struct vec x[VEC_PARTS], w;

	UNROLL
	for (size_t c = 0; c < parts; c++)
		x[c] = lanes_load(type, v, at + 16 * c);
	UNROLL
	for (size_t e = 0; e < n; e++) {
		w = vec_set(p[e * BLOCK]);
		UNROLL
		for (size_t c = 0; c < parts; c++)
			s[e * parts + c] = vec_fma(w, x[c], s[e * parts + c]);
	}
}

/*
 * Weighted values of queries i to i + n, of dimensions at + [0, 16 * parts), keys ascending, merged
 * into the states.  v is [64][stride] of `type`, those dimensions from `from` on.
 */
ALWAYS void attend_values(struct attend *t, enum lanes_type type, const void *v, size_t stride,
	size_t i, size_t at, size_t from, size_t n, size_t parts)
{
	struct vec s[VEC_MANY * VEC_PARTS];
	const float *p = t->p + i * BLOCK;
	size_t common = BLOCK, j;

	for (size_t e = 0; e < n; e++)
		common = attend_keys(t, i + e) < common ? attend_keys(t, i + e) : common;
	UNROLL
	for (size_t c = 0; c < n * parts; c++)
		s[c] = vec_set(0);
	for (j = 0; j + STEP <= common; j += STEP) {
		attend_fetch(&t->v);
		UNROLL
		for (size_t k = 0; k < STEP; k++)
			attend_value(type, v, (j + k) * stride + from, p + j + k, n, parts, s);
	}
	for (; j < common; j++)
		attend_value(type, v, j * stride + from, p + j, n, parts, s);
	UNROLL
	for (size_t e = 0; e < n; e++) {
		struct vec old = vec_set(t->old[i + e]), new = vec_set(t->new[i + e]);
		float *o = attend_state(t, i + e) + at;

		for (j = common; j < attend_keys(t, i + e); j++)
			UNROLL
		for (size_t c = 0; c < parts; c++)
			s[e * parts + c] = vec_fma(vec_set(p[e * BLOCK + j]),
				lanes_load(type, v, j * stride + from + 16 * c), s[e * parts + c]);
		UNROLL
		for (size_t c = 0; c < parts; c++)
			vec_store(o + 16 * c,
				vec_fma(vec_load(o + 16 * c), old, vec_mul(s[e * parts + c], new)));
	}
}

/* All dimensions from `at` on, as many at once as queries leave room for; n is a constant. */
ALWAYS void attend_values_of(
	struct attend *t, enum lanes_type type, const void *v, size_t stride, size_t i, size_t n)
{
	size_t at = 0;

	for (; at + 16 * PARTS(n) <= t->padded; at += 16 * PARTS(n))
		attend_values(t, type, v, stride, i, at, at, n, PARTS(n));
	for (; at < t->padded; at += 16)
		attend_values(t, type, v, stride, i, at, at, n, 1);
}

/* The keys of some panels in f32. */
static inline void attend_copy_keys(struct attend *t, enum lanes_type type, size_t panels)
{
	for (size_t i = 0; i < panels * t->a->head; i++)
		vec_store(t->kv + 16 * i, lanes_load(type, t->a->k, 16 * i));
}

/* Values of dimensions at + [0, 16 * parts) in f32, [64][16 * parts]; past the head are zeros. */
ALWAYS void attend_copy_values(
	struct attend *t, enum lanes_type type, size_t keys, size_t at, size_t parts)
{
	size_t head = t->a->head, left = head - at;

	for (size_t j = 0; j < keys; j++)
		UNROLL
	for (size_t c = 0; c < parts; c++)
		vec_store(t->kv + (j * parts + c) * 16,
			left >= 16 ? lanes_load(type, t->a->v, j * head + at + 16 * c)
				   : lanes_load_part(type, t->a->v, j * head + at, left));
}

/* Weights from scores, and all that is between them and the values. */
static __attribute__((noinline)) void attend_between(struct attend *t)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		attend_largest(t, i);
	for (i = 0; i + 4 <= t->n; i += 4)
		vec_trees(attend_weights(t, i), attend_weights(t, i + 1), attend_weights(t, i + 2),
			attend_weights(t, i + 3), t->sum + i);
	for (; i < t->n; i++)
		t->sum[i] = vec_tree(attend_weights(t, i));
	attend_merge(t);
}

/* Values of some dimensions, from a copy that stays in the nearest cache for all queries. */
ALWAYS void attend_many_values(
	struct attend *t, enum lanes_type type, size_t keys, size_t at, size_t parts)
{
	size_t i;

	attend_copy_values(t, type, keys, at, parts);
	for (i = 0; i + VEC_MANY <= t->n; i += VEC_MANY)
		attend_values(t, LANES_F32, t->kv, 16 * parts, i, at, 0, VEC_MANY, parts);
	for (; i + 2 <= t->n; i += 2)
		attend_values(t, LANES_F32, t->kv, 16 * parts, i, at, 0, 2, parts);
	for (; i < t->n; i++)
		attend_values(t, LANES_F32, t->kv, 16 * parts, i, at, 0, 1, parts);
}

static void attend_many(struct attend *t, enum lanes_type type, size_t keys)
{
	size_t i, at = 0;

	attend_copy_keys(t, type, (keys + 15) / 16);
	for (i = 0; i + VEC_QUERIES <= t->n; i += VEC_QUERIES)
		attend_scores_of(t, LANES_F32, t->kv, i, VEC_QUERIES);
	for (; i < t->n; i++)
		attend_scores_of(t, LANES_F32, t->kv, i, 1);
	attend_between(t);
	for (; at + 16 * VEC_PARTS <= t->a->head; at += 16 * VEC_PARTS)
		attend_many_values(t, type, keys, at, VEC_PARTS);
	for (; at < t->a->head; at += 16)
		attend_many_values(t, type, keys, at, 1);
}

/* n queries, a constant: nothing is copied. */
ALWAYS void attend_few(struct attend *t, enum lanes_type type, size_t n)
{
	attend_scores_of(t, type, t->a->k, 0, n);
	attend_between(t);
	attend_values_of(t, type, t->a->v, t->a->head, 0, n);
}

static void attend_f16(struct attend *t)
{
	switch (t->n) {
	case 1:
		attend_few(t, LANES_F16, 1);
		break;
	case 2:
		attend_few(t, LANES_F16, 2);
		break;
	case 3:
		attend_few(t, LANES_F16, 3);
		break;
	case 4:
		attend_few(t, LANES_F16, 4);
		break;
#if VEC_SUMS >= 16
	case 5:
		attend_few(t, LANES_F16, 5);
		break;
	case 6:
		attend_few(t, LANES_F16, 6);
		break;
	case 7:
		attend_few(t, LANES_F16, 7);
		break;
	case 8:
		attend_few(t, LANES_F16, 8);
		break;
#endif
	}
}

static void attend_batch(struct attend *t)
{
	size_t keys = 0, bytes = BLOCK * t->a->head * (t->a->kv_f32 ? 4 : 2);
	bool few = t->n <= FEW && !t->a->kv_f32 && t->a->head % 16 == 0;
	/* Steps: residues of all panels at once, and STEP keys of as many dimensions as fit. */
	size_t groups = few ? 1 : (t->n + VEC_QUERIES - 1) / VEC_QUERIES;
	size_t n = few ? t->n : VEC_QUERIES;
	bool last = t->first + t->n == t->a->n_q;

	t->k = attend_ahead(last ? t->a->next_k : NULL, bytes, groups * 64 * UP(n) / VEC_SUMS);
	t->v = attend_ahead(last ? t->a->next_v : NULL, bytes,
		groups * (t->padded / 16 * (BLOCK / STEP) / PARTS(n)));
	for (size_t i = 0; i < t->n; i++)
		keys = attend_keys(t, i) > keys ? attend_keys(t, i) : keys;
	if (few)
		attend_f16(t);
	else
		attend_many(t, t->a->kv_f32 ? LANES_F32 : LANES_F16, keys);
}

void TIER(attention)(const struct kernels_attention *a)
{
	struct attend t = {.a = a, .padded = kernels_attention_padded(a->head)};

	t.kv = a->work;
	t.p = t.kv + t.padded * BLOCK;
	t.largest = t.p + BATCH * BLOCK;
	t.sum = t.largest + BATCH;
	t.old = t.sum + BATCH;
	t.new = t.old + BATCH;
	for (; t.first < a->n_q; t.first += t.n) {
		t.n = a->n_q - t.first < BATCH ? a->n_q - t.first : BATCH;
		/* Twice a few cost less than once more than a few. */
		if (t.n > FEW && t.n <= 2 * FEW)
			t.n = (t.n + 1) / 2;
		attend_batch(&t);
	}
}

void TIER(attention_finish)(const float *state, size_t head, float *out)
{
	size_t i, left = head % 16;
	struct vec sum = vec_set(state[kernels_attention_padded(head) + 1]);

	for (i = 0; i + 16 <= head; i += 16)
		vec_store(out + i, vec_div(vec_load(state + i), sum));
	if (left)
		vec_store_part(out + i, vec_div(vec_load(state + i), sum), left);
}
