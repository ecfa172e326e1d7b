/* SPDX-License-Identifier: MIT */
#include "channel.h"

#include <errno.h>

#include "fd.h"
#include "sock.h"

void channel_init(struct channel *c, int sock, struct segment *in, struct segment *out)
{
	c->sock = sock;
	c->in = *in;
	c->out = *out;
	c->blocked = 0;
	*in = *out = SEGMENT_NULL;
	ring_reader_init(&c->reader, c->out.map, c->in.map, &c->in.geometry);
	ring_writer_init(&c->writer, c->out.map, c->in.map, &c->out.geometry);
}

void channel_deinit(struct channel *c)
{
	c->sock = fd_close(c->sock);
	segment_deinit(&c->in);
	segment_deinit(&c->out);
}

int channel_wake(struct channel *c)
{
	int k = sock_bell_take(c->sock);

	ring_reader_wake(&c->reader);
	ring_writer_wake(&c->writer);
	return k > 0 ? -ECONNRESET : k;
}

int channel_read(struct channel *c, struct wire_record *ret)
{
	return ring_read(&c->reader, ret, c->payload);
}

int channel_write(struct channel *c, uint16_t type, uint64_t request, const struct iovec *pieces,
	size_t n_pieces)
{
	int k = ring_write(&c->writer, type, request, pieces, n_pieces);

	c->blocked = 0;
	for (size_t i = 0; k == 0 && i < n_pieces; i++)
		c->blocked += pieces[i].iov_len;
	/* A record without payload needs room as well. */
	if (k == 0 && !c->blocked)
		c->blocked = 1;
	return k;
}

int channel_write2(struct channel *c, uint16_t type, uint64_t request, const void *head,
	size_t head_size, const void *tail, size_t tail_size)
{
	const struct iovec pieces[] = {
		{.iov_base = (void *)(uintptr_t)head, .iov_len = head_size},
		{.iov_base = (void *)(uintptr_t)tail, .iov_len = tail_size},
	};

	return channel_write(c, type, request, pieces, 2);
}

int channel_flush(struct channel *c)
{
	/* Both, not short-circuited: each publishes its index. */
	bool records = ring_writer_bell(&c->writer), room = ring_reader_bell(&c->reader);

	return records || room ? sock_bell(c->sock) : 0;
}

int channel_sleep(struct channel *c)
{
	int k = channel_flush(c);

	if (k < 0)
		return k;
	if (!ring_reader_sleep(&c->reader))
		return 1;
	if (c->blocked && !ring_writer_sleep(&c->writer, c->blocked)) {
		ring_reader_wake(&c->reader);
		return 1;
	}
	return 0;
}

int channel_sleep_full(struct channel *c, size_t payload)
{
	int k = channel_flush(c);

	if (k < 0)
		return k;
	return ring_writer_sleep(&c->writer, payload) ? 0 : 1;
}
