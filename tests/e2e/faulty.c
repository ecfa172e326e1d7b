/* SPDX-License-Identifier: MIT */

/*
 * Goes before libc (LD_PRELOAD) and spoils pread(2) as a file says, so that the real daemon meets
 * a bad disk.  FAULTY names that file, whose one line is
 *   eio            every read fails
 *   short BYTES    no read brings more
 *   slow MS        the next read takes so long; those after it do not, until the line changes
 * An empty or absent file spoils nothing.  Only large files are spoiled: models.
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MODEL_LEAST (1 << 20)

/* With 64 bits of offsets pread() is called pread64. */
#define NAME "pread64"

typedef ssize_t (*pread_fn)(int, void *, size_t, off_t);

static _Atomic(long) slow_done; /* time of change of the line that was obeyed last */

static ssize_t spoiled(pread_fn real, int fd, void *buf, size_t n, off_t offset)
{
	const char *path = getenv("FAULTY");
	char line[64] = "";
	struct stat st, model;
	unsigned long value;
	int control = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (control < 0 || fstat(control, &st) < 0 || fstat(fd, &model) < 0) {
		if (control >= 0)
			close(control);
		return real(fd, buf, n, offset);
	}
	if (model.st_size >= MODEL_LEAST && read(control, line, sizeof line - 1) < 0)
		line[0] = '\0';
	close(control);
	if (strncmp(line, "eio", 3) == 0) {
		errno = EIO;
		return -1;
	}
	if (sscanf(line, "short %lu", &value) == 1 && n > value)
		n = value;
	if (sscanf(line, "slow %lu", &value) == 1 &&
		atomic_exchange(&slow_done, st.st_mtim.tv_nsec) != st.st_mtim.tv_nsec) {
		struct timespec time = {(time_t)(value / 1000), (long)(value % 1000) * 1000000};

		nanosleep(&time, NULL);
	}
	return real(fd, buf, n, offset);
}

__attribute__((visibility("default"))) ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	void *symbol = dlsym(RTLD_NEXT, NAME);
	pread_fn real = NULL;

	memcpy(&real, &symbol, sizeof real);
	return spoiled(real, fd, buf, n, offset);
}
