/* SPDX-License-Identifier: MIT */
#include "weights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "num.h"

#define PIECE ((uint64_t)1 << 20) /* one read */
#define IN_FLIGHT 8u		  /* 8 MiB in flight is best */
#define ALIGN_MIN 4096u

/* A tensor on its way, and where its pointer goes. */
struct item {
	const struct desc_weight *weight;
	void **slot;	   /* raw bytes */
	const float **row; /* or a vector made to floats, */
	float *floats;	   /* these */
	char *memory;
};

/* Tensors that touch each other in the file, in whole units of its alignment. */
struct window {
	uint32_t file;
	uint64_t start, size;
	uint64_t need; /* of size; the rest may lie behind the end of the file */
	char *memory;
};

struct list {
	struct item *items;
	size_t n, room;
};

struct weights_load {
	const struct desc *desc;
	struct mem_arena *arena;
	const struct file *files;
	size_t n_files;
	struct weights into; /* what the items point to */
	struct list list;
	struct window *windows;
	size_t n_windows;
	const void *end; /* of all that was placed */
	uint64_t all;
};

struct reader {
	struct weights_load *load;
	struct io *io;
	const struct weights_callbacks *callbacks;
	size_t next_window;
	uint64_t next_offset; /* within it */
	uint64_t done;
	struct error *err;
};

struct piece {
	size_t window;
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
	int r = 0;

	r |= list_add(l, &d->embedding, &w->embedding.data, NULL);
	r |= list_add(l, &d->output_norm, NULL, &w->output_norm);
	r |= list_add(l, &d->rope_factors, NULL, &w->rope_factors);
	if (!desc_is_tied(d))
		r |= list_add(l, &d->output, &w->head.data, NULL);
	for (uint32_t i = 0; i < d->n_layers; i++)
		r |= list_layer(l, &d->layers[i], &w->layers[i]);
	return r ? -ENOMEM : 0;
}

uint64_t weights_overhead(const struct desc *d)
{
	return ((uint64_t)d->n_layers * 16 + 8) * (3 * ALIGN_MIN);
}

