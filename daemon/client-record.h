/* SPDX-License-Identifier: MIT */
#pragma once

/* The records of one client, in and out.  Loop thread. */

#include "client.h"
#include "submit.h"

/* Payload of the longest answer to one record (STATUS goes out in pieces). */
#define CLIENT_REPLY_MAX (sizeof(struct wire_error) + WIRE_TEXT_MAX)

struct submit;

/* Frees a request that is not complete. */
void client_submit_drop(struct client *c, struct submit *s);

/* Acts on a record in c->channel.payload.  0, or -EPROTO. */
int client_record(struct client *c, const struct wire_record *record);
