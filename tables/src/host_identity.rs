//! `host_identity`.

use std::sync::OnceLock;

use mayfly_history::identity::Identity;

use crate::{current::Current, host_identity_history::HOST_IDENTITY_HISTORY};

pub(crate) static TABLE: Current<Identity> = Current {
    name: "host_identity",
    doc: "What this host is called, by itself, its cloud and its orchestrator: one row, made for decorators.",
    history: &HOST_IDENTITY_HISTORY,
    examples: &[
        (
            "A decorator of osquery: every result bears the instance's name.",
            "SELECT instance_id, incarnation_id, primary_ip FROM host_identity;",
        ),
        (
            "The owner, as the instance's tags have it.",
            "SELECT hostname, json_extract(instance_tags, '$.owner') AS owner FROM host_identity;",
        ),
    ],
    schema: OnceLock::new(),
};
