/* SPDX-License-Identifier: MIT */
#include "weights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "num.h"

#define PIECE ((uint64_t)2 << 20) /* one read */
#define IN_FLIGHT 4u		  /* 8 MiB in flight is best */
#define ALIGN_MIN 4096u

/* A tensor on its way: its aligned window in the file, and where its pointer goes. */
struct item {
	const struct desc_weight *weight;
	void **slot;	      /* raw bytes */
	const float **row;    /* or a vector made to floats */
	uint64_t start, size; /* window */
	char *memory;
};

struct list {
	struct item *items;
	size_t n, room;
};

struct loader {
	const struct desc *desc;
	const struct kernels *kernels;
	struct mem_arena *arena;
	struct io *io;
	const struct file *files;
	size_t n_files;
	struct list list;
	size_t next_item;
	uint64_t next_offset; /* within the window of next_item */
	uint64_t done, all;
	struct error *err;
};

struct piece {
	size_t item;
	struct io_read read;
	unsigned tries;
	bool busy;
};

static int list_add(struct list *l, const struct desc_weight *w, void **slot, const float **row)
{
	if (w->size == 0)
		return 0;
	if (l->n == l->room) {
		size_t room = num_max(l->room * 2, (size_t)64);
		struct item *items = realloc(l->items, room * sizeof *items);

		if (!items)
			return -ENOMEM;
		l->items = items;
		l->room = room;
	}
	l->items[l->n++] = (struct item){.weight = w, .slot = slot, .row = row};
	return 0;
}

static int list_layer(struct list *l, const struct desc_layer *y, struct weights_layer *w)
{
	int r = 0;

	r |= list_add(l, &y->attn_norm, NULL, &w->attn_norm);
	r |= list_add(l, &y->q, &w->q.data, NULL);
	r |= list_add(l, &y->k, &w->k.data, NULL);
	r |= list_add(l, &y->v, &w->v.data, NULL);
	r |= list_add(l, &y->o, &w->o.data, NULL);
	r |= list_add(l, &y->q_norm, NULL, &w->q_norm);
	r |= list_add(l, &y->k_norm, NULL, &w->k_norm);
	r |= list_add(l, &y->ffn_norm, NULL, &w->ffn_norm);
	if (y->moe)
		return r | list_add(l, &y->router, &w->router.data, NULL);
	for (unsigned p = 0; p < DESC_PARTS; p++)
		r |= list_add(l, &y->expert[p], &w->expert[p].data, NULL);
	return r;
}

static int list_fill(struct list *l, struct weights *w, const struct desc *d)
{
	bool tied = d->output.file == d->embedding.file && d->output.offset == d->embedding.offset;
	int r = 0;

	r |= list_add(l, &d->embedding, &w->embedding.data, NULL);
	r |= list_add(l, &d->output_norm, NULL, &w->output_norm);
	r |= list_add(l, &d->rope_factors, NULL, &w->rope_factors);
	if (!tied)
		r |= list_add(l, &d->output, &w->head.data, NULL);
	for (uint32_t i = 0; i < d->n_layers; i++)
		r |= list_layer(l, &d->layers[i], &w->layers[i]);
	return r ? -ENOMEM : 0;
}

uint64_t weights_overhead(const struct desc *d)
{
	return ((uint64_t)d->n_layers * 16 + 8) * (3 * ALIGN_MIN);
}

/* Places an item in the arena: its window, and for vectors the floats. */
static int item_place(struct loader *o, struct item *it)
{
	const struct desc_weight *w = it->weight;
	const struct file *f;
	uint64_t end;

	if (w->file == DESC_FILE_NONE) {
		it->memory = mem_arena_alloc(o->arena, w->size, 64);
		return it->memory ? 0 : -ENOMEM;
	}
	if (w->file >= o->n_files)
		return -EBADMSG;
	f = &o->files[w->file];
	it->start = num_align_down(w->offset, f->align);
	if (!num_add(w->offset, w->size, &end) || !num_align(end, f->align, &end))
		return -EBADMSG;
	it->size = end - it->start;
	it->memory = mem_arena_alloc(o->arena, it->size, num_max(f->memory_align, ALIGN_MIN));
	if (!it->memory)
		return -ENOMEM;
	o->all += it->size;
	return 0;
}

static int item_finish(struct loader *o, struct item *it)
{
	const struct desc_weight *w = it->weight;
	char *p = it->memory + (w->file == DESC_FILE_NONE ? 0 : w->offset - it->start);
	float *row;

	if (it->slot) {
		*it->slot = p;
		return 0;
	}
	row = mem_arena_alloc(o->arena, w->rows * w->cols * sizeof(float), 64);
	if (!row)
		return error_set(o->err, -ENOMEM, "no room for the dense weights in the plan");
	for (uint64_t i = 0; i < w->rows; i++)
		o->kernels->dequantize(w->type, p + i * w->row_bytes, row + i * w->cols, w->cols);
	*it->row = row;
	return 0;
}

/* The next piece to read; false when all are under way. */
static bool next_piece(struct loader *o, struct piece *p)
{
	while (o->next_item < o->list.n) {
		struct item *it = &o->list.items[o->next_item];
		uint64_t n = num_min(PIECE, it->size - o->next_offset);

		if (n == 0) {
			o->next_item++;
			o->next_offset = 0;
			continue;
		}
		*p = (struct piece){
			.item = o->next_item,
			.busy = true,
			.read = {.file = it->weight->file,
				.length = (uint32_t)n,
				.offset = it->start + o->next_offset,
				.buffer = it->memory + o->next_offset},
		};
		o->next_offset += n;
		return true;
	}
	return false;
}

