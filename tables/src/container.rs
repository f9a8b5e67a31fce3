//! Columns that the container tables share, so that a name means the same in each.

use mayfly_history::{
    Column, bigint,
    container::{ContainerEvent, ContainerKey, ContainerState, Details},
    text,
};

use crate::json;

/// A record about one container.
pub(crate) trait OfContainer: 'static {
    fn key(&self) -> &ContainerKey;
    fn details(&self) -> &Details;
}

impl OfContainer for ContainerEvent {
    fn key(&self) -> &ContainerKey {
        &self.key
    }

    fn details(&self) -> &Details {
        &self.details
    }
}

impl OfContainer for ContainerState {
    fn key(&self) -> &ContainerKey {
        &self.key
    }

    fn details(&self) -> &Details {
        &self.details
    }
}

pub(crate) const fn container_id<R: OfContainer>() -> Column<R> {
    text("container_id", |r: &R| Some((&*r.key().container_id).into()), "Container id, as its runtime spells it.").index()
}

pub(crate) const fn runtime<R: OfContainer>() -> Column<R> {
    text(
        "runtime",
        |r| Some(r.details().runtime.as_str().into()),
        "Runtime that manages the container: `docker`, `podman`, `containerd`, `cri-o` or `unknown`.",
    )
}

pub(crate) const fn name<R: OfContainer>() -> Column<R> {
    text("name", |r| r.details().name.as_deref().map(Into::into), "Name of the container, without a leading slash.")
}

pub(crate) const fn image<R: OfContainer>() -> Column<R> {
    text("image", |r| r.details().image.as_deref().map(Into::into), "Image as it was asked for, e.g. `docker.io/library/nginx:1.27`.")
}

pub(crate) const fn image_id<R: OfContainer>() -> Column<R> {
    text("image_id", |r| r.details().image_id.as_deref().map(Into::into), "Digest of the image's configuration, `sha256:…`.")
}

pub(crate) const fn image_digest<R: OfContainer>() -> Column<R> {
    text("image_digest", |r| r.details().image_digest.as_deref().map(Into::into), "Digest of the image's manifest, `sha256:…`.")
}

pub(crate) const fn pid<R: OfContainer>() -> Column<R> {
    bigint("pid", |r| r.details().run.pid, "Process id of the container's first process, seen from the host.")
}

pub(crate) const fn ip_addresses<R: OfContainer>() -> Column<R> {
    text(
        "ip_addresses",
        |r| Some(json::array(&r.details().run.ip_addresses)),
        "JSON array of the container's addresses, IPv4 first; `[]` where none is known.",
    )
}

pub(crate) const fn mac_addresses<R: OfContainer>() -> Column<R> {
    text(
        "mac_addresses",
        |r| Some(json::array(&r.details().run.mac_addresses)),
        "JSON array of the container's hardware addresses; `[]` where none is known.",
    )
}

pub(crate) const fn cgroup_id<R: OfContainer>() -> Column<R> {
    bigint("cgroup_id", |r| r.details().run.cgroup_id, "Id of the container's cgroup v2: the inode number of its folder.")
}

pub(crate) const fn net_namespace<R: OfContainer>() -> Column<R> {
    text("net_namespace", |r| r.details().run.net_namespace.as_deref().map(Into::into), "Inode number of the network namespace.")
}

pub(crate) const fn labels<R: OfContainer>() -> Column<R> {
    text("labels", |r| Some(json::object(&r.details().labels)), "JSON object of the container's labels; secrets are redacted.")
}

pub(crate) const fn runtime_namespace<R: OfContainer>() -> Column<R> {
    text(
        "runtime_namespace",
        |r| Some((&*r.key().runtime_namespace).into()),
        "Namespace within the runtime: `moby`, `k8s.io`, `default`; empty where the runtime has none.",
    )
}

pub(crate) const fn endpoint<R: OfContainer>() -> Column<R> {
    text("endpoint", |r| Some((&*r.key().endpoint).into()), "Socket of the runtime, e.g. `unix:///run/docker.sock`.")
}
