/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of the engine share: the engine, its two contexts and the place of each in its
 * step (the cursor), and the scratch of one tile.  Included by engine*.c, step.c, attention.c and
 * moe.c only.  A tile runs to its end inside one engine_advance(), so its scratch is one for both
 * contexts; what lives from tile to tile belongs to the context.
 */

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine-time.h"
#include "engine.h"
#include "file.h"
#include "io.h"
#include "kv.h"
#include "mem.h"
#include "scratch.h"
#include "store.h"
#include "taker.h"
#include "team.h"
#include "weights.h"

#define ENGINE_ERROR_TEXT 512

static_assert(ENGINE_BLOCK == KV_BLOCK, "one size of blocks");

enum step_phase {
	STEP_EMBED,
	STEP_ATTENTION, /* up to the router, row tile by row tile */
	STEP_EXPERTS,	/* expert by expert */
	STEP_SUM,	/* of the experts' outputs */
	STEP_HEAD,
};

struct step_row {
	struct engine_seq *seq; /* NULL: failed or dropped */
	uint32_t token, position, want;
	void *arg;
};

enum need_state {
	NEED_WANTED, /* not asked for, or there was no slot */
	NEED_HELD,
	NEED_DONE,
};

/* An expert that rows of this layer go to: pairs[first .. first + count). */
struct need {
	uint32_t expert, first, count, done;
	enum need_state state;
	bool asked;
};

struct context {
	bool active;
	enum step_phase phase;
	uint32_t layer;
	uint32_t row; /* next row of the phase */
	uint32_t n_rows, max_rows;
	struct step_row *rows;
	struct engine_callbacks callbacks;
	float *x;	  /* [rows][hidden] residual */
	float *cos, *sin; /* [rows][rope_dims / 2] */
	float *norm;	  /* [rows][hidden] input of the experts */
	char *input[3];	  /* the same, by enum kernels_input; [0] is norm */
	uint32_t *ids;	  /* [rows][top_k], ascending */
	float *gates;	  /* [rows][top_k] */
	/*
	 * [rows][top_k][y_stride] outputs of experts.  Those that come in ascending order are added
	 * up at once, in the place of the first; the others wait in their own.
	 */
	float *y;
	uint32_t *added;	      /* [rows] so many are */
	uint32_t *pairs;	      /* row * top_k + place, by expert */
	struct need *needs;	      /* [experts] */
	uint32_t n_needs, first_need; /* those before are done */
	bool starved;		      /* wanted a slot and got none */
};

/* Scratch of one tile. */
struct tile {
	uint32_t n;		     /* rows in it */
	uint32_t rows[SCRATCH_TILE]; /* their numbers in the context */
	float *norm;		     /* [tile][widest input] */
	char *input[3];		     /* [tile][widest], by enum kernels_input */
	float *q, *k, *v, *attended, *out, *logits;
	float *gate;	   /* [tile][ff]: gate and up, multiplied */
	float *blocks;	   /* [threads][SCRATCH_BLOCKS] */
	char *gathered[3]; /* [tile][input of hidden] */
	float *head;	   /* [SCRATCH_HEAD_ROWS][vocabulary] */
	float *attention;  /* [threads] queries, keys and state */
	size_t attention_stride;
	char *packing; /* [threads] a tile of weights */
	size_t packing_stride;
};

#define PREFETCH_ROWS 2u  /* of a step that is predicted */
#define PREFETCH_MOST 16u /* experts at once */

/* Experts of the next layer, read while nothing else is.  See prefetch.c. */
struct prefetch {
	enum engine_prefetch mode;
	bool pending;	/* norm[] is of this layer, and nothing was predicted from it */
	uint32_t layer; /* of what is held */
	uint32_t n, held[PREFETCH_MOST];
	uint32_t rows;
	float *norm; /* [PREFETCH_ROWS][hidden] */
	/* Whether it pays: steps with and without, in turn. */
	bool on;
	uint32_t steps; /* of the trial, or left until the next one */
	bool trying;
	uint64_t began, ns[2], mean_ns;
	uint64_t recent_issued, recent_useful;
	_Atomic uint64_t issued, useful, late;
	_Atomic(const char *) state, why;
};

