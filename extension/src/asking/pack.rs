//! The shipped pack, for hosts without a fleet server: handed to osquery whenever we registered with it.

use std::{
    io,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{Feed, chain};
use mayfly_tables::TRIGGERED_RESULTS;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Office, push::PushConfig};

/// The pack as it is shipped: queries of every event table but `triggered_results`, which is pushed, and decorators.
pub(crate) const SHIPPED: &str = include_str!("../../../packaging/osquery/mayfly.conf");

/// The name of the pack, and of the source of configuration that it comes from.
const NAME: &str = "mayfly";
/// How long osquery may take: it runs the pack's decorators, which ask us.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long before it is tried again.
const PAUSE: Duration = Duration::from_secs(10);

/// `[osquery]`: what is done to osquery's own configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OsqueryConfig {
    /// Hand osquery the shipped pack. Default false: a fleet server, or `osquery.conf`, has it.
    pub install_pack: bool,
}

/// Installs the pack at each registration.
pub(super) fn start(office: &Office) -> io::Result<Vec<JoinHandle<()>>> {
    if !office.config().osquery.install_pack {
        return Ok(Vec::new());
    }
    let office = office.clone();
    Ok(vec![thread::Builder::new().name("pack".into()).spawn(move || install(&office))?])
}

fn install(office: &Office) {
    let feed = office.feeds().feed("push", "pack");
    let line = office.line();
    let data = configuration(&office.config().push).to_string();
    let mut installed = 0;
    while let Some(up) = line.wait_for_other(installed, None) {
        match line.manager(PATIENCE).call("config", "update", &[("action", "update"), ("source", NAME), ("data", &data)]) {
            Ok(_) => {
                tracing::info!("osquery has the pack");
                installed = up.number;
                feed.running();
            }
            Err(error) => {
                refused(&feed, chain(&error));
                line.wait_for_end(Instant::now() + PAUSE);
            }
        }
    }
}

fn refused(feed: &Feed, why: String) {
    tracing::warn!(error = why, "osquery did not take the pack");
    feed.failed(why, "tried again; until then osquery schedules no queries of Mayfly's tables by itself");
}

/// The configuration with the pack; without the queries of tables that are pushed: an event is to be logged once.
fn configuration(push: &PushConfig) -> Value {
    let mut pack: Value = serde_json::from_str(SHIPPED).unwrap_or_default();
    if let Some(queries) = pack.get_mut("queries").and_then(Value::as_object_mut) {
        queries.insert(TRIGGERED_RESULTS.name.to_owned(), results());
        queries.retain(|_, query| table_of(query).is_none_or(|table| !push.pushes(table)));
    }
    json!({"packs": {NAME: pack}})
}

/// The query of what triggers gave, for where nothing is pushed.
fn results() -> Value {
    json!({
        "query": format!("SELECT *, eid FROM {};", TRIGGERED_RESULTS.name),
        "interval": 60,
        "snapshot": false,
        "denylist": false,
        "removed": false,
        "description": "What queries gave that were run at event time.",
    })
}

/// The table that a query of the pack reads.
fn table_of(query: &Value) -> Option<&str> {
    let (_, from) = query.get("query")?.as_str()?.split_once(" FROM ")?;
    from.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mayfly_history::TableKind;
    use mayfly_tables::TABLES;
    use tempfile::TempDir;

    use super::*;
    use crate::sql::Database;

    fn queries(pack: &Value) -> impl Iterator<Item = (&String, &Value)> {
        pack["queries"].as_object().unwrap().iter()
    }

    #[test]
    fn the_pack_has_every_event_table_and_schedules_it_so_that_nothing_is_lost() {
        let shipped: Value = serde_json::from_str(SHIPPED).unwrap();
        assert!(queries(&shipped).all(|(_, query)| table_of(query) != Some("triggered_results")), "it is pushed unless nothing is");
        let pack = &configuration(&PushConfig { enabled: false, tables: Vec::new() })["packs"]["mayfly"];
        let asked: BTreeSet<_> = queries(pack).filter_map(|(_, query)| table_of(query)).collect();
        for schema in TABLES.iter().map(|table| table.schema()).filter(|schema| schema.kind == TableKind::Events) {
            assert!(asked.contains(schema.name), "{} is in no query of the pack", schema.name);
        }
        for (name, query) in queries(pack) {
            let sql = query["query"].as_str().unwrap();
            assert!(query["interval"].as_u64().is_some_and(|seconds| (10..=3600).contains(&seconds)), "{name}");
            assert_eq!((&query["denylist"], &query["snapshot"]), (&json!(false), &json!(false)), "{name}: one slow run must not end it");
            assert!(!sql.contains("LIMIT"), "{name}: what LIMIT cuts is lost");
            assert!(query["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
            let is_events = TABLES.iter().any(|t| Some(t.schema().name) == table_of(query) && t.schema().kind == TableKind::Events);
            assert!(!is_events || sql.contains("eid"), "{name}: without eid a repeated event looks like two");
        }
    }

    #[test]
    fn each_query_and_decorator_is_valid_sql_over_our_tables() {
        let dir = TempDir::new().unwrap();
        let database = Database::over(dir.path()).unwrap();
        let pack: Value = serde_json::from_str(SHIPPED).unwrap();
        let decorators = &pack["decorators"];
        let decorators = decorators["load"].as_array().unwrap().iter().chain(decorators["interval"]["600"].as_array().unwrap());
        for sql in queries(&pack).map(|(_, query)| &query["query"]).chain(decorators) {
            let sql = sql.as_str().unwrap();
            database.connection().prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn what_is_pushed_is_not_scheduled_too() {
        let installed = configuration(&PushConfig { enabled: true, tables: vec!["mount_events".into()] });
        let tables: Vec<_> = queries(&installed["packs"]["mayfly"]).filter_map(|(_, query)| table_of(query)).collect();
        assert!(!tables.contains(&"mount_events") && !tables.contains(&"triggered_results") && tables.contains(&"account_events"));
    }
}
