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
    /// As osquery's own tables have it: its text is kept.
    UnsignedBigInt,
    /// As osquery's own tables have it: its text is kept.
    Double,
    /// As osquery's own tables have it: its text is kept.
    Blob,
}

impl ColumnType {
    /// osquery's name of the type, as in a route row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::BigInt => "BIGINT",
            Self::UnsignedBigInt => "UNSIGNED BIGINT",
            Self::Double => "DOUBLE",
            Self::Blob => "BLOB",
        }
    }

    /// The type of that name, as in a route row.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Text, Self::Integer, Self::BigInt, Self::UnsignedBigInt, Self::Double, Self::Blob]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    /// Whether its cells are [`Cell::Int`], not text.
    pub const fn is_int(self) -> bool {
        matches!(self, Self::Integer | Self::BigInt)
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
