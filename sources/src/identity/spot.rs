//! Whether a cloud is about to take an instance back: spot, preemptible or low-priority ones come with a notice.

use std::io;

use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::metadata::{Provider, Service, Untold};

/// An instance that its cloud may take back, and the service that tells when. For a thread that may wait: each question takes
/// a few seconds at most.
#[derive(Debug)]
pub struct Spot {
    service: Service,
    provider: Provider,
    runtime: Runtime,
}

/// Why it could not be learnt.
#[derive(Debug, thiserror::Error)]
#[error("cannot learn whether the instance is taken back")]
pub struct SpotError(#[source] Reason);

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("cannot begin")]
    Begin(#[from] io::Error),
    #[error(transparent)]
    Untold(#[from] Untold),
}

impl Spot {
    /// `cloud`: as `host_identity` calls it; `url`: of the metadata service. `None`: an instance that is not taken back so, or a cloud that
    /// is not known.
    pub fn find(cloud: &str, url: &str) -> Result<Option<Self>, SpotError> {
        let provider = match cloud {
            "aws" => Provider::Aws,
            "gce" => Provider::Gce,
            "azure" => Provider::Azure,
            _ => return Ok(None),
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| SpotError(error.into()))?;
        let spot = Self { service: Service { base: url.trim_end_matches('/').to_owned() }, provider, runtime };
        let is_spot = spot.runtime.block_on(spot.is_spot()).map_err(|error| SpotError(error.into()))?;
        Ok(is_spot.then_some(spot))
    }

    /// What the cloud says of its end; `None`: nothing yet.
    pub fn notice(&self) -> Result<Option<String>, SpotError> {
        self.runtime.block_on(self.ask()).map_err(|error| SpotError(error.into()))
    }

    async fn is_spot(&self) -> Result<bool, Untold> {
        Ok(match self.provider {
            Provider::Aws => self.service.session().await?.get("/latest/meta-data/instance-life-cycle").await? == "spot",
            Provider::Gce => self.google("scheduling/preemptible").await? == "TRUE",
            Provider::Azure => {
                let answer = self.service.json("/metadata/instance?api-version=2021-02-01", AZURE).await?;
                answer.pointer("/compute/priority").and_then(Value::as_str) == Some("Spot")
            }
        })
    }

    async fn ask(&self) -> Result<Option<String>, Untold> {
        let told = match self.provider {
            // Not there until there is one.
            Provider::Aws => match self.service.session().await?.get("/latest/meta-data/spot/instance-action").await {
                Ok(action) => Some(action),
                Err(Untold::Status { status: StatusCode::NOT_FOUND, .. }) => None,
                Err(error) => return Err(error),
            },
            Provider::Gce => (self.google("preempted").await? == "TRUE").then(|| "preempted".to_owned()),
            Provider::Azure => {
                let answer = self.service.json("/metadata/scheduledevents?api-version=2020-07-01", AZURE).await?;
                let events = answer.pointer("/Events").and_then(Value::as_array);
                let ends = |event: &&Value| matches!(event.get("EventType").and_then(Value::as_str), Some("Preempt" | "Terminate"));
                events.into_iter().flatten().find(ends).map(ToString::to_string)
            }
        };
        Ok(told)
    }

    async fn google(&self, what: &str) -> Result<String, Untold> {
        let answer = self.service.send(Method::GET, &format!("/computeMetadata/v1/instance/{what}"), ("metadata-flavor", "Google")).await?;
        Ok(answer.trim().to_owned())
    }
}

const AZURE: (&str, &str) = ("metadata", "true");
