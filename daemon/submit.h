/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A request while its pieces arrive: SUBMIT, DATA..., SUBMIT_END of one client.  Everything comes
 * from outside and is checked here.  Loop thread.
 */

#include <stddef.h>
#include <stdint.h>

#include "list.h"
#include "load.h"
#include "request.h"
#include "wire.h"

struct submit {
	struct list link; /* of client->submits */
	uint64_t wire_id;
	uint64_t heap; /* bytes that manager_heap() counts */
	struct wire_submit head;
	char *text; /* of all turns, or the raw text */
	size_t n_text, room_text;
	uint32_t *ids;
	size_t n_ids, room_ids;
	struct {
		char role[16];
		size_t begin;
	} turns[LIMIT_TURNS];
	size_t n_turns;
	char *stops[LIMIT_STOPS];
	size_t stop_sizes[LIMIT_STOPS];
	size_t n_stops;
};

/*
 * Both of the first two: -EPROTO where the client broke the protocol (it loses its connection);
 * another negative errno, with *err, refuses the request alone.
 */
int submit_new(
	struct submit **ret, uint64_t wire_id, const struct wire_submit *head, struct error *err);
int submit_data(struct submit *s, const struct wire_data *head, const void *bytes, size_t n,
	const struct load *load, uint64_t prompt_max, struct error *err);
/* Bytes of heap that it holds. */
uint64_t submit_heap(const struct submit *s);
struct submit *submit_free(struct submit *s);

/* The request, with ids; 0 or -errno with *err. */
int submit_finish(struct submit *s, const struct load *load, uint64_t max_tokens,
	struct request **ret, struct error *err);
