/* SPDX-License-Identifier: MIT */
/* The sessions of the manager: found by id and owner, limited per user, forgotten oldest first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "limit.h"
#include "manager.h"

struct session *manager_session_find(struct manager *m, uid_t uid, const uint8_t *id)
{
	list_for_each(it, &m->sessions)
	{
		struct session *s = list_entry(it, struct session, link);

		if (s->uid == uid && !s->forget && !memcmp(s->id, id, SESSION_ID_SIZE))
			return s;
	}
	return NULL;
}

void manager_session_release(struct manager *m, struct session *s)
{
	if (!s->forget || s->requests || s->opened || s->forgetting)
		return;
	s->forgetting = true;
	engine_thread_send(m->engine, SCHED_FORGET, s);
}

void manager_session_forget(struct manager *m, struct session *s)
{
	s->forget = true;
	manager_session_release(m, s);
}

/* The oldest that nobody has open or uses; of one user, or of all. */
static struct session *manager_session_oldest(struct manager *m, bool all, uid_t uid)
{
	struct session *oldest = NULL;

	list_for_each(it, &m->sessions)
	{
		struct session *s = list_entry(it, struct session, link);

		if (s->opened || s->requests || s->forget || (!all && s->uid != uid))
			continue;
		if (!oldest || s->used_ns < oldest->used_ns)
			oldest = s;
	}
	return oldest;
}

void manager_session_found(struct manager *m, struct session *s)
{
	/* Before all that are used in this run, and in their order. */
	s->used_ns = ++m->n_found;
	list_append(&m->sessions, &s->link);
}

int manager_session_new(struct manager *m, uid_t uid, bool named, struct session **ret)
{
	uint32_t own = 0, remembered = 0, n = 0;
	struct session *s;

	list_for_each(it, &m->sessions)
	{
		s = list_entry(it, struct session, link);
		/* Those without a name go with their request, which has its own limit. */
		own += s->uid == uid && !s->forget;
		remembered += !s->forget;
		++n;
	}
	if (n >= 2 * LIMIT_SESSIONS)
		return -EDQUOT;
	if (named && (own >= m->config.limit_sessions || remembered >= LIMIT_SESSIONS)) {
		s = manager_session_oldest(m, own < m->config.limit_sessions, uid);
		if (!s)
			return -EDQUOT;
		manager_session_forget(m, s);
	}
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	if (getentropy(s->id, sizeof s->id) < 0) {
		free(s);
		return -errno;
	}
	s->uid = uid;
	s->forget = !named;
	s->named = named;
	s->used_ns = clock_now();
	list_init(&s->idle);
	list_init(&s->file.link);
	list_append(&m->sessions, &s->link);
	*ret = s;
	return 0;
}
