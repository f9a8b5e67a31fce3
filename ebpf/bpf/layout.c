/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Never loaded: its BTF tells a test the layout of every record. */
#include "event.h"

struct event_header event_header;
struct exec exec;
struct exit exit_;
struct fork fork_;
struct cgroup_change cgroup_change;
struct socket_change socket_change;
struct oom_kill oom_kill;
struct mount_call mount_call;
