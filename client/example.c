/* SPDX-License-Identifier: MIT */

/* cc -std=c99 example.c $(pkg-config --cflags --libs libmoe); ./a.out "Why is the sky blue?" */

#include <moe.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct moe_turn turn = {"user", argc > 1 ? argv[1] : "Hello!", MOE_NUL};
	struct moe_request request = MOE_REQUEST_INIT;
	const struct moe_event *event;
	struct moe *moe;
	uint64_t number;
	int r, done = 0;

	r = moe_open(&moe, NULL);
	if (r < 0) {
		fprintf(stderr, "%s\n", moe_last_error(NULL));
		return 1;
	}
	request.turns = &turn;
	request.n_turns = 1;
	request.max_tokens = 200;
	r = moe_submit(moe, NULL, &request, &number);
	while (r >= 0 && !done) {
		r = moe_next(moe, MOE_FOREVER, &event);
		if (r <= 0 || event->request != number)
			continue;
		if (event->type == MOE_TOKEN)
			fwrite(event->text, 1, event->text_length, stdout);
		else if (event->type == MOE_ERROR)
			fprintf(stderr, "%s\n", event->text);
		fflush(stdout);
		done = event->type == MOE_DONE || event->type == MOE_ERROR;
	}
	if (r < 0)
		fprintf(stderr, "%s\n", moe_last_error(moe));
	moe_close(moe);
	return r < 0;
}
