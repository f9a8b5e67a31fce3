//! What holds of every history table, whoever adds the next: what held at an instant, in WHERE, in JOIN and over a range, and where
//! nobody saw it.

use std::path::Path;

use mayfly::sql::Database;
use mayfly_history::{
    Cell, ColumnType, Nanos, Role, TableKind, TableSchema,
    feed::Gap,
    store::{Interval, RowBuf, StoreOptions, Writer},
};
use mayfly_tables::TABLES;
use proptest::prelude::*;

use crate::answer;

/// Ahead of any clock: nothing lies before the first record.
const T0: Nanos = 4_000_000_000_000_000_000;
const SECOND: Nanos = 1_000_000_000;

/// What held of `key` in `scope`, in seconds after `T0`.
#[derive(Clone, Copy, Debug)]
struct Held {
    key: &'static str,
    scope: &'static str,
    from: i64,
    to: Option<i64>,
    reason: &'static str,
}

const fn held(key: &'static str, scope: &'static str, from: i64, to: Option<i64>, reason: &'static str) -> Held {
    Held { key, scope, from, to, reason }
}

const ALL: [Held; 10] = [
    held("1", "a", 10, Some(20), "changed"),
    held("1", "a", 20, Some(30), "removed"),
    held("1", "a", 40, None, ""),
    held("1", "b", 15, Some(25), "removed"),
    held("2", "a", 5, Some(27), "unknown"),
    held("2", "a", 27, None, ""),
    held("3", "a", 23, Some(24), "removed"),
    held("3", "a", 24, Some(50), "removed"),
    held("4", "a", 60, Some(60), "removed"),
    held("5", "a", 12, None, ""),
];
/// Nobody saw anything then.
const BLIND: (i64, i64) = (22, 27);

impl Held {
    fn start_ns(&self) -> Nanos {
        T0 + self.from * SECOND
    }

    fn end_ns(&self) -> Option<Nanos> {
        self.to.map(|to| T0 + to * SECOND)
    }

    fn holds(&self, at_ns: Nanos) -> bool {
        self.start_ns() <= at_ns && self.end_ns().is_none_or(|to| at_ns < to)
    }

    /// Key, start and end, as the queries below give them.
    fn row(&self) -> String {
        format!("{}|{}|{}", self.key, self.start_ns(), self.end_ns().map(|to| to.to_string()).unwrap_or_default())
    }
}

/// A history table with these intervals in it.
struct Bench {
    schema: &'static TableSchema,
    key: &'static str,
    database: Database,
    _dir: tempfile::TempDir,
}

fn histories() -> impl Iterator<Item = &'static TableSchema> {
    TABLES.iter().map(|table| table.schema()).filter(|schema| schema.kind == TableKind::History)
}

impl Bench {
    fn with(schema: &'static TableSchema, intervals: &[Held]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(schema, intervals, dir.path());
        let key = schema.columns.iter().find(|column| column.role == Role::Index).unwrap().name;
        Self { schema, key, database: Database::open(dir.path()).unwrap(), _dir: dir }
    }

