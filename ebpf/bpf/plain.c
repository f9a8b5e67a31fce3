/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The probes for a kernel without type information. They know a tracepoint's fields by the offsets
 * that its `format` in tracefs tells, and of the current task what helpers tell. Nothing here may
 * need to be relocated: the loader would leave it as it is, and it would read garbage.
 */
#include "abi.h"
#include "event.h"
#include "ring.h"
#include "cgroup.h"
#include "admission.h"
#include "exclude.h"
#include "datagram.h"
#include "socket.h"
#include "victim.h"

/* Where each field is; 0: there is none. The loader sets them. */
const volatile __u32 exec_filename = 0;
const volatile __u32 exit_group_dead = 0; /* since 6.16 */
const volatile __u32 fork_child_pid = 0;
const volatile __u32 mkdir_root = 0;
const volatile __u32 mkdir_id = 0;
const volatile __u32 mkdir_path = 0;
const volatile __u32 rmdir_root = 0;
const volatile __u32 rmdir_id = 0;
const volatile __u32 rmdir_path = 0;
const volatile __u32 attach_dst_root = 0;
const volatile __u32 attach_dst_id = 0;
const volatile __u32 attach_dst_path = 0;
const volatile __u32 attach_pid = 0;
const volatile __u32 state_skaddr = 0;
const volatile __u32 state_oldstate = 0;
const volatile __u32 state_newstate = 0;
const volatile __u32 state_sport = 0;
const volatile __u32 state_dport = 0;
const volatile __u32 state_family = 0;
const volatile __u32 state_protocol = 0;
const volatile __u32 state_saddr = 0;
const volatile __u32 state_daddr = 0;
const volatile __u32 state_saddr_v6 = 0;
const volatile __u32 state_daddr_v6 = 0;
const volatile __u32 victim_pid = 0;

#define get(context, offset, into) bpf_probe_read_kernel(&(into), sizeof(into), (context) + (offset))

/* A field that is text says where in the record the text is. */
static __always_inline const char *text_of(void *context, __u32 offset)
{
	__u32 location = 0;

	get(context, offset, location);
	return context + (location & 0xffff);
}

/*
 * What no helper tells of a task. The loader writes those that exist; a process is born in its
 * parent's cgroups.
 */
struct task_note {
	__u64 legacy; /* its cgroup in the v1 hierarchy of `pids` */
	__u64 born_boot_ns; /* 0: before the probes */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct task_note);
} task_notes SEC(".maps");

/*
 * Of processes whose first thread has ended. Where it was not the last, another may execute a
 * program: it then takes the place of the first, which the kernel ended for it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct task_note);
} ended_notes SEC(".maps");

static __always_inline __u32 current_pid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline void put_aside_note(struct task_note *note)
{
	__u32 process = current_pid();

	if (note && !exit_group_dead)
		bpf_map_update_elem(&ended_notes, &process, note, BPF_ANY);
	bpf_map_delete_elem(&task_notes, &process);
}

static __always_inline void take_back_note(void)
{
	__u32 process = current_pid();
	struct task_note *note;

	if (exit_group_dead)
		return;
	note = bpf_map_lookup_elem(&ended_notes, &process);
	if (!note)
		return;
	bpf_map_update_elem(&task_notes, &process, note, BPF_NOEXIST);
	bpf_map_delete_elem(&ended_notes, &process);
}

static __always_inline struct cgroups current_cgroups(void)
{
	struct cgroups cgroups = {.unified = bpf_get_current_cgroup_id()};
	__u32 pid = current_pid();
	struct task_note *note;

	if (legacy_hierarchy) {
		note = bpf_map_lookup_elem(&task_notes, &pid);
		cgroups.legacy = note ? note->legacy : 0;
	}
	return cgroups;
}

/* What helpers do not tell is 0, or unset. */
static __always_inline void own(struct event_header *owner, __u64 now)
{
	__u64 user = bpf_get_current_uid_gid();

	__builtin_memset(owner, 0, sizeof(*owner));
	owner->boot_ns = now;
	owner->cgroups = current_cgroups();
	owner->pid = current_pid();
	owner->uid = user;
	owner->gid = user >> 32;
	owner->euid = owner->auid = ~0;
}

