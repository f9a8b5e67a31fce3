/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connections: of TCP by their states, of UDP when a peer is asked for. */

struct listening {
	__u32 net_ns;
	__u32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct listening);
	__type(value, struct event_header);
} listeners SEC(".maps");

static __always_inline void report_socket(struct event_header *owner, const struct sock *sock,
					  __u32 action, bool failed, __u64 now)
{
	struct socket_change *change = begin_change(owner, action, failed, now);

	if (!change)
		return;
	change->family = sock->__sk_common.skc_family;
	change->protocol = sock->sk_protocol;
	/* A socket that closes has given its port back, and remembers it here. */
	change->local_port =
		sock->__sk_common.skc_num
			?: bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sock, inet_sport));
	change->remote_port = bpf_ntohs(sock->__sk_common.skc_dport);
	if (change->family == AF_INET6) {
		bpf_probe_read_kernel(change->local, 16, &sock->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(change->remote, 16, &sock->__sk_common.skc_v6_daddr);
	} else {
		*(__be32 *)change->local = sock->__sk_common.skc_rcv_saddr;
		*(__be32 *)change->remote = sock->__sk_common.skc_daddr;
	}
	submit(change);
}

static __always_inline void own(struct event_header *owner, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();

	owner->boot_ns = now;
	owner->cgroups = cgroups_of(task);
	describe(owner, task);
}

/* Who listens took it; where that began before the probes, only the socket's own cgroup is known.
 */
static __always_inline void accept_for(struct event_header *owner, const struct sock *sock)
{
	struct listening key = {
		.net_ns = sock->__sk_common.skc_net.net->ns.inum,
		.port = sock->__sk_common.skc_num,
	};
	struct event_header *listener = bpf_map_lookup_elem(&listeners, &key);

	if (listener) {
		*owner = *listener;
		return;
	}
	owner->cgroups.unified = BPF_CORE_READ(sock, sk_cgrp_data.cgroup, kn, id);
	owner->uid = owner->auid = ~0;
	owner->net_ns = key.net_ns;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_socket_state, const struct sock *sock, int old, int new)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u64 key = (__u64)sock;
	struct event_header fresh = {};

	if (new == TCP_SYN_SENT) {
		own(&fresh, now);
		bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY);
		return 0;
	}
	if (new == TCP_LISTEN) {
		struct listening listening = {
			.net_ns = sock->__sk_common.skc_net.net->ns.inum,
			.port = sock->__sk_common.skc_num,
		};

		own(&fresh, now);
		bpf_map_update_elem(&listeners, &listening, &fresh, BPF_ANY);
		bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY);
		report_socket(&fresh, sock, SOCKET_LISTEN, false, now);
		return 0;
	}
	if (new == TCP_ESTABLISHED && old == TCP_SYN_RECV) {
		accept_for(&fresh, sock);
		bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY);
		report_socket(&fresh, sock, SOCKET_ACCEPT, false, now);
		return 0;
	}
	if (find_owner(key, old, new, &fresh))
		report_socket(&fresh, sock, old == TCP_SYN_SENT ? SOCKET_CONNECT : SOCKET_CLOSE,
			      old == TCP_SYN_SENT && new == TCP_CLOSE, now);
	return 0;
}
