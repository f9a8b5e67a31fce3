/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Victims of the kernel's out-of-memory killer. */

/* One counter of a process's memory; the kernel adds what the CPUs hold back only from time to
 * time. */
static __always_inline __s64 pages_of_kind(struct mm_struct *mm, int kind)
{
	struct mm_struct___atomic *older = (void *)mm;
	const char *counters = (const char *)__builtin_preserve_access_index(&mm->rss_stat);
	const struct percpu_counter *counter;
	__s64 pages = 0;

	if (bpf_core_type_exists(struct mm_rss_stat)) {
		const char *counts =
			(const char *)__builtin_preserve_access_index(&older->rss_stat.count);

		bpf_probe_read_kernel(&pages, sizeof(pages), counts + kind * sizeof(pages));
		return pages;
	}
	counter = (const void *)(counters + kind * bpf_core_type_size(struct percpu_counter));
	return BPF_CORE_READ(counter, count);
}

static __always_inline __u64 resident_pages(struct mm_struct *mm)
{
	__s64 pages = pages_of_kind(mm, MM_FILEPAGES) + pages_of_kind(mm, MM_ANONPAGES) +
		      pages_of_kind(mm, MM_SHMEMPAGES);

	return pages < 0 ? 0 : pages;
}

/* Kernels before 6.8 pass a pid, and the verifier refuses this program. */
SEC("tp_btf/mark_victim")
int BPF_PROG(on_mark_victim, struct task_struct *victim)
{
	struct mm_struct *mm = victim->mm;
	struct cgroups cgroups = cgroups_of(victim);
	struct oom_kill *kill = reserve(EVENT_OOM_KILL, sizeof(*kill));

	if (!kill)
		return 0;
	begin(&kill->header, EVENT_OOM_KILL, sizeof(*kill), bpf_ktime_get_boot_ns(), &cgroups);
	describe(&kill->header, victim);
	kill->total_vm_pages = mm ? mm->total_vm : 0;
	kill->rss_pages = mm ? resident_pages(mm) : 0;
	copy_comm(kill->comm, victim->group_leader);
	submit(kill);
	return 0;
}

/* And takes this one. */
SEC("tp_btf/mark_victim")
int BPF_PROG(on_mark_victim_pid, int victim)
{
	tell_victim(victim);
	return 0;
}