struct engine_counters {
	_Atomic uint64_t hits, misses, evictions, bytes_read, bytes_useful, reads, read_errors,
		wait_ns, compute_ns, rows[ENGINE_CONTEXTS], steps[ENGINE_CONTEXTS], tiles, slots,
		slots_used, given, experts, ready, ready_bytes;
};

/* A piece of the slots' memory. */
enum chunk_state {
	CHUNK_COMING, /* the taker is going to bring it */
	CHUNK_HERE,
	CHUNK_GIVEN, /* back to the system, or never had */
};

/* What of the arena is there: the pages of slots come, go and come again, chunk by chunk. */
struct memory {
	struct taker *taker; /* NULL: nothing more comes */
	size_t least, all;   /* bytes that it brings until the engine can start, and in all */
	char *slots;
	size_t size, chunk;	 /* of the slots; of one chunk, the last may be smaller */
	size_t given, less;	 /* given back; less: of them for as long as the limit is low */
	uint32_t n_chunks, next; /* next: of order[] */
	uint8_t *chunks;	 /* enum chunk_state */
	uint32_t *order;	 /* in which they come */
	size_t *order_end;	 /* bytes of the taker with which each is there */
};

#define FILL_AHEAD 32u /* experts asked for */

/* Experts that are read before anybody wants them, in the order of the file. */
struct fill {
	uint32_t layer, expert; /* the next */
	bool warm;   /* there are those that were there in an earlier run: first these, */
	bool others; /* then the others */
	bool missed; /* some had no slot */
	bool over;   /* all are there, or no slot is free */
	bool stopped;
	uint32_t n;
	uint32_t held[FILL_AHEAD][2]; /* layer and expert of those on their way */
};

struct engine {
	const struct desc *desc;
	struct plan plan;
	const struct kernels *kernels;
	struct team *team;
	struct file *files; /* [n_files] */
	uint32_t n_files, n_disks;
	struct engine_disk disks[LIMIT_MODEL_FILES]; /* that they lie on */
	struct io *io;
	struct mem_arena *arena;
	struct weights weights;
	struct kv kv;
	bool kv_ready;
	struct store *store; /* NULL without experts */
	struct memory memory;
	struct fill fill;
	uint64_t memory_ns, dense_ns; /* from the start on, until the least was there */
	uint64_t dense_bytes;
	uint32_t *group_experts;
	struct context contexts[ENGINE_CONTEXTS];
	struct tile tile;
	size_t y_stride; /* floats; no power of two, lest all rows meet in one set of a cache */
	size_t input_bytes[3];	/* of a row of `hidden` */
	size_t widest_bytes[3]; /* of the widest row */
	float *frequencies;
	uint32_t top_k; /* at least 1 */
	struct prefetch prefetch;
	struct engine_counters counters;
	struct popularity popularity;
	struct engine_clock clock;
};

/* engine.c: the counters that other threads see. */
void engine_publish(struct engine *e);

/* engine-memory.c */
/* Where the slots are; before store_new(), which wants to know the chunk. */
void memory_set_slots(struct memory *m, void *slots, size_t size);
/*
 * Begins to take the pages of the arena: those up to `least` first, then the least slots; later the
 * other slots, and what is left before the slots.  0 or -errno.
 */
int memory_start(struct engine *e, const void *least, unsigned threads);
/* Slots that are there, one after another; before anything is read to them. */
void *memory_room(const struct memory *m, size_t *ret_n);
/* Puts to use what has come since.  True where there are more slots. */
bool memory_advance(struct engine *e);
/* A kv_take_fn; arg: the engine. */
int memory_take(void *arg, void *p, size_t n);
/* No more comes by itself. */
void memory_stop(struct engine *e);
void memory_deinit(struct memory *m);

/* engine-fill.c */
/* There are free slots again. */
void fill_restart(struct engine *e);
/* Lets go of the experts that nobody wants and that are not here yet. */
void fill_release(struct engine *e);

