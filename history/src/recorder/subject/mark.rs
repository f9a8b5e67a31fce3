//! What a sighting is, and what makes two of them the same.

use serde::{Deserialize, Serialize};

use crate::{
    container::{Action, ContainerEvent, Run, Witness},
    time::Nanos,
};

/// How a witness knows. Two times of one witness are two events only if they came the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::recorder) enum Via {
    /// It said so when it happened, or in a replay of that.
    #[serde(rename = "s")]
    Stream,
    /// It was asked about the container (StartedAt, FinishedAt, …).
    #[serde(rename = "i")]
    Inspect,
    /// It was found when everything was listed after a gap.
    #[serde(rename = "l")]
    Listed,
}

/// What makes two sightings the same one: whoever repeats himself adds nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::recorder) struct Mark {
    #[serde(rename = "t")]
    pub(in crate::recorder) time_ns: Nanos,
    #[serde(rename = "a")]
    pub(in crate::recorder) action: Action,
    #[serde(rename = "w")]
    pub(in crate::recorder) witness: Witness,
    #[serde(rename = "v")]
    pub(in crate::recorder) via: Via,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub(in crate::recorder) exec_id: Option<String>,
}

impl Mark {
    pub(in crate::recorder) fn of(event: &ContainerEvent) -> Self {
        let exec_id = if is_exec(event.action) { event.exec_id.clone() } else { None };
        Self { time_ns: event.time_ns, action: event.action, witness: event.source, via: Via::Stream, exec_id }
    }

    /// Whoever speaks through the same channel of two times speaks of two events.
    pub(in crate::recorder) const fn channel(&self) -> (Witness, Via) {
        (self.witness, self.via)
    }
}

/// One sighting, with what it said of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::recorder) struct Sighting {
    #[serde(flatten)]
    pub(in crate::recorder) mark: Mark,
    #[serde(rename = "r", default, skip_serializing_if = "is_nothing")]
    pub(in crate::recorder) run: Run,
    /// An event row was released for it.
    #[serde(rename = "e", default, skip_serializing_if = "is_false")]
    pub(in crate::recorder) told: bool,
}

/// Facts of a run that say not when it began: found by pid, else by time, else the newest run's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::recorder) struct HintKey {
    pub(in crate::recorder) witness: Witness,
    pub(in crate::recorder) pid: Option<i64>,
    pub(in crate::recorder) at: Option<Nanos>,
}

pub(in crate::recorder) const fn is_exec(action: Action) -> bool {
    matches!(action, Action::ExecCreate | Action::ExecStart | Action::ExecDie)
}

/// Whether an action leaves the states of the container as they are.
pub(super) const fn is_noise(action: Action) -> bool {
    !matches!(action, Action::Create | Action::Start | Action::Pause | Action::Unpause | Action::Oom | Action::Die | Action::Destroy)
}

pub(super) fn is_nothing(run: &Run) -> bool {
    *run == Run::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(told: &bool) -> bool {
    !*told
}
