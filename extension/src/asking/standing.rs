//! `[[enrolment]]` and `[[farewell]]`: queries that wait for no event.

use std::{collections::BTreeSet, time::Duration};

use mayfly_history::Feed;
use serde::Deserialize;

use super::{Office, Refused, refused::endpoint, template::Template, triggers::SOURCE};
use crate::config::{Entry, Texts};

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    run: Texts,
    /// Seconds that osquery may take. Default 10.
    #[serde(default = "usual_timeout")]
    timeout: u16,
}

const fn usual_timeout() -> u16 {
    10
}

/// Queries under one name.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) name: String,
    pub(super) run: Vec<String>,
    pub(super) patience: Duration,
}

impl Standing {
    /// Every section of a list, or why it is left out.
    pub(super) fn read_all(kind: &'static str, entries: &[Entry]) -> Vec<Result<Self, Refused>> {
        let mut names = BTreeSet::new();
        Refused::sort(kind, entries, |entry| {
            let written: Written = entry.read()?;
            let parse = |sql: &String| Template::parse(sql, |_| None).map(|template| template.fill(&[]));
            let run: Vec<_> =
                written.run.as_slice().iter().map(parse).collect::<Result<_, _>>().map_err(|error| format!("`run`: {error}"))?;
            if run.is_empty() {
                return Err("`run` asks nothing".to_owned());
            }
            if written.timeout == 0 {
                return Err("`timeout` is at least 1".to_owned());
            }
            if !names.insert(written.name.clone()) {
                return Err(format!("there is a {kind} of that name before"));
            }
            Ok(Self { name: written.name, run, patience: Duration::from_secs(written.timeout.into()) })
        })
    }

    /// Those that can be asked, each with its row of `recorder_sources`; says of the others why they are left out.
    pub(super) fn employed(kind: &'static str, entries: &[Entry], office: &Office) -> Vec<(Self, Feed)> {
        let employ = |read: Result<Self, Refused>| match read {
            Ok(standing) => {
                let feed = office.feeds().feed(SOURCE, &endpoint(kind, &standing.name));
                Some((standing, feed))
            }
            Err(refused) => {
                refused.tell(office, SOURCE);
                None
            }
        };
        Self::read_all(kind, entries).into_iter().filter_map(employ).collect()
    }
}
