/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Processes: what they execute and how they end. */

/* One record at its largest, for each CPU: too large for the stack and for a per-CPU map. */
struct exec_room {
	struct walk walk;
	struct path_key key;
	struct exec exec;
	char text[3 * NAMES_SIZE + PATH_SIZE + ARGS_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* the loader sets it to the number of CPUs */
	__type(key, __u32);
	__type(value, struct exec_room);
} exec_rooms SEC(".maps");

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *binary)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct cgroups cgroups = cgroups_of(task);
	__u32 cpu = bpf_get_smp_processor_id();
	struct mm_struct *mm = task->mm;
	struct exec_room *room;
	struct fs_struct *fs = task->fs;
	__u64 cwd_size, file_size = 0, args_size, whole, texts;
	long path_size;
	char *text;

	if (is_excluded_uid(task->cred->uid.val) || !admit(&cgroups, now))
		return 0;
	room = bpf_map_lookup_elem(&exec_rooms, &cpu);
	if (!room || !mm) {
		count_lost(EVENT_EXEC);
		return 0;
	}
	if (is_excluded_path(&room->key, binary->filename, task->tgid))
		return 0;
	describe(&room->exec.header, task);
	text = room->text;
	cwd_size = fs ? read_names(&room->walk, text, &fs->pwd, &fs->root) : 0;
	path_size = bpf_probe_read_kernel_str(text + cwd_size, PATH_SIZE, binary->filename);
	if (path_size < 0 || path_size > PATH_SIZE)
		path_size = 0;
	/* Such a path does not tell the program: it is read again, behind the names of its file. */
	if (fs && is_indirect(text + cwd_size)) {
		file_size = read_names(&room->walk, text + cwd_size,
				       &binary->file->f_path, &fs->root);
		path_size = bpf_probe_read_kernel_str(text + cwd_size + file_size, PATH_SIZE,
						      binary->filename);
		if (path_size < 0 || path_size > PATH_SIZE)
			path_size = 0;
	}
	whole = mm->arg_end - mm->arg_start;
	args_size = whole > ARGS_SIZE ? ARGS_SIZE : whole;
	texts = cwd_size + file_size + path_size;
	/* Just written by execve, so it is in memory; where it is not, `args_whole` still tells. */
	if (bpf_probe_read_user(text + texts, args_size, (void *)mm->arg_start))
		args_size = 0;

	texts += args_size;
	begin(&room->exec.header, EVENT_EXEC, sizeof(room->exec) + texts, now, &cgroups);
	room->exec.cwd_size = cwd_size;
	room->exec.file_size = file_size;
	room->exec.path_size = path_size;
	room->exec.args_size = args_size;
	room->exec.args_whole = whole;
	output(EVENT_EXEC, &room->exec, sizeof(room->exec) + texts);
	return 0;
}

static __always_inline void report_exit(struct task_struct *task)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct cgroups cgroups = cgroups_of(task);
	struct signal_struct *group = task->signal;
	struct exit *exit;

	if (was_left_out(task->tgid) || is_excluded_uid(task->cred->uid.val) ||
	    !admit(&cgroups, now))
		return;
	exit = reserve(EVENT_EXIT, sizeof(*exit));
	if (!exit)
		return;
	begin(&exit->header, EVENT_EXIT, sizeof(*exit), now, &cgroups);
	/* Its other namespaces may be gone; what was executed in them told which they are. */
	identify(&exit->header, task);
	exit->started_boot_ns = task->group_leader->start_boottime;
	exit->status = group->flags & SIGNAL_GROUP_EXIT ? group->group_exit_code
							: task->group_leader->exit_code;
	exit->reserved = 0;
	copy_comm(exit->comm, task->group_leader);
	submit(exit);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task, bool group_dead)
{
	if (group_dead)
		report_exit(task);
	return 0;
}

/* Processes of which this probe has told the exit already. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} exits_told SEC(".maps");

/* Kernels that do not pass group_dead. Threads that die together may all find none alive. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit_of_last, struct task_struct *task)
{
	__u64 process = task->group_leader->start_boottime ^ ((__u64)task->tgid << 40);
	__u8 told = 1;

	if (task->signal->live.counter)
		return 0;
	if (!bpf_map_update_elem(&exits_told, &process, &told, BPF_NOEXIST))
		report_exit(task);
	return 0;
}

/* Who makes a process forks it first; of interest is only the fork that begins a container. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	__u64 now;
	struct cgroups cgroups;
	struct fork *fork;
	struct pid *pid = child->thread_pid;
	__u32 level = pid->level;

	if (!level || child->pid != child->tgid)
		return 0;
	if (BPF_CORE_READ(own_number(pid, level), nr) != 1)
		return 0;
	now = bpf_ktime_get_boot_ns();
	cgroups = cgroups_of(child);
	if (!admit(&cgroups, now))
		return 0;
	fork = reserve(EVENT_FORK, sizeof(*fork));
	if (!fork)
		return 0;
	begin(&fork->header, EVENT_FORK, sizeof(*fork), now, &cgroups);
	describe(&fork->header, child);
	submit(fork);
	return 0;
}
