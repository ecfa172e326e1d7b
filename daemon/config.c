/* SPDX-License-Identifier: MIT */
#include "configuration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "limit.h"
#include "num.h"

#define AT(member) offsetof(struct config, member)

const struct config_option config_options[] = {
	{"model", CONFIG_PATH, CONFIG_RESTART, AT(model), 0, 0, NULL, "",
		"The model: a GGUF file, of several the first.  Required, here or with --model."},
	{"memory.limit", CONFIG_SIZE, CONFIG_LIVE, AT(memory_limit), 0, 0, NULL, "auto",
		"All memory that moed may use, as 6G, 512M or 60%; a lower limit of a control "
		"group wins.  auto: that limit, else what is available.  A reload looks at both "
		"again, and gives memory back or takes it again, up to what the start had."},
	{"memory.lock", CONFIG_CHOICE, CONFIG_RESTART, AT(memory_lock), 0, 0, "try|required", "try",
		"Lock the memory, so that it is never swapped.  required: refuse to start where "
		"that fails; try: say so and go on."},
	{"socket", CONFIG_PATH, CONFIG_RESTART, AT(socket), 0, 0, NULL, "/run/moed/moed.sock",
		"The unix socket, where systemd does not hand one over."},
	{"socket-mode", CONFIG_MODE, CONFIG_RESTART, AT(socket_mode), 0, 0777, NULL, "0660",
		"Its permissions, octal."},
	{"socket-group", CONFIG_TEXT, CONFIG_RESTART, AT(socket_group), 0, 0, NULL, "moed",
		"Its group, where there is one of that name and moed may give the socket to it."},
	{"state", CONFIG_PATH, CONFIG_RESTART, AT(state), 0, 0, NULL, "/var/lib/moed",
		"Where moed keeps its totals, and conversations, from one run to the next."},
	{"sessions-on-disk", CONFIG_BYTES, CONFIG_RESTART, AT(sessions_on_disk), 0,
		(double)LIMIT_MEMORY, NULL, "4G",
		"Room for conversations in the state directory: those for which memory has no "
		"room, and all of them when moed ends, to be found again.  Where it is used up "
		"the oldest go.  0: none is kept there, and those that are there are removed."},
	{"threads", CONFIG_NUMBER, CONFIG_RESTART, AT(threads), 0, LIMIT_THREADS, NULL, "0",
		"Threads that compute.  0: one for each CPU that moed may use."},
	{"pin", CONFIG_CHOICE, CONFIG_RESTART, AT(pin), 0, 0, "no|yes", "no",
		"Bind each of them to a CPU.  yes: steadier where nobody else needs the CPUs; "
		"slower where somebody does."},
	{"context", CONFIG_NUMBER, CONFIG_RESTART, AT(context), 0, (double)LIMIT_CONTEXT, NULL, "0",
		"Tokens of all conversations that are kept ready together.  0: what fits "
		"sensibly."},
	{"sessions", CONFIG_NUMBER, CONFIG_RESTART, AT(sessions), 0, LIMIT_LIVE_ROWS, NULL, "0",
		"Conversations that are answered in one batch.  0: by the memory limit."},
	{"chunk", CONFIG_NUMBER, CONFIG_RESTART, AT(chunk), 0, LIMIT_BULK_ROWS, NULL, "0",
		"Tokens of prompts that are computed together.  0: by the memory limit."},
	{"io", CONFIG_CHOICE, CONFIG_RESTART, AT(io), 0, 0, "auto|uring|pread", "auto",
		"How experts are read.  auto: io_uring where the kernel allows it, else threads."},
	{"log", CONFIG_CHOICE, CONFIG_LIVE, AT(log), 0, 0, "error|warning|notice|info|debug",
		"info", "The least important messages that are logged."},
	{"limits.connections", CONFIG_NUMBER, CONFIG_LIVE, AT(limit_connections), 1, LIMIT_CLIENTS,
		NULL, "32", "Connections of one user."},
	{"limits.requests", CONFIG_NUMBER, CONFIG_LIVE, AT(limit_requests), 1, 1024, NULL, "64",
		"Requests of one user, waiting or running."},
	{"limits.sessions", CONFIG_NUMBER, CONFIG_LIVE, AT(limit_sessions), 1, LIMIT_SESSIONS, NULL,
		"64", "Conversations of one user that are remembered."},
	{"limits.tokens", CONFIG_NUMBER, CONFIG_LIVE, AT(limit_tokens), 0, (double)LIMIT_CONTEXT,
		NULL, "0", "Most tokens of one answer.  0: no limit but the context."},
	{"drain", CONFIG_NUMBER, CONFIG_LIVE, AT(drain_s), 0, 600, NULL, "20",
		"Seconds for answers under way to end when moed is told to stop."},
	{"upcycle.experts", CONFIG_NUMBER, CONFIG_RESTART, AT(upcycle_experts), 0, LIMIT_EXPERTS,
		NULL, "0", "Run a dense model as one of so many equal experts.  0: as it is."},
	{"upcycle.top-k", CONFIG_NUMBER, CONFIG_RESTART, AT(upcycle_top_k), 1, LIMIT_TOP_K, NULL,
		"2", "Experts that each token uses."},
	{"upcycle.router", CONFIG_CHOICE, CONFIG_RESTART, AT(upcycle_router), 0, 0, "exact|random",
		"exact", "exact: the answers of the dense model to the bit."},
	{"upcycle.router-seed", CONFIG_NUMBER, CONFIG_RESTART, AT(upcycle_seed), 0, UINT32_MAX,
		NULL, "0", "Seed of the router's rows."},
};
const size_t config_n_options = ARRAY_SIZE(config_options);

