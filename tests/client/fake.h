/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A daemon without a model, for the tests of libmoe and moectl: it speaks the protocol and answers
 * a prompt with its own text (of the last turn), one character a token.  Some texts mean more:
 *
 *	@hang	no answer before it is cancelled
 *	@error	an ERROR
 *	@drop	the connection is closed
 *	@break	a record that breaks the protocol
 *	@esc	text with control characters
 *	@show	everything that came, parameters included, as text
 *
 * One thread serves all connections.  Sessions are remembered by the process, so that they survive
 * a fake that is stopped and started again.
 */

#include <stdint.h>

struct fake;

struct fake_config {
	const char *path;
	unsigned loading;     /* LOADING messages before WELCOME */
	int refuse;	      /* negative errno: REFUSED with it */
	unsigned hello_drops; /* connections that are closed instead of welcomed */
	uint32_t ring;	      /* bytes of a ring; 0: the least */
};

#define FAKE_VOCABULARY 9001u /* a row of logits takes several records */
#define FAKE_CONTEXT 4096u

struct fake *fake_start(const struct fake_config *config);
void fake_stop(struct fake *f);
