/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which cgroups may be heard, and how often: no container's noise may drown the others. A cgroup is
 * heard until the reader, who knows its path, says that it is not of interest; so the very first
 * instruction of a new container is heard.
 */
#ifndef MAYFLY_ADMISSION_H
#define MAYFLY_ADMISSION_H

#include "event.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define NSEC_PER_SEC 1000000000ULL

/* Records that one cgroup may write in a second; 0: no limit. */
const volatile __u64 records_per_second = 0;

struct admission {
	__u64 second; /* since boot */
	__u64 admitted; /* in that second */
	__u64 shed; /* ever */
	__u64 quiet; /* the reader set it: not of interest */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct cgroups);
	__type(value, struct admission);
} admissions SEC(".maps");

/* What happens to the host as a whole is told even of a cgroup that is not of interest. */
static __always_inline bool admit_as(struct cgroups *cgroups, __u64 boot_ns, bool even_if_quiet)
{
	__u64 second = boot_ns / NSEC_PER_SEC;
	struct admission *known = bpf_map_lookup_elem(&admissions, cgroups);

	if (!known) {
		struct admission fresh = {.second = second, .admitted = 1};

		bpf_map_update_elem(&admissions, cgroups, &fresh, BPF_NOEXIST);
		return true;
	}
	if (known->quiet && !even_if_quiet)
		return false;
	if (known->second != second) {
		known->second = second;
		known->admitted = 0;
	}
	if (!records_per_second)
		return true;
	/* Counted, then looked at: kernels before 5.12 do not do both at once. Two processors may
	 * both find the limit passed; what is left out is counted in any case. */
	__sync_fetch_and_add(&known->admitted, 1);
	if (known->admitted <= records_per_second)
		return true;
	__sync_fetch_and_add(&known->shed, 1);
	return false;
}

static __always_inline bool admit(struct cgroups *cgroups, __u64 boot_ns)
{
	return admit_as(cgroups, boot_ns, false);
}

#endif
