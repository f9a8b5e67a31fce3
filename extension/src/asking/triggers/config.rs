//! `[[trigger]]`, read and judged before anything depends on it.

use std::{collections::BTreeSet, time::Duration};

use mayfly_history::TableKind;
use mayfly_tables::{Home, TABLES, Table, find};
use serde::Deserialize;

use super::condition::Conditions;
use crate::{
    asking::{Refused, template::Template},
    config::{Entry, Texts},
};

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    /// An event table.
    on: String,
    /// A condition of SQL on its columns. Default: every event.
    when: Option<String>,
    /// What osquery is asked; `:column` is the event's value.
    run: Texts,
    /// Seconds in which it fires once. Default 0.
    #[serde(default)]
    cooldown: u32,
    /// Columns for each of whose values the cooldown counts by itself. Default: none, it counts for all events.
    #[serde(default)]
    per: Vec<String>,
    /// Default: no limit.
    max_per_minute: Option<u16>,
    /// Seconds that osquery may take. Default 10.
    #[serde(default = "usual_timeout")]
    timeout: u16,
}

const fn usual_timeout() -> u16 {
    10
}

/// A trigger that can fire.
pub(crate) struct Trigger {
    pub(super) name: String,
    pub(super) table: &'static dyn Table,
    pub(super) when: String,
    pub(super) run: Vec<Template>,
    pub(super) cooldown: Duration,
    /// Positions of the columns whose values have a cooldown each.
    pub(super) per: Vec<usize>,
    pub(super) max_per_minute: Option<usize>,
    pub(super) patience: Duration,
    /// Positions of the columns that it reads.
    pub(super) reads: BTreeSet<usize>,
}

/// Every trigger, or why it is left out.
pub(super) fn read_all(entries: &[Entry]) -> Vec<Result<Trigger, Refused>> {
    let mut names = BTreeSet::new();
    let read = |entry: &Entry| {
        let trigger = Trigger::read(entry)?;
        if !names.insert(trigger.name.clone()) {
            return Err("there is a trigger of that name before".to_owned());
        }
        Ok(trigger)
    };
    Refused::sort(super::KIND, entries, read)
}

impl Trigger {
    fn read(entry: &Entry) -> Result<Self, String> {
        let written: Written = entry.read()?;
        let table = table(&written.on)?;
        let schema = table.schema();
        let when = written.when.unwrap_or_else(|| "1".to_owned());
        let mut reads = Conditions::over(schema).and_then(|mut conditions| conditions.prepare(&when));
        let mut reads = std::mem::take(reads.as_mut().map_err(|error| format!("`when`: {error}"))?);
        let column = |name: &str| schema.position(name).filter(|at| schema.columns[*at].name != "consumer");
        let run = written.run.as_slice().iter().map(|sql| Template::parse(sql, column).map_err(|error| format!("`run`: {error}")));
        let run = run.collect::<Result<Vec<_>, _>>()?;
        if run.is_empty() {
            return Err("`run` asks nothing".to_owned());
        }
        let per = written.per.iter().map(|name| column(name).ok_or_else(|| format!("`per`: {} has no column {name:?}", schema.name)));
        let per = per.collect::<Result<Vec<_>, _>>()?;
        if !per.is_empty() && written.cooldown == 0 {
            return Err("`per` says for whom a `cooldown` counts, and there is none".to_owned());
        }
        if written.max_per_minute == Some(0) || written.timeout == 0 {
            return Err("`max_per_minute` and `timeout` are at least 1".to_owned());
        }
        reads.extend(run.iter().flat_map(Template::columns).chain(per.iter().copied()));
        Ok(Self {
            name: written.name,
            table,
            when,
            run,
            cooldown: Duration::from_secs(written.cooldown.into()),
            per,
            max_per_minute: written.max_per_minute.map(usize::from),
            patience: Duration::from_secs(written.timeout.into()),
            reads,
        })
    }
}

