//! All containers that a daemon has now, stopped ones included.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use mayfly_history::container::{ContainerKey, Details, State};
use serde::Deserialize;
use serde_json::Value;

use super::{
    decode::cut,
    jobs::{Daemon, Examined},
};
use crate::{error::SourceError, labels::bounded};

/// Containers inspected at once.
const AT_ONCE: usize = 8;

/// An entry of the list: what is known of a container whose inspect cannot be read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Entry {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    #[serde(rename = "ImageID")]
    image_id: Option<String>,
    state: Option<String>,
    created: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
}

/// Lists and inspects. Containers that go in the meantime are left out.
pub(super) async fn list(daemon: Daemon, key: impl Fn(&str) -> ContainerKey) -> Result<Vec<(ContainerKey, Examined)>, SourceError> {
    let answer: Vec<Value> = daemon.api.get("/containers/json?all=1", Duration::from_secs(60)).await?;
    let entries = answer.into_iter().filter_map(|value| serde_json::from_value::<Entry>(value).ok());
    let daemon = Arc::new(daemon);
    let found: Vec<_> = stream::iter(entries.filter(|entry| (1..=128).contains(&entry.id.len())))
        .map(|entry| {
            let daemon = Arc::clone(&daemon);
            async move {
                match daemon.examine(&entry.id).await {
                    Ok(examined) => Ok(examined.map(|examined| (entry.id, examined))),
                    // One that cannot be read is there all the same.
                    Err(SourceError::Nonsense { .. } | SourceError::Refused { .. } | SourceError::Silent { .. }) => {
                        Ok(Some((entry.id.clone(), entry.examined(&daemon))))
                    }
                    Err(error) => Err(error),
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().map(|(id, examined)| (key(&id), examined)).collect())
}

impl Entry {
    fn examined(self, daemon: &Daemon) -> Examined {
        let labels = self.labels.unwrap_or_default();
        let text = |value: Option<String>| value.filter(|v| !v.is_empty()).map(|v| cut(&v));
        Examined {
            state: match self.state.as_deref() {
                Some("created" | "initialized" | "configured") => State::Created,
                Some("running") => State::Running,
                Some("paused") => State::Paused,
                _ => State::Exited,
            },
            labels: labels.keys().cloned().collect(),
            details: Box::new(Details {
                runtime: daemon.runtime,
                name: text(self.names.and_then(|names| names.into_iter().next()).map(|name| name.trim_start_matches('/').to_owned())),
                image: text(self.image),
                image_id: text(self.image_id),
                created_ns: self.created.and_then(|seconds| seconds.checked_mul(1_000_000_000)).filter(|t| *t > 0),
                labels: bounded(labels).into(),
                ..Details::default()
            }),
        }
    }
}
