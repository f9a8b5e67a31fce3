//! Calls of the Container Runtime Interface.

use std::time::Duration;

use prost::Message;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::messages::{
    ContainerEventResponse, ContainerStatusRequest, ContainerStatusResponse, GetEventsRequest, ListContainersRequest,
    ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxStatusRequest, PodSandboxStatusResponse,
    VersionRequest, VersionResponse,
};

/// A runtime that hangs is not waited for longer than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What kubelet takes too.
const LONGEST_ANSWER: usize = 16 << 20;

/// A client of one runtime. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
}

impl Client {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    pub(super) async fn version(&self) -> Result<VersionResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/Version", VersionRequest {}).await
    }

    pub(super) async fn containers(&self) -> Result<ListContainersResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/ListContainers", ListContainersRequest {}).await
    }

    pub(super) async fn sandboxes(&self) -> Result<ListPodSandboxResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/ListPodSandbox", ListPodSandboxRequest {}).await
    }

    pub(super) async fn container(&self, id: &str) -> Result<ContainerStatusResponse, Status> {
        let question = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        self.ask("/runtime.v1.RuntimeService/ContainerStatus", question).await
    }

    pub(super) async fn sandbox(&self, id: &str) -> Result<PodSandboxStatusResponse, Status> {
        let question = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.ask("/runtime.v1.RuntimeService/PodSandboxStatus", question).await
    }

    /// The stream of events. Runtimes answer the call with their first event only.
    pub(super) async fn events(&self) -> Result<tonic::Streaming<ContainerEventResponse>, Status> {
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/GetContainerEvents");
        let mut grpc = within(self.grpc()).await?;
        let answer = grpc.server_streaming(Request::new(GetEventsRequest {}), path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = async {
            let mut grpc = self.grpc().await?;
            grpc.unary(Request::new(question), PathAndQuery::from_static(method), ProstCodec::default()).await
        };
        Ok(within(asked).await?.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LONGEST_ANSWER);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

/// Gives up on a server that does not answer, nor lets itself be asked.
async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
    tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(silent)?
}
