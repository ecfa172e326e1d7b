/* SPDX-License-Identifier: MIT */

/* Sessions and what their requests do: a user's own; administrators see all. */

#include "status.h"

#include <inttypes.h>

#include "manager.h"

static const char *state_of(const struct request *r)
{
	uint32_t computed = atomic_load(&r->computed);

	if (r->flags & REQUEST_SCORE && r->told)
		return "score";
	if (r->told)
		return "decode";
	return computed ? "prefill" : "waiting";
}

/* Four bytes of the id tell sessions apart, and open none. */
static void print(FILE *f, const char *comma, const struct session *s)
{
	(void)fprintf(f, "%s{\"id\": \"%02x%02x%02x%02x\", \"uid\": %u", comma, s->id[0], s->id[1],
		s->id[2], s->id[3], (unsigned)s->uid);
}

static void print_request(FILE *f, const char *comma, const struct request *r)
{
	uint32_t computed = atomic_load(&r->computed);

	print(f, comma, r->session);
	(void)fprintf(f,
		", \"state\": \"%s\", \"request\": %" PRIu64 ", \"positions\": %" PRIu64
		", \"prompt_tokens\": %u, \"computed\": %u, \"tokens\": %u}",
		state_of(r), r->wire_id, (uint64_t)computed + r->told, r->n_prompt, computed,
		r->told);
}

void status_sessions(FILE *f, struct manager *m, uid_t uid, bool others)
{
	uint32_t all = 0, own = 0;
	const char *comma = "";

	list_for_each(it, &m->sessions)
	{
		++all;
		own += list_entry(it, struct session, link)->uid == uid;
	}
	(void)fprintf(f, ", \"sessions\": {\"own\": %u", own);
	if (others)
		(void)fprintf(f, ", \"all\": %u, \"clients\": %u", all, m->n_clients);
	(void)fputs(", \"list\": [", f);
	list_for_each(it, &m->clients)
	{
		list_for_each(jt, &list_entry(it, struct client, link)->requests)
		{
			const struct request *r = list_entry(jt, struct request, link);

			if (r->done || (r->uid != uid && !others))
				continue;
			print_request(f, comma, r);
			comma = ", ";
		}
	}
	list_for_each(it, &m->sessions)
	{
		const struct session *s = list_entry(it, struct session, link);

		if (s->requests || s->forget || (s->uid != uid && !others))
			continue;
		print(f, comma, s);
		(void)fprintf(
			f, ", \"state\": \"idle\", \"positions\": %u}", atomic_load(&s->held));
		comma = ", ";
	}
	(void)fputs("]}", f);
}
