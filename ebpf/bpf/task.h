/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Who a task is and where: what every record says of it. */
#ifndef MAYFLY_TASK_H
#define MAYFLY_TASK_H

#include "cgroup.h"
#include "event.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

static __always_inline struct cgroups cgroups_of(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	struct cgroups cgroups = {.unified = set->dfl_cgrp->kn->id};

	if (legacy_hierarchy) {
		/* The index of `pids` is known to the loader only, and constant for the verifier. */
		__u64 pids = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
		struct cgroup_subsys_state **states =
			(void *)set + bpf_core_field_offset(struct css_set, subsys);

		cgroups.legacy = states[pids]->cgroup->kn->id;
	}
	return cgroups;
}

/* A pid's own entry in its array of numbers, one for each namespace that it is in. */
static __always_inline const struct upid *own_number(struct pid *pid, __u32 level)
{
	const char *numbers = (const char *)__builtin_preserve_access_index(&pid->numbers);

	return (const void *)(numbers + level * bpf_core_type_size(struct upid));
}

/* All but the namespaces that it is in, other than that of its pid. */
static __always_inline void identify(struct event_header *header, struct task_struct *task)
{
	struct pid *pid = task->group_leader->thread_pid;
	const struct cred *cred = task->cred;
	__u32 level = pid->level;

	header->pid = task->tgid;
	header->parent = task->real_parent->tgid;
	header->uid = cred->uid.val;
	header->gid = cred->gid.val;
	header->euid = cred->euid.val;
	header->auid = ~0;
	if (bpf_core_field_exists(task->loginuid))
		header->auid = task->loginuid.val;
	header->ns_pid = task->tgid;
	header->pid_ns = PROC_PID_INIT_INO;
	if (level) {
		const struct upid *own = own_number(pid, level);

		header->ns_pid = BPF_CORE_READ(own, nr);
		header->pid_ns = BPF_CORE_READ(own, ns, ns.inum);
	}
	header->net_ns = 0;
	header->mnt_ns = 0;
}

static __always_inline void describe(struct event_header *header, struct task_struct *task)
{
	struct nsproxy *namespaces = task->nsproxy;

	identify(header, task);
	/* A task that exits has none any more. */
	header->net_ns = namespaces ? namespaces->net_ns->ns.inum : 0;
	header->mnt_ns = namespaces ? namespaces->mnt_ns->ns.inum : 0;
}

/* In two loads, which is much less than a call. */
static __always_inline void copy_comm(char *comm, struct task_struct *task)
{
	const __u64 *name = (const void *)task + bpf_core_field_offset(struct task_struct, comm);

	((__u64 *)comm)[0] = name[0];
	((__u64 *)comm)[1] = name[1];
}

#endif
