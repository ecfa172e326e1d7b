/* SPDX-License-Identifier: MIT */
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "limit.h"
#include "mem.h"
#include "num.h"
#include "scratch.h"
#include "store.h"

#define KV_BLOCK 64u
#define CONTEXT_LEAST                                                                              \
	2048u /* positions that every plan has room for, where the model was trained so */
#define LIVE_ROWS 8u
#define BULK_ROWS 512u
#define BULK_ROWS_LEAST 32u
#define DISK_ALIGN 4096u /* of direct reads, where nothing finer is known */

/* Weights are placed at multiples of this in the arena. */
#define WEIGHT_ALIGN 256u
#define WEIGHTS_PER_LAYER 12u
/* Between the parts of the arena; the largest file alignment there is. */
#define PART_SLACK ((uint64_t)65536 * 4)

/* Code and libraries, heap of the small things, kernel side of ring and sockets. */
#define RESERVE_BASE ((uint64_t)14 << 20)
/* Of a daemon: the buffer for state files, a huge page, and their thread. */
#define RESERVE_SPILL (((uint64_t)2 << 20) + RESERVE_PER_THREAD)
#define RESERVE_PER_THREAD ((uint64_t)128 << 10) /* stack and its page tables */
#define RESERVE_SHARE 256u /* of the limit: page tables at 8 bytes per 4 KiB */

/* A client's two rings of 64 KiB with their headers. */
#define SEGMENTS_PER_CLIENT ((uint64_t)136 << 10)

/* Share of what is left beside the least slots that goes to more context. */
#define KV_SHARE 8u

/* Tables of the tokenizer: hashes, scores, ids of pieces, for each token and each merge. */
#define VOCABULARY_BASE ((uint64_t)1 << 20)
#define VOCABULARY_ENTRY 48u

/* Experts of one size in slots. */
struct class
{
	uint64_t size;
	uint64_t experts;
};

struct shape {
	struct class classes[LIMIT_LAYERS];
	size_t n_classes;
	uint32_t moe_layers;
	uint64_t experts;   /* all */
	uint64_t slots_all; /* bytes of slots for all of them */
	uint64_t slots_least;
};

const char *plan_use_name(enum plan_use use)
{
	static const char *const names[PLAN_USES] = {
		[PLAN_DENSE] = "dense",
		[PLAN_KV] = "kv",
		[PLAN_SLOTS] = "slots",
		[PLAN_SCRATCH] = "scratch",
		[PLAN_VOCABULARY] = "vocabulary",
		[PLAN_SEGMENTS] = "segments",
		[PLAN_RESERVE] = "reserve",
		[PLAN_UNUSED] = "unused",
	};

	return use < PLAN_USES ? names[use] : "?";
}

uint64_t plan_vocabulary(const struct gguf *g)
{
	enum gguf_kind kind;
	uint64_t tokens = 0, merges = 0;

	(void)gguf_get_array(g, "tokenizer.ggml.tokens", &kind, &tokens, NULL);
	(void)gguf_get_array(g, "tokenizer.ggml.merges", &kind, &merges, NULL);
	return VOCABULARY_BASE + 2 * gguf_memory(g) + (tokens + merges) * VOCABULARY_ENTRY;
}

static uint64_t slot_bytes(const struct desc *d, uint32_t l)
{
	struct store_expert x = {0};

	for (int p = 0; p < DESC_PARTS; p++) {
		struct desc_weight w = desc_expert(d, l, 0, p);

		x.part[p] = (struct store_extent){w.file, w.offset, w.size};
	}
	return store_slot_size(&x, DISK_ALIGN);
}

static int add_class(struct shape *s, uint64_t size, uint64_t experts)
{
	uint64_t bytes;
	size_t i = 0;

	if (!num_mul(size, experts, &bytes) || !num_add(s->slots_all, bytes, &s->slots_all))
		return -ERANGE;
	while (i < s->n_classes && s->classes[i].size != size)
		i++;
	if (i == s->n_classes)
		s->classes[s->n_classes++].size = size;
	s->classes[i].experts += experts;
	s->experts += experts;
	s->moe_layers++;
	return 0;
}

/* What the slots must hold: classes of experts, all of them, and two layers' top-k of each class.
 */
static int shape_make(struct shape *s, const struct desc *d)
{
	int r = 0;

	for (uint32_t l = 0; !r && l < d->n_layers; l++)
		if (d->layers[l].moe)
			r = add_class(s, slot_bytes(d, l), d->layers[l].shared ? 1 : d->experts);
	for (size_t i = 0; !r && i < s->n_classes; i++) {
		uint64_t n = num_min(s->classes[i].experts, (uint64_t)d->top_k * 2), bytes;

		if (!num_mul(s->classes[i].size, n, &bytes) ||
			!num_add(s->slots_least, bytes, &s->slots_least))
			r = -ERANGE;
	}
	return r;
}

/* Everything but KV and slots, for given rows. */
static void fill_fixed(
	struct plan *p, const struct plan_input *in, uint64_t limit, uint32_t bulk_rows)
{
	const struct desc *d = in->desc;
	uint32_t threads = num_max(in->threads, 1u);
	uint64_t weights = ((uint64_t)d->n_layers + 1) * WEIGHTS_PER_LAYER;

