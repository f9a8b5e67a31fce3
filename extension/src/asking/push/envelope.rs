//! What stands in osquery's log lines around the columns of an event.
//!
//! Facts of the format, read in osquery's `core/query.cpp`: the fields and their order, columns sorted by name, control characters
//! written as `\xNN`, numbers as strings unless `--logger_numerics`, one line an event unless `--logger_event_type=false`.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use mayfly_history::{Cell, Nanos, TableSchema};
use serde_json::{Map, Value};

/// The pack that pushed tables seem to be scheduled by: pipelines split names of queries by packs.
const PACK: &str = "mayfly_push";

/// osquery's flags that decide what its lines look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) epoch: u64,
    pub(super) numerics: bool,
    pub(super) top_level: bool,
    /// One line an event; else one line a result, with `diffResults`.
    pub(super) by_event: bool,
    pub(super) delimiter: String,
}

impl Flags {
    pub(super) fn of(options: &BTreeMap<String, String>) -> Self {
        let is = |names: [&str; 2], value: &str| names.iter().any(|name| options.get(*name).is_some_and(|found| found == value));
        Self {
            epoch: options.get("schedule_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
            numerics: is(["logger_numerics", "log_numerics_as_numbers"], "true"),
            top_level: is(["decorations_top_level", ""], "true"),
            by_event: !is(["logger_event_type", "log_result_events"], "false"),
            delimiter: options.get("pack_delimiter").filter(|text| !text.is_empty()).cloned().unwrap_or_else(|| "_".into()),
        }
    }
}

/// Everything about the host and osquery that a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) flags: Flags,
    pub(super) host: String,
    pub(super) decorations: BTreeMap<String, String>,
    /// The logger plugins that each line goes to.
    pub(super) loggers: Vec<String>,
}

impl Envelope {
    /// The log line of an event; `batch` is the counter of the batch it is in.
    pub(super) fn line(&self, table: &str, batch: i64, now: Nanos, columns: &Value) -> String {
        let seconds = now.div_euclid(1_000_000_000);
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        let delimiter = &self.flags.delimiter;
        let mut line = String::from("{");
        if !self.flags.by_event {
            // Writing to a String does not fail.
            let _ = write!(line, "\"diffResults\":{{\"removed\":[],\"added\":[{columns}]}}");
        }
        let mut member = |name: &str, value: &Value| {
            let comma = if line.len() > 1 { "," } else { "" };
            let _ = write!(line, "{comma}{}:{value}", Value::from(name));
        };
        member("name", &format!("pack{delimiter}{PACK}{delimiter}{table}").into());
        member("hostIdentifier", &self.host.as_str().into());
        member("calendarTime", &time.strftime("%a %b %e %H:%M:%S %Y UTC").to_string().into());
        member("unixTime", &seconds.into());
        member("epoch", &self.flags.epoch.into());
        member("counter", &batch.into());
        member("numerics", &self.flags.numerics.into());
        if self.flags.top_level {
            self.decorations.iter().for_each(|(name, value)| member(name, &value.as_str().into()));
        } else if !self.decorations.is_empty() {
            let decorations: Map<_, _> = self.decorations.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            member("decorations", &decorations.into());
        }
        if self.flags.by_event {
            member("columns", columns);
            member("action", &"added".into());
        }
        line.push('}');
        line
    }

    /// The columns of a row: those of `SELECT *, eid`, as osquery would have them.
    pub(super) fn columns(&self, schema: &TableSchema, cells: &[Cell<'_>]) -> Value {
        let shown = schema.columns.iter().zip(cells).filter(|(column, _)| !column.hidden || column.name == "eid");
        let value = |cell: &Cell<'_>| match cell {
            Cell::Null => "".into(),
            Cell::Int(int) if self.flags.numerics => (*int).into(),
            Cell::Int(int) => int.to_string().into(),
            Cell::Text(text) => printable(text).into(),
        };
        // A map of serde_json's is sorted by name, as osquery's is.
        Value::Object(shown.map(|(column, cell)| (column.name.to_owned(), value(cell))).collect::<Map<_, _>>())
    }
}

/// Control characters are replaced by `\xNN`.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte < 0x20) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c < ' ' {
            let _ = write!(escaped, "\\x{:02X}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use mayfly_history::image::ImageEvent;
    use mayfly_tables::CONTAINER_IMAGE_EVENTS;
    use serde_json::json;

    use super::*;

    fn envelope(flags: &[(&str, &str)]) -> Envelope {
        let options = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let decorations = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
        Envelope { flags: Flags::of(&options), host: "h".into(), decorations, loggers: vec![String::new()] }
    }

    const NOW: Nanos = 1_700_000_003_000_000_000;

    #[test]
    fn a_line_has_osquerys_fields_in_osquerys_order() {
        let line = envelope(&[]).line("mount_events", 7, NOW, &json!({"action": "mount"}));
        assert_eq!(
            line,
            "{\"name\":\"pack_mayfly_push_mount_events\",\"hostIdentifier\":\"h\",\"calendarTime\":\"Tue Nov 14 22:13:23 2023 UTC\",\
             \"unixTime\":1700000003,\"epoch\":0,\"counter\":7,\"numerics\":false,\"decorations\":{\"role\":\"web\"},\
             \"columns\":{\"action\":\"mount\"},\"action\":\"added\"}"
        );
    }

    #[test]
    fn flags_change_the_line_as_they_change_osquerys() {
        let flags = [("pack_delimiter", "/"), ("decorations_top_level", "true"), ("schedule_epoch", "9"), ("logger_event_type", "false")];
        let line = envelope(&flags).line("mount_events", 1, NOW, &json!({"a": "b"}));
        assert!(
            line.starts_with("{\"diffResults\":{\"removed\":[],\"added\":[{\"a\":\"b\"}]},\"name\":\"pack/mayfly_push/mount_events\""),
            "{line}"
        );
        assert!(line.ends_with("\"epoch\":9,\"counter\":1,\"numerics\":false,\"role\":\"web\"}"), "{line}");
    }

    #[test]
    fn columns_are_those_of_select_star_with_eid_as_strings_or_numbers() {
        let schema = CONTAINER_IMAGE_EVENTS.schema();
        let event = ImageEvent { image: Some("a\u{1}\"ü".into()), ..ImageEvent::default() };
        let mut texts = Vec::new();
        CONTAINER_IMAGE_EVENTS.columns.iter().for_each(|column| {
            column.visit(&event, &mut |cell| texts.push(if let Cell::Text(text) = cell { Some(text.to_owned()) } else { None }));
        });
        let mut cells = vec![Cell::Int(5), Cell::Int(5_000_000_001), Cell::Text("00000000010000000002"), Cell::Null];
        cells.extend(texts.iter().map(|text| text.as_deref().map_or(Cell::Null, Cell::Text)));
        let columns = envelope(&[]).columns(&schema, &cells);
        assert_eq!((&columns["time_ns"], &columns["eid"]), (&json!("5000000001"), &json!("00000000010000000002")));
        assert_eq!(columns["image"], json!("a\\x01\"ü"), "as osquery escapes");
        assert!(columns.get("consumer").is_none(), "hidden ones are not in SELECT *");
        assert_eq!(envelope(&[("logger_numerics", "true")]).columns(&schema, &cells)["time_ns"], json!(5_000_000_001i64));
    }
}
