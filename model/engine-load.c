/* SPDX-License-Identifier: MIT */

/* The start of the engine: memory, ring, dense weights, scratch, slots. */

#include "engine-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "clock.h"
#include "num.h"

#define ALIGN 256u
#define MEM_PAGE 4096u
#define POOL_THREADS 4u
#define KV_LEAST 2048u /* positions whose memory is there at the start; what every plan has */
#define WAIT (100 * CLOCK_NS_PER_MS)

struct start {
	struct engine *engine;
	const struct engine_config *config;
	uint64_t began;
	uint64_t done, all; /* of the dense weights */
};

static int report(const struct start *s, enum engine_phase phase, uint64_t done, uint64_t all)
{
	const struct engine_config *c = s->config;

	return c->progress ? c->progress(c->progress_arg, phase, done, all) : 0;
}

static int on_weights(void *arg, uint64_t done, uint64_t all)
{
	struct start *s = arg;

	s->done = done;
	s->all = all;
	return report(s, ENGINE_PHASE_DENSE, done, all);
}

/* Reads wait for the memory that they go to. */
static int on_await(void *arg, const void *end)
{
	const struct start *s = arg;
	size_t bytes = (size_t)((const char *)end - (char *)mem_arena_base(s->engine->arena));
	int r;

	while ((r = taker_wait(s->engine->memory.taker, bytes, WAIT)) == 0)
		if (report(s, ENGINE_PHASE_DENSE, s->done, s->all))
			return -ECANCELED;
	return r < 0 ? r : 0;
}

static int await_least(const struct start *s)
{
	struct memory *m = &s->engine->memory;
	int r;

	do {
		if (report(s, ENGINE_PHASE_MEMORY, taker_done(m->taker), m->least))
			return -ECANCELED;
		r = taker_wait(m->taker, m->least, WAIT);
	} while (r == 0);
	return r < 0 ? r : 0;
}

