/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a probe costs that tells next to nothing; only the benchmark loads it. */
#include "abi.h"
#include "event.h"
#include "ring.h"
#include <bpf/bpf_tracing.h>

SEC("tp_btf/sched_process_exec")
int BPF_PROG(nothing)
{
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(time)
{
	__u32 first = 0;
	__u64 *sink = bpf_map_lookup_elem(&wake_at, &first);

	if (sink)
		*sink = bpf_ktime_get_boot_ns();
	return 0;
}

/* A record of the usual size, of which only the beginning is written. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(time_and_record)
{
	struct event_header *record = bpf_ringbuf_reserve(&ring, 256, 0);

	if (!record)
		return 0;
	record->boot_ns = bpf_ktime_get_boot_ns();
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
