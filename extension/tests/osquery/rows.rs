//! Rows on their way to the wire, and what happens when there are too many of them.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use mayfly::{
    delivery::{Delivery, DeliveryConfig, Registration, Running, Schedule, Scope},
    manager::{Manager, ManagerError, Row},
    thrift::{Answer, Limits, Reply, Server, Service, Strings},
};
use mayfly_history::{Cell, TableSchema, store::Reader};
use mayfly_tables::{CONTAINER_IMAGE_EVENTS, Query, Rows};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::peer::Place;

/// Answers with the rows that it was given, of `image`, `action` and `time`.
struct Fixed {
    rows: Vec<(Option<String>, Option<i64>)>,
    most: usize,
}

fn wanted(schema: &TableSchema) -> Vec<bool> {
    schema.columns.iter().map(|c| ["image", "time"].contains(&c.name)).collect()
}

impl Service for Fixed {
    fn uuid(&self) -> i64 {
        1
    }

    fn call(&self, _: &str, _: &str, _: &Strings) -> Reply {
        let schema = CONTAINER_IMAGE_EVENTS.schema();
        let mut answer = Answer::new(&schema, &wanted(&schema), self.most);
        for (image, time) in &self.rows {
            let mut cells = vec![Cell::Text("not wanted"); schema.columns.len()];
            cells[schema.position("image").unwrap()] = image.as_deref().map_or(Cell::Null, Cell::Text);
            cells[schema.position("time").unwrap()] = time.map_or(Cell::Null, Cell::Int);
            if answer.row(&cells) == ControlFlow::Break(()) {
                assert!(answer.is_full());
                break;
            }
        }
        Reply::Rows(answer.finish())
    }

    fn shutdown(&self) {}
}

fn served(fixed: Fixed) -> Result<Vec<Row>, ManagerError> {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let socket = dir.path().join("s");
    let _server = Server::start(&socket, Arc::new(fixed), Limits::default()).unwrap();
    Manager::new(&socket, Duration::from_secs(10)).call("table", "t", &[])
}

#[test]
fn what_is_written_is_what_generated_code_reads() {
    let rows = proptest::collection::vec((any::<Option<String>>(), any::<Option<i64>>()), 0..40);
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })
        .run(&rows, |rows| {
            let read = served(Fixed { rows: rows.clone(), most: usize::MAX }).unwrap();
            prop_assert_eq!(read.len(), rows.len());
            for (read, (image, time)) in read.iter().zip(&rows) {
                // A row needs at least one column; what is missing in it is '' or NULL to osquery.
                prop_assert!(!read.is_empty());
                prop_assert_eq!(read.get("image").filter(|i| !i.is_empty()), image.as_ref().filter(|i| !i.is_empty()));
                prop_assert_eq!(read.get("time").filter(|t| !t.is_empty()).cloned(), time.map(|t| t.to_string()));
                prop_assert!(!read.contains_key("action"));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_answer_that_is_full_ends_with_a_whole_row() {
    let rows = (0..100).map(|n| (Some("x".repeat(100)), Some(n))).collect();
    let read = served(Fixed { rows, most: 2000 }).unwrap();
    assert!((5..20).contains(&read.len()), "{}", read.len());
    assert!(read.iter().all(|row| row["image"].len() == 100));
}

/// An osquery in which one query runs.
struct Now(u64);

impl Schedule for Now {
    fn running(&self) -> Result<Option<Running>, ManagerError> {
        Ok(Some(Running { query: "q".into(), timestamp: self.0.to_string(), counter: "1".into() }))
    }
}

#[test]
fn a_batch_whose_answer_grew_too_long_is_offered_in_halves() {
    let place = Place::new();
    let mut store = place.store();
    store.record(100);
    let delivery = Delivery::new(&place.state_dir(), DeliveryConfig { max_rows: 80, ..DeliveryConfig::default() });
    let registration = Registration { instance: "i".into(), token: "t".into() };
    let schema = CONTAINER_IMAGE_EVENTS.schema();
    let reader = Reader::open(&place.state_dir()).unwrap();
    let offered = |second| {
        let mut query = Query::default();
        let scope = delivery.narrow(&Now(second), &registration, &reader, &schema, &mut query).unwrap();
        assert_eq!(scope, Scope::Batch { query: "q".into() });
        assert_eq!(query.after, None, "nothing was taken yet");
        query.upto.unwrap().sequence
    };
    // More often than a query that fails would be given.
    let sizes: Vec<_> = (0..7)
        .map(|second| {
            let upto = offered(second);
            delivery.halve(&registration, "q", schema.name).unwrap();
            upto
        })
        .collect();
    assert_eq!(sizes, [80, 40, 20, 10, 5, 2, 1]);
}
