/* SPDX-License-Identifier: MIT */

/*
 * The io_uring rung.  The ring starts disabled, is given its files and locked to IORING_OP_READ on
 * them, and is then enabled: from there on the kernel answers -EACCES to every other operation and
 * -EACCES to every registration, so that a ring of a process taken over can still only read the
 * model.  Waiting needs no timeout operation, which the lock would forbid: io_uring_enter(2) takes
 * the timeout (IORING_FEAT_EXT_ARG).
 *
 * The task that enables the ring becomes its single issuer: the thread that calls io_ring_new()
 * makes all other calls.
 */

#include "io.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "limit.h"
#include "num.h"

#define DEPTH LIMIT_READS_IN_FLIGHT

struct ring {
	struct io io;
	struct io_uring uring;
	bool deferred;
	int dead; /* -errno of a submission that left the ring in an unknown state */
	size_t in_flight;
	size_t n_files;
};

/*
 * io_uring_register(2) itself: the shared library of liburing 2.3 declares
 * io_uring_register_restrictions() and io_uring_enable_rings() but does not export them.
 */
static int ring_register(const struct ring *r, unsigned op, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, r->uring.ring_fd, op, arg, n) < 0 ? -errno : 0;
}

/* Runs what the kernel deferred to us; without it nothing arrives in a deferred ring. */
static void run_deferred(struct ring *r)
{
	if (r->deferred && (IO_URING_READ_ONCE(*r->uring.sq.kflags) & IORING_SQ_TASKRUN))
		(void)io_uring_get_events(&r->uring);
}

/* Hands over what is queued.  Being refused for now is no error: it stays queued. */
static int flush(struct ring *r)
{
	while (!r->dead && io_uring_sq_ready(&r->uring)) {
		int n = io_uring_submit(&r->uring);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN || n == -EBUSY || n == 0)
			return 0;
		if (n < 0)
			r->dead = n;
	}
	return r->dead;
}

static int ring_submit(struct io *io, const struct io_read *reads, size_t n)
{
	struct ring *r = (struct ring *)io;
	size_t taken = 0;
	int k;

	if (r->dead)
		return r->dead;
	while (taken < n && r->in_flight < DEPTH) {
		const struct io_read *read = &reads[taken];
		struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

		if (!sqe)
			break;
		io_uring_prep_read(sqe, (int)read->file, read->buffer, read->length, read->offset);
		sqe->flags = IOSQE_FIXED_FILE;
		sqe->user_data = read->tag;
		r->in_flight++;
		taken++;
	}
	k = flush(r);
	return k < 0 ? k : (int)taken;
}

static size_t drain(struct ring *r, struct io_result *results, size_t max)
{
	struct io_uring_cqe *cqe;
	unsigned head;
	size_t n = 0;

	io_uring_for_each_cqe(&r->uring, head, cqe)
	{
		if (n == max)
			break;
		results[n++] = (struct io_result){cqe->user_data, cqe->res};
	}
	io_uring_cq_advance(&r->uring, (unsigned)n);
	r->in_flight -= num_min(n, r->in_flight);
	return n;
}

static bool ring_ready(const struct io *io)
{
	const struct ring *r = (const struct ring *)io;

	return io_uring_cq_ready(&r->uring) > 0 ||
	       (r->deferred && (IO_URING_READ_ONCE(*r->uring.sq.kflags) & IORING_SQ_TASKRUN));
}

static int ring_reap(struct io *io, struct io_result *results, size_t max, uint64_t timeout_ns)
{
	struct ring *r = (struct ring *)io;
	struct io_uring_cqe *cqe;
	struct __kernel_timespec t;
	size_t n;
	int k;

	(void)flush(r);
	run_deferred(r);
	n = drain(r, results, max);
	if (n || !r->in_flight)
		return n ? (int)n : r->dead;
	if (!timeout_ns)
		return 0;
	t.tv_sec = (int64_t)num_min(timeout_ns / CLOCK_NS_PER_S, (uint64_t)INT32_MAX);
	t.tv_nsec = (int64_t)(timeout_ns % CLOCK_NS_PER_S);
	k = io_uring_wait_cqes(&r->uring, &cqe, 1, &t, NULL);
	if (k < 0 && k != -ETIME && k != -EINTR && k != -EAGAIN && k != -EBUSY)
		return k;
	return (int)drain(r, results, max);
}

