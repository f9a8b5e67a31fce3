/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Mounts, by the system calls that make, move and undo them. Their arguments are the process's own
 * memory: kept as addresses when the call begins, read when it has returned and so has brought them
 * into memory. A process that changes them in between deceives; what is mounted is for mountinfo to
 * say, who did it for these records.
 */

struct mount_start {
	__u64 boot_ns;
	__u64 args[5];
	__u64 action;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024); /* calls under way */
	__type(key, __u64);
	__type(value, struct mount_start);
} mount_starts SEC(".maps");

struct mount_room {
	struct walk walk;
	struct mount_call call;
	char text[2 * (PATH_SIZE + NAMES_SIZE) + NAME_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mount_room);
} mount_rooms SEC(".maps");

/* A program that looks at more arguments than a call has is refused. */
static __always_inline int begin_mount(struct syscall_enter *call, __u32 action, int arguments)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct mount_start start = {.boot_ns = bpf_ktime_get_boot_ns(), .action = action};

	start.args[0] = call->args[0];
	start.args[1] = call->args[1];
	if (arguments > 2)
		start.args[2] = call->args[2];
	if (arguments > 3) {
		start.args[3] = call->args[3];
		start.args[4] = call->args[4];
	}
	bpf_map_update_elem(&mount_starts, &thread, &start, BPF_ANY);
	return 0;
}

/* The file behind a descriptor of the current process. */
static __always_inline struct file *file_of(struct task_struct *task, __u64 descriptor)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if (descriptor < BPF_CORE_READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), files + descriptor);
	return file;
}

/* Letter by letter: there is no memcmp to call. */
static __always_inline bool begins_with(const char *path, const char *start, int size)
{
	int i;

	for (i = 0; i < size; i++)
		if (path[i] != start[i])
			return false;
	return true;
}

/* How runtimes name a file that they hold, so that nobody can change what the path leads to. */
const char held_by_process[] = "/proc/self/fd/";
const char held_by_thread[] = "/proc/thread-self/fd/";

static __always_inline long held_descriptor(const char *path)
{
	const char *digits;
	long descriptor = 0;
	int i;

	if (begins_with(path, held_by_process, sizeof(held_by_process) - 1))
		digits = path + sizeof(held_by_process) - 1;
	else if (begins_with(path, held_by_thread, sizeof(held_by_thread) - 1))
		digits = path + sizeof(held_by_thread) - 1;
	else
		return -1;
	for (i = 0; i < 7; i++) {
		if (!digits[i])
			return i ? descriptor : -1;
		if (digits[i] < '0' || digits[i] > '9')
			return -1;
		descriptor = descriptor * 10 + digits[i] - '0';
	}
	return -1;
}

/* Reads a path of the process's memory, then the folder that it starts from, where it tells that
 * not itself. */
static __always_inline __u64 read_place(struct mount_room *room, __u64 at, __u64 path, int folder,
					__u32 *size, __u32 *base_size)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct path *base = &fs->pwd;
	long read = bpf_probe_read_user_str(room->text + at, PATH_SIZE, (void *)path);
	long descriptor;

	*size = 0;
	*base_size = 0;
	if (read <= 0 || read > PATH_SIZE)
		return at;
	*size = read;
	descriptor = held_descriptor(room->text + at);
	if (descriptor < 0 && room->text[at] == '/')
		return at + read;
	if (descriptor < 0 && folder != AT_FDCWD)
		descriptor = folder;
	if (descriptor >= 0)
		base = &file_of(task, descriptor)->f_path;
	at += read;
	*base_size = read_far_names(&room->walk, room->text + at, base, &fs->root);
	return at + *base_size;
}

/* What is mounted by a descriptor: of which device and type. */
static __always_inline __u64 read_mounted(struct mount_room *room, __u64 at, __u64 descriptor)
{
	struct file *file = file_of(bpf_get_current_task_btf(), descriptor);
	struct vfsmount *vfsmount = BPF_CORE_READ(file, f_path.mnt);
	struct mount *mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
	long read = bpf_probe_read_kernel_str(room->text + at, PATH_SIZE,
					      BPF_CORE_READ(mount, mnt_devname));

	room->call.source_base_size = 0;
	if (read < 0 || read > PATH_SIZE)
		read = 0;
	room->call.source_size = read;
	return at + read;
}