static bool config_is_text(enum config_type type)
{
	return type == CONFIG_TEXT || type == CONFIG_PATH || type == CONFIG_SIZE;
}

static void *config_field(const struct config *c, const struct config_option *o)
{
	return (char *)c + o->at;
}

/* What may stand there, for messages and comments. */
static void config_allowed(const struct config_option *o, char *text, size_t size)
{
	switch (o->type) {
	case CONFIG_TEXT:
		(void)snprintf(text, size, "a text");
		break;
	case CONFIG_PATH:
		(void)snprintf(text, size, "an absolute path");
		break;
	case CONFIG_SIZE:
		(void)snprintf(text, size, "a size such as 512M, 6G or 60%%, or auto");
		break;
	case CONFIG_BYTES:
		(void)snprintf(text, size, "a size such as 512M or 6G, or 0");
		break;
	case CONFIG_NUMBER:
		(void)snprintf(text, size, "a whole number from %.0f to %.0f", o->min, o->max);
		break;
	case CONFIG_MODE:
		(void)snprintf(text, size, "octal permissions from 0000 to 0777");
		break;
	case CONFIG_REAL:
		(void)snprintf(text, size, "a number from %g to %g", o->min, o->max);
		break;
	case CONFIG_CHOICE:
		(void)snprintf(text, size, "one of %s", o->words);
		break;
	}
}

static int config_choice(const char *words, const char *value, uint64_t *ret)
{
	size_t n = strlen(value);
	uint64_t i = 0;

	for (const char *p = words;; ++p, ++i) {
		const char *end = strchrnul(p, '|');

		if ((size_t)(end - p) == n && !memcmp(p, value, n)) {
			*ret = i;
			return 0;
		}
		if (!*end)
			return -EINVAL;
		p = end;
	}
}

static int config_mode(const char *value, uint64_t *ret)
{
	uint64_t mode = 0;

	if (!*value || strlen(value) > 4)
		return -EINVAL;
	for (const char *p = value; *p; ++p) {
		if (*p < '0' || *p > '7')
			return -EINVAL;
		mode = mode * 8 + (uint64_t)(*p - '0');
	}
	if (mode > 0777)
		return -ERANGE;
	*ret = mode;
	return 0;
}

