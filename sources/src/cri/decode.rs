//! What the events of a CRI server say.

use std::{collections::HashMap, sync::Arc};

use mayfly_history::{
    container::{Action, ContainerEvent, ContainerKey, Details, Runtime, Witness},
    now,
};
use prost::Message;

use super::{
    details::{happened, of_container, of_sandbox},
    messages::ContainerEventResponse,
};
use crate::containerd::MAX_ID;

/// A message that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Nonsense {
    #[error("cannot decode the event")]
    Bytes(#[from] prost::DecodeError),
    #[error("no container id of 1 to {MAX_ID} bytes")]
    Id,
    #[error("no such type of event: {0}")]
    Type(i32),
}

/// Decodes the bytes of one `ContainerEventResponse` of the runtime at `endpoint`.
pub fn decode(endpoint: &Arc<str>, runtime: Runtime, bytes: &[u8]) -> Result<Box<ContainerEvent>, Nonsense> {
    read(endpoint, runtime, ContainerEventResponse::decode(bytes)?)
}

pub(super) fn read(endpoint: &Arc<str>, runtime: Runtime, said: ContainerEventResponse) -> Result<Box<ContainerEvent>, Nonsense> {
    if said.container_id.is_empty() || said.container_id.len() > MAX_ID {
        return Err(Nonsense::Id);
    }
    let action = match said.container_event_type {
        0 => Action::Create,
        1 => Action::Start,
        2 => Action::Die,
        3 => Action::Destroy,
        other => return Err(Nonsense::Type(other)),
    };
    let time_ns = happened(said.created_at).unwrap_or_else(now);
    let pod = said.pod_sandbox_status.as_ref();
    let status = said.containers_statuses.into_iter().find(|status| status.id == said.container_id);
    let (_, mut details) = match (status, pod) {
        (Some(status), pod) => of_container(runtime, status, &HashMap::new(), pod),
        (None, Some(pod)) if pod.id == said.container_id => of_sandbox(runtime, pod, &HashMap::new()),
        _ => Default::default(),
    };
    details.runtime = runtime;
    match action {
        Action::Start => details.run.started_ns = details.run.started_ns.or(Some(time_ns)),
        Action::Die => details.run.finished_ns = details.run.finished_ns.or(Some(time_ns)),
        // The status is of the moment it was sent: what it says of a run does not belong to these.
        _ => details = Details { run: Default::default(), ..details },
    }
    let key = ContainerKey { container_id: said.container_id.into(), runtime_namespace: "".into(), endpoint: Arc::clone(endpoint) };
    Ok(Box::new(ContainerEvent {
        time_ns,
        action,
        source: Witness::Cri,
        recovered: false,
        key,
        exec_id: None,
        lifetime_ms: None,
        details,
        attributes: Default::default(),
        settled: true,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::messages::{ContainerStatus, PodSandboxStatus};

    fn stopped() -> ContainerEventResponse {
        let status = ContainerStatus { id: "c1".into(), state: 2, exit_code: 3, finished_at: 9, ..ContainerStatus::default() };
        ContainerEventResponse {
            container_id: "c1".into(),
            container_event_type: 2,
            created_at: 10,
            containers_statuses: vec![status],
            ..Default::default()
        }
    }

    fn told(said: &ContainerEventResponse) -> Result<Box<ContainerEvent>, Nonsense> {
        decode(&"unix:///run/crio/crio.sock".into(), Runtime::CriO, &said.encode_to_vec())
    }

    #[test]
    fn a_stop_is_a_death_with_its_exit_code() {
        let event = told(&stopped()).unwrap();
        assert_eq!((event.action, event.time_ns, &*event.key.runtime_namespace), (Action::Die, 10, ""));
        assert_eq!((event.details.run.exit_code, event.details.run.finished_ns), (Some(3), Some(9)));
    }

    #[test]
    fn a_sandbox_is_a_container_of_its_own() {
        let pod = PodSandboxStatus { id: "5a".into(), ..Default::default() };
        let said = ContainerEventResponse {
            container_id: "5a".into(),
            container_event_type: 1,
            pod_sandbox_status: Some(pod),
            ..Default::default()
        };
        let event = told(&said).unwrap();
        assert_eq!((event.action, event.details.sandbox_id.as_deref()), (Action::Start, Some("5a")));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(told(&ContainerEventResponse { container_event_type: 9, ..stopped() }), Err(Nonsense::Type(9))));
        assert!(matches!(told(&ContainerEventResponse { container_id: "x".repeat(129), ..stopped() }), Err(Nonsense::Id)));
        let whole = stopped().encode_to_vec();
        for length in 0..whole.len() {
            let _ = decode(&"unix:///x".into(), Runtime::CriO, &whole[..length]);
        }
    }
}