static size_t ring_depth(const struct io *io)
{
	(void)io;
	return DEPTH;
}

static void ring_free(struct io *io)
{
	struct ring *r = (struct ring *)io;
	struct io_result results[32];

	/* The buffers belong to the caller again afterwards. */
	while (r->in_flight && !r->dead)
		if (ring_reap(io, results, ARRAY_SIZE(results), CLOCK_NS_PER_S) < 0)
			break;
	io_uring_queue_exit(&r->uring);
	free(r);
}

static const struct io_ops ring_ops = {
	.name = "io_uring",
	.submit = ring_submit,
	.reap = ring_reap,
	.ready = ring_ready,
	.depth = ring_depth,
	.free = ring_free,
};

static const struct io_ops ring_plain_ops = {
	.name = "io_uring (plain)",
	.submit = ring_submit,
	.reap = ring_reap,
	.ready = ring_ready,
	.depth = ring_depth,
	.free = ring_free,
};

static int lock_and_enable(struct ring *r, const int *fds, size_t n)
{
	const struct io_uring_restriction only_reads[] = {
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
	};
	int k = ring_register(r, IORING_REGISTER_FILES, fds, (unsigned)n);

	if (k == 0)
		k = ring_register(
			r, IORING_REGISTER_RESTRICTIONS, only_reads, ARRAY_SIZE(only_reads));
	if (k == 0)
		k = ring_register(r, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	return k;
}

static int set_up(struct ring **ret, const int *fds, size_t n, bool deferred)
{
	struct io_uring_params params = {.flags = IORING_SETUP_R_DISABLED};
	struct ring *r = calloc(1, sizeof *r);
	int k;

	if (!r)
		return -ENOMEM;
	if (deferred)
		params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
				IORING_SETUP_TASKRUN_FLAG;
	k = io_uring_queue_init_params(DEPTH, &r->uring, &params);
	if (k < 0) {
		free(r);
		return k;
	}
	r->io.ops = deferred ? &ring_ops : &ring_plain_ops;
	r->deferred = deferred;
	r->n_files = n;
	k = params.features & IORING_FEAT_EXT_ARG ? lock_and_enable(r, fds, n) : -ENOSYS;
	if (k < 0) {
		ring_free(&r->io);
		return k;
	}
	*ret = r;
	return 0;
}

static int explain(struct error *err, int code)
{
	const char *why = "";

	if (code == -ENOSYS || code == -EINVAL)
		why = " (the kernel has no io_uring, or one too old: 5.11 is needed)";
	else if (code == -EPERM || code == -EACCES)
		why = " (forbidden by the sysctl kernel.io_uring_disabled, a seccomp filter or a "
		      "container)";
	else if (code == -ENOMEM)
		why = " (memory, or the locking limit RLIMIT_MEMLOCK, is too low)";
	return error_errno(err, code, "cannot set up io_uring for reading%s", why);
}

int io_ring_new(struct io **ret, const int *fds, size_t n, struct error *err)
{
	struct ring *r;
	int k;

	if (n < 1 || n > LIMIT_MODEL_FILES)
		return error_set(err, -EINVAL, "io_uring cannot be locked to %zu files (1 to %u)",
			n, LIMIT_MODEL_FILES);
	k = set_up(&r, fds, n, true);
	if (k < 0)
		k = set_up(&r, fds, n, false);
	if (k < 0)
		return explain(err, k);
	*ret = &r->io;
	return 0;
}