static int config_text(struct config *c, const struct config_option *o, const char *value)
{
	char **field = config_field(c, o), *copy;
	uint64_t size;

	if (strlen(value) >= CONFIG_TEXT_MAX)
		return -ERANGE;
	/* A path may be empty only where that is the default: not given. */
	if (o->type == CONFIG_PATH && *value != '/' && (*value || *o->value))
		return -EINVAL;
	if (o->type == CONFIG_SIZE && strcmp(value, "auto")) {
		int r = num_parse_size(value, UINT64_C(1) << 40, &size);

		if (r < 0)
			return r;
		if (!size)
			return -ERANGE;
	}
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int config_bytes(const char *value, double most, uint64_t *ret)
{
	uint64_t bytes;
	int r = num_parse_size(value, 0, &bytes);

	if (r < 0)
		return r;
	if ((double)bytes > most)
		return -ERANGE;
	*ret = bytes;
	return 0;
}

static int config_assign(struct config *c, const struct config_option *o, const char *value)
{
	void *field = config_field(c, o);

	switch (o->type) {
	case CONFIG_BYTES:
		return config_bytes(value, o->max, field);
	case CONFIG_NUMBER:
		return num_parse_u64(value, (uint64_t)o->min, (uint64_t)o->max, field);
	case CONFIG_MODE:
		return config_mode(value, field);
	case CONFIG_REAL:
		return num_parse_double(value, o->min, o->max, field);
	case CONFIG_CHOICE:
		return config_choice(o->words, value, field);
	default:
		return config_text(c, o, value);
	}
}

static const struct config_option *config_find(const char *name)
{
	for (size_t i = 0; i < config_n_options; ++i)
		if (!strcmp(config_options[i].name, name))
			return &config_options[i];
	return NULL;
}

const char *config_takes(const char *name, char *text, size_t size)
{
	const struct config_option *o = config_find(name);

	(void)snprintf(text, size, "nothing");
	if (o)
		config_allowed(o, text, size);
	return text;
}

int config_set(struct config *c, const char *name, const char *value, struct error *err)
{
	const struct config_option *o = config_find(name);
	char allowed[160];
	int r;

	if (!o)
		return error_set(err, -EINVAL, "%s: there is no such option", name);
	r = config_assign(c, o, value);
	if (r == -ENOMEM)
		return error_errno(err, r, "%s", name);
	config_allowed(o, allowed, sizeof allowed);
	if (r < 0)
		return error_set(err, r, "%s: '%.64s' is not allowed here: it takes %s", name,
			value, allowed);
	return 0;
}

int config_init(struct config *c)
{
	struct error err = ERROR_NONE;

	*c = (struct config){0};
	for (size_t i = 0; i < config_n_options; ++i) {
		int r = config_set(c, config_options[i].name, config_options[i].value, &err);

		if (r < 0) {
			config_deinit(c);
			return r;
		}
	}
	return 0;
}

void config_deinit(struct config *c)
{
	for (size_t i = 0; i < config_n_options; ++i)
		if (config_is_text(config_options[i].type)) {
			char **field = config_field(c, &config_options[i]);

			free(*field);
			*field = NULL;
		}
}

static bool config_equal(
	const struct config *a, const struct config *b, const struct config_option *o)
{
	if (config_is_text(o->type))
		return !strcmp(*(char **)config_field(a, o), *(char **)config_field(b, o));
	return !memcmp(config_field(a, o), config_field(b, o), sizeof(uint64_t));
}

void config_reload(struct config *c, const struct config *from,
	void (*changed)(void *arg, const struct config_option *o), void *arg)
{
	for (size_t i = 0; i < config_n_options; ++i) {
		const struct config_option *o = &config_options[i];

		if (config_equal(c, from, o))
			continue;
		if (o->when == CONFIG_LIVE && config_is_text(o->type)) {
			char **mine = config_field(c, o),
			     *copy = strdup(*(char **)config_field(from, o));

			/* Without memory it stays as it was. */
			if (!copy)
				continue;
			free(*mine);
			*mine = copy;
		} else if (o->when == CONFIG_LIVE) {
			memcpy(config_field(c, o), config_field(from, o), sizeof(uint64_t));
		}
		changed(arg, o);
	}
}

enum log_level config_log_level(const struct config *c)
{
	static const enum log_level levels[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING,
		LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG};

	return levels[num_min(c->log, ARRAY_SIZE(levels) - 1)];
}

static void config_print_comment(FILE *f, const char *indent, const char *text)
{
	size_t column = 0;

	for (const char *p = text; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");

		if (!column || column + 1 + n > 80)
			column = (size_t)fprintf(f, "%s%s#", column ? "\n" : "", indent);
		column += (size_t)fprintf(f, " %.*s", (int)n, p);
		p += n;
	}
	(void)fputc('\n', f);
}

void config_print(FILE *f)
{
	char group[32] = "";

	(void)fprintf(f, "# SPDX-License-Identifier: MIT\n# Configuration of moed; every option "
			 "with its default; moed --check tries a file.\n");
	for (size_t i = 0; i < config_n_options; ++i) {
		const struct config_option *o = &config_options[i];
		const char *dot = strchr(o->name, '.'), *indent = dot ? "  " : "";
		char allowed[160], text[256];

		(void)fputc('\n', f);
		if (dot && strncmp(group, o->name, (size_t)(dot - o->name) + 1)) {
			(void)snprintf(
				group, sizeof group, "%.*s", (int)(dot - o->name) + 1, o->name);
			(void)fprintf(f, "%.*s:\n", (int)(dot - o->name), o->name);
		}
		config_print_comment(f, indent, o->help);
		config_allowed(o, allowed, sizeof allowed);
		(void)snprintf(text, sizeof text, "(%s; a change acts %s)", allowed,
			o->when == CONFIG_LIVE ? "on reload" : "after a restart");
		config_print_comment(f, indent, text);
		/* The groups have to be mappings, so their options stand there. */
		(void)fprintf(f, "%s%s%s: %s\n", indent, dot || *o->value ? "" : "#",
			dot ? dot + 1 : o->name, *o->value ? o->value : "/srv/models/model.gguf");
	}
}
