/* SPDX-License-Identifier: MIT */
#include "upcycle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "desc.h"
#include "fd.h"
#include "file.h"
#include "gguf.h"
#include "kernels.h"
#include "num.h"

#define BUFFER ((size_t)4 << 20)
#define KEYS_MAX 8

/* What goes into OUT: a tensor of DENSE, `copies` times, or router rows. */
struct item {
	char name[LIMIT_GGUF_NAME + 1];
	const struct gguf_tensor *from; /* NULL: router rows of `layer` */
	uint32_t layer, copies;
	bool stacked;	       /* gets a third dimension of `copies` */
	uint64_t offset, size; /* of the data; of all copies */
};

struct header {
	uint8_t *bytes;
	size_t n, room;
	bool failed; /* no memory: checked once, at the end */
};

struct job {
	const struct upcycle *how;
	struct gguf *g;
	struct desc *d;
	struct file *in; /* the files of g */
	struct item *items;
	size_t n_items;
	struct header header;
	uint64_t data_size, done;
	uint8_t *buffer;
	int fd;
	uint32_t moe_layers;
	struct error *err;
};

static void put(struct header *h, const void *p, size_t n)
{
	if (h->n + n > h->room) {
		size_t room = (h->n + n) * 2;
		uint8_t *larger = h->failed ? NULL : realloc(h->bytes, room);

		if (!larger) {
			h->failed = true;
			return;
		}
		h->bytes = larger;
		h->room = room;
	}
	memcpy(h->bytes + h->n, p, n);
	h->n += n;
}

static void put_u32(struct header *h, uint32_t v)
{
	put(h, &v, sizeof v);
}

static void put_u64(struct header *h, uint64_t v)
{
	put(h, &v, sizeof v);
}

static void put_string(struct header *h, const char *s)
{
	put_u64(h, strlen(s));
	put(h, s, strlen(s));
}

/* Keys of ours, in place of those of the same name. */
struct key {
	char name[LIMIT_GGUF_NAME];
	const char *text; /* NULL: the number */
	uint32_t number;
};

static size_t our_keys(const struct job *j, struct key keys[KEYS_MAX])
{
	const struct desc *d = j->d;
	size_t n = 0;

	(void)snprintf(keys[n].name, sizeof keys[n].name, "%s.expert_count", d->arch);
	keys[n++].number = d->experts;
	(void)snprintf(keys[n].name, sizeof keys[n].name, "%s.expert_used_count", d->arch);
	keys[n++].number = d->top_k;
	(void)snprintf(keys[n].name, sizeof keys[n].name, "%s.expert_feed_forward_length", d->arch);
	keys[n++].number = d->expert_ff;
	(void)snprintf(keys[n].name, sizeof keys[n].name, "moed.router_order");
	keys[n++].text = j->how->softmax_first ? "softmax-topk" : "topk-softmax";
	(void)snprintf(keys[n].name, sizeof keys[n].name, "moed.upcycle.router");
	keys[n++].text = j->how->exact ? "exact" : "random";
	(void)snprintf(keys[n].name, sizeof keys[n].name, "moed.upcycle.seed");
	keys[n++].number = j->how->seed;
	return n;
}

static void put_keys(struct job *j)
{
	struct key keys[KEYS_MAX] = {0};
	size_t n = our_keys(j, keys);
	uint64_t count = n;
	struct header all = {0};

	for (uint64_t i = 0; i < gguf_n_keys(j->g); i++) {
		const char *name = gguf_key(j->g, i, NULL);
		size_t size, k = 0;
		const void *bytes = gguf_key_bytes(j->g, i, &size);

		while (k < n && strcmp(keys[k].name, name) != 0)
			k++;
		/* What goes out is one file, whatever came in. */
		if (k < n || strncmp(name, "split.", 6) == 0)
			continue;
		put(&all, bytes, size);
		count++;
	}
	for (size_t k = 0; k < n; k++) {
		put_string(&all, keys[k].name);
		put_u32(&all, keys[k].text ? GGUF_STRING : GGUF_U32);
		if (keys[k].text)
			put_string(&all, keys[k].text);
		else
			put_u32(&all, keys[k].number);
	}
	put_u64(&j->header, count);
	put(&j->header, all.bytes, all.n);
	j->header.failed |= all.failed;
	free(all.bytes);
}

static void put_tensor(struct job *j, const struct item *it)
{
	uint32_t dims = it->from ? it->from->n_dims : 2;

	put_string(&j->header, it->name);
	if (!it->from) {
		put_u32(&j->header, dims);
		put_u64(&j->header, j->d->hidden);
		put_u64(&j->header, j->d->experts);
		put_u32(&j->header, KERNELS_F32);
	} else {
		/* Stacked also where there is one expert. */
		if (it->stacked)
			dims = 3;
		put_u32(&j->header, dims);
		for (uint32_t i = 0; i < num_min(dims, 2u + !it->stacked * 2u); i++)
			put_u64(&j->header, it->from->dims[i]);
		if (it->stacked)
			put_u64(&j->header, it->copies);
		put_u32(&j->header, it->from->type);
	}
	put_u64(&j->header, it->offset);
}