static __always_inline __u64 read_type_of(struct mount_room *room, __u64 at, __u64 descriptor)
{
	struct file *file = file_of(bpf_get_current_task_btf(), descriptor);
	long read = bpf_probe_read_kernel_str(room->text + at, NAME_SIZE,
					      BPF_CORE_READ(file, f_path.mnt, mnt_sb, s_type, name));

	if (read < 0 || read > NAME_SIZE)
		read = 0;
	room->call.type_size = read;
	return at + read;
}

static __always_inline void end_mount(struct syscall_exit *call, __u32 action)
{
	__u64 thread = bpf_get_current_pid_tgid(), at = 0;
	struct mount_start *known = bpf_map_lookup_elem(&mount_starts, &thread);
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroups cgroups = cgroups_of(task);
	struct mount_start start;
	struct mount_room *room;
	__u32 first = 0;
	__u64 *args;
	long read;

	if (!known || known->action != action)
		return;
	start = *known;
	args = start.args;
	bpf_map_delete_elem(&mount_starts, &thread);
	if (!admit_as(&cgroups, start.boot_ns, true))
		return;
	room = bpf_map_lookup_elem(&mount_rooms, &first);
	if (!room) {
		count_lost(EVENT_MOUNT);
		return;
	}
	describe(&room->call.header, task);
	room->call.action = action;
	room->call.result = call->result;
	room->call.flags = 0;
	room->call.source_size = 0;
	room->call.source_base_size = 0;
	room->call.target_size = 0;
	room->call.target_base_size = 0;
	room->call.type_size = 0;
	if (action == MOUNT_MOUNT) {
		room->call.flags = args[3];
		at = read_place(room, at, args[0], AT_FDCWD, &room->call.source_size,
				&room->call.source_base_size);
		at = read_place(room, at, args[1], AT_FDCWD, &room->call.target_size,
				&room->call.target_base_size);
		read = bpf_probe_read_user_str(room->text + at, NAME_SIZE, (void *)args[2]);
		if (read > 0 && read <= NAME_SIZE) {
			room->call.type_size = read;
			at += read;
		}
	} else if (action == MOUNT_UNMOUNT) {
		room->call.flags = args[1];
		at = read_place(room, at, args[0], AT_FDCWD, &room->call.target_size,
				&room->call.target_base_size);
	} else if (action == MOUNT_MOVE) {
		char first_letter = 0;

		room->call.flags = args[4];
		bpf_probe_read_user(&first_letter, 1, (void *)args[1]);
		if (first_letter)
			at = read_place(room, at, args[1], args[0], &room->call.source_size,
					&room->call.source_base_size);
		else
			at = read_mounted(room, at, args[0]);
		at = read_place(room, at, args[3], args[2], &room->call.target_size,
				&room->call.target_base_size);
		if (!first_letter)
			at = read_type_of(room, at, args[0]);
	} else {
		room->call.flags = args[2];
		if (call->result >= 0) {
			at = read_mounted(room, at, call->result);
			at = read_type_of(room, at, call->result);
		}
	}
	/* It is so; the verifier of older kernels has lost sight of it. */
	barrier_var(at);
	if (at > sizeof(room->text)) {
		count_lost(EVENT_MOUNT);
		return;
	}
	begin(&room->call.header, EVENT_MOUNT, sizeof(room->call) + at, start.boot_ns, &cgroups);
	output(EVENT_MOUNT, &room->call, sizeof(room->call) + at);
}

#define MOUNT_CALL(name, action, arguments)                                                        \
	SEC("tracepoint/syscalls/sys_enter_" #name)                                                \
	int on_##name(struct syscall_enter *call)                                                  \
	{                                                                                          \
		return begin_mount(call, action, arguments);                                       \
	}                                                                                          \
	SEC("tracepoint/syscalls/sys_exit_" #name)                                                 \
	int on_##name##_done(struct syscall_exit *call)                                            \
	{                                                                                          \
		end_mount(call, action);                                                           \
		return 0;                                                                          \
	}

MOUNT_CALL(mount, MOUNT_MOUNT, 5)
MOUNT_CALL(umount, MOUNT_UNMOUNT, 2) /* umount2, by its name in the kernel */
MOUNT_CALL(move_mount, MOUNT_MOVE, 5)
MOUNT_CALL(fsmount, MOUNT_MAKE, 3)
