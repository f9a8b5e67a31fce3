/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Datagram sockets that get a peer. Whoever includes this says by `own` who the current task is. */
#ifndef MAYFLY_DATAGRAM_H
#define MAYFLY_DATAGRAM_H

#include "abi.h"
#include "event.h"
#include "ring.h"
#include "socket.h"
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

static __always_inline void own(struct event_header *owner, __u64 now);

/* Has no states: it is told when it is asked for, with what the socket is bound to by then. */
static __always_inline struct socket_change *begin_datagram(struct bpf_sock_addr *call,
							    __u32 protocol)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct event_header owner = {};
	struct bpf_sock *sock = call->sk;
	struct socket_change *change;

	if (!sock || call->protocol != protocol)
		return NULL;
	own(&owner, now);
	change = begin_change(&owner, SOCKET_CONNECT, false, now);
	if (!change)
		return NULL;
	change->protocol = protocol;
	change->remote_port = bpf_ntohs(call->user_port);
	change->local_port = sock->src_port;
	return change;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *call)
{
	struct socket_change *change = begin_datagram(call, IPPROTO_UDP);

	if (!change)
		return 1;
	change->family = AF_INET;
	*(__be32 *)change->remote = call->user_ip4;
	if (call->sk)
		*(__be32 *)change->local = call->sk->src_ip4;
	submit(change);
	return 1; /* whatever comes of it, it may */
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *call)
{
	struct socket_change *change = begin_datagram(call, IPPROTO_UDP);
	__u32 *remote, *local;

	if (!change)
		return 1;
	change->family = AF_INET6;
	remote = (__u32 *)change->remote;
	remote[0] = call->user_ip6[0];
	remote[1] = call->user_ip6[1];
	remote[2] = call->user_ip6[2];
	remote[3] = call->user_ip6[3];
	local = (__u32 *)change->local;
	if (call->sk) {
		local[0] = call->sk->src_ip6[0];
		local[1] = call->sk->src_ip6[1];
		local[2] = call->sk->src_ip6[2];
		local[3] = call->sk->src_ip6[3];
	}
	submit(change);
	return 1;
}

#endif
