//! The runs of a container, worked out from its states.

use std::collections::BTreeSet;

use super::subject::Subject;
use crate::{
    container::{Details, State},
    time::Nanos,
};

/// From a start to the end that belongs to it, pauses included.
#[derive(Clone, Debug)]
pub(super) struct RunSpan {
    pub(super) from_ns: Nanos,
    /// `None` while it goes on.
    pub(super) to_ns: Option<Nanos>,
    pub(super) ended_reason: &'static str,
    pub(super) evidence: BTreeSet<String>,
    /// As known of its newest state.
    pub(super) details: Details,
}

/// All runs whose evidence is still there.
pub(super) fn runs(subject: &Subject) -> Vec<RunSpan> {
    let mut runs: Vec<RunSpan> = Vec::new();
    for span in subject.intervals() {
        if !matches!(span.state, State::Running | State::Paused) {
            continue;
        }
        let evidence = span.evidence.split(',').map(str::to_owned);
        match runs.last_mut() {
            Some(run) if run.to_ns == Some(span.from_ns) => {
                (run.to_ns, run.ended_reason) = (span.to_ns, span.ended_reason);
                run.evidence.extend(evidence);
                run.details = span.details;
            }
            _ => runs.push(RunSpan {
                from_ns: span.from_ns,
                to_ns: span.to_ns,
                ended_reason: span.ended_reason,
                evidence: evidence.collect(),
                details: span.details,
            }),
        }
    }
    runs
}
