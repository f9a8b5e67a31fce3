//! Columns K: what Kubernetes, ECS and Compose say of a container, by the labels that they put on it.

use std::borrow::Cow;

use mayfly_history::{Column, text};

use crate::container::OfContainer;

fn label<'r>(record: &'r impl OfContainer, name: &str) -> Option<Cow<'r, str>> {
    record.details().labels.get(name).map(|value| value.as_str().into())
}

pub(crate) const fn pod_name<R: OfContainer>() -> Column<R> {
    text("pod_name", |r| label(r, "io.kubernetes.pod.name"), "Name of the Kubernetes pod.")
}

pub(crate) const fn pod_namespace<R: OfContainer>() -> Column<R> {
    text("pod_namespace", |r| label(r, "io.kubernetes.pod.namespace"), "Namespace of the Kubernetes pod.")
}

pub(crate) const fn pod_uid<R: OfContainer>() -> Column<R> {
    text("pod_uid", |r| label(r, "io.kubernetes.pod.uid"), "UID of the Kubernetes pod.")
}

pub(crate) const fn pod_container<R: OfContainer>() -> Column<R> {
    text("pod_container", |r| label(r, "io.kubernetes.container.name"), "Name of the container within its Kubernetes pod.")
}

/// The runtime's own word goes before the label, which only the CRI over Docker sets.
pub(crate) const fn sandbox_id<R: OfContainer>() -> Column<R> {
    text(
        "sandbox_id",
        |r| r.details().sandbox_id.as_deref().map(Into::into).or_else(|| label(r, "io.kubernetes.sandbox.id")),
        "Id of the pod sandbox that the container runs in.",
    )
}

pub(crate) const fn ecs_cluster<R: OfContainer>() -> Column<R> {
    text("ecs_cluster", |r| label(r, "com.amazonaws.ecs.cluster"), "Name of the Amazon ECS cluster.")
}

pub(crate) const fn ecs_task_arn<R: OfContainer>() -> Column<R> {
    text("ecs_task_arn", |r| label(r, "com.amazonaws.ecs.task-arn"), "ARN of the Amazon ECS task.")
}

pub(crate) const fn ecs_task_family<R: OfContainer>() -> Column<R> {
    text("ecs_task_family", |r| label(r, "com.amazonaws.ecs.task-definition-family"), "Family of the Amazon ECS task definition.")
}

pub(crate) const fn ecs_container<R: OfContainer>() -> Column<R> {
    text("ecs_container", |r| label(r, "com.amazonaws.ecs.container-name"), "Name of the container within its Amazon ECS task.")
}

pub(crate) const fn compose_project<R: OfContainer>() -> Column<R> {
    text("compose_project", |r| label(r, "com.docker.compose.project"), "Project of Docker Compose.")
}

pub(crate) const fn compose_service<R: OfContainer>() -> Column<R> {
    text("compose_service", |r| label(r, "com.docker.compose.service"), "Service of Docker Compose.")
}