	*p = (struct plan){.limit = limit, .bulk_rows = bulk_rows};
	p->cycle = desc_cycle_bytes(d);
	p->live_rows = in->live_rows ? in->live_rows : LIVE_ROWS;
	p->use[PLAN_DENSE] = num_align_up(desc_dense_bytes(d) + weights * WEIGHT_ALIGN, 4096);
	p->use[PLAN_SCRATCH] = num_align_up(
		scratch_bytes(d, p->live_rows, p->bulk_rows, threads) + PART_SLACK, 4096);
	p->use[PLAN_VOCABULARY] = num_align_up(in->vocabulary, 4096);
	p->use[PLAN_SEGMENTS] = in->daemon ? in->clients * SEGMENTS_PER_CLIENT : 0;
	/* Not rounded: the limit less this must grow with the limit. */
	p->use[PLAN_RESERVE] = RESERVE_BASE + threads * RESERVE_PER_THREAD + limit / RESERVE_SHARE +
			       (in->daemon ? RESERVE_SPILL : 0);
}

static uint32_t least_context(const struct plan_input *in)
{
	uint32_t n = in->context ? in->context : num_min(in->desc->context, CONTEXT_LEAST);

	return (uint32_t)num_align_up(n, KV_BLOCK);
}

/* Bytes of the arena where the plan has what it has and `slots` more; whole huge pages. */
static uint64_t arena_bytes(const struct plan *p, uint64_t kv, uint64_t slots)
{
	return num_align_up(p->use[PLAN_DENSE] + p->use[PLAN_SCRATCH] + kv + slots, MEM_HUGE_PAGE);
}

/* What the arena may take, whole huge pages; 0 where there is nothing. */
static uint64_t arena_room(const struct plan *p)
{
	uint64_t outside = p->use[PLAN_VOCABULARY] + p->use[PLAN_SEGMENTS] + p->use[PLAN_RESERVE];

	return outside < p->limit ? num_align_down(p->limit - outside, MEM_HUGE_PAGE) : 0;
}

static bool is_enough(const struct plan_input *in, const struct shape *s, uint64_t limit)
{
	uint32_t bulk = in->bulk_rows ? in->bulk_rows : BULK_ROWS_LEAST;
	uint64_t kv = desc_kv_bytes(in->desc, least_context(in));
	struct plan p;

	fill_fixed(&p, in, limit, bulk);
	return arena_bytes(&p, kv, s->slots_least) <= arena_room(&p);
}

/* The smallest limit that works; is_enough() is monotone. */
static uint64_t find_floor(const struct plan_input *in, const struct shape *s)
{
	uint64_t low = 0, high = (uint64_t)1 << 20;

	while (high < (uint64_t)1 << 60 && !is_enough(in, s, high)) {
		low = high;
		high *= 2;
	}
	while (high - low > 1) {
		uint64_t mid = low + (high - low) / 2;

		if (is_enough(in, s, mid))
			high = mid;
		else
			low = mid;
	}
	return high;
}

/*
 * The largest prefill chunk whose rows take at most a quarter of what is left beside the least.  A
 * chunk reads nearly all experts that have no slot, so that twice the rows halve what a prompt
 * reads; few slots more would spare it little.
 */
static uint32_t choose_bulk(const struct plan_input *in, const struct shape *s)
{
	uint64_t kv = desc_kv_bytes(in->desc, least_context(in)), room, need, spare;
	struct plan least, p;

	if (in->bulk_rows)
		return in->bulk_rows;
	fill_fixed(&least, in, in->limit, BULK_ROWS_LEAST);
	room = arena_room(&least);
	need = arena_bytes(&least, kv, s->slots_least);
	spare = room - num_min(room, need);
	for (uint32_t n = BULK_ROWS; n > BULK_ROWS_LEAST; n /= 2) {
		fill_fixed(&p, in, in->limit, n);
		if (p.use[PLAN_SCRATCH] - least.use[PLAN_SCRATCH] <= spare / 4)
			return n;
	}
	return BULK_ROWS_LEAST;
}

/* Positions of KV, where nobody said how many. */
static uint32_t choose_context(
	const struct plan *p, const struct plan_input *in, const struct shape *s, uint64_t room)
{
	uint32_t least = least_context(in);
	uint64_t block = desc_kv_bytes(in->desc, KV_BLOCK);
	/* Sensible at most: one session as long as trained for, or each live one of the least. */
	uint64_t most = num_max((uint64_t)in->desc->context, (uint64_t)least * p->live_rows);
	uint64_t fixed = p->use[PLAN_DENSE] + p->use[PLAN_SCRATCH] + desc_kv_bytes(in->desc, least);
	uint64_t spare = room - num_min(room, fixed + s->slots_least), extra = spare / KV_SHARE;
	uint64_t positions;

	if (in->context)
		return least;
	/* All experts have a slot: the rest is of no other use. */
	if (room > fixed + s->slots_all)
		extra = num_max(extra, room - fixed - s->slots_all);
	positions = least + extra / block * KV_BLOCK;
	positions = num_min(positions, num_align_down(most, KV_BLOCK));
	return (uint32_t)num_max(positions, (uint64_t)least);
}

