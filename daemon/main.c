/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "config.h"
#include "configuration.h"
#include "journal.h"
#include "listen.h"
#include "log.h"
#include "manager.h"
#include "num.h"
#include "state.h"

enum exit_status {
	EXIT_GOOD = 0,
	EXIT_BAD = 1,
	EXIT_USAGE = 2,
};

/* Options of the command line that stand for one of the configuration. */
static const struct {
	const char *flag;
	const char *option;
} main_flags[] = {
	{"model", "model"},
	{"memory", "memory.limit"},
	{"socket", "socket"},
	{"state", "state"},
	{"threads", "threads"},
};

struct options {
	const char *config; /* NULL: the default one, which may be missing */
	char *values[ARRAY_SIZE(main_flags)];
	bool check;
};

static void main_help(void)
{
	(void)fputs(
		"Usage: moed [--config FILE] [--model FILE] [--memory SIZE] [--socket PATH]\n"
		"            [--state DIR] [--threads N] [--check]\n"
		"Keep a Mixture-of-Experts language model ready for local programs.\n\n"
		"  --config FILE   configuration (default: " CONFIG_PATH_DEFAULT ")\n"
		"  --model FILE    the model, a GGUF file\n"
		"  --memory SIZE   all memory that may be used: 512M, 6G, 60%\n"
		"  --socket PATH   unix socket (default: /run/moed/moed.sock), where systemd\n"
		"                  does not pass one\n"
		"  --state DIR     where totals are kept (default: /var/lib/moed)\n"
		"  --threads N     threads that compute (default: one for each CPU)\n"
		"  --check         check configuration and model, say where memory would go\n"
		"  --help          show this and exit\n"
		"  --version       show the version and exit\n\n"
		"Options beat the configuration.  SIGTERM ends moed once the answers under way\n"
		"are out; SIGHUP reads the configuration again.\n\n"
		"Exit status: 0 it was told to end, or the check found no fault; 1 failure;\n"
		"2 wrong usage or configuration.\n",
		stdout);
}

static int main_usage(const char *text, const char *what)
{
	log_error("%s%s%s%s; try 'moed --help'", text, what ? " '" : "", what ? what : "",
		what ? "'" : "");
	return EXIT_USAGE;
}

/* A path of the command line may be relative; in a file it may not. */
static char *main_value(const char *option, const char *value)
{
	char *folder = NULL, *path = NULL;

	if (*value == '/' || !*value || !strcmp(option, "memory.limit") ||
		!strcmp(option, "threads"))
		return strdup(value);
	folder = getcwd(NULL, 0);
	if (folder && asprintf(&path, "%s/%s", folder, value) < 0)
		path = NULL;
	free(folder);
	return path;
}

/* -1: go on; else the exit status. */
static int main_options(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{"model", required_argument, NULL, 0},
		{"memory", required_argument, NULL, 1},
		{"socket", required_argument, NULL, 2},
		{"state", required_argument, NULL, 3},
		{"threads", required_argument, NULL, 4},
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	int k;

	opterr = 0;
	while ((k = getopt_long(argc, argv, ":", known, NULL)) != -1) {
		switch (k) {
		case 'c':
			o->config = optarg;
			break;
		case 'k':
			o->check = true;
			break;
		case 'h':
			main_help();
			return fflush(stdout) == EOF ? EXIT_BAD : EXIT_GOOD;
		case 'v':
			(void)puts("moed " MOED_VERSION);
			return fflush(stdout) == EOF ? EXIT_BAD : EXIT_GOOD;
		case ':':
			return main_usage("a value is missing after", argv[optind - 1]);
		case '?':
			return main_usage("there is no such option:", argv[optind - 1]);
		default:
			free(o->values[k]);
			o->values[k] = main_value(main_flags[k].option, optarg);
			if (!o->values[k]) {
				log_error("--%s: %s", main_flags[k].flag, strerror(errno));
				return EXIT_BAD;
			}
		}
	}
	return optind < argc ? main_usage("moed takes options only, not", argv[optind]) : -1;
}