/* prefetch.c */
/* 0 or -ENOMEM. */
int prefetch_init(struct engine *e, enum engine_prefetch mode);
void prefetch_deinit(struct engine *e);
/* A step of decode begins. */
void prefetch_begin_step(struct engine *e, const struct context *c);
/* The tile holds the input of a layer's experts: what a prediction is made from. */
void prefetch_note(struct engine *e, const struct context *c);
/* Predicts and asks, where that was not done for this layer. */
void prefetch_run(struct engine *e, const struct context *c);
/* The layer's choices are known: what of them was read ahead? */
void prefetch_settle(struct engine *e, const struct context *c);
/* Gives back what is held. */
void prefetch_release(struct engine *e);

/* engine-disk.c */
void disks_find(struct engine *e, const struct engine_config *config);
/* probe: those that nothing is known of.  Once the least memory is there, before other reads. */
void disks_tune(struct engine *e, bool probe);

/* engine-load.c */
int engine_load(struct engine *e, const struct engine_config *config, struct error *err);

/* step.c: one tile; enum engine_result or -errno. */
int step_advance(struct engine *e, struct context *c);
/* The row fails, and all later ones of its sequence; the sequence forgets them. */
void step_row_fail(struct engine *e, struct context *c, uint32_t row, int code, const char *format,
	...) __attribute__((format(printf, 5, 6)));
/* Ends the step without a callback: as if it had not begun. */
void step_abandon(struct engine *e, struct context *c);
/*
 * Rows that a tile takes so that it ends within about 20 ms, given the multiplications of a row
 * with quantised weights and in floats; at most SCRATCH_TILE.
 */
uint32_t step_fitting(const struct engine *e, uint64_t quantised, uint64_t floats);
/* Fills e->tile.rows with up to `max` rows from c->row on; moves c->row. */
void step_tile_rows(struct engine *e, struct context *c, uint32_t max);

/* A product of the whole team's: weight x input rows. */
struct step_product {
	const struct desc_weight *weight;
	struct matrix *matrix;
	const void *x;
	size_t x_stride;
	float *out;
	size_t out_stride;
	size_t cols;
};
void step_products(struct engine *e, const struct step_product *p, size_t n);
/* input[form] of n rows of `width` floats at x, for all forms that `forms` (1 << form) asks for. */
void step_quantize(struct engine *e, unsigned forms, const float *x, size_t stride, size_t n,
	size_t width, char *const out[3], const size_t out_stride[3]);
/* fn(arg, worker, begin, end) over n items in pieces. */
typedef void (*step_fn)(void *arg, unsigned worker, size_t begin, size_t end);
void step_run(struct engine *e, step_fn fn, void *arg, size_t n, size_t piece);
/*
 * fn over tiles of rows, at most SCRATCH_PIECE at once, or more where the outputs of `cols`
 * columns have room in a half of step_block(), which read so many bytes of weights, those of each
 * column counted: few are not worth waking anybody.
 */
void step_tiles(struct engine *e, step_fn fn, void *arg, size_t tiles, size_t cols, uint64_t bytes);
/* A worker's room for the outputs of a piece of tiles: SCRATCH_BLOCKS floats. */
float *step_block(const struct engine *e, unsigned worker);
/* A worker's room to pack a tile. */
void *step_scratch(const struct engine *e, unsigned worker);

static inline enum kernels_input step_form(const struct desc_weight *w)
{
	return kernels_format(w->type)->input;
}

/* attention.c: the attention of the tile's rows, from tile.q to tile.attended. */
void attention_store(struct engine *e, struct context *c);
void attention_run(struct engine *e, struct context *c);

/* moe.c */
/* The k best of n scores, ties to the lower number, best first. */
void moe_best_of(const float *scores, uint32_t n, uint32_t k, uint32_t *ids);
void moe_route(struct engine *e, struct context *c);
void moe_begin(struct engine *e, struct context *c);
int moe_advance(struct engine *e, struct context *c); /* as step_advance; IDLE: the layer is done */
void moe_sum(struct engine *e, struct context *c);
/* Gives back what the context holds in the store. */
void moe_release(struct engine *e, struct context *c);
