/* SPDX-License-Identifier: MIT */
#include "moectl-look.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "moectl.h"
#include "num.h"

#define BAR_WIDTH 30
#define PRESSURE "/proc/pressure/memory"
#define SOME "some avg10="

static const char *const part_names[] = {
	"experts", "attention", "router", "head", "wait", "other", "idle"};

/* "a.b.c" in nested objects; 0 where there is none. */
static double at(const json_t *o, const char *path)
{
	char key[32];

	while (o && *path) {
		size_t n = strcspn(path, ".");

		(void)snprintf(key, sizeof(key), "%.*s", (int)num_min(n, sizeof(key) - 1), path);
		o = json_object_get(o, key);
		path += n + (path[n] == '.');
	}
	return json_number_value(o);
}

static const char *text_at(const json_t *o, const char *section, const char *key)
{
	const char *text =
		json_string_value(json_object_get(section ? json_object_get(o, section) : o, key));

	return text ? text : "?";
}

/* What came since, never less than nothing. */
static double since(const struct look *l, const char *path)
{
	double d = at(l->now, path) - at(l->before, path);

	return l->before && d > 0 ? d : 0;
}

static enum look_part part_of(const char *name)
{
	static const struct {
		const char *name;
		enum look_part part;
	} parts[] = {{"gate_up", LOOK_EXPERTS}, {"down", LOOK_EXPERTS}, {"sum", LOOK_EXPERTS},
		{"qkv", LOOK_ATTENTION}, {"rope", LOOK_ATTENTION}, {"attention", LOOK_ATTENTION},
		{"output", LOOK_ATTENTION}, {"router", LOOK_ROUTER}, {"cache", LOOK_ROUTER},
		{"head", LOOK_HEAD}, {"sample", LOOK_HEAD}, {"wait", LOOK_WAIT}};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (strcmp(parts[i].name, name) == 0)
			return parts[i].part;
	}
	return LOOK_OTHER;
}

static void times_add(double ns[LOOK_PARTS], const json_t *before, json_t *now, int depth)
{
	const char *key;
	json_t *v;

	json_object_foreach(now, key, v)
	{
		const json_t *old = json_object_get(before, key);

		if (json_is_object(v) && depth < 3)
			times_add(ns, old, v, depth + 1);
		else if (json_is_integer(v) && strcmp(key, "tokens") != 0)
			ns[strcmp(key, "idle_ns") == 0 ? LOOK_IDLE : part_of(key)] +=
				(double)(json_integer_value(v) - json_integer_value(old));
	}
}

static double pressure_read(void)
{
	FILE *f = fopen(PRESSURE, "re");
	double v = -1;
	char line[128];

	if (!f)
		return -1;
	if (fgets(line, sizeof(line), f) && strncmp(line, SOME, sizeof(SOME) - 1) == 0) {
		line[sizeof(SOME) - 1 + strcspn(line + sizeof(SOME) - 1, " \n")] = 0;
		if (num_parse_double(line + sizeof(SOME) - 1, 0, 100, &v) < 0)
			v = -1;
	}
	(void)fclose(f);
	return v < 0 ? v : v / 100;
}

void look_take(struct look *l, const json_t *before, const json_t *now, double seconds)
{
	double ns[LOOK_PARTS] = {0}, all = 0, hits;

	*l = (struct look){.seconds = seconds, .now = now, .before = before, .hit_rate = -1};
	l->pressure = pressure_read();
	if (!before || seconds <= 0)
		return;
	l->decode = since(l, "tokens.generated") / seconds;
	l->prefill = since(l, "time.prefill.tokens") / seconds;
	hits = since(l, "cache.hits");
	l->wanted = hits + since(l, "cache.misses");
	if (l->wanted > 0)
		l->hit_rate = hits / l->wanted;
	l->disk = since(l, "io.bytes_read") / seconds;
	l->useful = since(l, "io.bytes_useful") / seconds;
	times_add(ns, json_object_get(before, "time"), json_object_get(now, "time"), 0);
	for (unsigned i = 0; i < LOOK_PARTS; i++)
		all += ns[i];
	for (unsigned i = 0; i < LOOK_PARTS && all > 0; i++)
		l->share[i] = ns[i] / all;
}

/* ---- sessions ---------------------------------------------------------------------------- */

static json_t *list_of(const json_t *status)
{
	return json_object_get(json_object_get(status, "sessions"), "list");
}

/* Tokens a second that a session was told; the same request stands in both statuses. */
static double session_rate(const struct look *l, const json_t *session)
{
	const char *id = text_at(session, NULL, "id"), *other;
	double request = at(session, "request"), tokens = at(session, "tokens");
	json_t *old;
	size_t i;

	if (!l->before || l->seconds <= 0)
		return 0;
	json_array_foreach(list_of(l->before), i, old)
	{
		other = text_at(old, NULL, "id");
		if (strcmp(id, other) == 0 && at(old, "request") == request &&
			at(old, "tokens") <= tokens)
			return (tokens - at(old, "tokens")) / l->seconds;
	}
	return tokens / l->seconds;
}

