//! The decorators of osquery's configuration: queries whose first row every log line bears.
//!
//! osquery hands out its configuration (`genConfig`, `genPack`) but not what its decorators gave: they are run once more, by us.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    asking::pack,
    manager::{Manager, ManagerError},
};

/// osquery runs decorators of kind `always` before each query; here they are run so often.
const ALWAYS: Duration = Duration::from_secs(60);

/// One query and how often it is run; `None`: once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decorator {
    pub(super) sql: String,
    pub(super) every: Option<Duration>,
}

/// The key `decorators` of a configuration or a pack. What is not of its form is left out, as osquery does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Declared {
    load: Vec<Value>,
    always: Vec<Value>,
    interval: BTreeMap<String, Vec<Value>>,
}

/// The decorators of the configuration that osquery uses now, later ones winning over earlier ones of the same column.
pub(super) fn of(manager: &Manager, installs_pack: bool) -> Result<Vec<Decorator>, ManagerError> {
    let mut decorators = Vec::new();
    let active = manager.query("SELECT name FROM osquery_packs WHERE active = 1")?;
    for source in manager.call("config", "", &[("action", "genConfig")])? {
        for (source, text) in source {
            let Some(config) = parse(&text) else { continue };
            decorators.extend(declared(&config));
            for (name, pack) in config["packs"].as_object().into_iter().flatten() {
                if active.iter().all(|row| row.get("name") != Some(name)) {
                    continue;
                }
                match pack {
                    Value::String(place) => {
                        let request = [("action", "genPack"), ("name", name.as_str()), ("value", place.as_str())];
                        match manager.call("config", "", &request) {
                            Ok(packs) => decorators.extend(
                                packs.iter().flat_map(|row| row.values()).filter_map(|text| parse(text)).flat_map(|p| declared(&p)),
                            ),
                            Err(error) => tracing::debug!(%source, name, error = mayfly_history::chain(&error), "a pack could not be read"),
                        }
                    }
                    pack => decorators.extend(declared(pack)),
                }
            }
        }
    }
    if installs_pack {
        decorators.extend(parse(pack::SHIPPED).iter().flat_map(declared));
    }
    Ok(decorators)
}

/// JSON with osquery's comments: lines that begin with `#` or `//`.
fn parse(text: &str) -> Option<Value> {
    let joined = text.replace("\\\n", "");
    let lines: Vec<_> =
        joined.lines().filter(|line| !matches!(line.trim_start(), l if l.starts_with('#') || l.starts_with("//"))).collect();
    serde_json::from_str(&lines.join("\n")).ok()
}

fn declared(document: &Value) -> Vec<Decorator> {
    let declared = Declared::deserialize(&document["decorators"]).unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |queries: &[Value], every| {
        let texts = queries.iter().filter_map(Value::as_str);
        found.extend(texts.map(|sql| Decorator { sql: sql.to_owned(), every }));
    };
    add(&declared.load, None);
    add(&declared.always, Some(ALWAYS));
    for (seconds, queries) in &declared.interval {
        // osquery takes whole minutes only.
        if let Some(seconds) = seconds.parse().ok().filter(|seconds| *seconds > 0 && seconds % 60 == 0) {
            add(queries, Some(Duration::from_secs(seconds)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decorators_of_all_kinds_are_found_and_what_osquery_refuses_is_not() {
        let text = r#"
            # a comment
            {"decorators": {
                // another
                "load": ["SELECT 1 AS a", 5], "always": ["SELECT 2 AS b"],
                "interval": {"600": ["SELECT 3 AS c"], "61": ["SELECT 4 AS d"], "x": ["SELECT 5 AS e"]}}}"#;
        let found = declared(&parse(text).unwrap());
        let expected = [("SELECT 1 AS a", None), ("SELECT 2 AS b", Some(60)), ("SELECT 3 AS c", Some(600))];
        let found: Vec<_> = found.iter().map(|d| (d.sql.as_str(), d.every.map(|every| every.as_secs()))).collect();
        assert_eq!(found, expected);
        assert!(declared(&parse("{}").unwrap()).is_empty() && parse("no JSON").is_none());
        assert_eq!(declared(&parse(pack::SHIPPED).unwrap()).len(), 2, "the shipped pack's");
    }
}
