//! Ids and digests of images: asked once for each name, remembered for as long as nothing happens to the image.
//!
//! An event names the image of a new container but not its id, and an inspect may come when the container is gone.

use std::{collections::HashMap, time::Duration};

use mayfly_history::container::{Details, Runtime};
use serde::Deserialize;

use serde_json::Value;

use super::{api::Api, decode::ImageTold, inspect::escape};
use crate::error::SourceError;

/// References that are remembered; past this all are forgotten.
const REMEMBERED: usize = 2048;
/// The longest reference that is remembered, in bytes, and the most digests of one image.
const MAX_REFERENCE: usize = 512;
const MOST_DIGESTS: usize = 16;

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
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "RepoDigests")]
    repo_digests: Option<Vec<String>>,
}

impl Answer {
    fn image(self) -> Image {
        let short = |text: &String| (1..=MAX_REFERENCE).contains(&text.len());
        let id = self.id.filter(short).map(|id| if id.starts_with("sha256:") { id } else { format!("sha256:{id}") });
        Image { id, digests: self.repo_digests.unwrap_or_default().into_iter().filter(short).take(MOST_DIGESTS).collect() }
    }
}

impl Image {
    /// What it tells of a container that was created from it by this name.
    pub(super) fn details(&self, runtime: Runtime, name: &str) -> Details {
        Details { runtime, image_id: self.id.clone(), image_digest: self.digest(name), ..Details::default() }
    }

    /// The digest in the repository by whose name it was asked for, else in the first.
    pub(super) fn digest(&self, name: &str) -> Option<String> {
        let wanted = repository(name);
        let of = self.digests.iter().find(|digest| repository(digest) == wanted).or(self.digests.first())?;
        of.split_once('@').map(|(_, digest)| digest.to_owned())
    }
}

/// Asks the daemon for an image, by id or name.
pub(super) async fn image(api: &Api, reference: &str) -> Result<Image, SourceError> {
    let answer: Answer = api.get(&format!("/images/{}/json", escape(reference)), Duration::from_secs(10)).await?;
    Ok(answer.image())
}

/// All images that a daemon has, each with its names.
pub(super) async fn list(api: &Api) -> Result<Vec<(Vec<String>, Image)>, SourceError> {
    let answer: Vec<Value> = api.get("/images/json", Duration::from_secs(60)).await?;
    let read = answer.into_iter().filter_map(|value| serde_json::from_value::<Answer>(value).ok());
    Ok(read.map(|mut answer| (answer.repo_tags.take().unwrap_or_default(), answer.image())).collect())
}

/// A reference without its digest and without its tag, which is returned beside it.
fn parts(reference: &str) -> (&str, Option<&str>) {
    let reference = reference.split('@').next().unwrap_or_default();
    let tag = reference.rfind(':').filter(|at| !reference[*at..].contains('/'));
    let repository = &reference[..tag.unwrap_or(reference.len())];
    let repository = repository.strip_prefix("docker.io/").map_or(repository, |r| r.strip_prefix("library/").unwrap_or(r));
    (repository, tag.map(|at| &reference[at + 1..]))
}

fn repository(reference: &str) -> &str {
    parts(reference).0
}

/// One spelling for all of an image: `busybox` is `docker.io/library/busybox:latest`. Ids and digests stay as they are.
fn spelling(reference: &str) -> String {
    if reference.starts_with("sha256:") || reference.contains('@') {
        return reference.to_owned();
    }
    let (repository, tag) = parts(reference);
    format!("{repository}:{}", tag.unwrap_or("latest"))
}

/// Images by id and by name.
#[derive(Debug, Default)]
pub(super) struct Images {
    known: HashMap<String, Image>,
    /// Counts what happened: an answer to a question from before may be wrong by now.
    changes: u64,
}

impl Images {
    pub(super) fn get(&self, reference: &str) -> Option<Image> {
        self.known.get(&spelling(reference)).cloned()
    }

    /// How much had happened, to be taken before a question is asked.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Remembers what `reference` is, if nothing happened to any image since the question.
    pub(super) fn remember(&mut self, reference: &str, image: &Image, asked_at: u64) {
        if asked_at != self.changes || image.id.is_none() {
            return;
        }
        for key in [Some(spelling(reference)), image.id.clone()].into_iter().flatten() {
            if key.len() > MAX_REFERENCE || key.starts_with('<') {
                continue;
            }
            if self.known.len() >= REMEMBERED && !self.known.contains_key(&key) {
                self.known.clear();
            }
            self.known.insert(key, image.clone());
        }
    }

    /// Something happened to an image: its name may have moved, a pull or push gives it a digest. True: names that were not told may have
    /// moved, and all are forgotten.
    pub(super) fn forget(&mut self, told: &ImageTold) -> bool {
        self.changes += 1;
        let all = matches!(told.action, "load" | "import" | "build") || (told.name.is_none() && told.id.is_none());
        if all {
            self.known.clear();
            return true;
        }
        let name = told.name.as_deref().map(spelling);
        self.known.retain(|key, image| Some(key) != name.as_ref() && (told.id.is_none() || image.id != told.id));
        false
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

    fn told(action: &'static str, name: Option<&str>, id: Option<&str>) -> ImageTold {
        ImageTold { action, time_ns: 1, name: name.map(Into::into), id: id.map(Into::into) }
    }

    #[test]
    fn an_image_is_known_by_all_its_spellings_until_something_happens_to_it() {
        let image = |id: &str| Image { id: Some(id.into()), digests: Vec::new() };
        let mut images = Images::default();
        for (name, id) in [("busybox:latest", "sha256:1"), ("localhost:5000/b", "sha256:2"), ("c:1", "sha256:3")] {
            images.remember(name, &image(id), 0);
        }
        for known in ["busybox", "docker.io/library/busybox", "busybox:latest", "sha256:1"] {
            assert_eq!(images.get(known), Some(image("sha256:1")), "{known}");
        }
        assert_eq!(images.get("localhost:5000/b:latest"), Some(image("sha256:2")));
        assert_eq!(images.get("busybox:1.36"), None);

        assert!(!images.forget(&told("pull", Some("busybox:latest"), None)));
        assert_eq!((images.get("busybox"), images.get("c:1")), (None, Some(image("sha256:3"))));
        assert!(!images.forget(&told("untag", None, Some("sha256:3"))));
        assert_eq!((images.get("c:1"), images.get("sha256:3")), (None, None));
        images.remember("c:1", &image("sha256:9"), 1);
        assert_eq!(images.get("c:1"), None, "asked before the last change");
        assert!(images.forget(&told("load", None, Some("sha256:7"))), "a load does not tell which names it moves");
        assert_eq!(images.get("localhost:5000/b"), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut images = Images::default();
        for n in 0..3 * REMEMBERED {
            images.remember(&format!("i:{n}"), &Image { id: Some(format!("sha256:{n}")), digests: Vec::new() }, 0);
        }
        images.remember(&"x".repeat(MAX_REFERENCE), &Image { id: Some("sha256:x".into()), digests: Vec::new() }, 0);
        assert!(images.known.len() <= REMEMBERED);
        assert!(images.known.keys().all(|key| key.len() <= MAX_REFERENCE));
    }
}
