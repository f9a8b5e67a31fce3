/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* One object, because all probes share one ring. */
#include "event.h"
#include "kernel.h"
#include "ring.h"
#include "cgroup.h"
#include "task.h"
#include "admission.h"
#include "exclude.h"
#include "path.h"
#include "datagram.h"
#include "socket.h"
#include "victim.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "process.c"
#include "cgroup.c"
#include "socket.c"
#include "oom.c"
#include "mount.c"

/* Some helpers are for GPL-compatible programs only; these files may be had under either licence.
 */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
