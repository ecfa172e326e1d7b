/* SPDX-License-Identifier: MIT */
#include "engine-internal.h"

#include <errno.h>
#include <stdlib.h>

#include "num.h"

static void set(_Atomic uint64_t *to, uint64_t value)
{
	atomic_store_explicit(to, value, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *from)
{
	return atomic_load_explicit(from, memory_order_relaxed);
}

/* Counters have one writer, the engine's thread. */
static void count(_Atomic uint64_t *to, uint64_t n)
{
	set(to, get(to) + n);
}

void engine_publish(struct engine *e)
{
	struct engine_counters *c = &e->counters;
	struct store_stats s = {0};

	if (e->store)
		store_get_stats(e->store, &s);
	set(&c->hits, s.hits);
	set(&c->misses, s.misses);
	set(&c->evictions, s.evictions);
	set(&c->bytes_read, s.bytes_read);
	set(&c->bytes_useful, s.bytes_useful);
	set(&c->reads, s.reads);
	set(&c->read_errors, s.errors);
	set(&c->slots, s.slots);
	set(&c->slots_used, s.slots_used);
	set(&c->experts, s.experts);
	set(&c->ready, s.ready);
	set(&c->ready_bytes, s.ready_bytes);
	set(&c->given, e->memory.given);
}

int engine_start(struct engine **ret, const struct engine_config *config, struct error *err)
{
	struct engine *e;
	int r;

	if (config->threads == 0 || config->threads > LIMIT_THREADS)
		return error_set(err, -EINVAL, "%u threads: allowed are 1 to %u", config->threads,
			LIMIT_THREADS);
	e = calloc(1, sizeof *e);
	if (!e)
		return error_set(err, -ENOMEM, "no memory for the engine");
	r = engine_load(e, config, err);
	/* Last, so that no thread of reads inherits the place of worker 0. */
	if (r == 0 && config->pin) {
		r = team_pin(e->team);
		if (r < 0)
			(void)error_errno(err, r, "cannot bind the threads to processors");
	}
	if (r < 0) {
		engine_free(e);
		return r;
	}
	engine_publish(e);
	engine_clock_start(&e->clock);
	*ret = e;
	return 0;
}

struct engine *engine_free(struct engine *e)
{
	if (!e)
		return NULL;
	/* Reads in flight write to the arena: they end before it does. */
	if (e->store)
		store_free(e->store);
	if (e->io)
		e->io->ops->free(e->io);
	team_free(e->team);
	if (e->kv_ready)
		kv_deinit(&e->kv);
	weights_deinit(&e->weights);
	for (unsigned i = 0; i < ENGINE_CONTEXTS; i++)
		free(e->contexts[i].rows);
	free(e->frequencies);
	free(e->group_experts);
	prefetch_deinit(e);
	popularity_deinit(&e->popularity);
	memory_deinit(&e->memory);
	mem_arena_free(e->arena);
	for (uint32_t i = 0; i < e->n_files; i++)
		file_close(&e->files[i]);
	free(e->files);
	free(e);
	return NULL;
}

int engine_seq_new(struct engine *e, struct engine_seq **ret)
{
	return kv_seq_new(&e->kv, ret);
}

struct engine_seq *engine_seq_free(struct engine *e, struct engine_seq *s)
{
	if (!s)
		return NULL;
	engine_drop(e, s);
	kv_seq_free(&e->kv, s);
	return NULL;
}

uint32_t engine_seq_length(const struct engine_seq *s)
{
	return s->length;
}

void engine_seq_truncate(struct engine *e, struct engine_seq *s, uint32_t n)
{
	if (!s->busy)
		kv_seq_truncate(&e->kv, s, n);
}

int engine_seq_reserve(struct engine *e, struct engine_seq *s, uint32_t n)
{
	return kv_seq_reserve(&e->kv, s, n);
}

void engine_kv(const struct engine *e, uint32_t *ret_free, uint32_t *ret_all)
{
	*ret_free = e->kv.n_free * KV_BLOCK;
	*ret_all = e->kv.n_blocks * KV_BLOCK;
}

/* Undoes the first n rows of a step that cannot begin. */
static void unbegin(struct context *c, size_t n)
{
	while (n-- > 0) {
		c->rows[n].seq->length--;
		c->rows[n].seq->busy--;
		c->rows[n].seq = NULL;
	}
}

static bool in_other_context(
	const struct engine *e, const struct context *c, const struct engine_seq *s)
{
	for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
		const struct context *o = &e->contexts[i];

		for (uint32_t j = 0; o != c && j < o->n_rows; j++) {
			if (o->rows[j].seq == s)
				return true;
		}
	}
	return false;
}

int engine_begin(struct engine *e, enum engine_context context, const struct engine_row *rows,
	size_t n, const struct engine_callbacks *callbacks)
{
	struct context *c = &e->contexts[context];

	if (c->active)
		return -EBUSY;
	if (n == 0 || n > c->max_rows)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		struct engine_seq *s = rows[i].seq;
		int r = 0;

		if (rows[i].token >= e->desc->vocabulary)
			r = -ERANGE;
		else if (s->length >= s->n_blocks * KV_BLOCK)
			r = -EINVAL; /* not reserved */
		else if (s->busy && in_other_context(e, c, s))
			r = -EBUSY;
		if (r < 0) {
			unbegin(c, i);
			return r;
		}
		c->rows[i] = (struct step_row){.seq = s,
			.token = rows[i].token,
			.position = s->length++,
			.want = rows[i].want,
			.arg = rows[i].arg};
		s->busy++;
	}
	c->n_rows = (uint32_t)n;
	c->callbacks = callbacks ? *callbacks : (struct engine_callbacks){0};
	c->phase = STEP_EMBED;
	c->row = 0;
	c->layer = 0;
	c->n_needs = c->first_need = 0;
	c->active = true;
	if (context == ENGINE_LIVE && e->store)
		prefetch_begin_step(e, c);
	count(&e->counters.rows[context], n);
	count(&e->counters.steps[context], 1);
	return 0;
}

