//! Objects of a result as JSON.

use std::io::{self, Write};

use rusqlite::types::Value;

use super::{escape::harmful, text};

/// Writes one object, its members in the order of the columns.
pub(super) fn object(out: &mut dyn Write, columns: &[String], values: &[Value]) -> io::Result<()> {
    out.write_all(b"{")?;
    for (i, (column, value)) in columns.iter().zip(values).enumerate() {
        if i > 0 {
            out.write_all(b", ")?;
        }
        string(out, column)?;
        out.write_all(b": ")?;
        match value {
            Value::Null => out.write_all(b"null")?,
            Value::Integer(int) => write!(out, "{int}")?,
            Value::Real(real) => serde_json::to_writer(&mut *out, real)?,
            Value::Text(text) => string(out, text)?,
            Value::Blob(_) => string(out, &text(value, ""))?,
        }
    }
    out.write_all(b"}")
}

/// A JSON string that is harmless on a terminal too; its meaning stays the same.
fn string(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let quoted = serde_json::to_string(text)?;
    if !quoted.contains(harmful) {
        return out.write_all(quoted.as_bytes());
    }
    for c in quoted.chars() {
        if harmful(c) {
            // All of them lie in the basic plane: four digits are enough.
            write!(out, "\\u{:04x}", u32::from(c))?;
        } else {
            write!(out, "{c}")?;
        }
    }
    Ok(())
}
