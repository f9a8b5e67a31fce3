/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* How a cgroup's coming and going is told. */
#ifndef MAYFLY_CGROUP_H
#define MAYFLY_CGROUP_H

#include "event.h"
#include "ring.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Number of the v1 hierarchy that has the `pids` controller; 0 where that is in the unified one. */
const volatile __u32 legacy_hierarchy = 0;

struct cgroup_room {
	struct cgroup_change change;
	char path[PATH_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3); /* one for each program: they might interrupt each other */
	__type(key, __u32);
	__type(value, struct cgroup_room);
} cgroup_rooms SEC(".maps");

/* Runtimes make one in every hierarchy; two tell all. */
static __always_inline bool is_followed(__u32 hierarchy)
{
	return !hierarchy || hierarchy == legacy_hierarchy;
}

static __always_inline void tell_cgroup(__u32 kind, __u32 slot, struct event_header *who,
					__u32 hierarchy, __u64 id, const char *path)
{
	struct cgroup_room *room = bpf_map_lookup_elem(&cgroup_rooms, &slot);
	long size;

	if (!room) {
		count_lost(kind);
		return;
	}
	size = bpf_probe_read_kernel_str(room->path, PATH_SIZE, path);
	if (size < 0 || size > PATH_SIZE)
		size = 0;
	room->change.header = *who;
	begin(&room->change.header, kind, sizeof(room->change) + size, bpf_ktime_get_boot_ns(),
	      &who->cgroups);
	room->change.id = id;
	room->change.hierarchy = hierarchy;
	room->change.path_size = size;
	output(kind, room, sizeof(room->change) + size);
}

#endif
