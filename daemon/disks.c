/* SPDX-License-Identifier: MIT */
#include "disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "log.h"
#include "num.h"

#define DISKS_FILE "disks"
#define DISKS_FILE_NEW "disks.new"
#define DISKS_FILE_MAX 16384u

static int read_file(struct disks *d, int folder)
{
	char text[DISKS_FILE_MAX + 1];
	cleanup_fd_ int fd =
		openat(folder, DISKS_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof text);
	if (n < 0)
		return -errno;
	if ((size_t)n > DISKS_FILE_MAX || memchr(text, 0, (size_t)n))
		return -EBADMSG;
	text[n] = '\0';
	r = probe_parse(d->known, ARRAY_SIZE(d->known), text);
	d->n = r < 0 ? 0 : (size_t)r;
	return r;
}

void disks_load(struct disks *d, int folder)
{
	int r = folder < 0 ? -ENOENT : read_file(d, folder);

	if (r < 0 && r != -ENOENT)
		log_warning("what the state directory remembers of disks cannot be used (%s): they "
			    "are probed again",
			strerror(-r));
}

static int write_file(const struct disks *d, int folder)
{
	cleanup_fd_ int fd = -1;
	char text[DISKS_FILE_MAX];
	size_t n = probe_format(text, sizeof text, d->known, d->n);
	int r;

	if (n >= sizeof text)
		return -E2BIG;
	fd = openat(folder, DISKS_FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		0600);
	r = fd < 0 ? -errno : fd_write_all(fd, text, n);
	if (r >= 0 && (fsync(fd) < 0 || renameat(folder, DISKS_FILE_NEW, folder, DISKS_FILE) < 0))
		r = -errno;
	return r;
}

/* In the place of what was known of it; the oldest goes where there are too many. */
static void remember(struct disks *d, const struct probe_entry *e)
{
	size_t i = 0;

	while (i < d->n && strcmp(d->known[i].name, e->name) != 0)
		i++;
	if (i == ARRAY_SIZE(d->known)) {
		memmove(&d->known[0], &d->known[1], (d->n - 1) * sizeof d->known[0]);
		i = --d->n;
	}
	d->known[i] = *e;
	d->n = num_max(d->n, i + 1);
}

static const char *const sources[] = {
	[ENGINE_DISK_DEFAULT] = "default",
	[ENGINE_DISK_REMEMBERED] = "remembered",
	[ENGINE_DISK_PROBED] = "probed",
};

void disks_report(struct disks *d, int folder, const struct engine_disk *disks, uint32_t n)
{
	bool fresh = false;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		const struct disk_tuning *t = &disks[i].entry.tuning;
		char least[NUM_SIZE_TEXT_MAX], most[NUM_SIZE_TEXT_MAX], piece[NUM_SIZE_TEXT_MAX];

		if (disks[i].source == ENGINE_DISK_DEFAULT)
			continue;
		log_info("disk %s: %.2f GB/s with %s in flight, nearly with %s; reads of %s (%s%s)",
			disks[i].entry.name, (double)t->rate / 1e9, num_format_size(t->most, most),
			num_format_size(t->least, least), num_format_size(t->piece, piece),
			sources[disks[i].source],
			disks[i].source == ENGINE_DISK_PROBED ? " just now" : "");
		if (disks[i].source == ENGINE_DISK_PROBED) {
			remember(d, &disks[i].entry);
			fresh = true;
		}
	}
	if (!fresh || folder < 0)
		return;
	r = write_file(d, folder);
	if (r < 0)
		log_warning(
			"cannot remember the disks in the state directory (%s): they are probed "
			"again with the next start",
			strerror(-r));
}

void disks_print(FILE *f, const struct engine_disk *disks, uint32_t n)
{
	(void)fputc('[', f);
	for (uint32_t i = 0; i < n; i++) {
		const struct disk_tuning *t = &disks[i].entry.tuning;

		(void)fprintf(f,
			"%s{\"name\": \"%s\", \"source\": \"%s\", \"in_flight_least\": %" PRIu64
			", \"in_flight_most\": %" PRIu64 ", \"read\": %" PRIu64
			", \"bytes_per_s\": %" PRIu64 ", \"probe_s\": %.3f}",
			i ? ", " : "", disks[i].entry.name, sources[disks[i].source], t->least,
			t->most, t->piece, t->rate, (double)disks[i].probe_ns / 1e9);
	}
	(void)fputc(']', f);
}
