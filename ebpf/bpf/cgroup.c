/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Cgroups that come and go: a container is born before its first process. */

struct cgroup_room {
	struct cgroup_change change;
	char path[PATH_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries,
	       2); /* one for each of the two programs, which might interrupt each other */
	__type(key, __u32);
	__type(value, struct cgroup_room);
} cgroup_rooms SEC(".maps");

static __always_inline void report_cgroup(__u32 kind, struct cgroup *cgroup, const char *path)
{
	__u32 hierarchy = cgroup->root->hierarchy_id;
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroups cgroups;
	struct cgroup_room *room;
	__u32 slot = kind == EVENT_CGROUP_RMDIR;
	long size;

	/* Runtimes make one in every hierarchy. */
	if (hierarchy && hierarchy != legacy_hierarchy)
		return;
	cgroups = cgroups_of(task);
	room = bpf_map_lookup_elem(&cgroup_rooms, &slot);
	if (!room) {
		count_lost(kind);
		return;
	}
	size = bpf_probe_read_kernel_str(room->path, PATH_SIZE, path);
	if (size < 0 || size > PATH_SIZE)
		size = 0;
	begin(&room->change.header, kind, sizeof(room->change) + size, bpf_ktime_get_boot_ns(),
	      &cgroups);
	describe(&room->change.header, task);
	room->change.id = cgroup->kn->id;
	room->change.hierarchy = hierarchy;
	room->change.path_size = size;
	output(kind, room, sizeof(room->change) + size);
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	report_cgroup(EVENT_CGROUP_MKDIR, cgroup, path);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	report_cgroup(EVENT_CGROUP_RMDIR, cgroup, path);
	return 0;
}
