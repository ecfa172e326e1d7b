/* SPDX-License-Identifier: MIT */

/* bench and ping: what the daemon does in which time. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "moectl.h"

struct bench_client {
	struct moe *m;
	uint64_t request, submitted, left;
	bool first; /* the first token is still to come */
};

/* The daemon's totals: what requests are told covers all that ran beside them. */
struct bench_totals {
	json_int_t hits, misses, bytes_read, bytes_useful;
};

struct bench {
	const struct options *o;
	struct bench_client *clients;
	struct pollfd *polls;
	double *ttft;
	size_t n_ttft;
	uint32_t vocabulary, *ids;
	uint64_t random;
	uint64_t prompt_tokens, generated, prefill_ns, decode_ns, io_wait_ns, queue_ns;
	struct bench_totals before, after;
	uint64_t running;
};

static int bench_look(struct moe *m, struct bench_totals *ret)
{
	json_t *status;
	int k = status_get(m, &status);

	if (k)
		return k;
	k = json_unpack(status, "{s:{s:I,s:I},s:{s:I,s:I}}", "cache", "hits", &ret->hits, "misses",
		&ret->misses, "io", "bytes_read", &ret->bytes_read, "bytes_useful",
		&ret->bytes_useful);
	json_decref(status);
	return k < 0 ? complain("the daemon's status has no figures of its cache") : EXIT_OK;
}

static uint64_t random_next(struct bench *b)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return b->random;
}

/* Prompts differ, so that none is answered out of another's state. */
static int bench_submit(struct bench *b, struct bench_client *c)
{
	struct moe_request r = MOE_REQUEST_INIT;
	int k;

	for (uint64_t i = 0; i < b->o->prompt_tokens; i++)
		b->ids[i] = (uint32_t)(random_next(b) % b->vocabulary);
	r.ids = b->ids;
	r.n_ids = b->o->prompt_tokens;
	r.max_tokens = (uint32_t)b->o->max_tokens;
	r.flags = MOE_IGNORE_END;
	c->submitted = clock_now();
	c->first = true;
	c->left--;
	k = moe_submit(c->m, NULL, &r, &c->request);
	if (k < 0)
		return complain(
			"%s", *moe_last_error(c->m) ? moe_last_error(c->m) : moe_strerror(k));
	return 0;
}

static int bench_event(struct bench *b, struct bench_client *c, const struct moe_event *e)
{
	if (e->type == MOE_DISCONNECTED)
		return complain("moed has gone");
	if (e->request != c->request)
		return 0;
	switch (e->type) {
	case MOE_TOKEN:
		if (c->first)
			b->ttft[b->n_ttft++] = (double)(clock_now() - c->submitted) / 1e6;
		c->first = false;
		return 0;
	case MOE_ERROR:
		return complain("%s", *e->text ? e->text : moe_strerror(e->code));
	case MOE_DONE:
		b->prompt_tokens += e->prompt_tokens - e->reused;
		b->generated += e->generated;
		b->prefill_ns += e->prefill_ns;
		b->decode_ns += e->decode_ns;
		b->io_wait_ns += e->io_wait_ns;
		b->queue_ns += e->queue_ns;
		if (c->left)
			return bench_submit(b, c);
		b->running--;
		return 0;
	default:
		return 0;
	}
}

static int bench_run(struct bench *b)
{
	const struct moe_event *e;
	int k;

	while (b->running) {
		for (uint64_t i = 0; i < b->o->clients; i++) {
			while ((k = moe_next(b->clients[i].m, 0, &e)) > 0) {
				if (bench_event(b, &b->clients[i], e))
					return EXIT_FAILED;
			}
			if (k < 0)
				return complain("%s", moe_strerror(k));
		}
		if (b->running && poll(b->polls, b->o->clients, -1) < 0 && errno != EINTR)
			return complain("cannot wait for the daemon");
	}
	return 0;
}

static double ratio(double a, double b)
{
	return b > 0 ? a / b : 0;
}

