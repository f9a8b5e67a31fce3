/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the configuration leaves out. Where it leaves nothing out, the kernel drops these tests. */
#ifndef MAYFLY_EXCLUDE_H
#define MAYFLY_EXCLUDE_H

#include "event.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define EXCLUDED_PATH 252 /* what a longest-prefix map takes beside the length */

const volatile __u32 excludes_uids = 0;
const volatile __u32 excludes_paths = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} excluded_uids SEC(".maps");

/* With its NUL a path is meant as a whole, without it as a beginning. */
struct path_key {
	__u32 bits;
	char path[EXCLUDED_PATH];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct path_key);
	__type(value, __u8);
} excluded_paths SEC(".maps");

/* Processes whose program was left out, so that their exit is too. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u8);
} left_out SEC(".maps");

static __always_inline bool is_excluded_uid(__u32 uid)
{
	return excludes_uids && bpf_map_lookup_elem(&excluded_uids, &uid);
}

/* Whether a process that executes this path is left out; noted for its exit. */
static __always_inline bool is_excluded_path(struct path_key *key, const char *path, __u32 pid)
{
	__u8 yes = 1;

	if (!excludes_paths)
		return false;
	key->bits = 8 * EXCLUDED_PATH;
	bpf_probe_read_kernel_str(key->path, EXCLUDED_PATH, path);
	if (!bpf_map_lookup_elem(&excluded_paths, key)) {
		bpf_map_delete_elem(&left_out, &pid);
		return false;
	}
	bpf_map_update_elem(&left_out, &pid, &yes, BPF_ANY);
	return true;
}

static __always_inline bool was_left_out(__u32 pid)
{
	return excludes_paths && !bpf_map_delete_elem(&left_out, &pid);
}

#endif
