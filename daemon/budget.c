/* SPDX-License-Identifier: MIT */
#include "budget.h"

#include <errno.h>
#include <string.h>

#include "log.h"
#include "memory-limit.h"
#include "num.h"

/* Reads in flight and experts in use are over after a look or two. */
#define STUCK 3u

void budget_init(struct budget *b, const struct load *l)
{
	*b = (struct budget){.limit = l->plan.limit};
	pressure_init(&b->pressure, "");
}

void budget_deinit(struct budget *b)
{
	pressure_deinit(&b->pressure);
}

static void say(const struct budget *b, const struct load *l, const struct memory_limit *now)
{
	char limit[NUM_SIZE_TEXT_MAX], less[NUM_SIZE_TEXT_MAX], floor[NUM_SIZE_TEXT_MAX];
	const char *who = now->source == MEMORY_LIMIT_CGROUP ? now->path : "memory.limit";

	if (b->less == 0) {
		log_notice("the memory limit is %s (%s) now: %s", num_format_size(b->limit, limit),
			who,
			b->limit > l->plan.limit
				? "what is more than at the start acts after a restart"
				: "slots are taken again, slowly");
		return;
	}
	log_notice("the memory limit is %s (%s) now: %s of the slots are to be given back",
		num_format_size(b->limit, limit), who, num_format_size(b->less, less));
	if (b->limit < l->plan.floor)
		log_warning("that is less than this model needs, which is %s: moed may be killed; "
			    "raise the limit, or restart with a smaller model",
			num_format_size(l->plan.floor, floor));
}

void budget_limit(
	struct budget *b, struct engine_thread *t, const struct load *l, const char *wanted)
{
	struct memory_limit now;
	uint64_t whole = 0, size = 0;

	/* It was checked when it was read; where the machine does not tell, all stays as it is. */
	if (strcmp(wanted, "auto") != 0 && (memory_limit_whole(&whole, "", NULL) < 0 ||
						   num_parse_size(wanted, whole, &size) < 0))
		return;
	memory_limit_now(&now, size, "");
	/* What was available at the start is taken. */
	if (now.bytes == UINT64_MAX)
		now.bytes = l->plan.limit;
	if (now.bytes == b->limit)
		return;
	b->limit = now.bytes;
	b->less = l->plan.limit - num_min(b->limit, l->plan.limit);
	b->stuck = 0;
	engine_thread_less(t, b->less);
	say(b, l, &now);
}

void budget_event(struct budget *b)
{
	pressure_event(&b->pressure);
}

/* What has been given and taken since the last look. */
static void report(struct budget *b, const struct engine_stats *e)
{
	char given[NUM_SIZE_TEXT_MAX], more[NUM_SIZE_TEXT_MAX];

	if (e->given_bytes != b->given) {
		log_notice("%s: %s of the slots are given back, %llu slots are left",
			e->given_bytes < b->given ? "memory is to be had again"
			: b->given < b->less	  ? "the memory limit is lower"
						  : "other programs lack memory",
			num_format_size(e->given_bytes, given), (unsigned long long)e->slots);
		b->gave += e->given_bytes > b->given;
		b->took += e->given_bytes < b->given;
		b->given = e->given_bytes;
		b->stuck = 0;
	} else if (b->given < b->less && ++b->stuck == STUCK) {
		log_warning("%s more are to be given back for the lower memory limit, but the %llu "
			    "slots that are left are the least: restart moed, so that it divides "
			    "the limit anew",
			num_format_size(b->less - b->given, more), (unsigned long long)e->slots);
	}
}

void budget_tick(struct budget *b, struct engine_thread *t, const struct load *l,
	const char *wanted, uint64_t now_ns)
{
	struct engine_stats e;
	struct sched_figures f;
	uint32_t kv_free, kv_all;

	if (!pressure_is_due(&b->pressure, now_ns))
		return;
	budget_limit(b, t, l, wanted);
	engine_thread_stats(t, &e, &f, &kv_free, &kv_all);
	report(b, &e);
	engine_thread_pressure(t, pressure_look(&b->pressure, b->given > 0, now_ns));
}

int budget_timeout_ms(const struct budget *b)
{
	/* What the limit asks for is no reason to wake up, once it is given. */
	return pressure_timeout_ms(
		&b->pressure, b->given > b->less || (b->given < b->less && b->stuck < STUCK));
}
