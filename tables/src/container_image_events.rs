//! `container_image_events`.

use mayfly_history::{EventTable, image::ImageEvent, text};

use crate::events::Events;

pub(crate) static TABLE: Events<ImageEvent> = Events::pushed(&CONTAINER_IMAGE_EVENTS);

/// What happened to container images.
pub static CONTAINER_IMAGE_EVENTS: EventTable<ImageEvent> = EventTable {
    name: "container_image_events",
    doc: "What happened to container images: what was pulled, built, renamed or removed, and when.",
    columns: &[
        text("action", |e| Some(e.action.into()), "What happened: `pull`, `tag`, `untag`, `delete`, `import`, `load`, `push` or `build`."),
        text(
            "runtime",
            |e| Some(e.runtime.as_str().into()),
            "Runtime that keeps the image: `docker`, `podman`, `containerd`, `cri-o` or `unknown`.",
        ),
        text("image", |e| e.image.as_deref().map(Into::into), "Name of the image, as the runtime gives it."),
        text("image_id", |e: &ImageEvent| e.image_id.as_deref().map(Into::into), "Digest of the image's configuration, `sha256:…`.")
            .index(),
        text("image_digest", |e| e.image_digest.as_deref().map(Into::into), "Digest of the image's manifest, `sha256:…`."),
        text(
            "runtime_namespace",
            |e| Some(e.runtime_namespace.as_str().into()),
            "Namespace within the runtime: `moby`, `k8s.io`, `default`; empty where the runtime has none.",
        ),
        text("endpoint", |e| Some(e.endpoint.as_str().into()), "Socket of the runtime, e.g. `unix:///run/docker.sock`."),
    ],
    examples: &[
        (
            "Images that arrived today, the newest first.",
            "SELECT time, runtime, action, image, image_digest FROM container_image_events\n\
             WHERE action IN ('pull', 'load', 'import', 'build') AND time > unixepoch('now', 'start of day') ORDER BY time_ns DESC;",
        ),
        (
            "Containers whose image was deleted later.",
            "SELECT i.time AS deleted, i.image, e.time, e.container_id, e.name FROM container_image_events i\n\
             JOIN container_lifecycle_events e ON e.image_id = i.image_id\n\
             WHERE i.action = 'delete' AND e.action = 'create' AND e.time_ns < i.time_ns;",
        ),
    ],
};
