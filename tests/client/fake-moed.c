/* SPDX-License-Identifier: MIT */

/* The fake daemon as a program, until its standard input ends: `fake-moed SOCKET [LOADING]`. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fake.h"

int main(int argc, char **argv)
{
	struct fake_config config = {.path = argc > 1 ? argv[1] : NULL,
		.loading = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0};
	struct fake *f;
	char c;

	if (argc < 2)
		return 2;
	(void)signal(SIGINT, SIG_IGN);
	f = fake_start(&config);
	(void)puts("ready");
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	fake_stop(f);
	return 0;
}
