//! One value of one column: what osquery knows how to carry.

/// The longest text that a cell keeps, in bytes. Longer input is cut at a character and marked with `…`.
pub const MAX_CELL: usize = 64 * 1024;

/// The SQL type of a column, in osquery's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// UTF-8 text; a missing one reads as `''` in osquery.
    Text,
    /// 32 bits on osquery's side; for flags, ports and exit codes.
    Integer,
    /// 64 bits; for times, pids, ids and sizes.
    BigInt,
}

impl ColumnType {
    /// osquery's name of the type, as in a route row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::BigInt => "BIGINT",
        }
    }
}

/// A value on its way between the store and the wire; text is borrowed from where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell<'a> {
    #[default]
    Null,
    Int(i64),
    Text(&'a str),
}
