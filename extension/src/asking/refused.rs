//! Sections of the configuration that are left out.

use super::{Office, triggers};
use crate::config::Entry;

/// `recorder_sources.endpoint` of a section: its name, with its kind where it is no trigger's.
pub(super) fn endpoint(kind: &str, name: &str) -> String {
    if kind == triggers::KIND { name.to_owned() } else { format!("{kind} {name}") }
}

/// A section that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Where it begins in the file.
    pub(crate) line: usize,
    kind: &'static str,
    name: String,
    pub(crate) why: String,
}

impl Refused {
    /// What each entry of a list is read as; a wrong one leaves the others as they are.
    pub(super) fn sort<T>(
        kind: &'static str,
        entries: &[Entry],
        mut read: impl FnMut(&Entry) -> Result<T, String>,
    ) -> Vec<Result<T, Self>> {
        entries.iter().map(|entry| read(entry).map_err(|why| Self { line: entry.line, kind, name: entry.name(), why })).collect()
    }

    /// In one line, for who wrote it.
    pub(crate) fn message(&self) -> String {
        format!("{} {:?}: {}", self.kind, self.name, self.why)
    }

    /// Says it in `recorder_sources` and in the log.
    pub(super) fn tell(&self, office: &Office, source: &'static str) {
        tracing::error!(line = self.line, refused = self.message(), "left out");
        // One that has the name of another must not hide how that one fares.
        let taken = office.config().lists().any(|entry| entry.line < self.line && entry.name() == self.name);
        let mut endpoint = endpoint(self.kind, &self.name);
        if taken {
            endpoint = format!("{endpoint} (line {})", self.line);
        }
        office
            .feeds()
            .feed(source, &endpoint)
            .disabled(&self.why, format!("line {} of the configuration; `mayfly check` says the same", self.line));
    }
}