fn table(name: &str) -> Result<&'static dyn Table, String> {
    let is_event = |table: &&'static dyn Table| table.schema().kind == TableKind::Events;
    match find(name) {
        Some(table) if is_event(&table) && table.home() == Home::Captures => {
            Err(format!("`on`: {name} has what triggers gave: it would fire itself"))
        }
        Some(table) if is_event(&table) => Ok(table),
        _ => {
            let known = TABLES.iter().copied().filter(is_event).filter(|table| table.home() == Home::Recorder);
            let known: Vec<_> = known.map(|table| table.schema().name).collect();
            Err(format!("`on`: there is no event table {name:?}, but {}", known.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Vec<Result<Trigger, Refused>> {
        let config: Config = toml::from_str(text).unwrap();
        read_all(&config.trigger)
    }

    fn refusal(keys: &str) -> String {
        let text = format!("[[trigger]]\nname = \"t\"\n{keys}");
        read(&text).remove(0).err().unwrap_or_else(|| panic!("{keys}: accepted")).why
    }

    #[test]
    fn what_is_wrong_is_said_and_the_others_stay() {
        let on = "on = \"container_lifecycle_events\"\n";
        let run = "run = \"SELECT 1\"\n";
        for (keys, said) in [
            (format!("{on}{run}wen = \"1\""), "wen"),
            (run.to_owned(), "on"),
            (format!("on = \"x\"\n{run}"), "no event table \"x\", but"),
            (format!("on = \"container_history\"\n{run}"), "no event table"),
            (format!("on = \"triggered_results\"\n{run}"), "fire itself"),
            (format!("{on}{run}when = \"acton = 'die'\""), "no such column: acton"),
            (format!("{on}{run}when = \"action = \""), "syntax error"),
            (format!("{on}{run}when = \"1) OR (1\""), "syntax error"),
            (format!("{on}{run}when = \"1; SELECT 1\""), "syntax error"),
            (format!("{on}{run}when = \"action = ?\""), "parameter"),
            (format!("{on}{run}when = \"load_extension('x')\""), "not authorized"),
            (format!("{on}run = \"SELECT :pidd\""), "pidd"),
            (format!("{on}run = \"SELECT :consumer\""), "consumer"),
            (format!("{on}run = \"SELEC 1\""), "only queries"),
            (format!("{on}run = []"), "asks nothing"),
            (format!("{on}run = 1"), "a text, or a list of texts"),
            (format!("{on}{run}per = [\"name\"]"), "cooldown"),
            (format!("{on}{run}cooldown = 1\nper = [\"nam\"]"), "nam"),
            (format!("{on}{run}max_per_minute = 0"), "at least 1"),
        ] {
            let why = refusal(&keys);
            assert!(why.contains(said), "{keys}: {why}");
        }
        let all =
            read(&format!("[[trigger]]\nname = \"a\"\n{on}{run}[[trigger]]\nname = \"a\"\n{on}{run}[[trigger]]\nname = \"b\"\n{on}{run}"));
        let names: Vec<_> = all.iter().map(|read| read.as_ref().map(|t| t.name.clone()).map_err(|r| r.why.clone())).collect();
        assert_eq!(names, [Ok("a".into()), Err("there is a trigger of that name before".into()), Ok("b".into())]);
    }

    #[test]
    fn knows_which_columns_it_reads() {
        let trigger = read(
            "[[trigger]]\nname = \"t\"\non = \"container_lifecycle_events\"\nwhen = \"action = 'die' AND exit_code <> 0\"\n\
             run = [\"SELECT :container_id\", \"SELECT :name, ':pid'\"]\ncooldown = 9\nper = [\"image\"]\n",
        )
        .remove(0)
        .unwrap_or_else(|refused| panic!("{}", refused.why));
        let names: BTreeSet<_> = trigger.reads.iter().map(|at| trigger.table.schema().columns[*at].name).collect();
        assert_eq!(names, BTreeSet::from(["action", "container_id", "exit_code", "image", "name"]));
    }
}
