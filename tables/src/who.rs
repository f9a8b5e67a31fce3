//! Whose it is: the columns C, which every table of processes, sockets and addresses has.
//!
//! A row keeps the container's key; name, image and pod are looked up in `container_history` when the row is read, as of
//! its time, so that what became known of the container later shows too.

use std::collections::HashMap;

use mayfly_history::{
    Cell, Column, Nanos, TableSchema,
    container::ContainerKey,
    store::{IntervalScan, Limit, Reader, StoreError},
    text,
};

use crate::{container_history::CONTAINER_HISTORY, query::Query};

/// A record of something that a container, or the host, did or had.
pub(crate) trait OfWhom: 'static {
    /// With an empty id: the host's.
    fn whose(&self) -> &ContainerKey;
}

pub(crate) const fn container_id<R: OfWhom>() -> Column<R> {
    text("container_id", |r: &R| Some((&*r.whose().container_id).into()), "Container id, as its runtime spells it; empty for the host.")
        .index()
}

pub(crate) const fn container_name<R: OfWhom>() -> Column<R> {
    text("container_name", |_| None, "Name of the container, without a leading slash.").joined("name")
}

pub(crate) const fn image<R: OfWhom>() -> Column<R> {
    text("image", |_| None, "Image of the container, as it was asked for.").joined("image")
}

pub(crate) const fn pod_name<R: OfWhom>() -> Column<R> {
    text("pod_name", |_| None, "Kubernetes pod of the container.").joined("pod_name")
}

pub(crate) const fn pod_namespace<R: OfWhom>() -> Column<R> {
    text("pod_namespace", |_| None, "Kubernetes namespace of the pod.").joined("pod_namespace")
}

pub(crate) const fn runtime_namespace<R: OfWhom>() -> Column<R> {
    text(
        "runtime_namespace",
        |r: &R| Some((&*r.whose().runtime_namespace).into()),
        "Namespace within the runtime, where it is known: `moby`, `k8s.io`, `default`.",
    )
    .hidden()
}

pub(crate) const fn endpoint<R: OfWhom>() -> Column<R> {
    text("endpoint", |r: &R| Some((&*r.whose().endpoint).into()), "Socket of the runtime, where it is known.").hidden()
}

/// Containers whose states are remembered during one answer.
const MOST_REMEMBERED: usize = 4096;

/// Where a declared column's value comes from: its position among the stored cells, or among the joined columns.
#[derive(Clone, Copy, Debug)]
enum Place {
    Stored(usize),
    Joined(usize),
}

/// A state of a container, as far as the joined columns need it.
#[derive(Debug)]
struct State {
    from_ns: Nanos,
    to_ns: Nanos,
    runtime_namespace: String,
    endpoint: String,
    values: Vec<Option<String>>,
}

/// Fills the joined columns of the rows of one answer.
#[derive(Debug)]
pub(crate) struct Who<'q> {
    store: &'q Reader,
    history: TableSchema,
    places: Vec<Place>,
    /// Positions among the stored cells: id, runtime namespace, endpoint.
    key: [usize; 3],
    scan: IntervalScan,
    /// Positions in a state's cells of the joined columns, then of runtime namespace and endpoint; empty if none is read.
    sought: Vec<usize>,
    remembered: HashMap<String, Vec<State>>,
}

impl<'q> Who<'q> {
    /// `None`: the table has no such columns. `wanted` are the stored columns that the caller will read; those of the key are added.
    pub(crate) fn new(schema: &TableSchema, query: &Query, store: &'q Reader, wanted: &mut [bool]) -> Option<Self> {
        let declared: Vec<_> = schema.columns.iter().enumerate().filter(|(_, c)| c.stored || c.joined.is_some()).collect();
        let joined: Vec<&str> = declared.iter().filter_map(|(_, c)| c.joined).collect();
        if joined.is_empty() {
            return None;
        }
        let (mut stored_so_far, mut joined_so_far) = (0, 0);
        let next = |count: &mut usize| std::mem::replace(count, *count + 1);
        let places = declared
            .iter()
            .map(|(_, c)| if c.stored { Place::Stored(next(&mut stored_so_far)) } else { Place::Joined(next(&mut joined_so_far)) })
            .collect();
        let key = ["container_id", "runtime_namespace", "endpoint"].map(|name| schema.stored().position(|c| c.name == name).unwrap_or(0));
        let history = CONTAINER_HISTORY.schema();
        let mut scan = IntervalScan { limit: Limit::Newest(1024), ..IntervalScan::default() };
        let mut sought = Vec::new();
        if declared.iter().any(|(column, c)| c.joined.is_some() && query.wants(*column)) {
            for position in key {
                if let Some(wanted) = wanted.get_mut(position) {
                    *wanted = true;
                }
            }
            let position = |name: &str| history.stored().position(|c| c.name == name).unwrap_or(0);
            sought = joined.iter().copied().chain(["runtime_namespace", "endpoint"]).map(position).collect();
            scan.wanted = (0..history.stored().count()).map(|column| sought.contains(&column)).collect();
        }
        debug_assert!(schema.stored().any(|c| c.name == "container_id"));
        Some(Self { store, history, places, key, scan, sought, remembered: HashMap::new() })
    }

