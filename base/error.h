/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How failure travels.
 *
 * A function that can fail returns 0 (or a documented positive outcome that its direct caller must
 * handle) or a negative errno, which travels up untouched.  Libraries do not log; where a person
 * will want to know why, the function also takes a `struct error *` and fills in one sentence:
 * what was tried, on what, why it failed, what to do.  The first message wins on the way up;
 * error_prefix() may add context in front of it.
 *
 * Not thread-safe: one struct error per thread.  A NULL pointer is allowed and ignored.
 */

#define ERROR_TEXT_MAX 1024

struct error {
	int code;		   /* negative errno, 0 where nothing was set */
	char text[ERROR_TEXT_MAX]; /* one sentence without a newline, "" where nothing was set */
};

#define ERROR_NONE ((struct error){0})

/* Records code (negative errno) and the sentence unless one is recorded; returns code. */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* As error_set(), with ": " and the text of the errno appended. */
int error_errno(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the recorded sentence; nothing happens where none is recorded. */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The sentence, or the text of the errno where none was recorded.  Valid as long as err. */
const char *error_text(const struct error *err, int code);

/* Name of an errno such as "EIO", or "E?" where unknown; static storage. */
const char *error_name(int code);
