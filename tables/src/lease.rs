//! Columns that `ip_lease_events` and `ip_lease_history` share.

use mayfly_history::{
    Column, bigint,
    container::ContainerKey,
    integer,
    lease::{Lease, LeaseEvent},
    text,
};

use crate::who::OfWhom;

/// A record about an address.
pub(crate) trait OfLease: OfWhom {
    fn lease(&self) -> &Lease;
}

impl OfLease for Lease {
    fn lease(&self) -> &Lease {
        self
    }
}

impl OfLease for LeaseEvent {
    fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl OfWhom for Lease {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

impl OfWhom for LeaseEvent {
    fn whose(&self) -> &ContainerKey {
        &self.lease.container
    }
}

pub(crate) const fn ip_address<R: OfLease>() -> Column<R> {
    text("ip_address", |r: &R| r.lease().ip_address.map(|ip| ip.to_string().into()), "The address, IPv4 or IPv6, without prefix length.")
        .index()
}

pub(crate) const fn prefix_length<R: OfLease>() -> Column<R> {
    integer("prefix_length", |r: &R| r.lease().prefix_length.map(Into::into), "Length of the network's prefix, where it is known.")
}

pub(crate) const fn family<R: OfLease>() -> Column<R> {
    integer("family", |r: &R| r.lease().family(), "2 for IPv4, 10 for IPv6.")
}

pub(crate) const fn mac_address<R: OfLease>() -> Column<R> {
    text(
        "mac_address",
        |r: &R| r.lease().mac_address.as_deref().map(Into::into),
        "Hardware address of the holder, lower case, with colons.",
    )
}

pub(crate) const fn interface<R: OfLease>() -> Column<R> {
    text(
        "interface",
        |r: &R| r.lease().interface.as_deref().map(Into::into),
        "Interface that has the address, as its own namespace calls it; of a `client` the interface of this host that it was seen on.",
    )
}

pub(crate) const fn scope<R: OfLease>() -> Column<R> {
    text(
        "scope",
        |r: &R| Some(r.lease().scope.as_str().into()),
        "Whose it is: `host`, `container` (another network namespace of this host), or `client` (another machine, whose lease was witnessed).",
    )
}

pub(crate) const fn net_namespace<R: OfLease>() -> Column<R> {
    text(
        "net_namespace",
        |r: &R| r.lease().net_namespace.as_deref().map(Into::into),
        "Inode number of the network namespace; `container_history` names all containers that share it.",
    )
}

pub(crate) const fn hostname<R: OfLease>() -> Column<R> {
    text("hostname", |r: &R| r.lease().hostname.as_deref().map(Into::into), "Name that the client gave itself.")
}

pub(crate) const fn client_id<R: OfLease>() -> Column<R> {
    text("client_id", |r: &R| r.lease().client_id.as_deref().map(Into::into), "DHCP client identifier, or DUID: hexadecimal, with colons.")
}

pub(crate) const fn server_address<R: OfLease>() -> Column<R> {
    text("server_address", |r: &R| r.lease().server_address.map(|ip| ip.to_string().into()), "Address of the DHCP server.")
}

pub(crate) const fn lease_seconds<R: OfLease>() -> Column<R> {
    bigint("lease_seconds", |r: &R| r.lease().lease_seconds, "Length of the lease, in seconds; NULL where it does not end.")
}