    /// Adds a cell for each declared column to `row`, of a record that has these stored cells and happened at `at_ns`.
    pub(crate) fn fill<'c>(&'c mut self, row: &mut Vec<Cell<'c>>, cells: &[Cell<'c>], at_ns: Nanos) -> Result<(), StoreError> {
        let [id, runtime_namespace, endpoint] = self.key.map(|position| match cells.get(position) {
            Some(Cell::Text(text)) => *text,
            _ => "",
        });
        if !self.sought.is_empty() && !id.is_empty() {
            self.remember(id)?;
        }
        let state = self.remembered.get(id).and_then(|states| choose(states, runtime_namespace, endpoint, at_ns));
        row.extend(self.places.iter().map(|place| match *place {
            Place::Stored(position) => cells.get(position).copied().unwrap_or(Cell::Null),
            Place::Joined(position) => match state.and_then(|s| s.values.get(position)) {
                Some(Some(value)) => Cell::Text(value),
                _ => Cell::Text(""),
            },
        }));
        Ok(())
    }

    fn remember(&mut self, id: &str) -> Result<(), StoreError> {
        if self.remembered.contains_key(id) {
            return Ok(());
        }
        if self.remembered.len() >= MOST_REMEMBERED {
            self.remembered.clear();
        }
        self.scan.keys = vec![id.to_owned()];
        let mut states = Vec::new();
        self.store.intervals(&self.history, &self.scan, &mut |interval| {
            let text = |position: &usize| match interval.cells.get(*position) {
                Some(Cell::Text(text)) => Some((*text).to_owned()),
                _ => None,
            };
            let mut values: Vec<_> = self.sought.iter().map(text).collect();
            let endpoint = values.pop().flatten().unwrap_or_default();
            let runtime_namespace = values.pop().flatten().unwrap_or_default();
            let to_ns = interval.valid_to_ns.unwrap_or(Nanos::MAX);
            states.push(State { from_ns: interval.valid_from_ns, to_ns, runtime_namespace, endpoint, values });
            std::ops::ControlFlow::Continue(())
        })?;
        self.remembered.insert(id.to_owned(), states);
        Ok(())
    }
}

/// The state at `at_ns`, or the nearest: a process may be seen a little before its container, and after it. Nothing is guessed where
/// several containers have the id and the record does not say which.
fn choose<'s>(states: &'s [State], runtime_namespace: &str, endpoint: &str, at_ns: Nanos) -> Option<&'s State> {
    let is_named = |s: &&State| (endpoint.is_empty() || s.endpoint == endpoint) && s.runtime_namespace == runtime_namespace;
    let named: Vec<&State> = states.iter().filter(is_named).collect();
    let candidates =
        if named.is_empty() { states.iter().filter(|s| endpoint.is_empty() || s.endpoint == endpoint).collect() } else { named };
    let first = candidates.first()?;
    if candidates.iter().any(|s| (&s.endpoint, &s.runtime_namespace) != (&first.endpoint, &first.runtime_namespace)) {
        return None;
    }
    let distance = |s: &&&State| {
        if at_ns < s.from_ns {
            s.from_ns.abs_diff(at_ns)
        } else if at_ns >= s.to_ns {
            at_ns.abs_diff(s.to_ns).saturating_add(1)
        } else {
            0
        }
    };
    candidates.iter().min_by_key(distance).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(from_ns: Nanos, to_ns: Nanos, endpoint: &str, name: &str) -> State {
        let values = vec![Some(name.to_owned())];
        State { from_ns, to_ns, runtime_namespace: "moby".into(), endpoint: endpoint.into(), values }
    }

    fn name<'s>(states: &'s [State], namespace: &str, endpoint: &str, at_ns: Nanos) -> Option<&'s str> {
        choose(states, namespace, endpoint, at_ns)?.values[0].as_deref()
    }

    #[test]
    fn the_state_of_its_time_is_chosen_or_else_the_nearest() {
        let states = [state(10, 20, "a", "old"), state(20, 30, "a", "new")];
        for (at_ns, expected) in [(0, "old"), (10, "old"), (19, "old"), (20, "new"), (29, "new"), (30, "new"), (99, "new")] {
            assert_eq!(name(&states, "moby", "", at_ns), Some(expected), "{at_ns}");
        }
    }

    #[test]
    fn nothing_is_guessed_where_two_containers_have_the_id() {
        let states = [state(10, 20, "a", "one"), state(10, 20, "b", "two")];
        assert_eq!(name(&states, "moby", "", 15), None);
        assert_eq!(name(&states, "moby", "b", 15), Some("two"));
        assert_eq!(name(&states[..1], "", "", 15), Some("one"), "a namespace that the kernel does not tell is no contradiction");
    }
}
