//! Asks containerd what it has: containers, tasks, images.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use containerd_client::{
    services::v1::{
        GetContainerRequest, GetImageRequest, InfoRequest, ListContainersRequest, ListImagesRequest, ListNamespacesRequest,
        ListTasksRequest, ReadContentRequest, containers_client::ContainersClient, content_client::ContentClient,
        images_client::ImagesClient, namespaces_client::NamespacesClient, tasks_client::TasksClient,
    },
    types::v1::Process as Task,
};
use mayfly_history::container::Details;
use serde::Deserialize;
use tonic::{Request, Status, transport::Channel};

use super::{
    decode::{known, nanos},
    naming::{MOBY, Naming},
    spec::Spec,
};
use crate::labels;

/// A daemon that hangs is not waited for longer than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Images remembered, over all namespaces. Past it all are forgotten, and asked for again.
const MAX_IMAGES: usize = 4096;
/// The longest manifest, or index of manifests, that is read.
const MAX_MANIFEST: usize = 4 << 20;

/// The digests of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// Of what the name points to: a manifest, or an index of manifests.
    pub(super) digest: Option<String>,
    /// Of the configuration, in this host's architecture.
    pub(super) id: Option<String>,
}

/// Questions to one containerd. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Inventory {
    channel: Channel,
    images: Arc<Mutex<HashMap<(String, String), Image>>>,
}

