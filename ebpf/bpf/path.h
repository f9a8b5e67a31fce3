/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Names of files, as a process sees them. */
#ifndef MAYFLY_PATH_H
#define MAYFLY_PATH_H

#include "event.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define DEEPEST 24 /* folders and mounts that are gone through */

/*
 * Where a walk from a file up to the root is. It lies in a map, not on the stack, and is volatile:
 * so the verifier knows nothing of it, and finds every step of the walk alike.
 */
struct walk {
	struct dentry *volatile dentry;
	struct vfsmount *volatile vfsmount;
	volatile __u64 used;
};

/* The next name's place. Bounded anew at every step, so that the verifier finds all steps alike. */
static __always_inline __u64 bounded(__u64 used)
{
	asm volatile("%0 &= %1" : "+r"(used) : "i"(NAMES_SIZE - 1));
	return used;
}

/* The walk is at the root of a mount: goes on where that is mounted. Returns false at the end. */
static __always_inline bool leave_mount(struct walk *walk)
{
	struct vfsmount *vfsmount = walk->vfsmount;
	struct mount *mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
	struct mount *outer = BPF_CORE_READ(mount, mnt_parent);

	if (outer == mount)
		return false;
	walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
	walk->vfsmount = (void *)outer + bpf_core_field_offset(struct mount, mnt);
	return true;
}

/* Goes on from a mount's root through the outer mounts, up to the root. */
static __always_inline __u64 read_outer_names(struct walk *walk, char *names, __u64 used,
					      struct dentry *root_dentry,
					      struct vfsmount *root_mount)
{
	int i;

	walk->used = used;
	for (i = 0; i < DEEPEST; i++) {
		struct dentry *dentry = walk->dentry;
		struct vfsmount *vfsmount = walk->vfsmount;
		struct dentry *parent;
		long size;

		used = bounded(walk->used);
		if (dentry == root_dentry && vfsmount == root_mount)
			return used;
		if (dentry == BPF_CORE_READ(vfsmount, mnt_root)) {
			if (!leave_mount(walk))
				return used;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			return used;
		if (used > NAMES_SIZE - NAME_SIZE - 2)
			break;
		size = bpf_probe_read_kernel_str(names + used, NAME_SIZE,
						 BPF_CORE_READ(dentry, d_name.name));
		if (size <= 0)
			return used;
		walk->used = used + size;
		walk->dentry = parent;
	}
	used = bounded(walk->used);
	names[used] = 0;
	return used + 1;
}

/*
 * Writes the names from a file up to the root, each with NUL, and returns their size, at most
 * NAMES_SIZE. None: it is the root itself. What is nearer to the root than fits is left out, and an
 * empty name stands for it.
 *
 * Within the file's own mount the verifier knows every pointer's type, and a step is a few loads;
 * beyond, each load is a call.
 */
static __always_inline __u64 read_names(struct walk *walk, char *names, struct path *file,
					struct path *root)
{
	struct dentry *dentry = file->dentry;
	struct vfsmount *vfsmount = file->mnt;
	struct dentry *mount_root = vfsmount->mnt_root;
	struct dentry *root_dentry = root->dentry;
	struct vfsmount *root_mount = root->mnt;
	__u64 used = 0;
	int i;

	for (i = 0; i < DEEPEST; i++) {
		struct dentry *parent = dentry->d_parent;
		long size;

		used = bounded(used);
		if (dentry == root_dentry && vfsmount == root_mount)
			return used;
		if (dentry == mount_root) {
			walk->dentry = dentry;
			walk->vfsmount = vfsmount;
			return read_outer_names(walk, names, used, root_dentry, root_mount);
		}
		if (parent == dentry)
			return used;
		if (used > NAMES_SIZE - NAME_SIZE - 2)
			break;
		size = bpf_probe_read_kernel_str(names + used, NAME_SIZE, dentry->d_name.name);
		if (size <= 0)
			return used;
		used += size;
		dentry = parent;
	}
	used = bounded(used);
	names[used] = 0;
	return used + 1;
}

/* The same of a file that only its address tells, at a call for each load. */
static __always_inline __u64 read_far_names(struct walk *walk, char *names, const struct path *file,
					    struct path *root)
{
	walk->dentry = BPF_CORE_READ(file, dentry);
	walk->vfsmount = BPF_CORE_READ(file, mnt);
	if (!walk->dentry || !walk->vfsmount)
		return 0;
	return read_outer_names(walk, names, 0, BPF_CORE_READ(root, dentry),
				BPF_CORE_READ(root, mnt));
}

/* Whether a path leads to whatever file the process has there: /proc/self/exe, /dev/fd/3. */
static __always_inline bool is_indirect(const char *path)
{
	return (path[0] == '/' && path[1] == 'p' && path[2] == 'r' && path[3] == 'o' &&
		path[4] == 'c' && path[5] == '/') ||
	       (path[0] == '/' && path[1] == 'd' && path[2] == 'e' && path[3] == 'v' &&
		path[4] == '/' && path[5] == 'f' && path[6] == 'd' && path[7] == '/');
}

#endif
