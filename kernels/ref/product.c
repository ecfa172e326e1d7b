/* SPDX-License-Identifier: MIT */

/*
 * Rule 1: within a block an exact integer, blocks ascending.  Rule 2 for weights that are floats.
 * An int32 holds every block: at most 256 * 128 * 32 * 127 for Q6_K, 2^27.
 */

#include <math.h>
#include "pack.h"
#include "quant.h"
#include "ref.h"
#include "unpack.h"

float ref_tree(float s[16])
{
	for (unsigned step = 8; step; step /= 2)
		for (unsigned i = 0; i < step; i++)
			s[i] += s[i + step];
	return s[0];
}

static const void *product_row(const struct kernels_product *p, size_t r)
{
	return (const uint8_t *)p->w + r * p->w_stride;
}

/* Block b of row r: where it lies, or gathered from its tile into `room`. */
static const void *product_block(const struct kernels_product *p, const struct pack_shape *packed,
	size_t blocks, size_t r, size_t b, size_t bytes, uint8_t room[QUANT_BYTES_MAX])
{
	if (!packed)
		return (const uint8_t *)product_row(p, r) + b * bytes;
	pack_block(packed, product_row(p, r - r % KERNELS_PACK_ROWS), blocks,
		(unsigned)(r % KERNELS_PACK_ROWS), b, room);
	return room;
}

static const void *product_column(const struct kernels_product *p, size_t c)
{
	return (const uint8_t *)p->x + c * p->x_stride;
}

static float value_f32(const uint8_t *w, size_t i)
{
	return quant_float(quant_u32(w + 4 * i));
}

static float value_f16(const uint8_t *w, size_t i)
{
	return quant_half_value(quant_u16(w + 2 * i));
}

static float value_bf16(const uint8_t *w, size_t i)
{
	return quant_float((uint32_t)quant_u16(w + 2 * i) << 16);
}

static inline void product_float(
	const struct kernels_product *p, float (*value)(const uint8_t *w, size_t i))
{
	for (size_t r = 0; r < p->rows; r++) {
		const uint8_t *w = product_row(p, r);

		for (size_t c = 0; c < p->cols; c++) {
			const float *x = product_column(p, c);
			float s[16] = {0};

			for (size_t i = 0; i < p->n; i++)
				s[i % 16] = fmaf(value(w, i), x[i], s[i % 16]);
			p->out[c * p->out_stride + r] = ref_tree(s);
		}
	}
}

void ref_product_f32(const struct kernels_product *p)
{
	product_float(p, value_f32);
}

void ref_product_f16(const struct kernels_product *p)
{
	product_float(p, value_f16);
}

void ref_product_bf16(const struct kernels_product *p)
{
	product_float(p, value_bf16);
}

static void product_small(const struct kernels_product *p, const struct pack_shape *packed,
	size_t bytes, bool minimum, void (*unpack)(const void *, struct unpack_small *))
{
	uint8_t room[QUANT_BYTES_MAX];
	struct unpack_small w;

	for (size_t r = 0; r < p->rows; r++) {
		for (size_t c = 0; c < p->cols; c++)
			p->out[c * p->out_stride + r] = 0;
		for (size_t b = 0; b < p->n / 32; b++) {
			unpack(product_block(p, packed, p->n / 32, r, b, bytes, room), &w);
			for (size_t c = 0; c < p->cols; c++) {
				const struct kernels_q32 *x = product_column(p, c);
				float *acc = &p->out[c * p->out_stride + r];
				int32_t sum = 0;

				x += b;
				for (unsigned i = 0; i < 32; i++)
					sum += w.q[i] * x->q[i];
				*acc = fmaf(w.d * x->d, (float)sum, *acc);
				if (minimum)
					*acc = fmaf(w.m * x->d, (float)x->sum, *acc);
			}
		}
	}
}

static void product_large(const struct kernels_product *p, const struct pack_shape *packed,
	size_t bytes, bool minimum, void (*unpack)(const void *, struct unpack_large *))
{
	uint8_t room[QUANT_BYTES_MAX];
	struct unpack_large w;

	for (size_t r = 0; r < p->rows; r++) {
		for (size_t c = 0; c < p->cols; c++)
			p->out[c * p->out_stride + r] = 0;
		for (size_t b = 0; b < p->n / 256; b++) {
			unpack(product_block(p, packed, p->n / 256, r, b, bytes, room), &w);
			for (size_t c = 0; c < p->cols; c++) {
				const struct kernels_q256 *x = product_column(p, c);
				float *acc = &p->out[c * p->out_stride + r];
				int32_t sum = 0, min = 0;

				x += b;
				for (unsigned j = 0; j < 16; j++) {
					int32_t part = 0;

					for (unsigned i = 0; i < 16; i++)
						part += w.q[j * 16 + i] * x->q[j * 16 + i];
					sum += w.scale[j] * part;
					min += w.min[j] * x->sums[j];
				}
				*acc = fmaf(w.d * x->d, (float)sum, *acc);
				if (minimum)
					*acc = fmaf(w.m * x->d, (float)min, *acc);
			}
		}
	}
}

static void product_any(const struct kernels_product *p, const struct pack_shape *packed)
{
	switch (p->type) {
	case KERNELS_Q4_0:
		product_small(p, packed, sizeof(struct quant_q4_0), false, unpack_q4_0);
		return;
	case KERNELS_Q4_1:
		product_small(p, packed, sizeof(struct quant_q4_1), true, unpack_q4_1);
		return;
	case KERNELS_Q5_0:
		product_small(p, packed, sizeof(struct quant_q5_0), false, unpack_q5_0);
		return;
	case KERNELS_Q5_1:
		product_small(p, packed, sizeof(struct quant_q5_1), true, unpack_q5_1);
		return;
	case KERNELS_Q8_0:
		product_small(p, packed, sizeof(struct quant_q8_0), false, unpack_q8_0);
		return;
	case KERNELS_Q4_K:
		product_large(p, packed, sizeof(struct quant_q4_k), true, unpack_q4_k);
		return;
	case KERNELS_Q5_K:
		product_large(p, packed, sizeof(struct quant_q5_k), true, unpack_q5_k);
		return;
	case KERNELS_Q6_K:
		product_large(p, packed, sizeof(struct quant_q6_k), false, unpack_q6_k);
		return;
	default: /* no other type is in the tables */
		return;
	}
}

void ref_product_quant(const struct kernels_product *p)
{
	product_any(p, NULL);
}

void ref_product_packed(const struct kernels_product *p)
{
	product_any(p, pack_shape(p->type));
}
