//! `NAME_history`: the history of a table of osquery's (or of another extension's), made from the columns that it has there.

use std::sync::{Mutex, PoisonError};

use mayfly_history::{
    ColumnSpec, ColumnType, Role, TableKind, TableSchema, captures,
    feed::Gap,
    store::{Reader, StoreError},
};
use serde::{Deserialize, Serialize};

use crate::{
    history,
    query::{Answered, Home, Query, Rows, Table, TableError},
    registry,
};

/// osquery's column options that matter here.
const INDEX: u32 = 1;
const REQUIRED: u32 = 2;
const HIDDEN: u32 = 16;
/// osquery's attribute of tables that show one user's rows unless they are joined with `users`.
const USER_BASED: u32 = 8;

/// Columns that count or age, and so differ at each look: a change of them is none of the row. Tables with many of them (processes) are
/// better not followed.
const PASSING: &[(&str, &[&str])] = &[
    (
        "interface_details",
        &["ipackets", "opackets", "ibytes", "obytes", "ierrors", "oerrors", "idrops", "odrops", "collisions", "last_change"],
    ),
    ("docker_containers", &["status"]),
    ("iptables", &["packets", "bytes"]),
];

/// The name under which the store of captures keeps what it knows of a table, so that its history is served also while osquery is down.
const NOTE: &str = "followed:";

/// A column as osquery describes it (`{"id":"column","name","type","op"}`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreColumn {
    pub name: String,
    /// osquery's name of the type.
    pub kind: String,
    pub op: u32,
}

/// A table as osquery describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreTable {
    pub name: String,
    pub columns: Vec<CoreColumn>,
    /// Bits of osquery's table attributes.
    pub attributes: u32,
}

/// Why a table cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    #[error("{table} has a column {column}, as every history has: the two could not be told apart")]
    Clash { table: String, column: String },
    #[error("{table} answers only where {column} is given")]
    Required { table: String, column: String },
    #[error("{table} is a table of events: it has its own times")]
    Events { table: String },
    #[error("{table} has {found} columns; at most {most} can be followed")]
    TooWide { table: String, found: usize, most: usize },
    #[error("{table} has no columns that osquery shows")]
    NoColumns { table: String },
    #[error("{history} is recorded at event time already")]
    Native { history: String },
    #[error("{name:?} is not a name of a table")]
    Name { name: String },
}

/// A history of a table that osquery answers for. Lives as long as the process: there is one for each form that a table was seen in.
#[derive(Debug)]
pub struct Followed {
    core: CoreTable,
    schema: TableSchema,
    identity: Vec<usize>,
    passing: Vec<usize>,
}

/// SQLite tells which columns a statement reads in 64 bits, the last of which stands for all others.
const MOST_COLUMNS: usize = 63;

impl Followed {
    /// The history of that table; the same one for the same description.
    ///
    /// # Errors
    /// When the table cannot be followed; see [`FollowError`].
    pub fn of(core: &CoreTable) -> Result<&'static Self, FollowError> {
        static KNOWN: Mutex<Vec<&'static Followed>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = known.iter().find(|followed| followed.core == *core) {
            return Ok(followed);
        }
        // Tables live as long as the process, and forms of tables are few: an upgrade of osquery restarts it.
        let followed: &'static Self = Box::leak(Box::new(Self::new(core)?));
        known.push(followed);
        Ok(followed)
    }

    fn new(core: &CoreTable) -> Result<Self, FollowError> {
        let table = || core.name.clone();
        for name in std::iter::once(&core.name).chain(core.columns.iter().map(|column| &column.name)) {
            if !is_name(name) {
                return Err(FollowError::Name { name: name.clone() });
            }
        }
        let history = format!("{}_history", core.name);
        if registry::find(&history).is_some() {
            return Err(FollowError::Native { history });
        }
        if core.name.ends_with("_events") {
            return Err(FollowError::Events { table: table() });
        }
        if let Some(column) = core.columns.iter().find(|column| column.op & REQUIRED != 0) {
            return Err(FollowError::Required { table: table(), column: column.name.clone() });
        }
        let own = ColumnSpec::of_history();
        let shown: Vec<_> = core.columns.iter().filter(|column| column.op & HIDDEN == 0).collect();
        if let Some(column) = shown.iter().find(|column| own.iter().any(|own| own.name == column.name)) {
            return Err(FollowError::Clash { table: table(), column: column.name.clone() });
        }
        match shown.len() {
            0 => return Err(FollowError::NoColumns { table: table() }),
            found if found > MOST_COLUMNS - own.len() => {
                return Err(FollowError::TooWide { table: table(), found, most: MOST_COLUMNS - own.len() });
            }
            _ => {}
        }
        let identity = shown.iter().enumerate().filter(|(_, column)| column.op & INDEX != 0).map(|(at, _)| at).collect();
        let counts = PASSING.iter().find(|(table, _)| *table == core.name).map_or(&[][..], |(_, columns)| columns);
        let passing = shown.iter().enumerate().filter(|(_, column)| counts.contains(&column.name.as_str())).map(|(at, _)| at).collect();
        let spec = |(at, column): (usize, &&CoreColumn)| ColumnSpec {
            name: column.name.clone().leak(),
            doc: "As in osquery's own table.",
            kind: ColumnType::parse(&column.kind).unwrap_or(ColumnType::Text),
            // Intervals are found by their first column.
            role: if at == 0 { Role::Index } else { Role::Plain },
            hidden: false,
            stored: true,
            joined: None,
        };
        let columns = shown.iter().enumerate().map(spec).chain(own).collect();
        let doc = format!("What osquery's `{}` had at any past time, as far as it was captured.", core.name).leak();
        let schema = TableSchema { name: history.leak(), doc, kind: TableKind::History, columns, examples: &[] };
        Ok(Self { core: core.clone(), schema, identity, passing })
    }

    /// The table in osquery.
    pub fn core(&self) -> &CoreTable {
        &self.core
    }

    /// Positions among the stored columns of those that tell rows apart: osquery's index columns. None: whole rows do.
    pub fn identity(&self) -> &[usize] {
        &self.identity
    }

    /// Positions among the stored columns of those whose changes do not count: counters and ages.
    pub fn passing(&self) -> &[usize] {
        &self.passing
    }

    /// The SQL that captures the table: its stored columns, in order, of all users; at most so many rows.
    pub fn capture_sql(&self, most: usize) -> String {
        let columns: Vec<_> = self.schema.stored().map(|column| format!("t.\"{0}\" AS \"{0}\"", column.name)).collect();
        let (columns, name) = (columns.join(", "), &self.core.name);
        let by_user = self.core.attributes & USER_BASED != 0 && self.core.columns.iter().any(|column| column.name == "uid");
        if by_user {
            format!("SELECT {columns} FROM users u CROSS JOIN \"{name}\" t ON t.uid = u.uid LIMIT {most}")
        } else {
            format!("SELECT {columns} FROM \"{name}\" t LIMIT {most}")
        }
    }

    /// What the store of captures keeps, so that [`Followed::known`] finds the table again.
    pub fn note(&self) -> (String, String) {
        // A description is made of strings and numbers: it can be written.
        (format!("{NOTE}{}", self.core.name), serde_json::to_string(&self.core).unwrap_or_default())
    }

    /// The tables whose captures that store has, whether osquery is there or not.
    pub fn known(captures: &Reader) -> Result<Vec<&'static Self>, StoreError> {
        let notes = captures.info()?.notes;
        let described = notes.iter().filter(|(name, _)| name.starts_with(NOTE));
        Ok(described.filter_map(|(_, text)| Self::of(&serde_json::from_str(text).ok()?).ok()).collect())
    }
}