static void count_slots(struct plan *p, const struct desc *d, const struct shape *s)
{
	double share = s->slots_all ? (double)p->use[PLAN_SLOTS] / (double)s->slots_all : 1;

	share = num_min(share, 1.0);
	for (size_t i = 0; i < s->n_classes; i++)
		p->slots += (uint64_t)(share * (double)s->classes[i].experts);
	p->slots_per_layer = s->moe_layers ? (double)p->slots / s->moe_layers : 0;
	p->expected_hit = s->experts ? (double)p->slots / (double)s->experts : 1;
	p->bytes_per_token = (double)desc_cycle_bytes(d) * (1 - p->expected_hit);
}

static void divide(struct plan *p, const struct plan_input *in, const struct shape *s)
{
	uint64_t room, arena, fixed, outside = 0;
	uint64_t floor = p->floor;

	fill_fixed(p, in, in->limit, choose_bulk(in, s));
	p->floor = floor;
	room = arena_room(p);
	p->context = choose_context(p, in, s, room);
	p->use[PLAN_KV] = desc_kv_bytes(in->desc, p->context);
	arena = num_min(room, arena_bytes(p, p->use[PLAN_KV], s->slots_all));
	fixed = p->use[PLAN_DENSE] + p->use[PLAN_SCRATCH] + p->use[PLAN_KV];
	p->arena = arena;
	p->use[PLAN_SLOTS] = num_min(arena - fixed, s->slots_all);
	/* The last huge page's rest. */
	p->use[PLAN_SCRATCH] += arena - fixed - p->use[PLAN_SLOTS];
	count_slots(p, in->desc, s);
	for (int u = 0; u < PLAN_USES; u++)
		outside += p->use[u];
	/* Less than a huge page stays over: too little for the arena, so it is for what grows. */
	if (room == arena)
		p->use[PLAN_RESERVE] += p->limit - outside;
	else
		p->use[PLAN_UNUSED] = p->limit - outside;
}

static int check_input(const struct plan_input *in, struct error *err)
{
	if (in->limit > LIMIT_MEMORY)
		return error_set(err, -ERANGE,
			"a memory limit of %" PRIu64 " bytes is more than any machine has",
			in->limit);
	if (in->context > LIMIT_CONTEXT)
		return error_set(err, -ERANGE,
			"a context of %" PRIu32 " positions; the limit is %" PRIu64, in->context,
			LIMIT_CONTEXT);
	if (in->live_rows > LIMIT_LIVE_ROWS || in->bulk_rows > LIMIT_BULK_ROWS ||
		in->threads > LIMIT_THREADS || in->clients > LIMIT_CLIENTS ||
		in->vocabulary > (uint64_t)1 << 50)
		return error_set(err, -ERANGE,
			"rows, threads or clients are out of range (at most %u live rows, %u bulk "
			"rows, %u threads, %u clients)",
			LIMIT_LIVE_ROWS, LIMIT_BULK_ROWS, LIMIT_THREADS, LIMIT_CLIENTS);
	return 0;
}

int plan_make(struct plan *ret, const struct plan_input *in, struct error *err)
{
	cleanup_free_ struct shape *s = calloc(1, sizeof *s);
	char limit[NUM_SIZE_TEXT_MAX];
	struct plan p = {0};
	int r;

	if (!s)
		return -ENOMEM;
	r = check_input(in, err);
	if (r < 0)
		return r;
	if (shape_make(s, in->desc) < 0)
		return error_set(
			err, -ERANGE, "the experts of the model are larger than can be counted");
	p.limit = in->limit;
	p.floor = find_floor(in, s);
	p.cycle = desc_cycle_bytes(in->desc);
	if (!is_enough(in, s, in->limit)) {
		*ret = p;
		return error_set(err, -ENOMEM,
			"a memory limit of %s is too small for this model: give it at least "
			"%" PRIu64 "M (%" PRIu64 " bytes)",
			num_format_size(in->limit, limit), (p.floor + (1 << 20) - 1) >> 20,
			p.floor);
	}
	divide(&p, in, s);
	*ret = p;
	return 0;
}

uint64_t plan_half_reads(const struct plan_input *in, const struct plan *p)
{
	struct plan_input try = *in;
	uint64_t low = p->limit, high = p->limit;
	struct plan q = *p;

	if (p->bytes_per_token <= 0)
		return 0;
	while (q.bytes_per_token > p->bytes_per_token / 2) {
		low = high;
		high *= 2;
		try.limit = high;
		if (plan_make(&q, &try, NULL) < 0)
			return 0;
	}
	/* To the megabyte: nobody sets a limit more finely. */
	while (high - low > (uint64_t)1 << 20) {
		try.limit = low + (high - low) / 2;
		if (plan_make(&q, &try, NULL) == 0 && q.bytes_per_token <= p->bytes_per_token / 2)
			high = try.limit;
		else
			low = try.limit;
	}
	return high;
}
