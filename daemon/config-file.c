/* SPDX-License-Identifier: MIT */
/* The YAML of configuration.h: scalars and one level of mappings, as events, with their places. */
#include "configuration.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "cleanup.h"
#include "fd.h"
#include "limit.h"

#define CONFIG_DEPTH_MAX 2
#define CONFIG_NAME_MAX 64
#define CONFIG_OPTIONS_MAX 64

struct config_parser {
	struct config *config;
	const char *path;
	struct error *err;
	unsigned depth;		     /* mappings that are open */
	char group[CONFIG_NAME_MAX]; /* "memory." inside of one */
	char key[CONFIG_NAME_MAX];   /* "memory.limit" while its value is awaited, else "" */
	bool seen[CONFIG_OPTIONS_MAX];
	char groups[CONFIG_OPTIONS_MAX][CONFIG_NAME_MAX];
	size_t n_groups;
	char wrong[400], takes[160];
};

__attribute__((format(printf, 3, 4))) static int config_refuse(
	struct config_parser *p, const yaml_mark_t *at, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	return error_set(
		p->err, -EINVAL, "%s:%zu:%zu: %s", p->path, at->line + 1, at->column + 1, text);
}

static bool config_is_group(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < config_n_options; ++i)
		if (!strncmp(config_options[i].name, name, n) && config_options[i].name[n] == '.')
			return true;
	return false;
}

static int config_unknown(struct config_parser *p, const yaml_mark_t *at, const char *name)
{
	char list[420] = "";
	size_t n = 0;

	for (size_t i = 0; i < config_n_options && n < sizeof list; ++i)
		n += (size_t)snprintf(
			list + n, sizeof list - n, "%s%s", i ? ", " : "", config_options[i].name);
	return config_refuse(p, at, "unknown key '%.60s'; allowed are %s", name, list);
}

static int config_on_key(struct config_parser *p, const yaml_event_t *e)
{
	const char *text = (const char *)e->data.scalar.value;
	char name[2 * CONFIG_NAME_MAX];

	if (strlen(text) != e->data.scalar.length || strlen(text) >= CONFIG_NAME_MAX)
		return config_refuse(p, &e->start_mark, "unknown key '%.60s'", text);
	(void)snprintf(name, sizeof name, "%s%s", p->group, text);
	/* The names of the table have dots, the keys of the file have mappings. */
	if (strlen(name) >= CONFIG_NAME_MAX || strchr(text, '.'))
		return config_unknown(p, &e->start_mark, name);
	for (size_t i = 0; i < config_n_options; ++i) {
		if (strcmp(config_options[i].name, name))
			continue;
		if (p->seen[i])
			return config_refuse(
				p, &e->start_mark, "the key '%s' stands here twice", name);
		p->seen[i] = true;
		(void)snprintf(p->key, sizeof p->key, "%.*s", CONFIG_NAME_MAX - 1, name);
		return 0;
	}
	if (p->depth != 1 || !config_is_group(name))
		return config_unknown(p, &e->start_mark, name);
	for (size_t i = 0; i < p->n_groups; ++i)
		if (!strcmp(p->groups[i], name))
			return config_refuse(
				p, &e->start_mark, "the key '%s' stands here twice", name);
	(void)snprintf(
		p->groups[p->n_groups++], CONFIG_NAME_MAX, "%.*s", CONFIG_NAME_MAX - 1, name);
	(void)snprintf(p->key, sizeof p->key, "%.*s", CONFIG_NAME_MAX - 1, name);
	return 0;
}