/* The file, then the command line; again for each reload. */
static int main_config(void *arg, struct config *ret, struct error *err)
{
	const struct options *o = arg;
	int r = config_init(ret);

	if (r < 0)
		return error_errno(err, r, "cannot set up the configuration");
	r = config_read(ret, o->config ? o->config : CONFIG_PATH_DEFAULT, err);
	if (r == -ENOENT && !o->config) {
		*err = ERROR_NONE;
		r = 0;
	}
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(main_flags); ++i) {
		if (!o->values[i])
			continue;
		r = config_set(ret, main_flags[i].option, o->values[i], err);
		if (r < 0)
			error_prefix(err, "--%s", main_flags[i].flag);
	}
	if (r < 0)
		config_deinit(ret);
	return r;
}

static int main_check(const struct config *c)
{
	struct error err = ERROR_NONE;
	struct load load;
	struct rlimit lock;
	char text[NUM_SIZE_TEXT_MAX];
	int r = load_init(&load, c, &err);

	if (r < 0) {
		log_error("%s", error_text(&err, r));
		return EXIT_BAD;
	}
	load_print(&load, stdout);
	if (!getrlimit(RLIMIT_MEMLOCK, &lock) && geteuid() && lock.rlim_cur < load.plan.arena)
		log_warning("only %s may be locked here: raise LimitMEMLOCK= of the service "
			    "(ulimit -l)",
			num_format_size(lock.rlim_cur, text));
	load_deinit(&load);
	return fflush(stdout) == EOF ? EXIT_BAD : EXIT_GOOD;
}

static int main_fail(const struct error *err, int code)
{
	log_error("%s", error_text(err, code));
	notify_status(error_text(err, code));
	return EXIT_BAD;
}

static void main_report(const struct load *load)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	load_print(load, f);
	if (!fclose(f))
		for (char *line = text, *rest = NULL; (line = strtok_r(line, "\n", &rest));
			line = NULL)
			log_info("%s", line);
	free(text);
}

static int main_serve(struct options *o, struct config *c)
{
	struct error err = ERROR_NONE;
	struct manager m = {
		.reread = main_config, .reread_arg = o, .config = *c, .start_ns = clock_now()};
	struct listen listen = {.fd = -1};
	struct state state = {.folder = -1, .sessions = -1};
	int r;

	/* First, so that programs can connect, and are told how far loading is. */
	r = listen_init(&listen, c, &err);
	if (r >= 0)
		r = state_init(&state, c->state, &err);
	if (r >= 0)
		r = load_init(&m.load, c, &err);
	if (r >= 0) {
		struct error aside = ERROR_NONE;

		if (state_sessions(&state, c->sessions_on_disk, &aside) < 0)
			log_warning("%s: sessions stay in memory", error_text(&aside, 0));
		main_report(&m.load);
		m.listener = listen.fd;
		m.folder = &state;
		r = manager_init(&m, &err);
		if (r >= 0)
			r = manager_run(&m);
		/* The address goes first: whoever connects now finds nothing, or the next daemon.
		 */
		listen_deinit(&listen);
		manager_deinit(&m);
		load_deinit(&m.load);
	}
	/* The manager's own failures are logged where they happen. */
	if (r < 0 && err.code)
		(void)main_fail(&err, r);
	state_deinit(&state);
	listen_deinit(&listen);
	*c = m.config;
	if (r >= 0)
		log_info("ended");
	return r < 0 ? EXIT_BAD : EXIT_GOOD;
}

int main(int argc, char **argv)
{
	struct options o = {0};
	struct error err = ERROR_NONE;
	struct config config;
	int status, r;

	(void)umask(0077);
	log_set_program("moed");
	if (journal_is_connected())
		journal_connect();
	status = main_options(&o, argc, argv);
	if (status < 0) {
		r = main_config(&o, &config, &err);
		if (r < 0) {
			status = main_fail(&err, r);
			/* Also a file that is named and is not there. */
			status = r == -ENOMEM ? EXIT_BAD : EXIT_USAGE;
		} else {
			log_set_level(config_log_level(&config));
			status = o.check ? main_check(&config) : main_serve(&o, &config);
			config_deinit(&config);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(o.values); ++i)
		free(o.values[i]);
	return status;
}
