/* SPDX-License-Identifier: MIT */

#include "store-internal.h"

#include "num.h"

/* Indices of the present parts in the order of the files. */
static uint32_t sort_parts(const struct store_expert *x, uint32_t order[STORE_PARTS])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < STORE_PARTS; i++) {
		uint32_t at = n;

		if (x->part[i].size == 0)
			continue;
		for (; at > 0; at--) {
			const struct store_extent *e = &x->part[order[at - 1]];

			if (e->file < x->part[i].file ||
				(e->file == x->part[i].file && e->offset <= x->part[i].offset))
				break;
			order[at] = order[at - 1];
		}
		order[at] = i;
		n++;
	}
	return n;
}

/*
 * Parts whose windows touch or overlap become one segment: what lies between them is less than one
 * unit of alignment, cheaper to read along than to ask for twice.
 */
bool store_layout_make(struct store_layout *ret, const struct store_expert *x, uint32_t align)
{
	struct store_layout l = {0};
	struct store_segment *last = NULL;
	uint32_t order[STORE_PARTS];
	uint32_t n = sort_parts(x, order);

	for (uint32_t i = 0; i < STORE_PARTS; i++)
		l.part_at[i] = UINT64_MAX;
	for (uint32_t i = 0; i < n; i++) {
		const struct store_extent *e = &x->part[order[i]];
		uint64_t begin = num_align_down(e->offset, align), end, rounded;

		if (!num_add(e->offset, e->size, &end) || end > INT64_MAX ||
			!num_align(end, align, &rounded) || !num_add(l.useful, e->size, &l.useful))
			return false;
		if (!last || last->file != e->file || begin > last->offset + last->length) {
			uint64_t at = last ? last->at + last->length : 0;

			last = &l.segment[l.n_segments++];
			*last = (struct store_segment){.file = e->file, .offset = begin, .at = at};
		}
		last->length = num_max(last->length, rounded - last->offset);
		last->need = num_max(last->need, end - last->offset);
		l.part_at[order[i]] = last->at + (e->offset - last->offset);
		if (!num_add(last->at, last->length, &l.size))
			return false;
	}
	*ret = l;
	return true;
}

/*
 * Independent of where the extents lie, so that experts of one shape are of one size: each part may
 * begin and end in the middle of a unit.  store_layout_make() never needs more.
 */
size_t store_slot_size(const struct store_expert *x, uint32_t align)
{
	uint64_t sum = 0, part;

	for (uint32_t i = 0; i < STORE_PARTS; i++) {
		if (x->part[i].size == 0)
			continue;
		if (!num_align(x->part[i].size, align, &part) || !num_add(part, align, &part) ||
			!num_add(sum, part, &sum))
			return SIZE_MAX;
	}
	return sum;
}
