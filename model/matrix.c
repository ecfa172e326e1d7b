/* SPDX-License-Identifier: MIT */

#include "matrix.h"

#include "num.h"

#define ROWS ((size_t)KERNELS_PACK_ROWS)

static struct kernels_product rows_of(
	const struct matrix_product *p, size_t first, size_t from, size_t to)
{
	const struct desc_weight *w = p->weight;

	return (struct kernels_product){
		.type = w->type,
		.w = (const char *)p->data + from * w->row_bytes,
		.w_stride = w->row_bytes,
		.rows = to - from,
		.x = p->x,
		.x_stride = p->x_stride,
		.cols = p->cols,
		.n = w->cols,
		.out = p->out + (from - first),
		.out_stride = p->out_stride,
	};
}

void matrix_multiply(const struct matrix_product *p, size_t begin, size_t end, void *scratch)
{
	const struct kernels *k = p->kernels;
	const struct desc_weight *w = p->weight;
	size_t first = begin * ROWS, from = first, to = num_min(end * ROWS, (size_t)w->rows);
	size_t whole = matrix_packs(k, w->type) ? num_align_down(to, ROWS) : from;
	struct kernels_product q;

	/* A tile just packed is in the first cache. */
	for (size_t step = p->packed ? whole - from : ROWS; from < whole; from += step) {
		q = rows_of(p, first, from, from + step);
		if (!p->packed)
			k->pack(w->type, (char *)p->data + from * w->row_bytes, w->cols, scratch);
		k->product_packed[w->type](&q);
	}
	if (from < to) {
		q = rows_of(p, first, from, to);
		k->product[w->type](&q);
	}
}

void matrix_row(const struct kernels *k, const struct desc_weight *w, const struct matrix *m,
	uint64_t row, float *out, void *room)
{
	uint64_t first = num_align_down(row, (uint64_t)ROWS);
	const char *data = m->data;

	if (!m->packed || first + ROWS > w->rows) {
		k->dequantize(w->type, data + row * w->row_bytes, out, w->cols);
		return;
	}
	kernels_packed_row(
		w->type, data + first * w->row_bytes, (unsigned)(row - first), w->cols, room);
	k->dequantize(w->type, room, out, w->cols);
}