int engine_advance(struct engine *e, enum engine_context context)
{
	struct context *c = &e->contexts[context];
	uint64_t start;
	int r;

	if (!c->active)
		return ENGINE_IDLE;
	(void)memory_advance(e);
	start = engine_mark(e, c, ENGINE_TIME_SCHEDULE);
	r = step_advance(e, c);
	if (r < 0)
		step_abandon(e, c);
	if (r != ENGINE_WAITING) {
		count(&e->counters.compute_ns, e->clock.last - start);
		count(&e->counters.tiles, 1);
	}
	engine_publish(e);
	return r;
}

/* For reads, or for memory that is still to come. */
static int wait_any(struct engine *e, uint64_t timeout_ns)
{
	struct memory *m = &e->memory;

	if (e->store && store_in_flight(e->store) > 0)
		return store_reap(e->store, timeout_ns);
	(void)taker_wait(
		m->taker, m->next < m->n_chunks ? m->order_end[m->next] : m->all, timeout_ns);
	(void)memory_advance(e);
	return 0;
}

int engine_wait(struct engine *e, uint64_t timeout_ns)
{
	uint64_t start;
	int r;

	if ((!e->store || store_in_flight(e->store) == 0) && !e->memory.taker)
		return 0;
	start = engine_mark_any(e, ENGINE_TIME_SCHEDULE);
	r = wait_any(e, timeout_ns);
	/* Nobody waits where no rows do. */
	if (e->contexts[ENGINE_LIVE].active || e->contexts[ENGINE_BULK].active)
		count(&e->counters.wait_ns, engine_mark_any(e, ENGINE_TIME_WAIT) - start);
	else
		engine_rested(e);
	engine_publish(e);
	return r < 0 ? r : 0;
}

void engine_drop(struct engine *e, struct engine_seq *s)
{
	for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
		struct context *c = &e->contexts[i];

		for (uint32_t j = 0; j < c->n_rows; j++) {
			struct step_row *r = &c->rows[j];

			if (r->seq != s)
				continue;
			/* Its keys are not whole: as if it had not been. */
			s->length = num_min(s->length, r->position);
			s->busy--;
			r->seq = NULL;
		}
	}
}

static bool reads_directly(const struct engine *e)
{
	for (uint32_t i = 0; i < e->n_files; i++)
		if (!e->files[i].direct)
			return false;
	return true;
}

void engine_stats(const struct engine *e, struct engine_stats *ret)
{
	const struct engine_counters *c = &e->counters;
	bool locks = mem_arena_is_locked(e->arena);
	struct engine_times times;

	engine_clock_read(&e->clock, &times);
	*ret = (struct engine_stats){
		.hits = get(&c->hits),
		.misses = get(&c->misses),
		.evictions = get(&c->evictions),
		.bytes_read = get(&c->bytes_read),
		.bytes_useful = get(&c->bytes_useful),
		.reads = get(&c->reads),
		.read_errors = get(&c->read_errors),
		.wait_ns = get(&c->wait_ns),
		.compute_ns = get(&c->compute_ns),
		.rows_live = get(&c->rows[ENGINE_LIVE]),
		.rows_bulk = get(&c->rows[ENGINE_BULK]),
		.steps_live = get(&c->steps[ENGINE_LIVE]),
		.steps_bulk = get(&c->steps[ENGINE_BULK]),
		.tiles = get(&c->tiles),
		.slots = get(&c->slots),
		.slots_used = get(&c->slots_used),
		.experts = get(&c->experts),
		.ready = get(&c->ready),
		.ready_bytes = get(&c->ready_bytes),
		.locked_bytes = locks ? e->memory.all - get(&c->given) : 0,
		.taken_bytes = mem_arena_taken(e->arena),
		.locks = locks,
		.dense_ns = e->dense_ns,
		.memory_ns = e->memory_ns,
		.dense_bytes = e->dense_bytes,
		.arena_bytes = e->memory.all,
		.times = times,
		.given_bytes = get(&c->given),
		.ahead = {.issued = get(&e->prefetch.issued),
			.useful = get(&e->prefetch.useful),
			.late = get(&e->prefetch.late),
			.state = atomic_load_explicit(&e->prefetch.state, memory_order_relaxed),
			.why = atomic_load_explicit(&e->prefetch.why, memory_order_relaxed)},
		.direct = reads_directly(e),
		.io = e->io->ops->name,
		.tier = e->kernels->name,
		.kernels = e->kernels,
	};
}

bool engine_expert_is_here(const struct engine *e, uint32_t layer, uint32_t expert)
{
	return e->store && store_is_here(e->store, layer, expert);
}

void engine_popularity(struct engine *e, struct popularity *ret)
{
	struct popularity *p = &e->popularity;

	for (uint32_t l = 0; l < p->layers; l++) {
		for (uint32_t x = 0; x < p->experts; x++)
			p->resident[(size_t)l * p->experts + x] = engine_expert_is_here(e, l, x);
	}
	popularity_copy(ret, p);
}

const struct kernels *engine_kernels(const struct engine *e)
{
	return e->kernels;
}