static int bench_print(struct bench *b, uint64_t wall_ns)
{
	double prefill = ratio((double)b->prompt_tokens, seconds(b->prefill_ns));
	/* The first token of an answer is prefill's. */
	double decode = ratio((double)(b->generated - b->n_ttft), seconds(b->decode_ns));
	double aggregate = ratio((double)b->generated, seconds(wall_ns));
	json_int_t hits = b->after.hits - b->before.hits;
	json_int_t misses = b->after.misses - b->before.misses;
	json_int_t bytes_read = b->after.bytes_read - b->before.bytes_read;
	json_int_t bytes_useful = b->after.bytes_useful - b->before.bytes_useful;
	double hit_rate = ratio((double)hits, (double)(hits + misses));
	double io_share = ratio((double)b->io_wait_ns, (double)(b->prefill_ns + b->decode_ns));
	double p50 = b->n_ttft ? percentile(b->ttft, b->n_ttft, 50) : 0;
	double p99 = b->n_ttft ? percentile(b->ttft, b->n_ttft, 99) : 0;

	if (b->o->json)
		return json_print(
			json_pack("{s:f,s:f,s:f,s:{s:f,s:f},s:f,s:I,s:I,s:f,s:I,s:I,s:I,s:I,s:f}",
				"prefill_tokens_per_s", prefill, "decode_tokens_per_s", decode,
				"aggregate_tokens_per_s", aggregate, "ttft_ms", "p50", p50, "p99",
				p99, "hit_rate", hit_rate, "bytes_read", bytes_read, "bytes_useful",
				bytes_useful, "io_wait_share", io_share, "prompt_tokens",
				(json_int_t)b->prompt_tokens, "generated", (json_int_t)b->generated,
				"clients", (json_int_t)b->o->clients, "repeat",
				(json_int_t)b->o->repeat, "wall_s", seconds(wall_ns)));
	(void)printf("prefill      %10.1f tokens/s\ndecode       %10.2f tokens/s of one request\n"
		     "aggregate    %10.2f tokens/s generated, all requests\n"
		     "first token  %10.1f ms p50, %.1f ms p99\n"
		     "cache        %10.1f %% hits\n"
		     "read         %10.1f MB, useful %.1f MB\nI/O wait     %10.1f %%\n",
		prefill, decode, aggregate, p50, p99, hit_rate * 100, (double)bytes_read / 1e6,
		(double)bytes_useful / 1e6, io_share * 100);
	return output_end();
}

static int bench_start(struct bench *b)
{
	int k;

	for (uint64_t i = 0; i < b->o->clients; i++) {
		k = daemon_open(b->o, &b->clients[i].m, &b->vocabulary);
		if (k)
			return k;
		b->polls[i] = (struct pollfd){.fd = moe_fd(b->clients[i].m), .events = POLLIN};
		b->clients[i].left = b->o->repeat;
	}
	if (!b->vocabulary)
		return complain("the daemon does not tell its vocabulary");
	return 0;
}

int verb_bench(const struct options *o)
{
	struct bench b = {.o = o, .running = o->clients, .random = 88172645463325252u};
	uint64_t start, wall;
	int k;

	b.clients = calloc(o->clients, sizeof(*b.clients));
	b.polls = calloc(o->clients, sizeof(*b.polls));
	b.ttft = calloc(o->clients * o->repeat, sizeof(*b.ttft));
	b.ids = calloc(o->prompt_tokens, sizeof(*b.ids));
	b.random ^= clock_now();
	k = b.clients && b.polls && b.ttft && b.ids ? bench_start(&b) : complain("out of memory");
	if (k == 0)
		k = bench_look(b.clients[0].m, &b.before);
	start = clock_now();
	for (uint64_t i = 0; i < o->clients && k == 0; i++)
		k = bench_submit(&b, &b.clients[i]);
	if (k == 0)
		k = bench_run(&b);
	wall = clock_now() - start;
	if (k == 0)
		k = bench_look(b.clients[0].m, &b.after);
	if (k == 0)
		k = bench_print(&b, wall);
	for (uint64_t i = 0; b.clients && i < o->clients; i++)
		moe_close(b.clients[i].m);
	free(b.clients);
	free(b.polls);
	free(b.ttft);
	free(b.ids);
	return k;
}

#define PING_TIMEOUT_NS (10 * CLOCK_NS_PER_S)

/* One round trip.  0, or an exit status. */
static int ping_once(const struct options *o, struct moe *m, double *ret_us)
{
	uint64_t start = clock_now(), request;
	const struct moe_event *e;
	int k;

	k = moe_ping(m, o->busy ? MOE_PING_BUSY : 0, &request);
	while (k >= 0) {
		k = moe_next(m, o->busy ? MOE_SPIN : 1000, &e);
		if (k == 1 && e->request == request) {
			if (e->type == MOE_ERROR)
				return complain("%s", *e->text ? e->text : moe_strerror(e->code));
			*ret_us = (double)(clock_now() - start) / 1e3;
			return 0;
		}
		if (k == 0 && clock_now() - start > PING_TIMEOUT_NS)
			return complain("no answer to a ping within 10 s");
	}
	return complain("%s", *moe_last_error(m) ? moe_last_error(m) : moe_strerror(k));
}

static int ping_print(const struct options *o, double *us)
{
	double p50 = percentile(us, o->count, 50), p99 = percentile(us, o->count, 99);

	if (o->json)
		return json_print(json_pack("{s:f,s:f,s:I,s:b}", "p50_us", p50, "p99_us", p99,
			"count", (json_int_t)o->count, "busy", o->busy));
	(void)printf("%llu round trips, %s: p50 %.2f us, p99 %.2f us\n",
		(unsigned long long)o->count, o->busy ? "spinning" : "sleeping", p50, p99);
	return output_end();
}

int verb_ping(const struct options *o)
{
	double *us = calloc(o->count, sizeof(*us));
	struct moe *m = NULL;
	int k;

	k = us ? daemon_open(o, &m, NULL) : complain("out of memory");
	for (uint64_t i = 0; i < o->count && k == 0; i++)
		k = ping_once(o, m, &us[i]);
	if (k == 0)
		k = ping_print(o, us);
	moe_close(m);
	free(us);
	return k;
}
