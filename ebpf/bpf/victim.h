/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A victim of the out-of-memory killer of whom only the pid is told. */
#ifndef MAYFLY_VICTIM_H
#define MAYFLY_VICTIM_H

#include "event.h"
#include "ring.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The reader finds out the rest, while the victim dies. */
static __always_inline void tell_victim(__u32 victim)
{
	struct oom_kill *kill = reserve(EVENT_OOM_KILL, sizeof(*kill));

	if (!kill)
		return;
	__builtin_memset(kill, 0, sizeof(*kill));
	kill->header.kind = EVENT_OOM_KILL;
	kill->header.size = sizeof(*kill);
	kill->header.boot_ns = bpf_ktime_get_boot_ns();
	kill->header.pid = victim;
	kill->header.uid = kill->header.gid = kill->header.euid = kill->header.auid = ~0;
	submit(kill);
}

#endif
