//! What happened to an image: containerd only says that a name appeared, changed or went.

use std::sync::Arc;

use mayfly_history::{
    Nanos,
    container::{Runtime, Witness},
    image::ImageEvent,
};

use super::{
    decode::ImageChange,
    inventory::{Image, Inventory},
};

/// The event that a change of a name comes to; `None` where only its labels changed.
pub(super) async fn tell(
    inventory: &Inventory,
    endpoint: &Arc<str>,
    namespace: String,
    name: String,
    change: ImageChange,
    time_ns: Nanos,
) -> Option<ImageEvent> {
    let before = inventory.forget_image(&namespace, &name);
    let (action, image) = match change {
        ImageChange::Deleted => {
            let image = before.unwrap_or_default();
            let stays = image.digest.is_some() && inventory.has_other_name(&namespace, &name, &image);
            (if stays { "untag" } else { "delete" }, image)
        }
        ImageChange::Created | ImageChange::Updated => {
            let image = inventory.image(&namespace, &name).await;
            if before.is_some_and(|before| before.digest == image.digest) {
                return None;
            }
            (came_by(inventory, &namespace, &name, &image).await, image)
        }
    };
    Some(ImageEvent {
        time_ns,
        action,
        runtime: Runtime::Containerd,
        source: Witness::Containerd,
        image: Some(name),
        image_id: image.id,
        image_digest: image.digest,
        runtime_namespace: namespace,
        endpoint: endpoint.to_string(),
    })
}

/// A further name of known content is a tag; new content was pulled if it is marked with its registry, else imported.
async fn came_by(inventory: &Inventory, namespace: &str, name: &str, image: &Image) -> &'static str {
    match &image.digest {
        Some(_) if inventory.has_other_name(namespace, name, image) => "tag",
        Some(digest) if inventory.came_from_registry(namespace, digest).await => "pull",
        _ => "import",
    }
}
