//! A section of a list, as `[[trigger]]`.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use toml::{Spanned, Table, Value};

/// One section of a list as it is written. It is taken whole or left out whole: a trigger without the condition that was misspelt would be
/// another one. Who uses it reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it begins.
    pub line: usize,
    offset: usize,
    table: Table,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Table>::deserialize(deserializer)?;
        Ok(Self { line: 0, offset: spanned.span().start, table: spanned.into_inner() })
    }
}

impl Entry {
    /// Tells the entry its line.
    pub(super) fn locate(&mut self, text: &str) {
        self.line = text.bytes().take(self.offset).filter(|byte| *byte == b'\n').count() + 1;
    }

    /// What it is called, or where it is.
    pub fn name(&self) -> String {
        let name = self.table.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        name.map_or_else(|| format!("line {}", self.line), |name| name.chars().take(MOST_NAME).collect())
    }

    /// Its keys, or what is wrong with them.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        match self.table.get("name") {
            Some(Value::String(name)) if name.is_empty() || name.chars().count() > MOST_NAME || name.contains(char::is_control) => {
                return Err(format!("a name has 1 to {MOST_NAME} characters, all printable"));
            }
            _ => {}
        }
        Value::Table(self.table.clone()).try_into().map_err(|error: toml::de::Error| error.message().trim().to_owned())
    }
}

/// The longest name.
const MOST_NAME: usize = 100;

/// A text, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
pub(crate) enum Texts {
    One(String),
    Several(Vec<String>),
}

impl Texts {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}