/* ---- JSON -------------------------------------------------------------------------------- */

static json_t *sessions_json(const struct look *l)
{
	json_t *ret = json_array(), *v, *copy;
	size_t i;

	json_array_foreach(list_of(l->now), i, v)
	{
		copy = json_copy(v);
		(void)json_object_set_new(copy, "tokens_per_s", json_real(session_rate(l, v)));
		(void)json_array_append_new(ret, copy);
	}
	return ret;
}

json_t *look_json(const struct look *l)
{
	static const char *const passed[] = {"cache", "prefetch", "disk", "kv", "queue", "budget",
		"tokens", "tracing", "io", "latencies_ms"};
	json_t *times = json_object(), *o;

	for (unsigned i = 0; i < LOOK_PARTS; i++)
		(void)json_object_set_new(times, part_names[i], json_real(l->share[i]));
	o = json_pack("{s:s,s:f,s:f,s:f,s:f,s:o,s:f,s:f,s:o,s:o,s:o}", "state",
		text_at(l->now, NULL, "state"), "uptime_s", at(l->now, "uptime_s"), "interval_s",
		l->seconds, "decode_tokens_per_s", l->decode, "prefill_tokens_per_s", l->prefill,
		"hit_rate", l->hit_rate < 0 ? json_null() : json_real(l->hit_rate),
		"disk_bytes_per_s", l->disk, "useful_bytes_per_s", l->useful, "pressure",
		l->pressure < 0 ? json_null() : json_real(l->pressure), "time", times, "sessions",
		sessions_json(l));
	for (size_t i = 0; o && i < ARRAY_SIZE(passed); i++) {
		json_t *v = json_object_get(l->now, passed[i]);

		if (v)
			(void)json_object_set(o, passed[i], v);
	}
	if (o && json_object_get(l->now, "pressure"))
		(void)json_object_set(o, "memory", json_object_get(l->now, "pressure"));
	return o;
}

/* ---- a line ------------------------------------------------------------------------------ */

void look_header(FILE *f)
{
	(void)fprintf(f, "%-9s %8s %8s %6s %9s %6s %6s %7s %6s %5s %5s\n", "state", "decode/s",
		"prefil/s", "hit %", "disk MB/s", "wait %", "idle %", "cache %", "kv %", "activ",
		"queue");
}

static double percent(double a, double b)
{
	return b > 0 ? 100 * a / b : 0;
}

void look_line(const struct look *l, FILE *f)
{
	const json_t *s = l->now;
	char hits[16] = "-";

	if (l->hit_rate >= 0)
		(void)snprintf(hits, sizeof(hits), "%.1f", l->hit_rate * 100);
	(void)fprintf(f, "%-9s %8.1f %8.1f %6s %9.1f %6.1f %6.1f %7.1f %6.1f %5.0f %5.0f\n",
		text_at(s, NULL, "state"), l->decode, l->prefill, hits, l->disk / 1e6,
		l->share[LOOK_WAIT] * 100, l->share[LOOK_IDLE] * 100,
		percent(at(s, "cache.experts_resident"), at(s, "cache.experts")),
		percent(at(s, "kv.positions") - at(s, "kv.free"), at(s, "kv.positions")),
		at(s, "queue.active"), at(s, "queue.waiting"));
}

/* ---- a screen ---------------------------------------------------------------------------- */

struct screen {
	FILE *f;
	unsigned columns, rows;
};

