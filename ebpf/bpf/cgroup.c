/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Cgroups that come and go: a container is born before its first process. */

static __always_inline void report_cgroup(__u32 kind, __u32 slot, struct cgroup *cgroup,
					  const char *path, struct task_struct *task)
{
	__u32 hierarchy = cgroup->root->hierarchy_id;
	struct event_header who = {.cgroups = cgroups_of(task)};

	if (!is_followed(hierarchy))
		return;
	describe(&who, task);
	tell_cgroup(kind, slot, &who, hierarchy, cgroup->kn->id, path);
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
