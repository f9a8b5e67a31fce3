//! Digests of images: asked once for each image, remembered for as long as nothing happens to it.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;

use super::{api::Api, decode::cut, inspect::escape};
use crate::error::SourceError;

/// Images that are remembered; past this all are forgotten.
const REMEMBERED: usize = 512;

/// What is known of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// `sha256:…` of its configuration.
    pub(super) id: Option<String>,
    /// `NAME@sha256:…` of its manifest in each repository.
    digests: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    #[serde(rename = "Id")]
    id: Option<String>,
    #[serde(rename = "RepoDigests")]
    repo_digests: Option<Vec<String>>,
}

impl Image {
    /// The digest in the repository by whose name it was asked for, else in the first.
    pub(super) fn digest(&self, name: &str) -> Option<String> {
        let repository = |reference: &str| {
            let reference = reference.split('@').next().unwrap_or_default();
            let tag = reference.rfind(':').filter(|at| !reference[*at..].contains('/')).unwrap_or(reference.len());
            let repository = &reference[..tag];
            repository.strip_prefix("docker.io/").map(|r| r.strip_prefix("library/").unwrap_or(r)).unwrap_or(repository).to_owned()
        };
        let wanted = repository(name);
        let of = self.digests.iter().find(|digest| repository(digest) == wanted).or(self.digests.first())?;
        of.split_once('@').map(|(_, digest)| digest.to_owned())
    }
}

/// Asks the daemon for an image, by id or name.
pub(super) async fn image(api: &Api, reference: &str) -> Result<Image, SourceError> {
    let answer: Answer = api.get(&format!("/images/{}/json", escape(reference)), Duration::from_secs(10)).await?;
    let id = answer.id.filter(|id| !id.is_empty()).map(|id| if id.starts_with("sha256:") { id } else { format!("sha256:{id}") });
    Ok(Image { id: id.map(|id| cut(&id)), digests: answer.repo_digests.unwrap_or_default().iter().take(64).map(|d| cut(d)).collect() })
}

/// Images by id.
#[derive(Debug, Default)]
pub(super) struct Images(HashMap<String, Image>);

impl Images {
    pub(super) fn get(&self, id: &str) -> Option<Image> {
        self.0.get(id).cloned()
    }

    pub(super) fn remember(&mut self, id: String, image: Image) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(id, image);
    }

    /// Something happened to it: a pull or push gives it a digest.
    pub(super) fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_repository_asked_for() {
        let image =
            Image { id: None, digests: vec!["quay.io/a/b@sha256:1".into(), "localhost:5000/b@sha256:2".into(), "busybox@sha256:3".into()] };
        assert_eq!(image.digest("localhost:5000/b:1.36").as_deref(), Some("sha256:2"));
        assert_eq!(image.digest("localhost:5000/b").as_deref(), Some("sha256:2"));
        assert_eq!(image.digest("docker.io/library/busybox:1.36").as_deref(), Some("sha256:3"));
        assert_eq!(image.digest("busybox@sha256:3").as_deref(), Some("sha256:3"));
        assert_eq!(image.digest("sha256:abcd").as_deref(), Some("sha256:1"), "else the first");
        assert_eq!(Image::default().digest("busybox"), None);
    }
}