static int piece_submit(struct loader *o, struct piece *pieces, size_t i)
{
	int r;

	pieces[i].read.tag = i;
	r = o->io->ops->submit(o->io, &pieces[i].read, 1);
	if (r < 0)
		return error_errno(o->err, r, "cannot read the dense weights of '%s'",
			o->files[pieces[i].read.file].path);
	if (r == 0)
		return error_set(o->err, -EAGAIN, "the read queue takes no reads");
	return 0;
}

/* 1: the piece has arrived; 0: submitted again; -errno. */
static int piece_result(struct loader *o, struct piece *pieces, size_t i, int32_t res)
{
	struct piece *p = &pieces[i];
	struct item *it = &o->list.items[p->item];
	const struct desc_weight *w = it->weight;
	const struct file *f = &o->files[w->file];
	uint64_t need = num_min(w->offset + w->size, p->read.offset + p->read.length), got;

	if (res == -EINTR || res == -EAGAIN) {
		if (++p->tries > LIMIT_READ_RETRIES)
			return error_errno(o->err, res, "cannot read '%s' at offset %" PRIu64,
				f->path, p->read.offset);
		return piece_submit(o, pieces, i);
	}
	if (res < 0)
		return error_errno(o->err, res, "cannot read '%s' at offset %" PRIu64, f->path,
			p->read.offset);
	if (p->read.offset + (uint32_t)res >= need)
		return 1;
	got = num_align_down((uint32_t)res, f->align);
	if (res == 0 || p->read.offset + (uint32_t)res >= f->size ||
		(got == 0 && ++p->tries > LIMIT_READ_RETRIES))
		return error_set(o->err, -ENODATA,
			"'%s' ends at offset %" PRIu64 ", but its tensors reach to %" PRIu64
			": the file was truncated; download it again",
			f->path, p->read.offset + (uint32_t)res, need);
	p->read.offset += got;
	p->read.length -= (uint32_t)got;
	p->read.buffer = (char *)p->read.buffer + got;
	return piece_submit(o, pieces, i);
}

static int read_all(struct loader *o, weights_progress_fn progress, void *arg)
{
	struct piece pieces[IN_FLIGHT] = {0};
	size_t busy = 0, width = num_min((size_t)IN_FLIGHT, o->io->ops->depth(o->io));
	struct io_result results[IN_FLIGHT];
	bool more = true;
	int r = 0, n;

	for (;;) {
		for (size_t i = 0; i < width && more && r == 0; i++) {
			if (pieces[i].busy)
				continue;
			more = next_piece(o, &pieces[i]);
			if (!more)
				break;
			r = piece_submit(o, pieces, i);
			pieces[i].busy = r == 0;
			busy += r == 0;
		}
		if (busy == 0)
			return r;
		n = o->io->ops->reap(o->io, results, IN_FLIGHT, UINT64_C(1000000000));
		if (n < 0)
			return error_errno(o->err, n, "cannot wait for reads of dense weights");
		for (int j = 0; j < n; j++) {
			size_t i = results[j].tag;
			const struct io_read done = pieces[i].read;
			int q = r == 0 ? piece_result(o, pieces, i, results[j].res) : -EIO;

			if (q == 0)
				continue;
			pieces[i].busy = false;
			busy--;
			if (q < 0) {
				r = r ? r : q;
				continue;
			}
			o->done += done.length;
			file_drop(&o->files[done.file], done.offset, done.length);
		}
		/* After an error what is in flight is awaited: it writes to our memory. */
		if (r == 0 && progress && progress(arg, num_min(o->done, o->all), o->all))
			r = error_set(o->err, -ECANCELED, "the load was cancelled");
	}
}

static int load(struct loader *o, struct weights *w, weights_progress_fn progress, void *arg)
{
	int r = list_fill(&o->list, w, o->desc);

	if (r < 0)
		return error_set(o->err, r, "no memory for the list of tensors");
	for (size_t i = 0; i < o->list.n; i++) {
		r = item_place(o, &o->list.items[i]);
		if (r < 0)
			return error_set(o->err, r, "no room for the dense weights in the plan");
	}
	r = read_all(o, progress, arg);
	for (size_t i = 0; r == 0 && i < o->list.n; i++)
		r = item_finish(o, &o->list.items[i]);
	return r;
}

int weights_read(struct weights *w, const struct desc *d, const struct kernels *k,
	struct mem_arena *arena, struct io *io, const struct file *files, size_t n_files,
	weights_progress_fn progress, void *progress_arg, struct error *err)
{
	struct loader o = {.desc = d,
		.kernels = k,
		.arena = arena,
		.io = io,
		.files = files,
		.n_files = n_files,
		.err = err};
	int r;

	*w = (struct weights){.layers = calloc(d->n_layers, sizeof *w->layers)};
	if (!w->layers)
		return error_set(err, -ENOMEM, "no memory for the layers");
	r = load(&o, w, progress, progress_arg);
	free(o.list.items);
	if (r < 0) {
		weights_deinit(w);
		return r;
	}
	w->output = w->head.data ? &w->head : &w->embedding;
	for (uint32_t l = 0; l < d->n_layers; l++) {
		if (d->layers[l].moe && d->layers[l].router.file == DESC_FILE_NONE)
			desc_router_rows(d, l, w->layers[l].router.data);
	}
	return 0;
}

void weights_deinit(struct weights *w)
{
	free(w->layers);
	w->layers = NULL;
}