/* "blk.N.ffn_{gate,up,down}.weight" of a layer that gets experts: the layer and the part's name. */
static bool is_block(const struct job *j, const char *name, uint32_t *layer, char part[8])
{
	char rest[8];
	int end = 0;

	if (sscanf(name, "blk.%" SCNu32 ".ffn_%7[a-z].%7[a-z]%n", layer, part, rest, &end) != 3 ||
		name[end] || strcmp(rest, "weight") != 0)
		return false;
	if (strcmp(part, "gate") != 0 && strcmp(part, "up") != 0 && strcmp(part, "down") != 0)
		return false;
	return *layer < j->d->n_layers && (!j->how->layers || j->how->layers[*layer]);
}

static int add_item(struct job *j, const struct item *it)
{
	uint64_t end;

	j->items[j->n_items] = *it;
	j->items[j->n_items++].offset = j->data_size;
	if (!num_add(j->data_size, it->size, &end) ||
		!num_align(end, gguf_alignment(j->g), &j->data_size))
		return error_set(j->err, -ERANGE, "the result would be larger than any file");
	return 0;
}

static int make_items(struct job *j)
{
	uint64_t n = gguf_n_tensors(j->g);
	int r = 0;

	j->items = calloc(n + j->d->n_layers, sizeof *j->items);
	if (!j->items)
		return -ENOMEM;
	for (uint64_t i = 0; !r && i < n; i++) {
		const struct gguf_tensor *t = gguf_tensor(j->g, i);
		struct item it = {.from = t, .copies = 1, .size = t->size};
		char part[8];

		(void)snprintf(it.name, sizeof it.name, "%s", t->name);
		if (is_block(j, t->name, &it.layer, part)) {
			it.copies = j->d->experts;
			it.stacked = true;
			(void)snprintf(it.name, sizeof it.name,
				"blk.%" PRIu32 ".ffn_%s_exps.weight", it.layer, part);
			if (!num_mul(t->size, it.copies, &it.size))
				return error_set(
					j->err, -ERANGE, "tensor '%s' would overflow", t->name);
		}
		r = add_item(j, &it);
	}
	for (uint32_t l = 0; !r && l < j->d->n_layers; l++) {
		struct item it = {.layer = l, .copies = 1};

		if (j->how->layers && !j->how->layers[l])
			continue;
		it.size = (uint64_t)j->d->experts * j->d->hidden * sizeof(float);
		(void)snprintf(it.name, sizeof it.name, "blk.%" PRIu32 ".ffn_gate_inp.weight", l);
		r = add_item(j, &it);
		j->moe_layers++;
	}
	return r;
}

static int make_header(struct job *j)
{
	static const uint8_t zeros[65536];
	size_t pad;

	put(&j->header, "GGUF", 4);
	put_u32(&j->header, 3);
	put_u64(&j->header, j->n_items);
	put_keys(j);
	for (size_t i = 0; i < j->n_items; i++)
		put_tensor(j, &j->items[i]);
	pad = num_align_up(j->header.n, gguf_alignment(j->g)) - j->header.n;
	put(&j->header, zeros, pad);
	return j->header.failed ? -ENOMEM : 0;
}

static int write_some(struct job *j, const void *p, size_t n)
{
	int r = fd_write_all(j->fd, p, n);

	if (r < 0)
		return error_errno(j->err, r, "cannot write");
	j->done += n;
	if (j->how->progress)
		j->how->progress(j->how->progress_arg, j->done, j->header.n + j->data_size);
	if (j->how->stop && *j->how->stop)
		return error_set(j->err, -ECANCELED, "stopped by a signal");
	return 0;
}

