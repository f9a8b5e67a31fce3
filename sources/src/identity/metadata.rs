//! What a cloud's metadata service tells: plain HTTP within the host, short timeouts, bounded answers.

use std::{io, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use mayfly_history::identity::Cloud;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

/// One answer, from the connection on.
const WITHIN: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 1 << 20;
/// Tags that are asked for one by one.
const MOST_TAGS: usize = 50;

/// A cloud whose metadata service is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Aws,
    Gce,
    Azure,
}

/// Why a service told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untold {
    #[error("cannot ask {url}")]
    Io {
        url: String,
        #[source]
        reason: io::Error,
    },
    #[error("{url} answered with status {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} answered with something else than JSON")]
    Nonsense { url: String },
}

/// The header that has the token of a session.
const TOKEN: &str = "x-aws-ec2-metadata-token";

/// A session with Amazon's service.
#[derive(Debug)]
pub(crate) struct Session<'s> {
    service: &'s Service,
    token: String,
}

impl Session<'_> {
    pub(crate) async fn get(&self, path: &str) -> Result<String, Untold> {
        self.service.send(Method::GET, path, (TOKEN, &self.token)).await
    }
}

/// The service of a host's cloud.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// `http://169.254.169.254`, another one in tests.
    pub(crate) base: String,
}

impl Service {
    /// What the provider tells of this instance.
    pub(crate) async fn ask(&self, provider: Provider) -> Result<Cloud, Untold> {
        match provider {
            Provider::Aws => self.aws().await,
            Provider::Gce => Ok(gce(&self.json("/computeMetadata/v1/?recursive=true", ("metadata-flavor", "Google")).await?)),
            Provider::Azure => Ok(azure(&self.json("/metadata/instance?api-version=2021-02-01", ("metadata", "true")).await?)),
        }
    }

    /// By a session, as IMDSv2 demands it; an instance may refuse the version before.
    async fn aws(&self) -> Result<Cloud, Untold> {
        let session = self.session().await?;
        let document = self.json("/latest/dynamic/instance-identity/document", (TOKEN, &session.token)).await?;
        let mut cloud = aws(&document);
        // All of them in the time of one answer: what the service does not give by then is left out.
        let _ = timeout(WITHIN, aws_tags(&session, &mut cloud)).await;
        Ok(cloud)
    }

    /// Begins a session with Amazon's service.
    pub(crate) async fn session(&self) -> Result<Session<'_>, Untold> {
        let token = self.send(Method::PUT, "/latest/api/token", ("x-aws-ec2-metadata-token-ttl-seconds", "300")).await?;
        Ok(Session { service: self, token })
    }

    pub(crate) async fn json(&self, path: &str, header: (&str, &str)) -> Result<Value, Untold> {
        let answer = self.send(Method::GET, path, header).await?;
        serde_json::from_str(&answer).map_err(|_| Untold::Nonsense { url: self.url(path) })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn send(&self, method: Method, path: &str, header: (&str, &str)) -> Result<String, Untold> {
        let failed = |reason| Untold::Io { url: self.url(path), reason };
        let asked = timeout(WITHIN, self.request(method, path, header)).await;
        let (status, answer) = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        if status != StatusCode::OK {
            return Err(Untold::Status { url: self.url(path), status });
        }
        Ok(answer)
    }

    async fn request(&self, method: Method, path: &str, (name, value): (&str, &str)) -> io::Result<(StatusCode, String)> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let (host, prefix) =
            self.base.strip_prefix("http://").ok_or_else(invalid)?.split_at_checked(self.host_length()).ok_or_else(invalid)?;
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::builder().method(method).uri(format!("{}{path}", prefix.trim_end_matches('/'))).header(HOST, host);
        let request = request.header(name, value).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let asked = async {
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        tokio::select! {
            answer = asked => answer,
            // It ends with the answer, which the other arm has by then, or without.
            () = async { let _ = connection.await; std::future::pending().await } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn host_length(&self) -> usize {
        let rest = self.base.strip_prefix("http://").unwrap_or_default();
        rest.find('/').unwrap_or(rest.len())
    }
}

/// Tags are there only where the instance allows it.
async fn aws_tags(session: &Session<'_>, cloud: &mut Cloud) {
    let names = session.get("/latest/meta-data/tags/instance").await.unwrap_or_default();
    for name in names.lines().filter(|name| !name.is_empty() && !name.contains(['?', '#', ' '])).take(MOST_TAGS) {
        if let Ok(value) = session.get(&format!("/latest/meta-data/tags/instance/{name}")).await {
            cloud.instance_tags.insert(name.to_owned(), value);
        }
    }
}

fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn aws(document: &Value) -> Cloud {
    let of = |name: &str| text(document, &format!("/{name}"));
    Cloud {
        provider: "aws".into(),
        account_id: of("accountId"),
        region: of("region"),
        availability_zone: of("availabilityZone"),
        instance_id: of("instanceId"),
        instance_type: of("instanceType"),
        image_id: of("imageId"),
        ..Cloud::default()
    }
}

fn gce(answer: &Value) -> Cloud {
    // `projects/123/zones/europe-west1-b`
    let last = |pointer: &str| text(answer, pointer).rsplit('/').next().unwrap_or_default().to_owned();
    let zone = last("/instance/zone");
    let tags = answer.pointer("/instance/tags").and_then(Value::as_array);
    Cloud {
        provider: "gce".into(),
        account_id: text(answer, "/project/projectId"),
        region: zone.rsplit_once('-').map(|(region, _)| region.to_owned()).unwrap_or_default(),
        availability_zone: zone,
        instance_id: text(answer, "/instance/id"),
        instance_type: last("/instance/machineType"),
        image_id: text(answer, "/instance/image"),
        // Network tags, which have no values. Attributes are not kept: scripts and keys are among them.
        instance_tags: tags.into_iter().flatten().filter_map(Value::as_str).map(|tag| (tag.to_owned(), String::new())).collect(),
    }
}

fn azure(answer: &Value) -> Cloud {
    let of = |name: &str| text(answer, &format!("/compute/{name}"));
    let image = |name: &str| text(answer, &format!("/compute/storageProfile/imageReference/{name}"));
    let published = ["publisher", "offer", "sku", "version"].map(image).join(":");
    let tags = answer.pointer("/compute/tagsList").and_then(Value::as_array);
    Cloud {
        provider: "azure".into(),
        account_id: of("subscriptionId"),
        region: of("location"),
        availability_zone: of("zone"),
        instance_id: of("vmId"),
        instance_type: of("vmSize"),
        image_id: Some(image("id")).filter(|id| !id.is_empty()).unwrap_or_else(|| published.trim_matches(':').to_owned()),
        instance_tags: tags.into_iter().flatten().map(|tag| (text(tag, "/name"), text(tag, "/value"))).collect(),
    }
}

/// What fuzzers call: an answer of a service that is not what it seems.
pub(crate) fn decode(bytes: &[u8]) {
    if let Ok(answer) = serde_json::from_slice(bytes) {
        let _ = (aws(&answer), gce(&answer), azure(&answer));
    }
}
