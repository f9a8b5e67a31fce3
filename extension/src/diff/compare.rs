//! What changed between two sets of rows.

use std::collections::BTreeMap;

/// The values of a table's own columns, as text.
pub(super) type Row = Vec<String>;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Removed(Row),
    Added(Row),
    Changed { from: Row, to: Row },
}

/// What tells rows apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// Positions of the columns that do. Empty: nothing is said; a row that went and one that came are then one if they are the only ones
    /// with the same first column.
    pub(super) columns: Vec<usize>,
    /// Positions of columns whose changes do not count.
    pub(super) passing: Vec<usize>,
}

impl Identity {
    fn counts(&self, row: &Row) -> Row {
        row.iter().enumerate().filter(|(at, _)| !self.passing.contains(at)).map(|(_, value)| value.clone()).collect()
    }

    /// The columns by which a changed row is known.
    pub(super) fn names(&self) -> &[usize] {
        if self.columns.is_empty() { &[0] } else { &self.columns }
    }

    fn of(&self, row: &Row) -> Row {
        self.names().iter().filter_map(|at| row.get(*at).cloned()).collect()
    }
}

/// The differences, those of one subject beside each other. A row may be there several times.
pub(super) fn compare(before: Vec<Row>, after: Vec<Row>, identity: &Identity) -> Vec<Change> {
    let mut there: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for row in after {
        there.entry(identity.counts(&row)).or_default().push(row);
    }
    let mut subjects: BTreeMap<Row, (Vec<Row>, Vec<Row>)> = BTreeMap::new();
    for row in before {
        if there.get_mut(&identity.counts(&row)).and_then(Vec::pop).is_none() {
            subjects.entry(identity.of(&row)).or_default().0.push(row);
        }
    }
    for row in there.into_values().flatten() {
        subjects.entry(identity.of(&row)).or_default().1.push(row);
    }
    let mut changes = Vec::new();
    for (mut gone, mut come) in subjects.into_values() {
        gone.sort();
        come.sort();
        let alone = gone.len() == 1 && come.len() == 1;
        let pairs = if alone || !identity.columns.is_empty() { gone.len().min(come.len()) } else { 0 };
        changes.extend(gone.drain(..pairs).zip(come.drain(..pairs)).map(|(from, to)| Change::Changed { from, to }));
        changes.extend(gone.into_iter().map(Change::Removed));
        changes.extend(come.into_iter().map(Change::Added));
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        texts.iter().map(|text| text.split(' ').map(str::to_owned).collect()).collect()
    }

    fn shown(before: &[&str], after: &[&str], identity: &Identity) -> Vec<String> {
        let shown = |change| match change {
            Change::Removed(row) => format!("- {}", row.join(" ")),
            Change::Added(row) => format!("+ {}", row.join(" ")),
            Change::Changed { from, to } => format!("~ {} > {}", from.join(" "), to.join(" ")),
        };
        compare(rows(before), rows(after), identity).into_iter().map(shown).collect()
    }

    #[test]
    fn a_row_that_went_and_one_that_came_of_the_same_name_are_one_that_changed() {
        let guess = Identity::default();
        assert_eq!(shown(&["ssl 1", "vim 1"], &["ssl 2", "vim 1", "git 1"], &guess), ["+ git 1", "~ ssl 1 > ssl 2"]);
        assert_eq!(
            shown(&["lo a", "lo b"], &["lo c", "lo b", "lo d"], &guess),
            ["- lo a", "+ lo c", "+ lo d"],
            "which became which is not known"
        );
    }

    #[test]
    fn counters_are_no_changes_and_doubled_rows_count() {
        let identity = Identity { columns: vec![0], passing: vec![1] };
        assert!(shown(&["eth0 5 up"], &["eth0 6 up"], &identity).is_empty());
        assert_eq!(shown(&["eth0 5 up"], &["eth0 6 down"], &identity), ["~ eth0 5 up > eth0 6 down"]);
        assert_eq!(shown(&["a b", "a b"], &["a b"], &Identity::default()), ["- a b"]);
    }

    proptest! {
        /// The law: what is there before, without what went and with what came, is what is there after.
        #[test]
        fn the_changes_lead_from_one_to_the_other(
            before in prop::collection::vec(prop::collection::vec("[ab]", 2), 0..8),
            after in prop::collection::vec(prop::collection::vec("[ab]", 2), 0..8),
            by_first: bool,
        ) {
            let identity = Identity { columns: if by_first { vec![0] } else { Vec::new() }, passing: Vec::new() };
            let mut led = before.clone();
            let go = |led: &mut Vec<Row>, row: &Row| {
                let at = led.iter().position(|found| found == row).expect("what went was there");
                led.swap_remove(at);
            };
            for change in compare(before, after.clone(), &identity) {
                match change {
                    Change::Removed(row) => go(&mut led, &row),
                    Change::Added(row) => led.push(row),
                    Change::Changed { from, to } => {
                        prop_assert_ne!(&from, &to);
                        go(&mut led, &from);
                        led.push(to);
                    }
                }
            }
            led.sort();
            let mut after = after;
            after.sort();
            prop_assert_eq!(led, after);
        }
    }
}
