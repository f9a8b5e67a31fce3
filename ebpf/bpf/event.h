/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The records that the probes write. A record is a header, the fixed fields of its kind, then text;
 * src/records.rs reads the same, and a test compares both layouts through this file's BTF.
 */
#ifndef MAYFLY_EVENT_H
#define MAYFLY_EVENT_H

#include <linux/types.h>

#define PATH_SIZE  4096
#define ARGS_SIZE  65536
#define COMM_SIZE  16
#define NAME_SIZE  256
#define NAMES_SIZE 2048

#define STATUS_UNKNOWN (~0U)

enum event_kind {
	EVENT_EXEC = 1,
	EVENT_EXIT,
	EVENT_FORK,
	EVENT_CGROUP_MKDIR,
	EVENT_CGROUP_RMDIR,
	EVENT_SOCKET,
	EVENT_OOM_KILL,
	EVENT_MOUNT,
	EVENT_CGROUP_ATTACH,
	EVENT_KINDS,
};

/* Where a task is, in the hierarchies that name containers. */
struct cgroups {
	__u64 unified; /* kernfs id; 1 is the root */
	__u64 legacy; /* the same in the v1 hierarchy of `pids`; 0 where there is none */
};

/* Who did it: the process, by its thread group. */
struct event_header {
	__u32 kind;
	__u32 size; /* of the whole record */
	__u64 boot_ns;
	struct cgroups cgroups;
	__u32 pid;
	__u32 ns_pid; /* as its own pid namespace numbers it */
	__u32 parent;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 auid; /* ~0: unset */
	__u32 pid_ns;
	__u32 net_ns;
	__u32 mnt_ns;
};

/*
 * Followed by four texts: the names of the working folder and of the executable, from the innermost
 * to the root; the path as it was asked for; the arguments as the process got them. Each name, path
 * and argument ends with NUL.
 */
struct exec {
	struct event_header header;
	__u32 cwd_size;
	__u32 file_size; /* 0 where the path tells it */
	__u32 path_size;
	__u32 args_size;
	__u64 args_whole; /* what the process got; more than args_size: cut */
};

/* The last thread of a process is gone. */
struct exit {
	struct event_header header;
	__u64 started_boot_ns; /* 0: not known */
	__u32 status; /* as wait(2) reports it, or STATUS_UNKNOWN */
	__u32 reserved;
	char comm[COMM_SIZE];
};

/* The first process of a pid namespace is born; the header is the child's. */
struct fork {
	struct event_header header;
};

/*
 * A cgroup came or went, or the process of the header was moved into it; followed by its path in
 * its hierarchy, with NUL.
 */
struct cgroup_change {
	struct event_header header;
	__u64 id;
	__u32 hierarchy; /* 0: the unified one */
	__u32 path_size;
};

enum socket_action {
	SOCKET_CONNECT = 1,
	SOCKET_ACCEPT,
	SOCKET_LISTEN,
	SOCKET_CLOSE,
};

/* IPv4 addresses use the first four bytes. Ports are in host order. */
struct socket_change {
	struct event_header header;
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u16 protocol;
	__u32 action;
	__u32 failed; /* of a connect: it was not established */
};

struct oom_kill {
	struct event_header header;
	__u64 total_vm_pages;
	__u64 rss_pages;
	char comm[COMM_SIZE];
};

enum mount_action {
	MOUNT_MOUNT = 1,
	MOUNT_UNMOUNT,
	MOUNT_MOVE,
	MOUNT_MAKE, /* fsmount: it is in no tree of mounts yet */
};

/*
 * A call that changes a tree of mounts has returned. Followed by five texts: the source, the names
 * of the folder that it starts from, the same two of the target, and the type of the filesystem.
 */
struct mount_call {
	struct event_header header;
	__u64 flags;
	__s64 result;
	__u32 action;
	__u32 source_size;
	__u32 source_base_size; /* 0: the path tells all */
	__u32 target_size;
	__u32 target_base_size;
	__u32 type_size;
};

#endif
