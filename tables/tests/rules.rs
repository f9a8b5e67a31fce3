//! What holds for every table, whoever adds the next.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_history::{ColumnSpec, ColumnType, Role, TableKind, TableSchema};
use mayfly_tables::{TABLES, find};

fn schemas() -> impl Iterator<Item = &'static TableSchema> {
    TABLES.iter().map(|table| table.schema())
}

fn columns() -> impl Iterator<Item = (&'static TableSchema, &'static ColumnSpec)> {
    schemas().flat_map(|schema| schema.columns.iter().map(move |column| (schema, column)))
}

fn is_snake_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn names_are_snake_case_unique_and_tell_the_kind() {
    let mut seen = BTreeSet::new();
    for schema in schemas() {
        assert!(is_snake_case(schema.name) && seen.insert(schema.name), "{}", schema.name);
        match schema.kind {
            TableKind::Events => assert!(schema.name.ends_with("_events") || schema.name == "triggered_results", "{}", schema.name),
            TableKind::History => assert!(schema.name.ends_with("_history"), "{}", schema.name),
            TableKind::Live => assert!(schema.name.starts_with("recorder_") || schema.name == "host_identity", "{}", schema.name),
        }
        assert!(std::ptr::eq(find(schema.name).unwrap().schema(), schema));
        let names: BTreeSet<_> = schema.columns.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), schema.columns.len(), "{} has a column twice", schema.name);
        assert!(names.iter().all(|name| is_snake_case(name)), "{}", schema.name);
    }
    assert!(find("nothing").is_none());
}

/// SQLite tells which columns a statement reads in 64 bits, of which the last stands for all others: a parameter past
/// it would seem to be used whenever one of the others is.
#[test]
fn no_table_has_more_columns_than_the_planner_can_tell_apart() {
    for schema in schemas() {
        assert!(schema.columns.len() <= 63, "{}", schema.name);
    }
}

#[test]
fn everything_is_documented_in_sentences() {
    let sentence = |text: &str| text.ends_with('.') && text.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || c == '`');
    for (schema, column) in columns() {
        assert!(sentence(column.doc), "{}.{}: {}", schema.name, column.name, column.doc);
    }
    for schema in schemas() {
        assert!(sentence(schema.doc), "{}", schema.name);
        assert!(schema.examples.len() >= 2, "{} needs examples", schema.name);
        for (what, sql) in schema.examples {
            assert!(sentence(what) && sql.ends_with(';') && sql.contains(schema.name), "{}: {what}", schema.name);
        }
    }
}

#[test]
fn types_follow_the_names() {
    const BIGINT: [&str; 21] = [
        "uid_signed",
        "gid_signed",
        "shed",
        "time",
        "valid_from",
        "valid_to",
        "pid",
        "ns_pid",
        "parent",
        "uid",
        "gid",
        "euid",
        "auid",
        "cgroup_id",
        "lease_seconds",
        "size",
        "total_vm",
        "rss",
        "events",
        "evicted",
        "rejected",
    ];
    const INTEGER: [&str; 10] =
        ["recovered", "complete", "exit_code", "signal", "oom_killed", "privileged", "removable", "prefix_length", "family", "protocol"];
    for (schema, column) in columns() {
        let name = column.name;
        // Core has a process's parent, a number, and a device's, a name.
        if name == "parent" && schema.position("device_number").is_some() {
            assert_eq!(column.kind, ColumnType::Text, "{}", schema.name);
            continue;
        }
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        let kind = if BIGINT.contains(&name)
            || ends(&["_ns", "_ms", "_time", "_size", "_count"])
            || ["lost_in_kernel", "restarts"].contains(&name)
        {
            ColumnType::BigInt
        } else if INTEGER.contains(&name) || name.ends_with("_port") {
            ColumnType::Integer
        } else {
            ColumnType::Text
        };
        assert_eq!(column.kind, kind, "{}.{name}", schema.name);
    }
}

/// `op` 0 becomes INDEX in osquery, which would let the planner put the table on the inner side of any join.
#[test]
fn every_column_tells_the_planner_what_it_is() {
    for (schema, column) in columns() {
        let expected = match column.role {
            Role::Plain => 8,
            Role::Index => 9,
            Role::Time => 4,
            Role::Eid => 16,
            Role::Parameter => 20,
        };
        assert_eq!(column.op(), expected | if column.hidden { 16 } else { 0 }, "{}.{}", schema.name, column.name);
        assert!(column.role != Role::Parameter || column.hidden, "{}.{} must be hidden", schema.name, column.name);
        assert!(column.role != Role::Parameter || !column.stored, "{}.{} is not stored", schema.name, column.name);
        assert!(column.role != Role::Index || column.stored, "{}.{}", schema.name, column.name);
        let is_history = schema.kind == TableKind::History;
        assert!(column.role != Role::Index || column.kind == ColumnType::Text || is_history, "{}.{}", schema.name, column.name);
    }
}

#[test]
fn events_begin_and_histories_end_with_the_columns_of_their_kind() {
    const E: [&str; 4] = ["time", "time_ns", "eid", "consumer"];
    const H: [&str; 8] = ["valid_from", "valid_to", "valid_from_ns", "valid_to_ns", "ended_reason", "evidence", "complete", "as_of"];
    for schema in schemas() {
        let names: Vec<_> = schema.columns.iter().map(|c| c.name).collect();
        match schema.kind {
            TableKind::Events => assert!(names.starts_with(&E), "{}", schema.name),
            TableKind::History => {
                assert!(names.ends_with(&H), "{}", schema.name);
                assert_eq!(schema.columns[0].role, Role::Index, "{} is found by its first column", schema.name);
                let keys = schema.columns.iter().filter(|c| c.role == Role::Index).count();
                assert_eq!(keys, 1, "{} is found by nothing else", schema.name);
            }
            TableKind::Live => assert!(schema.stored().next().is_none(), "{} is not stored", schema.name),
        }
    }
}

#[test]
fn a_name_has_one_type_everywhere_and_shared_columns_one_meaning() {
    let mut types = BTreeMap::new();
    for (schema, column) in columns().filter(|(_, column)| column.name != "parent") {
        let before = types.insert(column.name, column.kind);
        assert!(before.is_none_or(|kind| kind == column.kind), "{}.{}", schema.name, column.name);
    }
    const K: [&str; 11] = [
        "pod_name",
        "pod_namespace",
        "pod_uid",
        "pod_container",
        "sandbox_id",
        "ecs_cluster",
        "ecs_task_arn",
        "ecs_task_family",
        "ecs_container",
        "compose_project",
        "compose_service",
    ];
    let docs = |table: &str| {
        let schema = find(table).unwrap().schema();
        let start = schema.position(K[0]).unwrap();
        schema.columns[start..start + K.len()].iter().map(|c| (c.name, c.doc)).collect::<Vec<_>>()
    };
    assert_eq!(docs("container_lifecycle_events"), docs("container_history"));
    assert_eq!(docs("container_history").iter().map(|(name, _)| *name).collect::<Vec<_>>(), K);
}
