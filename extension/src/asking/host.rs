//! Who this host is, as the recorder's history has it.

use std::{ops::ControlFlow, path::Path};

use mayfly_history::{Cell, TableSchema};
use mayfly_tables::{Home, Query, Rows, TableError, find};

/// What matters here of `host_identity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) incarnation: String,
    pub(super) cloud: String,
}

impl Host {
    /// `None` while nobody has recorded it.
    pub(super) fn look(state_dir: &Path) -> Result<Option<Self>, TableError> {
        let Some(table) = find("host_identity") else { return Ok(None) };
        let mut found = Found { schema: table.schema(), host: None };
        table.generate(&Home::Recorder.open(state_dir)?, &Query::default(), &mut found)?;
        Ok(found.host.filter(|host| !host.incarnation.is_empty()))
    }
}

struct Found<'s> {
    schema: &'s TableSchema,
    host: Option<Host>,
}

impl Rows for Found<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let text = |name: &str| match self.schema.position(name).and_then(|at| cells.get(at)) {
            Some(Cell::Text(text)) => (*text).to_owned(),
            _ => String::new(),
        };
        self.host = Some(Host { incarnation: text("incarnation_id"), cloud: text("cloud_provider") });
        ControlFlow::Break(())
    }
}