impl Inventory {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, images: Arc::default() }
    }

    pub(super) async fn namespaces(&self) -> Result<Vec<String>, Status> {
        let listed = answer(NamespacesClient::new(self.channel.clone()).list(Request::new(ListNamespacesRequest::default()))).await?;
        Ok(listed.namespaces.into_iter().map(|n| n.name).collect())
    }

    /// The tasks of a namespace: its containers that run, or have ended and were not cleared away yet.
    pub(super) async fn tasks(&self, namespace: &str) -> Result<Vec<Task>, Status> {
        let request = within(namespace, ListTasksRequest::default())?;
        Ok(answer(TasksClient::new(self.channel.clone()).max_decoding_message_size(64 << 20).list(request)).await?.tasks)
    }

    /// The containers of a namespace with their details, one after the other however many there are.
    pub(super) async fn containers(&self, namespace: &str) -> Result<Vec<(String, Details)>, Status> {
        let request = within(namespace, ListContainersRequest::default())?;
        let mut stream = answer(ContainersClient::new(self.channel.clone()).list_stream(request)).await?;
        let mut found = Vec::new();
        while let Some(message) = tokio::time::timeout(ANSWER_WITHIN, stream.message()).await.map_err(|_| silent())?? {
            let Some(mut container) = message.container else { continue };
            let id = std::mem::take(&mut container.id);
            found.push((id, self.describe(namespace, container).await));
        }
        Ok(found)
    }

    /// What is known of one container.
    pub(super) async fn container(&self, namespace: &str, id: &str) -> Result<Details, Status> {
        let request = within(namespace, GetContainerRequest { id: id.to_owned() })?;
        let found = answer(ContainersClient::new(self.channel.clone()).get(request)).await?;
        let container = found.container.ok_or_else(|| Status::not_found("no container in the answer"))?;
        Ok(self.describe(namespace, container).await)
    }

    async fn describe(&self, namespace: &str, container: containerd_client::services::v1::Container) -> Details {
        let mut details = Details { runtime: Naming::runtime(namespace), ..Details::default() };
        // In Docker's namespace containers, labels and specs are dockerd's private affair; Docker itself tells what its user asked for.
        if namespace == MOBY {
            return details;
        }
        details.created_ns = container.created_at.and_then(nanos);
        details.name = container.labels.get("nerdctl/name").or_else(|| container.labels.get("io.kubernetes.container.name")).cloned();
        details.labels = labels::bounded(container.labels).into();
        if let Some(spec) = container.spec.as_ref().and_then(|spec| Spec::parse(&spec.value)) {
            spec.tell(&mut details);
        }
        if let Some(name) = known(container.image) {
            let image = self.image(namespace, &name).await;
            details.image = Some(name);
            details.image_digest = image.digest;
            details.image_id = image.id;
        }
        details
    }

    /// An image's digests, asked for once; what cannot be found out stays unknown.
    pub(super) async fn image(&self, namespace: &str, name: &str) -> Image {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(image) = self.remembered(|images| images.get(&key).cloned()) {
            return image;
        }
        let image = self.ask_image(namespace, name).await.unwrap_or_default();
        if image.digest.is_some() {
            self.remember(key, image.clone());
        }
        image
    }

    async fn ask_image(&self, namespace: &str, name: &str) -> Result<Image, Status> {
        let request = within(namespace, GetImageRequest { name: name.to_owned() })?;
        let found = answer(ImagesClient::new(self.channel.clone()).get(request)).await?;
        let Some(target) = found.image.and_then(|image| image.target) else { return Ok(Image::default()) };
        // Two names of one manifest have one configuration.
        let same = self.remembered(|images| images.values().find(|i| i.id.is_some() && i.digest.as_ref() == Some(&target.digest)).cloned());
        if let Some(image) = same {
            return Ok(image);
        }
        let id = self.configuration(namespace, &target.digest).await.ok().flatten();
        Ok(Image { digest: known(target.digest), id })
    }

    /// The digest of the configuration that a manifest, or the fitting one of an index, names.
    async fn configuration(&self, namespace: &str, digest: &str) -> Result<Option<String>, Status> {
        let mut manifest = self.manifest(namespace, digest).await?;
        if let Some(entry) = manifest.manifests.iter().flatten().find(|entry| entry.is_for_this_host()) {
            manifest = self.manifest(namespace, &entry.digest).await?;
        }
        Ok(manifest.config.and_then(|config| known(config.digest)))
    }

    async fn manifest(&self, namespace: &str, digest: &str) -> Result<Manifest, Status> {
        let request = within(namespace, ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() })?;
        let mut stream = answer(ContentClient::new(self.channel.clone()).read(request)).await?;
        let mut content = Vec::new();
        while let Some(chunk) = tokio::time::timeout(ANSWER_WITHIN, stream.message()).await.map_err(|_| silent())?? {
            content.extend_from_slice(&chunk.data);
            if content.len() > MAX_MANIFEST {
                return Err(Status::out_of_range("manifest too long"));
            }
        }
        serde_json::from_slice(&content).map_err(|error| Status::data_loss(error.to_string()))
    }

    /// Whether an image's content came from a registry.
    pub(super) async fn came_from_registry(&self, namespace: &str, digest: &str) -> bool {
        let Ok(request) = within(namespace, InfoRequest { digest: digest.to_owned() }) else { return false };
        let info = answer(ContentClient::new(self.channel.clone()).info(request)).await.ok().and_then(|found| found.info);
        info.is_some_and(|info| info.labels.keys().any(|name| name.starts_with("containerd.io/distribution.source.")))
    }

    /// Learns the images of a namespace, so that later changes can be told apart.
    pub(super) async fn learn_images(&self, namespace: &str) -> Result<(), Status> {
        let request = within(namespace, ListImagesRequest::default())?;
        let listed = answer(ImagesClient::new(self.channel.clone()).max_decoding_message_size(64 << 20).list(request)).await?;
        for name in listed.images.into_iter().map(|image| image.name).take(MAX_IMAGES / 4) {
            self.image(namespace, &name).await;
        }
        Ok(())
    }

    /// Forgets an image; tells what was known of it.
    pub(super) fn forget_image(&self, namespace: &str, name: &str) -> Option<Image> {
        self.remembered(|images| images.remove(&(namespace.to_owned(), name.to_owned())))
    }

    /// Whether another name of the namespace leads to the same content.
    pub(super) fn has_other_name(&self, namespace: &str, name: &str, image: &Image) -> bool {
        self.remembered(|images| images.iter().any(|((ns, other), i)| ns == namespace && other != name && i.digest == image.digest))
    }

    fn remember(&self, key: (String, String), image: Image) {
        self.remembered(|images| {
            if images.len() >= MAX_IMAGES {
                images.clear();
            }
            images.insert(key, image);
        });
    }

    fn remembered<T>(&self, act: impl FnOnce(&mut HashMap<(String, String), Image>) -> T) -> T {
        act(&mut self.images.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A manifest (`config`) or an index of them (`manifests`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    config: Option<Entry>,
    manifests: Option<Vec<Entry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
}

impl Entry {
    fn is_for_this_host(&self) -> bool {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        self.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture)
    }
}

/// A request about one namespace.
fn within<T>(namespace: &str, message: T) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let name = namespace.parse().map_err(|_| Status::invalid_argument("the namespace is not ASCII"))?;
    request.metadata_mut().insert("containerd-namespace", name);
    Ok(request)
}

/// An answer that comes within [`ANSWER_WITHIN`].
pub(super) async fn answer<T>(asked: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    Ok(tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(|_| silent())??.into_inner())
}

fn silent() -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))
}