static int open_files(struct engine *e, const struct engine_config *config, struct error *err)
{
	const struct desc *d = config->desc;

	if (d->n_files > LIMIT_MODEL_FILES)
		return error_set(err, -E2BIG, "a model in %" PRIu32 " files: at most %u",
			d->n_files, LIMIT_MODEL_FILES);
	e->files = calloc(d->n_files, sizeof *e->files);
	if (!e->files)
		return error_errno(err, -ENOMEM, "cannot open '%s'", config->path);
	for (; e->n_files < d->n_files; e->n_files++) {
		const char *path = e->n_files ? d->files[e->n_files] : config->path;
		int r = file_open(&e->files[e->n_files], path, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int open_io(struct engine *e, const struct engine_config *config, struct error *err)
{
	enum engine_io want = config->io;
	struct error first = ERROR_NONE;
	int r = -EINVAL, fds[LIMIT_MODEL_FILES];

	for (uint32_t i = 0; i < e->n_files; i++)
		fds[i] = e->files[i].fd;
	if (config->io_new)
		return config->io_new(config->io_new_arg, &e->io, fds, e->n_files, err);
	if (want != ENGINE_IO_PREAD) {
		r = io_ring_new(&e->io, fds, e->n_files, &first);
		if (r < 0 && want == ENGINE_IO_URING)
			return error_set(err, r, "%s", error_text(&first, r));
	}
	return r < 0 ? io_pool_new(&e->io, fds, e->n_files, POOL_THREADS, err) : 0;
}

/* Takes a part of the arena; *ok turns false where it does not fit. */
static void *part(struct engine *e, uint64_t n, bool *ok)
{
	void *p = mem_arena_alloc(e->arena, num_max(n, (uint64_t)1), ALIGN);

	if (!p)
		*ok = false;
	return p;
}

static bool place_context(struct engine *e, struct context *c, uint32_t rows)
{
	const struct desc *d = e->desc;
	uint64_t k = e->top_k, hidden = d->hidden;
	bool ok = true;

	c->max_rows = rows;
	c->rows = calloc(num_max(rows, 1u), sizeof *c->rows);
	c->x = part(e, rows * hidden * 4, &ok);
	c->cos = part(e, (uint64_t)rows * (d->rope_dims / 2) * 4, &ok);
	c->sin = part(e, (uint64_t)rows * (d->rope_dims / 2) * 4, &ok);
	c->norm = part(e, rows * hidden * 4, &ok);
	c->input[0] = (char *)c->norm;
	for (unsigned f = 1; f < 3; f++)
		c->input[f] = part(e, rows * e->input_bytes[f], &ok);
	c->ids = part(e, rows * k * 4, &ok);
	c->gates = part(e, rows * k * 4, &ok);
	c->pairs = part(e, rows * k * 4, &ok);
	c->y = part(e, rows * k * e->y_stride * 4, &ok);
	c->added = part(e, (uint64_t)rows * 4, &ok);
	c->needs = part(e, ((uint64_t)d->experts + 1) * sizeof *c->needs, &ok);
	return ok && c->rows;
}

static bool place_tile(struct engine *e)
{
	const struct desc *d = e->desc;
	uint64_t q = (uint64_t)d->heads * d->head_size, kv = (uint64_t)d->kv_heads * d->head_size;
	uint64_t ff = d->expert_ff, widest, n = SCRATCH_TILE;
	struct tile *t = &e->tile;
	bool ok = true;

	for (uint32_t l = 0; l < d->n_layers; l++)
		ff = num_max(ff, d->layers[l].expert[DESC_DOWN].cols);
	widest = num_max((uint64_t)d->hidden, q);
	widest = num_max(widest, ff);
	t->norm = part(e, n * widest * 4, &ok);
	t->attended = t->norm;
	t->q = part(e, n * q * 4, &ok);
	t->k = part(e, n * kv * 4, &ok);
	t->v = part(e, n * kv * 4, &ok);
	t->out = part(e, n * d->hidden * 4, &ok);
	t->logits = part(e, n * d->experts * 4, &ok);
	t->gate = part(e, n * ff * 4, &ok);
	t->blocks = part(e, team_size(e->team) * SCRATCH_BLOCKS * 4, &ok);
	for (unsigned f = 0; f < 3; f++) {
		uint64_t bytes = f == 1 ? (widest / 32 + 1) * sizeof(struct kernels_q32)
					: (widest / 256 + 1) * sizeof(struct kernels_q256);

		if (f)
			t->input[f] = part(e, n * bytes, &ok);
		t->gathered[f] = part(e, n * e->input_bytes[f], &ok);
	}
	t->head = part(e, (uint64_t)SCRATCH_HEAD_ROWS * d->vocabulary * 4, &ok);
	t->attention_stride = scratch_attention_floats(d);
	t->attention = part(e, team_size(e->team) * t->attention_stride * 4, &ok);
	t->packing_stride = scratch_packing(d);
	t->packing = part(e, team_size(e->team) * t->packing_stride, &ok);
	return ok;
}

/* *ret_least: the end of what has to be there at the start. */
static bool place_kv(struct engine *e, const void **ret_least)
{
	uint32_t blocks = e->plan.context / KV_BLOCK,
		 least = kv_run_end(blocks, KV_LEAST / KV_BLOCK);
	bool ok = true;
	char *p = part(e, (uint64_t)blocks * kv_block_bytes(e->desc), &ok);

	if (!ok || kv_init(&e->kv, e->desc, p, blocks, least, memory_take, e) < 0)
		return false;
	*ret_least = p + least * kv_block_bytes(e->desc);
	e->kv_ready = true;
	return true;
}

static void locate(void *arg, uint32_t group, uint32_t expert, struct store_expert *ret)
{
	const struct engine *e = arg;

	for (unsigned p = 0; p < DESC_PARTS; p++) {
		struct desc_weight w = desc_expert(e->desc, group, expert, p);

		ret->part[p] = (struct store_extent){w.file, w.offset, w.size};
	}
}

static int open_store(struct engine *e, enum policy_kind policy, struct error *err)
{
	const struct desc *d = e->desc;
	struct store_config config = {.io = e->io,
		.files = e->files,
		.n_files = e->n_files,
		.groups = d->n_layers,
		.locate = locate,
		.locate_arg = e,
		.policy = policy};
	uint64_t used = num_align_up(mem_arena_used(e->arena), MEM_HUGE_PAGE);
	bool any = false;

	e->group_experts = calloc(d->n_layers, sizeof *e->group_experts);
	if (!e->group_experts)
		return -ENOMEM;
	for (uint32_t l = 0; l < d->n_layers; l++) {
		e->group_experts[l] = d->layers[l].moe ? d->experts : 0;
		any = any || d->layers[l].moe;
	}
	if (!any)
		return 0;
	if (popularity_init(&e->popularity, d->n_layers, d->experts) < 0)
		return -ENOMEM;
	if (used >= mem_arena_size(e->arena))
		return error_set(err, -ENOMEM, "the plan leaves no memory for experts");
	config.experts = e->group_experts;
	/* What the plan calls slots, though rounding left more. */
	config.size = num_min(
		mem_arena_size(e->arena) - used, num_align_up(e->plan.use[PLAN_SLOTS], MEM_PAGE));
	config.memory = mem_arena_alloc(e->arena, config.size, MEM_HUGE_PAGE);
	if (!config.memory)
		return error_set(err, -ENOMEM, "the plan leaves no memory for experts");
	memory_set_slots(&e->memory, config.memory, config.size);
	config.chunk = e->memory.chunk;
	return store_new(&e->store, &config, err);
}

static int set_frequencies(struct engine *e, struct error *err)
{
	const struct desc *d = e->desc;
	float *factors = calloc(d->rope_dims / 2 + 1, sizeof *factors);
	bool any;

	if (!factors)
		return error_set(err, -ENOMEM, "no memory for the frequencies of the rotation");
	any = desc_rope_factors(d, e->weights.rope_factors, factors);
	kernels_rope_frequencies(d->rope_base, any ? factors : NULL, d->rope_dims, e->frequencies);
	free(factors);
	return 0;
}

/* Where everything goes; none of it is there yet. */
static int place(
	struct start *s, struct weights_load **ret_dense, const void **ret_least, struct error *err)
{
	struct engine *e = s->engine;
	const struct desc *d = e->desc;
	int r;

	r = mem_arena_reserve(
		&e->arena, e->plan.arena, s->config->must_lock ? MEM_LOCK : MEM_TRY_LOCK, err);
	if (r < 0)
		return r;
	r = weights_place(ret_dense, d, e->arena, e->files, e->n_files, err);
	if (r < 0)
		return r;
	e->y_stride = scratch_y_stride(d);
	for (unsigned f = 0; f < 3; f++)
		e->input_bytes[f] = kernels_input_bytes(f, d->hidden);
	e->frequencies = calloc(d->rope_dims / 2 + 1, sizeof *e->frequencies);
	if (!e->frequencies || !place_context(e, &e->contexts[ENGINE_LIVE], e->plan.live_rows) ||
		!place_context(e, &e->contexts[ENGINE_BULK], e->plan.bulk_rows) || !place_tile(e) ||
		!place_kv(e, ret_least))
		return error_set(err, -ENOMEM,
			"the plan's %" PRIu64 " bytes do not hold weights, keys and scratch",
			e->plan.arena);
	r = open_store(e, s->config->policy, err);
	if (r == 0)
		r = prefetch_init(e, s->config->prefetch);
	return r < 0 ? error_errno(err, r, "cannot set up the slots of experts") : 0;
}

/* The pages of the arena come by threads of their own while the weights are read to them. */
static int fill(struct start *s, struct weights_load *dense, const void *least, struct error *err)
{
	const struct weights_callbacks callbacks = {on_await, on_weights, s};
	struct engine *e = s->engine;
	int r = memory_start(e, least, s->config->threads);

	if (r < 0)
		return error_errno(err, r, "cannot start the threads that take memory");
	r = weights_read(&e->weights, dense, e->kernels, e->io, &callbacks, err);
	if (r < 0)
		return r;
	e->dense_ns = clock_now() - s->began;
	r = await_least(s);
	if (r < 0)
		return error_errno(err, r, "cannot take the %zu MiB of memory needed at least",
			e->memory.least >> 20);
	e->memory_ns = clock_now() - s->began;
	(void)memory_advance(e);
	if (e->store)
		disks_tune(e, s->config->probe && e->plan.expected_hit < 1);
	return set_frequencies(e, err);
}

static int load(struct engine *e, const struct engine_config *config, struct error *err)
{
	struct start s = {.engine = e, .config = config, .began = clock_now()};
	struct weights_load *dense = NULL;
	const void *least = NULL;
	int r = place(&s, &dense, &least, err);

	if (r == 0)
		r = fill(&s, dense, least, err);
	e->dense_bytes = s.all;
	weights_load_free(dense);
	return r;
}

int engine_load(struct engine *e, const struct engine_config *config, struct error *err)
{
	int r;

	e->desc = config->desc;
	e->plan = *config->plan;
	e->top_k = num_max(e->desc->top_k, 1u);
	r = kernels_init(&e->kernels);
	if (r < 0)
		return error_errno(err, r, "cannot choose kernels: MOED_CPU is not one of %s",
			kernels_words());
	r = kernels_check_thread();
	if (r < 0)
		return error_set(
			err, r, "the floating-point mode of this thread is not the default one");
	r = open_files(e, config, err);
	if (r < 0)
		return r;
	r = team_new(&e->team, config->threads);
	if (r < 0)
		return error_errno(err, r, "cannot start %u threads", config->threads);
	r = open_io(e, config, err);
	if (r < 0)
		return r;
	disks_find(e, config);
	return load(e, config, err);
}