    fn ask(&self, sql: &str) -> Vec<String> {
        answer(&self.database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Key, start and end of the rows that `rest` selects of the table `h`.
    fn rows(&self, rest: &str) -> Vec<String> {
        self.ask(&format!("SELECT h.{}, h.valid_from_ns, h.valid_to_ns FROM {} h {rest}", self.key, self.schema.name))
    }
}

fn write(schema: &'static TableSchema, intervals: &[Held], dir: &Path) {
    let mut writer = Writer::open(dir, &StoreOptions::default()).unwrap().writer;
    let log = writer.history(schema).unwrap();
    let mut transaction = writer.begin().unwrap();
    let mut row = RowBuf::default();
    for held in intervals {
        row.clear();
        for column in schema.stored() {
            row.push(match (column.role, column.kind) {
                (Role::Index, ColumnType::Text) => Cell::Text(held.key),
                (Role::Index, _) => Cell::Int(held.key.parse().unwrap()),
                (_, ColumnType::Text) => Cell::Text(""),
                _ => Cell::Null,
            });
        }
        let interval = Interval {
            key: held.key,
            scope: held.scope,
            valid_from_ns: held.start_ns(),
            valid_to_ns: held.end_ns(),
            ended_reason: held.reason,
            evidence: "somebody",
        };
        transaction.put_interval(log, &interval, &row).unwrap();
    }
    for (source, (from, to)) in [("recorder", BLIND), ("who has nothing to do with it", (0, 100))] {
        let gap = Gap {
            source: source.into(),
            endpoint: String::new(),
            cause: "recorder_down".into(),
            from_ns: T0 + from * SECOND,
            to_ns: Some(T0 + to * SECOND),
            recovered: 0,
            detail: String::new(),
        };
        transaction.put_gap(&gap).unwrap();
    }
    transaction.commit().unwrap();
}

fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
}

fn holding(intervals: &[Held], at_ns: Nanos) -> Vec<String> {
    sorted(intervals.iter().filter(|held| held.holds(at_ns)).map(Held::row))
}

/// Every instant at which something changes, and those beside it.
fn instants() -> Vec<Nanos> {
    let ends = ALL.iter().flat_map(|held| [Some(held.start_ns()), held.end_ns()]).flatten();
    let mut instants: Vec<_> = ends.flat_map(|at| [at - 1, at, at + 1]).collect();
    instants.sort_unstable();
    instants.dedup();
    instants
}

#[test]
fn as_of_gives_what_held_at_that_instant_in_every_spelling() {
    for schema in histories() {
        let bench = Bench::with(schema, &ALL);
        for at_ns in instants() {
            let expected = holding(&ALL, at_ns);
            let at = |spelt: &str| bench.rows(&format!("WHERE h.as_of = '{spelt}'"));
            assert_eq!(at(&at_ns.to_string()), expected, "{} as of {at_ns}", schema.name);
            let spelt = format!("{}.{:09}", at_ns / SECOND, at_ns % SECOND);
            assert_eq!(at(&spelt), expected, "{} as of {spelt}", schema.name);
            let formula = format!("WHERE h.valid_from_ns <= {at_ns} AND (h.valid_to_ns > {at_ns} OR h.valid_to_ns IS NULL)");
            assert_eq!(bench.rows(&formula), expected, "{} by the formula at {at_ns}", schema.name);
        }
        assert_eq!(bench.rows(&format!("WHERE h.as_of = '{}'", T0 / SECOND + 22)), holding(&ALL, T0 + 22 * SECOND));
        assert_eq!(bench.rows("WHERE h.as_of = '2096-10-02T07:06:52Z'"), holding(&ALL, T0 + 12 * SECOND), "{}", schema.name);
        assert_eq!(bench.rows(""), sorted(ALL.iter().map(Held::row)), "{} without as_of has all", schema.name);
        assert_eq!(bench.rows("WHERE h.valid_to IS NULL").len(), 3, "{}: what holds now", schema.name);
    }
}

#[test]
fn as_of_in_a_join_asks_anew_for_each_instant() {
    for schema in histories() {
        let bench = Bench::with(schema, &ALL);
        let values: Vec<_> = instants().iter().flat_map(|at| ["1", "2", "9"].map(|key| format!("({at}, '{key}')"))).collect();
        let asked = format!("WITH asked(at, key) AS MATERIALIZED (VALUES {}) ", values.join(", "));
        let (key, name) = (bench.key, schema.name);
        let join = |kind: &str, on: &str| {
            let of_asked = if kind == "LEFT JOIN" { "asked.key" } else { "''" };
            bench.ask(&format!("{asked}SELECT asked.at, {of_asked}, h.valid_from_ns FROM asked {kind} {name} h ON {on}"))
        };
        let model = |kind: &str| {
            let of = |at: Nanos, key: &'static str| {
                let found: Vec<_> =
                    ALL.iter().filter(|held| held.key == key && held.holds(at)).map(|held| held.start_ns().to_string()).collect();
                match kind {
                    "LEFT JOIN" if found.is_empty() => vec![format!("{at}|{key}|")],
                    "LEFT JOIN" => found.iter().map(|from| format!("{at}|{key}|{from}")).collect(),
                    _ => found.iter().map(|from| format!("{at}||{from}")).collect(),
                }
            };
            sorted(instants().into_iter().flat_map(|at| ["1", "2", "9"].into_iter().flat_map(move |key| of(at, key)).collect::<Vec<_>>()))
        };
        for kind in ["LEFT JOIN", "CROSS JOIN"] {
            assert_eq!(join(kind, &format!("h.{key} = asked.key AND h.as_of = asked.at")), model(kind), "{kind} {name}");
        }
        let outer = format!("SELECT count(*) FROM {name} h CROSS JOIN (SELECT {T0} AS at) e ON h.as_of = e.at");
        let error = answer(&bench.database, &outer).unwrap_err();
        assert!(error.contains(&format!("put {name} on the inner side")), "{name}: {error}");
    }
}