impl Table for Followed {
    fn schema(&self) -> &TableSchema {
        &self.schema
    }

    fn home(&self) -> Home {
        Home::Captures
    }

    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError> {
        history::generate(&self.schema, query, store, rows, |gaps| {
            gaps.retain(|gap: &Gap| gap.endpoint.is_empty() || gap.endpoint == self.core.name);
            &[captures::SOURCE]
        })
    }
}

/// Names go into SQL between quotes; osquery's are words.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(name: &str, columns: &[(&str, &str, u32)]) -> CoreTable {
        let columns = columns.iter().map(|(name, kind, op)| CoreColumn { name: (*name).into(), kind: (*kind).into(), op: *op });
        CoreTable { name: name.into(), columns: columns.collect(), attributes: 0 }
    }

    #[test]
    fn a_history_has_the_tables_columns_and_types_then_those_of_a_history() {
        let packages =
            core("deb_packages", &[("name", "TEXT", 8), ("size", "BIGINT", 8), ("score", "DOUBLE", 8), ("admindir", "TEXT", 4 | 16)]);
        let followed = Followed::of(&packages).unwrap();
        let columns: Vec<_> = followed.schema().columns.iter().map(|c| (c.name, c.kind)).take(4).collect();
        let expected =
            [("name", ColumnType::Text), ("size", ColumnType::BigInt), ("score", ColumnType::Double), ("valid_from", ColumnType::BigInt)];
        assert_eq!(columns, expected);
        assert_eq!(followed.schema().name, "deb_packages_history");
        assert!(followed.identity().is_empty() && followed.schema().position("as_of").is_some());
        assert!(std::ptr::eq(followed, Followed::of(&packages).unwrap()), "one for each form");
    }

    #[test]
    fn tables_that_cannot_be_followed_are_refused_by_name() {
        let refused = |table: &CoreTable| Followed::of(table).unwrap_err().to_string();
        assert!(refused(&core("hash", &[("path", "TEXT", 2)])).contains("only where path is given"));
        assert!(refused(&core("odd", &[("evidence", "TEXT", 8)])).contains("column evidence"));
        assert!(refused(&core("users", &[("uid", "BIGINT", 1)])).contains("users_history is recorded at event time"));
        assert!(refused(&core("a\"; DROP", &[("x", "TEXT", 8)])).contains("not a name"));
        assert!(refused(&core("process_events", &[("x", "TEXT", 8)])).contains("table of events"));
    }

    #[test]
    fn tables_of_users_are_captured_for_all_of_them() {
        let keys = CoreTable { attributes: USER_BASED, ..core("authorized_keys", &[("uid", "BIGINT", 1), ("key", "TEXT", 8)]) };
        let sql = Followed::of(&keys).unwrap().capture_sql(9);
        assert_eq!(
            sql,
            r#"SELECT t."uid" AS "uid", t."key" AS "key" FROM users u CROSS JOIN "authorized_keys" t ON t.uid = u.uid LIMIT 9"#
        );
        assert_eq!(Followed::of(&keys).unwrap().identity(), [0]);
    }
}
