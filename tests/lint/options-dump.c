/* SPDX-License-Identifier: MIT */

/* Prints the table of options as the commented configuration: what options.py compares with. */

#include <stdio.h>

#include "configuration.h"

int main(void)
{
	config_print(stdout);
	return fclose(stdout) ? 1 : 0;
}