#[test]
fn a_range_of_starts_or_ends_is_inclusive_and_exact() {
    for schema in histories() {
        let bench = Bench::with(schema, &ALL);
        let of = |matches: &dyn Fn(&Held) -> bool| sorted(ALL.iter().filter(|held| matches(held)).map(Held::row));
        let second = T0 / SECOND;
        for (low, high) in [(0, 100), (10, 20), (20, 20), (24, 30), (61, 99), (30, 10)] {
            let between = |column: &str| bench.rows(&format!("WHERE h.{column} BETWEEN {} AND {}", second + low, second + high));
            let within = |at: i64| (low..=high).contains(&at);
            assert_eq!(between("valid_from"), of(&|held| within(held.from)), "{} {low} {high}", schema.name);
            assert_eq!(between("valid_to"), of(&|held| held.to.is_some_and(within)), "{} {low} {high}", schema.name);
            let nanos =
                |column: &str| bench.rows(&format!("WHERE h.{column} BETWEEN {} AND {}", T0 + low * SECOND + 1, T0 + high * SECOND));
            let after = |at: i64| low < at && at <= high;
            assert_eq!(nanos("valid_from_ns"), of(&|held| after(held.from)), "{} {low} {high}", schema.name);
            assert_eq!(nanos("valid_to_ns"), of(&|held| held.to.is_some_and(after)), "{} {low} {high}", schema.name);
            let of_some = format!("WHERE h.{} IN ('1', '3') AND h.valid_from BETWEEN {} AND {}", bench.key, second + low, second + high);
            let expected = of(&|held| ["1", "3"].contains(&held.key) && within(held.from));
            assert_eq!(bench.rows(&of_some), expected, "{} {low} {high}", schema.name);
        }
    }
}

/// A fact that was there on both sides of a blind time was there within it; one that began or ended within may have begun or ended at
/// any moment of it, and others may have been there of which nobody knows.
#[test]
fn a_blind_time_makes_incomplete_what_it_may_have_hidden() {
    // Seconds after T0, and key, start and completeness of what held then.
    let cases: [(i64, &[&str]); 5] = [
        (21, &["1|15|1", "1|20|1", "2|5|1", "5|12|1"]),
        (22, &["1|15|0", "1|20|1", "2|5|0", "5|12|1"]),
        (24, &["1|15|0", "1|20|1", "2|5|0", "3|24|0", "5|12|1"]),
        (27, &["1|20|1", "2|27|1", "3|24|1", "5|12|1"]),
        (45, &["1|40|1", "2|27|1", "3|24|1", "5|12|1"]),
    ];
    let incomplete = ["1|15", "2|5", "3|23", "3|24"];
    for schema in histories() {
        let bench = Bench::with(schema, &ALL);
        let start = format!("h.{}, (h.valid_from_ns - {T0}) / {SECOND}", bench.key);
        for (at, expected) in cases {
            let sql = format!("SELECT {start}, h.complete FROM {} h WHERE h.as_of = '{}'", schema.name, T0 + at * SECOND);
            assert_eq!(bench.ask(&sql), sorted(expected.iter().map(|row| (*row).to_owned())), "{} at {at}", schema.name);
        }
        let sql = format!("SELECT {start} FROM {} h WHERE h.complete = 0", schema.name);
        assert_eq!(bench.ask(&sql), incomplete, "{} as a whole", schema.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The law of all of it: what is given as of an instant is what the intervals say, however they lie.
    #[test]
    fn whatever_held_is_found_at_every_instant(
        lives in prop::collection::vec((0usize..3, prop::collection::btree_set(0i64..40, 1..8), any::<bool>()), 1..6),
        asked in prop::collection::vec(-1i64..42, 1..6),
    ) {
        const KEYS: [&str; 3] = ["1", "2", "3"];
        const SCOPES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        // Of one key and scope, one interval follows on another.
        let of_life = |(scope, (key, bounds, open)): (usize, (usize, std::collections::BTreeSet<i64>, bool))| {
            let bounds: Vec<_> = bounds.into_iter().collect();
            let ends = bounds.iter().copied().skip(1).map(Some).chain(open.then_some(None));
            bounds.clone().into_iter().zip(ends.collect::<Vec<_>>()).map(move |(from, to)| held(KEYS[key], SCOPES[scope], from, to, "")).collect::<Vec<_>>()
        };
        let intervals: Vec<Held> = lives.into_iter().enumerate().flat_map(of_life).collect();
        let schema = histories().nth(asked.len() % histories().count()).unwrap();
        let bench = Bench::with(schema, &intervals);
        for at in asked {
            let at_ns = T0 + at * SECOND;
            prop_assert_eq!(bench.rows(&format!("WHERE h.as_of = '{at_ns}'")), holding(&intervals, at_ns));
            for key in KEYS {
                let of_key: Vec<_> = intervals.iter().copied().filter(|held| held.key == key).collect();
                let rows = bench.rows(&format!("WHERE h.{} = '{key}' AND h.as_of = '{at_ns}'", bench.key));
                prop_assert_eq!(rows, holding(&of_key, at_ns));
            }
        }
    }
}