static int compare_items(const void *a, const void *b)
{
	const struct desc_weight *x = ((const struct item *)a)->weight;
	const struct desc_weight *y = ((const struct item *)b)->weight;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The window of a tensor: the last one, where they touch, or a new one. */
static int window_add(struct weights_load *o, const struct desc_weight *w)
{
	struct window *last = o->n_windows ? &o->windows[o->n_windows - 1] : NULL;
	const struct file *f;
	uint64_t start, need, end;

	if (w->file >= o->n_files)
		return -EBADMSG;
	f = &o->files[w->file];
	start = num_align_down(w->offset, f->align);
	if (!num_add(w->offset, w->size, &need) || !num_align(need, f->align, &end))
		return -EBADMSG;
	if (!last || last->file != w->file || start > last->start + last->size) {
		last = &o->windows[o->n_windows++];
		*last = (struct window){.file = w->file, .start = start};
	}
	last->need = num_max(last->need, need - last->start);
	last->size = num_max(last->size, end - last->start);
	return 0;
}

/* Items are sorted: so are windows, and each item lies in one. */
static int windows_place(struct weights_load *o)
{
	const struct window *at;

	for (size_t i = 0; i < o->list.n; i++) {
		const struct desc_weight *w = o->list.items[i].weight;
		int r = w->file == DESC_FILE_NONE ? 0 : window_add(o, w);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < o->n_windows; i++) {
		struct window *v = &o->windows[i];
		size_t align = num_max(o->files[v->file].memory_align, ALIGN_MIN);

		v->memory = mem_arena_alloc(o->arena, v->size, align);
		if (!v->memory)
			return -ENOMEM;
		o->all += v->size;
	}
	at = o->windows;
	for (size_t i = 0; i < o->list.n; i++) {
		struct item *it = &o->list.items[i];
		const struct desc_weight *w = it->weight;

		if (w->file == DESC_FILE_NONE)
			continue;
		while (at->file != w->file || w->offset - at->start >= at->size)
			at++;
		it->memory = at->memory + (w->offset - at->start);
	}
	return 0;
}

/* Room for what is in no file, and for vectors as floats. */
static int item_place(struct weights_load *o, struct item *it)
{
	const struct desc_weight *w = it->weight;

	if (w->file == DESC_FILE_NONE) {
		it->memory = mem_arena_alloc(o->arena, w->size, 64);
		if (!it->memory)
			return -ENOMEM;
	}
	if (!it->row)
		return 0;
	it->floats = mem_arena_alloc(o->arena, w->rows * w->cols * sizeof(float), 64);
	return it->floats ? 0 : -ENOMEM;
}

static int place_all(struct weights_load *o)
{
	int r = list_fill(&o->list, &o->into, o->desc);

	if (r < 0)
		return r;
	qsort(o->list.items, o->list.n, sizeof *o->list.items, compare_items);
	o->windows = calloc(o->list.n + 1, sizeof *o->windows);
	r = o->windows ? windows_place(o) : -ENOMEM;
	for (size_t i = 0; r == 0 && i < o->list.n; i++)
		r = item_place(o, &o->list.items[i]);
	o->end = (char *)mem_arena_base(o->arena) + mem_arena_used(o->arena);
	return r;
}

int weights_place(struct weights_load **ret, const struct desc *d, struct mem_arena *arena,
	const struct file *files, size_t n_files, struct error *err)
{
	struct weights_load *o = calloc(1, sizeof *o);
	int r;

	if (!o)
		return error_set(err, -ENOMEM, "no memory for the list of tensors");
	*o = (struct weights_load){.desc = d, .arena = arena, .files = files, .n_files = n_files};
	o->into.layers = calloc(d->n_layers, sizeof *o->into.layers);
	r = o->into.layers ? place_all(o) : -ENOMEM;
	if (r < 0) {
		weights_load_free(o);
		return error_set(err, r, "no room for the dense weights in the plan");
	}
	*ret = o;
	return 0;
}

struct weights_load *weights_load_free(struct weights_load *o)
{
	if (!o)
		return NULL;
	weights_deinit(&o->into);
	free(o->list.items);
	free(o->windows);
	free(o);
	return NULL;
}

static void item_finish(const struct kernels *k, const struct item *it)
{
	const struct desc_weight *w = it->weight;

	if (it->slot) {
		*it->slot = it->memory;
		return;
	}
	for (uint64_t i = 0; i < w->rows; i++)
		k->dequantize(
			w->type, it->memory + i * w->row_bytes, it->floats + i * w->cols, w->cols);
	*it->row = it->floats;
}

/* The next piece to read; false when all are under way. */
static bool next_piece(struct reader *o, struct piece *p)
{
	while (o->next_window < o->load->n_windows) {
		const struct window *v = &o->load->windows[o->next_window];
		uint64_t n = num_min(PIECE, v->size - o->next_offset);

		if (n == 0) {
			o->next_window++;
			o->next_offset = 0;
			continue;
		}
		*p = (struct piece){
			.window = o->next_window,
			.busy = true,
			.read = {.file = v->file,
				.length = (uint32_t)n,
				.offset = v->start + o->next_offset,
				.buffer = v->memory + o->next_offset},
		};
		o->next_offset += n;
		return true;
	}
	return false;
}

/* Waits for the memory of a piece.  Reads go on meanwhile. */
static int piece_await(struct reader *o, const void *end)
{
	int r = o->callbacks->await ? o->callbacks->await(o->callbacks->arg, end) : 0;

	return r < 0 ? error_errno(o->err, r, "cannot take the memory for the dense weights") : 0;
}

static int piece_submit(struct reader *o, struct piece *pieces, size_t i)
{
	int r;

	pieces[i].read.tag = i;
	r = o->io->ops->submit(o->io, &pieces[i].read, 1);
	if (r < 0)
		return error_errno(o->err, r, "cannot read the dense weights of '%s'",
			o->load->files[pieces[i].read.file].path);
	if (r == 0)
		return error_set(o->err, -EAGAIN, "the read queue takes no reads");
	return 0;
}

/* 1: the piece has arrived; 0: submitted again; -errno. */
static int piece_result(struct reader *o, struct piece *pieces, size_t i, int32_t res)
{
	struct piece *p = &pieces[i];
	const struct window *v = &o->load->windows[p->window];
	const struct file *f = &o->load->files[v->file];
	uint64_t need = num_min(v->start + v->need, p->read.offset + p->read.length), got;

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

/* After an error what is in flight is awaited: it writes to our memory. */
static int pieces_reap(struct reader *o, struct piece *pieces, size_t *busy, int r)
{
	struct io_result results[IN_FLIGHT];
	int n = o->io->ops->reap(o->io, results, IN_FLIGHT, CLOCK_NS_PER_S);

	if (n < 0) {
		*busy = 0;
		return error_errno(o->err, n, "cannot wait for reads of dense weights");
	}
	for (int j = 0; j < n; j++) {
		size_t i = results[j].tag;
		const struct io_read done = pieces[i].read;
		int q = r == 0 ? piece_result(o, pieces, i, results[j].res) : -EIO;

		if (q == 0)
			continue;
		pieces[i].busy = false;
		(*busy)--;
		if (q < 0) {
			r = r ? r : q;
			continue;
		}
		o->done += done.length;
		file_drop(&o->load->files[done.file], done.offset, done.length);
	}
	return r;
}

static int read_all(struct reader *o)
{
	const struct weights_callbacks *c = o->callbacks;
	struct piece pieces[IN_FLIGHT] = {0};
	size_t busy = 0, width = num_min((size_t)IN_FLIGHT, o->io->ops->depth(o->io));
	uint64_t all = o->load->all;
	bool more = true;
	int r = 0;

	for (;;) {
		for (size_t i = 0; i < width && more && r == 0; i++) {
			if (pieces[i].busy)
				continue;
			more = next_piece(o, &pieces[i]);
			if (!more)
				break;
			r = piece_await(o, (char *)pieces[i].read.buffer + pieces[i].read.length);
			if (r == 0)
				r = piece_submit(o, pieces, i);
			pieces[i].busy = r == 0;
			busy += r == 0;
		}
		if (busy == 0)
			return r;
		r = pieces_reap(o, pieces, &busy, r);
		if (r == 0 && c->progress && c->progress(c->arg, num_min(o->done, all), all))
			r = error_set(o->err, -ECANCELED, "the load was cancelled");
	}
}

int weights_read(struct weights *w, struct weights_load *o, const struct kernels *k, struct io *io,
	const struct weights_callbacks *callbacks, struct error *err)
{
	struct reader reader = {.load = o, .io = io, .callbacks = callbacks, .err = err};
	int r = read_all(&reader);

	if (r == 0)
		r = piece_await(&reader, o->end);
	if (r < 0)
		return r;
	for (size_t i = 0; i < o->list.n; i++)
		item_finish(k, &o->list.items[i]);
	for (uint32_t l = 0; l < o->desc->n_layers; l++) {
		const struct desc_layer *y = &o->desc->layers[l];

		if (y->moe && y->router.file == DESC_FILE_NONE)
			desc_router_rows(o->desc, l, o->into.layers[l].router.data);
	}
	*w = o->into;
	w->output = w->head.data ? &w->head : &w->embedding;
	o->into.layers = NULL;
	return 0;
}

void weights_deinit(struct weights *w)
{
	free(w->layers);
	w->layers = NULL;
}
