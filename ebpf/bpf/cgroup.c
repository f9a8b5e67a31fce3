/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Cgroups that come and go: a container is born before its first process. */

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

static __always_inline void report_cgroup(__u32 kind, __u32 slot, struct cgroup *cgroup,
					  const char *path, struct task_struct *task)
{
	__u32 hierarchy = cgroup->root->hierarchy_id;
	struct cgroups cgroups;
	struct cgroup_room *room;
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
	report_cgroup(EVENT_CGROUP_MKDIR, 0, cgroup, path, bpf_get_current_task_btf());
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	report_cgroup(EVENT_CGROUP_RMDIR, 1, cgroup, path, bpf_get_current_task_btf());
	return 0;
}

/* Tells the path of a cgroup that was made before the probes. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_cgroup_attach, struct cgroup *cgroup, const char *path, struct task_struct *task)
{
	report_cgroup(EVENT_CGROUP_ATTACH, 2, cgroup, path, task);
	return 0;
}
