/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How connections are told. The later states of TCP change in whatever context a packet arrives, so
 * who owns a socket is kept from the moment when its own process began to connect or to listen.
 */
#ifndef MAYFLY_SOCKET_H
#define MAYFLY_SOCKET_H

#include "abi.h"
#include "admission.h"
#include "event.h"
#include "exclude.h"
#include "ring.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64); /* the socket's address in the kernel */
	__type(value, struct event_header);
} owners SEC(".maps");

/* The owner of a socket whose connect is decided, or that closes; others are nobody's news. */
static __always_inline bool find_owner(__u64 key, int old, int new, struct event_header *owner)
{
	struct event_header *known;

	if (new != TCP_CLOSE && old != TCP_SYN_SENT)
		return false;
	known = bpf_map_lookup_elem(&owners, &key);
	if (!known)
		return false;
	*owner = *known;
	if (new == TCP_CLOSE)
		bpf_map_delete_elem(&owners, &key);
	return true;
}

/* A record of what the owner did, which yet has to say between whom; NULL: it is not to be told. */
static __always_inline struct socket_change *begin_change(struct event_header *owner, __u32 action,
							  bool failed, __u64 now)
{
	struct socket_change *change;

	if (is_excluded_uid(owner->uid) || !admit(&owner->cgroups, now))
		return NULL;
	change = reserve(EVENT_SOCKET, sizeof(*change));
	if (!change)
		return NULL;
	__builtin_memset(change, 0, sizeof(*change));
	change->header = *owner;
	change->header.kind = EVENT_SOCKET;
	change->header.size = sizeof(*change);
	/* A connect is told when its outcome is known, as of when it began. */
	if (action != SOCKET_CONNECT)
		change->header.boot_ns = now;
	change->action = action;
	change->failed = failed;
	return change;
}

#endif