static __always_inline bool is_wanted(struct event_header *who)
{
	return !is_excluded_uid(who->uid) && admit(&who->cgroups, who->boot_ns);
}

struct exec_room {
	struct path_key key;
	struct exec exec;
	char path[PATH_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_room);
} exec_rooms SEC(".maps");

SEC("tracepoint/sched/sched_process_exec")
int on_exec(void *context)
{
	const char *path = text_of(context, exec_filename);
	__u32 first = 0;
	struct exec_room *room = bpf_map_lookup_elem(&exec_rooms, &first);
	struct event_header who;
	long size;

	take_back_note();
	own(&who, bpf_ktime_get_boot_ns());
	if (!is_wanted(&who))
		return 0;
	if (!room) {
		count_lost(EVENT_EXEC);
		return 0;
	}
	if (is_excluded_path(&room->key, path, who.pid))
		return 0;
	size = bpf_probe_read_kernel_str(room->path, PATH_SIZE, path);
	if (size < 0 || size > PATH_SIZE)
		size = 0;
	__builtin_memset(&room->exec, 0, sizeof(room->exec));
	room->exec.header = who;
	begin(&room->exec.header, EVENT_EXEC, sizeof(room->exec) + size, who.boot_ns, &who.cgroups);
	room->exec.path_size = size;
	output(EVENT_EXEC, &room->exec, sizeof(room->exec) + size);
	return 0;
}

/*
 * Older kernels do not say which thread is the last; mostly it is the first. Whoever reads the
 * record asks /proc whether the process goes on without it.
 */
static __always_inline bool is_last(void *context, __u32 thread)
{
	bool group_dead = false;

	if (!exit_group_dead)
		return thread == current_pid();
	get(context, exit_group_dead, group_dead);
	return group_dead;
}

static __always_inline void report_exit(__u64 born_boot_ns)
{
	struct event_header who;
	struct exit *exit;

	own(&who, bpf_ktime_get_boot_ns());
	if (was_left_out(who.pid) || !is_wanted(&who))
		return;
	exit = reserve(EVENT_EXIT, sizeof(*exit));
	if (!exit)
		return;
	begin(&who, EVENT_EXIT, sizeof(*exit), who.boot_ns, &who.cgroups);
	exit->header = who;
	exit->started_boot_ns = born_boot_ns;
	exit->status = STATUS_UNKNOWN;
	exit->reserved = 0;
	bpf_get_current_comm(exit->comm, sizeof(exit->comm));
	submit(exit);
}

SEC("tracepoint/sched/sched_process_exit")
int on_exit(void *context)
{
	__u32 process = current_pid(), thread = bpf_get_current_pid_tgid();
	struct task_note *note;

	if (is_last(context, thread)) {
		note = bpf_map_lookup_elem(&task_notes, &process);
		report_exit(note ? note->born_boot_ns : 0);
		put_aside_note(note);
	} else if (thread != process) {
		bpf_map_delete_elem(&task_notes, &thread);
	}
	return 0;
}

SEC("tracepoint/sched/sched_process_fork")
int on_fork(void *context)
{
	__u32 parent = current_pid(), child = 0;
	struct task_note *parents = bpf_map_lookup_elem(&task_notes, &parent);
	struct task_note note = {.born_boot_ns = bpf_ktime_get_boot_ns()};

	get(context, fork_child_pid, child);
	if (parents)
		note.legacy = parents->legacy;
	bpf_map_update_elem(&task_notes, &child, &note, BPF_ANY);
	if (!exit_group_dead)
		bpf_map_delete_elem(&ended_notes, &child);
	return 0;
}