static int write_copy(struct job *j, const struct gguf_tensor *t, bool first)
{
	for (uint64_t at = 0; at < t->size;) {
		size_t n = num_min(t->size - at, (uint64_t)BUFFER);
		/* A tensor that fits the buffer is still there from the first copy. */
		int r = first || t->size > BUFFER
				? file_read(&j->in[t->file], t->offset + at, j->buffer, n, j->err)
				: 0;

		if (!r)
			r = write_some(j, j->buffer, n);
		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

static int write_item(struct job *j, const struct item *it)
{
	static const uint8_t zeros[65536];
	int r = 0;

	if (!it->from) {
		cleanup_free_ float *rows = malloc(it->size);

		if (!rows)
			return -ENOMEM;
		desc_router_rows(j->d, it->layer, rows);
		r = write_some(j, rows, it->size);
	}
	for (uint32_t c = 0; it->from && !r && c < it->copies; c++)
		r = write_copy(j, it->from, c == 0);
	if (r < 0)
		return r;
	return write_some(j, zeros, num_align_up(it->size, gguf_alignment(j->g)) - it->size);
}

static int write_all(struct job *j)
{
	uint64_t size = j->header.n + j->data_size;
	int r = fallocate(j->fd, 0, 0, (off_t)size) < 0 ? -errno : 0;

	/* Where the file system cannot reserve, writing will tell. */
	if (r == -ENOSPC || r == -EFBIG || r == -EDQUOT)
		return error_errno(j->err, r, "cannot reserve %" PRIu64 " bytes", size);
	r = write_some(j, j->header.bytes, j->header.n);
	for (size_t i = 0; !r && i < j->n_items; i++)
		r = write_item(j, &j->items[i]);
	if (r < 0)
		return r;
	/* The model may not change while it is copied. */
	for (uint32_t i = 0; i < gguf_n_files(j->g); i++) {
		r = file_check(&j->in[i]);
		if (r < 0)
			return error_set(
				j->err, r, "'%s' was changed while it was read", j->in[i].path);
	}
	return fsync(j->fd) < 0 ? error_errno(j->err, -errno, "cannot write") : 0;
}

/* The new name must outlive a loss of power, too. */
static void sync_folder(const char *out)
{
	cleanup_free_ char *folder = strdup(out);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	cleanup_fd_ int fd = -1;

	if (slash)
		slash[slash == folder] = '\0';
	fd = folder ? open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0)
		(void)fsync(fd);
}

static int write_file(struct job *j, const char *out)
{
	char temp[PATH_MAX];
	mode_t mask;
	int r, n = snprintf(temp, sizeof temp, "%s.XXXXXX", out);

	if (n < 0 || (size_t)n >= sizeof temp)
		return error_errno(j->err, -ENAMETOOLONG, "cannot make '%s'", out);
	j->fd = mkostemp(temp, O_CLOEXEC);
	if (j->fd < 0)
		return error_errno(j->err, -errno, "cannot make '%s'", temp);
	mask = umask(0);
	(void)umask(mask);
	r = write_all(j);
	if (!r && (fchmod(j->fd, 0666 & ~mask) < 0 || rename(temp, out) < 0))
		r = error_errno(j->err, -errno, "cannot rename '%s'", temp);
	j->fd = fd_close(j->fd);
	if (r < 0) {
		(void)unlink(temp);
		error_prefix(j->err, "'%s'", out);
		return r;
	}
	sync_folder(out);
	return 0;
}

static int check(struct job *j, const char *out)
{
	const struct upcycle *how = j->how;
	struct stat st;
	int r;

	if (strcmp(j->d->arch, "llama") != 0)
		return error_set(j->err, -ENOTSUP,
			"models of family %s cannot be upcycled, only llama", j->d->arch);
	for (uint32_t l = j->d->n_layers; how->layers && l < how->n_layers; l++)
		if (how->layers[l])
			return error_set(j->err, -EINVAL,
				"there is no layer %" PRIu32 ": the model has 0 to %" PRIu32, l,
				j->d->n_layers - 1);
	if (stat(out, &st) == 0) {
		if (!S_ISREG(st.st_mode))
			return error_set(j->err, -EINVAL, "'%s' is not a regular file", out);
		for (uint32_t i = 0; i < gguf_n_files(j->g); i++)
			if (st.st_dev == j->in[i].device && st.st_ino == j->in[i].inode)
				return error_set(
					j->err, -EINVAL, "'%s' is the dense model itself", out);
	}
	r = desc_upcycle(j->d, how->experts, how->top_k, how->seed, how->exact, j->err);
	return r;
}

static int run(struct job *j, const char *dense, const char *out)
{
	int r = gguf_open(&j->g, dense, j->err);

	if (!r)
		r = desc_new(&j->d, j->g, j->err);
	if (!r)
		r = gguf_files_open(&j->in, j->g, j->err);
	if (!r)
		r = check(j, out);
	if (!r)
		r = make_items(j);
	if (!r)
		r = make_header(j);
	if (r)
		return r;
	if (!j->moe_layers)
		return error_set(j->err, -EINVAL, "no layer would get experts");
	j->buffer = malloc(BUFFER);
	return j->buffer ? write_file(j, out) : -ENOMEM;
}

int upcycle_write(struct upcycle_result *ret, const char *dense, const char *out,
	const struct upcycle *how, struct error *err)
{
	struct job j = {.how = how, .fd = -1, .err = err};
	int r = run(&j, dense, out);

	if (!r)
		*ret = (struct upcycle_result){.size = j.header.n + j.data_size,
			.layers = j.d->n_layers,
			.moe_layers = j.moe_layers};
	else
		(void)error_errno(err, r, "cannot upcycle '%s'", dense);
	desc_free(j.d);
	if (j.g)
		gguf_files_close(j.in, gguf_n_files(j.g));
	gguf_free(j.g);
	free(j.items);
	free(j.header.bytes);
	free(j.buffer);
	return r;
}