static int config_on_scalar(struct config_parser *p, const yaml_event_t *e)
{
	const char *text = (const char *)e->data.scalar.value;
	struct error err = ERROR_NONE;
	int r;

	/* A document without anything in it. */
	if (!p->depth && !*text && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		return 0;
	if (!p->depth)
		return config_refuse(
			p, &e->start_mark, "the file has to be a mapping of keys to values");
	if (!*p->key)
		return config_on_key(p, e);
	if (strlen(text) != e->data.scalar.length)
		return config_refuse(
			p, &e->start_mark, "%s: a text with a NUL is not allowed", p->key);
	/* "memory:" with nothing below it. */
	if (!*p->group && config_is_group(p->key)) {
		if (*text || e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
			return config_refuse(p, &e->start_mark,
				"%s: it takes a mapping of keys to values", p->key);
	} else {
		r = config_set(p->config, p->key, text, &err);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			return config_refuse(p, &e->start_mark, "%s", err.text);
	}
	p->key[0] = 0;
	return 0;
}

/* What stands at p->key is no scalar. */
static const char *config_wrong(struct config_parser *p, const char *what)
{
	size_t n;

	(void)snprintf(p->wrong, sizeof p->wrong, "%s%s%s is not allowed here", p->key,
		*p->key ? ": " : "", what);
	n = strlen(p->wrong);
	if (!*p->key)
		(void)snprintf(p->wrong + n, sizeof p->wrong - n,
			": the file has to be a mapping of keys to values");
	else if (!*p->group && config_is_group(p->key))
		(void)snprintf(p->wrong + n, sizeof p->wrong - n,
			": it takes a mapping of keys to values");
	else
		(void)snprintf(p->wrong + n, sizeof p->wrong - n, ": it takes %s",
			config_takes(p->key, p->takes, sizeof p->takes));
	return p->wrong;
}

static int config_on_mapping(struct config_parser *p, const yaml_event_t *e)
{
	if (!p->depth) {
		++p->depth;
		return 0;
	}
	if (!*p->key)
		return config_refuse(p, &e->start_mark, "a key has to be a text");
	if (p->depth >= CONFIG_DEPTH_MAX || !config_is_group(p->key)) {
		return config_refuse(p, &e->start_mark, "%s", config_wrong(p, "a mapping"));
	}
	(void)snprintf(p->group, sizeof p->group, "%.*s.", CONFIG_NAME_MAX - 2, p->key);
	p->key[0] = 0;
	++p->depth;
	return 0;
}

static int config_on_event(struct config_parser *p, const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		return config_on_scalar(p, e);
	case YAML_MAPPING_START_EVENT:
		return config_on_mapping(p, e);
	case YAML_MAPPING_END_EVENT:
		--p->depth;
		p->group[0] = p->key[0] = 0;
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		return config_refuse(p, &e->start_mark, "%s", config_wrong(p, "a list"));
	case YAML_ALIAS_EVENT:
		return config_refuse(p, &e->start_mark, "%s: an alias is not allowed here", p->key);
	default:
		return 0;
	}
}

static int config_events(struct config_parser *p, yaml_parser_t *yaml)
{
	unsigned documents = 0;

	for (;;) {
		yaml_event_t e;
		yaml_event_type_t type;
		int r;

		if (!yaml_parser_parse(yaml, &e))
			return yaml->error == YAML_MEMORY_ERROR
				       ? -ENOMEM
				       : config_refuse(p, &yaml->problem_mark,
						 "this is not YAML: %s",
						 yaml->problem ? yaml->problem : "cannot be read");
		type = e.type;
		if (type == YAML_DOCUMENT_START_EVENT && ++documents > 1)
			r = config_refuse(p, &e.start_mark, "a second document is not allowed");
		else
			r = config_on_event(p, &e);
		yaml_event_delete(&e);
		if (r < 0 || type == YAML_STREAM_END_EVENT)
			return r;
	}
}

int config_parse(
	struct config *c, const char *text, size_t size, const char *path, struct error *err)
{
	struct config_parser p = {.config = c, .path = path, .err = err};
	yaml_parser_t yaml;
	int r;

	if (!yaml_parser_initialize(&yaml))
		return error_errno(err, -ENOMEM, "cannot read %s", path);
	yaml_parser_set_input_string(&yaml, (const unsigned char *)text, size);
	r = config_events(&p, &yaml);
	yaml_parser_delete(&yaml);
	return r < 0 ? error_errno(err, r, "cannot read %s", path) : 0;
}

int config_read(struct config *c, const char *path, struct error *err)
{
	cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(path, LIMIT_CONFIG_FILE, &text, &size);

	if (r < 0)
		return error_errno(err, r, "cannot read the configuration %s", path);
	return config_parse(c, text, size, path, err);
}