static __always_inline void report_cgroup(void *context, __u32 kind, __u32 slot, __u32 root_at,
					  __u32 id_at, __u32 path_at)
{
	struct event_header who;
	__u32 hierarchy = 0;
	__u64 id = 0;

	get(context, root_at, hierarchy);
	get(context, id_at, id);
	if (!is_followed(hierarchy))
		return;
	own(&who, 0);
	tell_cgroup(kind, slot, &who, hierarchy, id, text_of(context, path_at));
}

SEC("tracepoint/cgroup/cgroup_mkdir")
int on_cgroup_mkdir(void *context)
{
	report_cgroup(context, EVENT_CGROUP_MKDIR, 0, mkdir_root, mkdir_id, mkdir_path);
	return 0;
}

SEC("tracepoint/cgroup/cgroup_rmdir")
int on_cgroup_rmdir(void *context)
{
	report_cgroup(context, EVENT_CGROUP_RMDIR, 1, rmdir_root, rmdir_id, rmdir_path);
	return 0;
}

/* One that was there before the probes has no note until they are loaded; it gets one here. */
static __always_inline void note_move(__u32 pid, __u64 legacy)
{
	struct task_note fresh = {.legacy = legacy}, *note;

	if (!bpf_map_update_elem(&task_notes, &pid, &fresh, BPF_NOEXIST))
		return;
	note = bpf_map_lookup_elem(&task_notes, &pid);
	if (note)
		note->legacy = legacy;
}

SEC("tracepoint/cgroup/cgroup_attach_task")
int on_cgroup_attach(void *context)
{
	__u32 hierarchy = 0, pid = 0;
	__u64 legacy = 0;

	get(context, attach_dst_root, hierarchy);
	get(context, attach_pid, pid);
	get(context, attach_dst_id, legacy);
	if (hierarchy && hierarchy == legacy_hierarchy)
		note_move(pid, legacy);
	report_cgroup(context, EVENT_CGROUP_ATTACH, 2, attach_dst_root, attach_dst_id,
		      attach_dst_path);
	return 0;
}

static __always_inline void report_socket(void *context, struct event_header *owner, __u32 action,
					  bool failed, __u64 now)
{
	struct socket_change *change = begin_change(owner, action, failed, now);
	__u16 protocol = 0;

	if (!change)
		return;
	get(context, state_sport, change->local_port);
	get(context, state_dport, change->remote_port);
	get(context, state_family, change->family);
	get(context, state_protocol, protocol);
	change->protocol = protocol;
	if (change->family == AF_INET6) {
		bpf_probe_read_kernel(change->local, 16, context + state_saddr_v6);
		bpf_probe_read_kernel(change->remote, 16, context + state_daddr_v6);
	} else {
		bpf_probe_read_kernel(change->local, 4, context + state_saddr);
		bpf_probe_read_kernel(change->remote, 4, context + state_daddr);
	}
	submit(change);
}

/* Who accepts is not told: in which network namespace a socket listens cannot be known. */
SEC("tracepoint/sock/inet_sock_set_state")
int on_socket_state(void *context)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct event_header fresh = {};
	__u32 old = 0, new = 0;
	__u64 key = 0;

	get(context, state_skaddr, key);
	get(context, state_oldstate, old);
	get(context, state_newstate, new);
	if (new == TCP_SYN_SENT || new == TCP_LISTEN) {
		own(&fresh, now);
		bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY);
		if (new == TCP_LISTEN)
			report_socket(context, &fresh, SOCKET_LISTEN, false, now);
		return 0;
	}
	if (find_owner(key, old, new, &fresh))
		report_socket(context, &fresh,
			      old == TCP_SYN_SENT ? SOCKET_CONNECT : SOCKET_CLOSE,
			      old == TCP_SYN_SENT && new == TCP_CLOSE, now);
	return 0;
}

SEC("tracepoint/oom/mark_victim")
int on_mark_victim(void *context)
{
	__u32 victim = 0;

	get(context, victim_pid, victim);
	tell_victim(victim);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
