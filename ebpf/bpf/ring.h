/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The one ring that all records go through, and what is counted when one does not.
 *
 * The wakeup costs, not the probe. So nobody is woken by an event as such: the reader says in
 * `wake_at` at which fill level it wants to be woken (1 while it sleeps, a part of the ring while
 * it polls), and whoever reaches the level wakes it once.
 */
#ifndef MAYFLY_RING_H
#define MAYFLY_RING_H

#include "event.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define ASLEEP_NO_MORE (~0ULL)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* the loader sets it */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} wake_at SEC(".maps");

/* Records that found no room, by kind. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENT_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void count_lost(__u32 kind)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &kind);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline __u64 wakeup(void)
{
	__u32 first = 0;
	__u64 *level = bpf_map_lookup_elem(&wake_at, &first);

	/* The record itself is in the ring already when it was reserved, not when it is output. */
	if (!level || bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) + 1 < *level)
		return BPF_RB_NO_WAKEUP;
	*level = ASLEEP_NO_MORE;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void begin(struct event_header *header, __u32 kind, __u32 size,
				  __u64 boot_ns, struct cgroups *cgroups)
{
	header->kind = kind;
	header->size = size;
	header->boot_ns = boot_ns;
	header->cgroups = *cgroups;
}

/* Room for a record of a fixed size, or NULL: the loss is counted. */
#define reserve(kind, size)                                                                        \
	({                                                                                         \
		void *room = bpf_ringbuf_reserve(&ring, size, 0);                                  \
		if (!room)                                                                         \
			count_lost(kind);                                                          \
		room;                                                                              \
	})

static __always_inline void submit(void *record)
{
	bpf_ringbuf_submit(record, wakeup());
}

/* Writes a record of any size, or counts the loss. */
static __always_inline void output(__u32 kind, void *record, __u64 size)
{
	if (bpf_ringbuf_output(&ring, record, size, wakeup()))
		count_lost(kind);
}

#endif
