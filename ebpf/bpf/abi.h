/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the kernel promises not to change. */
#ifndef MAYFLY_ABI_H
#define MAYFLY_ABI_H

#include <linux/types.h>

/* What a tracepoint of a system call passes; as its `format` in tracefs says, and so stable. */
struct syscall_enter {
	__u64 common;
	__u64 number;
	__u64 args[6];
};

struct syscall_exit {
	__u64 common;
	__u64 number;
	__s64 result;
};

#define PROC_PID_INIT_INO 0xEFFFFFFCU /* inode of the first pid namespace */
#define AF_INET		  2
#define AF_INET6	  10
#define AT_FDCWD	  (-100)
#define MS_REMOUNT	  32
#define MS_BIND		  4096
#define MS_MOVE		  8192
#define IPPROTO_UDP	  17
#define TCP_ESTABLISHED	  1
#define TCP_SYN_SENT	  2
#define TCP_SYN_RECV	  3
#define TCP_CLOSE	  7
#define TCP_LISTEN	  10

#endif