/* One line, cut where the screen ends; what names come from files obey nothing. */
__attribute__((format(printf, 2, 3))) static void line(struct screen *s, const char *format, ...)
{
	char text[512];
	va_list args;
	int n;

	if (!s->rows)
		return;
	s->rows--;
	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (n < 0)
		return;
	for (unsigned i = 0; text[i] && i < s->columns; i++)
		(void)fputc((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f
				    ? '?'
				    : text[i],
			s->f);
	(void)fputc('\n', s->f);
}

static const char *bar(double share, char buf[BAR_WIDTH + 3])
{
	buf[0] = '[';
	for (int i = 0; i < BAR_WIDTH; i++)
		buf[1 + i] = i + 0.5 < share * BAR_WIDTH ? '#' : ' ';
	buf[BAR_WIDTH + 1] = ']';
	buf[BAR_WIDTH + 2] = 0;
	return buf;
}

static const char *size(double bytes, char buf[NUM_SIZE_TEXT_MAX])
{
	return num_format_size(bytes > 0 ? (uint64_t)bytes : 0, buf);
}

/* Sessions whose state lies in files. */
static void screen_disk(const json_t *v, struct screen *s)
{
	char b[BAR_WIDTH + 3], one[NUM_SIZE_TEXT_MAX], two[NUM_SIZE_TEXT_MAX];
	double bytes = at(v, "disk.bytes"), quota = at(v, "disk.quota_bytes");

	line(s, "stored  %s %.0f sessions, %s of %s; %.0f saved, %.0f restored%s",
		bar(quota > 0 ? bytes / quota : 0, b), at(v, "disk.sessions"), size(bytes, one),
		size(quota, two), at(v, "disk.saved"), at(v, "disk.restored"),
		json_is_true(json_object_get(json_object_get(v, "disk"), "resting"))
			? "; resting after an error"
			: "");
}

static void screen_memory(const struct look *l, struct screen *s)
{
	char b[BAR_WIDTH + 3], one[NUM_SIZE_TEXT_MAX], two[NUM_SIZE_TEXT_MAX], pressure[64] = "";
	const json_t *v = l->now;
	double experts = at(v, "cache.experts"), here = at(v, "cache.experts_resident");
	double all = at(v, "kv.positions"), used = all - at(v, "kv.free");
	double limit = at(v, "budget.limit"), taken = at(v, "taken_bytes");

	/* It may have been lowered since. */
	if (at(v, "pressure.limit") > 0 && at(v, "pressure.limit") < limit)
		limit = at(v, "pressure.limit");
	line(s, "cache   %s %.0f of %.0f experts here, %s; %.0f slots; given back %s",
		bar(experts > 0 ? here / experts : 0, b), here, experts,
		size(at(v, "cache.resident_bytes"), one), at(v, "cache.slots"),
		size(at(v, "cache.given_back_bytes"), two));
	if (l->pressure >= 0)
		(void)snprintf(pressure, sizeof(pressure),
			"; of 10 s %.1f %% under pressure of memory", l->pressure * 100);
	line(s, "memory  %s %s of %s%s", bar(limit > 0 ? taken / limit : 0, b), size(taken, one),
		size(limit, two), pressure);
	line(s, "context %s %.0f of %.0f positions; %.0f preemptions",
		bar(all > 0 ? used / all : 0, b), used, all, at(v, "kv.preemptions"));
	if (json_object_get(v, "disk"))
		screen_disk(v, s);
}

static void screen_sessions(const struct look *l, struct screen *s)
{
	json_t *v;
	size_t i;

	line(s, "%s", "");
	line(s, "%-9s %8s %-8s %10s %10s %8s %8s", "session", "uid", "state", "positions", "prompt",
		"answer", "tokens/s");
	json_array_foreach(list_of(l->now), i, v)
		line(s, "%-9s %8.0f %-8s %10.0f %10.0f %8.0f %8.1f", text_at(v, NULL, "id"),
			at(v, "uid"), text_at(v, NULL, "state"), at(v, "positions"),
			at(v, "prompt_tokens"), at(v, "tokens"), session_rate(l, v));
}

/* Beside what the disks were measured to give together. */
static void screen_reads(const struct look *l, struct screen *s, const char *hits)
{
	const json_t *io = json_object_get(l->now, "io"), *ahead;
	char one[NUM_SIZE_TEXT_MAX], two[NUM_SIZE_TEXT_MAX], most[64] = "";
	double rate = 0;
	json_t *v;
	size_t i;

	json_array_foreach(json_object_get(io, "disks"), i, v) rate += at(v, "bytes_per_s");
	if (rate > 0)
		(void)snprintf(most, sizeof(most), " of %s/s measured", size(rate, two));
	line(s, "disk    %s/s%s (%s); %s", size(l->disk, one), most,
		text_at(l->now, "io", "method"), hits);
	ahead = json_object_get(l->now, "prefetch");
	if (ahead && at(l->now, "cache.misses") > 0)
		line(s, "ahead   prefetch is %s (%s); %.0f experts read ahead, %.0f of them wanted",
			text_at(ahead, NULL, "state"), text_at(ahead, NULL, "why"),
			at(ahead, "issued"), at(ahead, "useful"));
}

void look_screen(const struct look *l, FILE *f, unsigned columns, unsigned rows)
{
	struct screen s = {f, columns, rows};
	const json_t *v = l->now;
	const char *path = text_at(v, "model", "path");
	char b[BAR_WIDTH + 3], hits[64] = "no expert was wanted";

	line(&s, "moed %s  %s  up %.0f s  %s (%s, %.0f x %.0f experts, top %.0f)",
		text_at(v, NULL, "version"), text_at(v, NULL, "state"), at(v, "uptime_s"),
		strrchr(path, '/') ? strrchr(path, '/') + 1 : path, text_at(v, "model", "arch"),
		at(v, "model.layers"), at(v, "model.experts"), at(v, "model.top_k"));
	line(&s, "tokens  decode %.1f/s, prefill %.1f/s; %.0f requests active, %.0f waiting",
		l->decode, l->prefill, at(v, "queue.active"), at(v, "queue.waiting"));
	if (l->hit_rate >= 0)
		(void)snprintf(hits, sizeof(hits), "hits %.1f %% of %.0f experts",
			l->hit_rate * 100, l->wanted);
	screen_reads(l, &s, hits);
	screen_memory(l, &s);
	line(&s, "%s", "");
	for (unsigned i = 0; i < LOOK_PARTS; i++)
		line(&s, "%-9s %s %5.1f %%", part_names[i], bar(l->share[i], b), l->share[i] * 100);
	screen_sessions(l, &s);
	if (at(v, "tracing.all") > 0)
		line(&s, "%.0f traces of all requests are running", at(v, "tracing.all"));
}
