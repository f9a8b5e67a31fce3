//! What a plan of SQLite passes to a table, and what it costs: osquery's rules, so that a query that works here works there.
//!
//! The rules are those of `xBestIndex` and `xFilter` in osquery's `sql/virtual_table.cpp`.

use std::{fmt, str::FromStr};

use mayfly_history::{ColumnType, TableSchema};
use mayfly_tables::Op;

/// osquery's cost of a table without a usable constraint.
const WHOLE_TABLE: f64 = 1_000_000.0;
/// Its cost with one on a column that is INDEX, ADDITIONAL or REQUIRED.
const INDEXED: f64 = 1.0;

const INDEX: u32 = 1;
const ADDITIONAL: u32 = 4;
const OPTIMIZED: u32 = 8;

/// A constraint as the planner offers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// -1 is the rowid.
    pub(super) column: i32,
    /// `None` for LIKE, IS NULL, LIMIT and others that tables do not take.
    pub(super) op: Option<Op>,
    pub(super) usable: bool,
    /// `IN (…)`, whose values could come all at once.
    pub(super) list: bool,
}

/// A constraint that is passed on to the table, or at least into the argument list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) column: usize,
    pub(super) op: Option<Op>,
    /// The argument holds all values of an IN.
    pub(super) list: bool,
}

/// The arguments of one plan, in order, and the columns that the statement reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) taken: Vec<Taken>,
    /// SQLite's mask: a bit for each of the first 63 columns, the last bit for all others.
    pub(super) read: u64,
}

/// Decides about each offer (its place in [`Plan::taken`], if taken) and about the cost.
pub(super) fn choose(schema: &TableSchema, offers: &[Offer], read: u64) -> (Plan, Vec<Option<usize>>, f64) {
    let mut plan = Plan { taken: Vec::new(), read };
    let mut cost = WHOLE_TABLE;
    let mut places = Vec::with_capacity(offers.len());
    for offer in offers {
        let column = usize::try_from(offer.column).ok().and_then(|i| Some((i, schema.columns.get(i)?)));
        places.push(match column {
            Some((_, spec)) if offer.usable && orders(offer.op) && spec.kind == ColumnType::Text => {
                cost += 10.0;
                None
            }
            Some((column, spec)) if offer.usable && spec.op() & (INDEX | ADDITIONAL) != 0 => {
                cost = INDEXED;
                plan.taken.push(Taken { column, op: offer.op, list: offer.list && spec.op() & OPTIMIZED != 0 });
                Some(plan.taken.len() - 1)
            }
            _ => None,
        });
    }
    (plan, places, cost)
}

fn orders(op: Option<Op>) -> bool {
    matches!(op, Some(Op::LessThan | Op::LessThanOrEquals | Op::GreaterThan | Op::GreaterThanOrEquals))
}

impl Plan {
    /// Which of `columns` columns are read.
    pub(super) fn wanted(&self, columns: usize) -> Vec<bool> {
        (0..columns).map(|column| self.read >> column.min(63) & 1 == 1).collect()
    }
}

/// SQLite carries a plan from `xBestIndex` to `xFilter` as text: the mask, then column, operator and `*` for a list.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.read)?;
        for taken in &self.taken {
            let op = taken.op.map_or(0, |op| op as u8);
            write!(f, " {}:{op}{}", taken.column, if taken.list { "*" } else { "" })?;
        }
        Ok(())
    }
}

/// The text is none that a [`Plan`] writes.
#[derive(Debug, thiserror::Error)]
#[error("not a plan: {0:?}")]
pub(super) struct NotAPlan(String);

impl FromStr for Plan {
    type Err = NotAPlan;

    fn from_str(text: &str) -> Result<Self, NotAPlan> {
        let refuse = || NotAPlan(text.to_owned());
        let mut words = text.split(' ');
        let read = words.next().and_then(|mask| u64::from_str_radix(mask, 16).ok()).ok_or_else(refuse)?;
        let taken = words.map(|word| {
            let (column, op) = word.split_once(':')?;
            let (op, list) = op.strip_suffix('*').map_or((op, false), |op| (op, true));
            Some(Taken { column: column.parse().ok()?, op: op_of(op.parse().ok()?), list })
        });
        Ok(Self { taken: taken.collect::<Option<_>>().ok_or_else(refuse)?, read })
    }
}

/// The operator with SQLite's number.
fn op_of(number: u8) -> Option<Op> {
    [Op::Equals, Op::GreaterThan, Op::LessThanOrEquals, Op::LessThan, Op::GreaterThanOrEquals].into_iter().find(|op| *op as u8 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(schema: &TableSchema, column: &str, op: Op) -> Offer {
        let column = schema.position(column).and_then(|c| i32::try_from(c).ok()).unwrap();
        Offer { column, op: Some(op), usable: true, list: false }
    }

    fn cost(offers: &[Offer]) -> f64 {
        choose(history(), offers, 0).2
    }

    fn history() -> &'static TableSchema {
        mayfly_tables::find("container_history").unwrap().schema()
    }

    #[test]
    fn costs_are_those_of_osquery() {
        let key = offer(history(), "container_id", Op::Equals);
        let name = offer(history(), "name", Op::Equals);
        assert_eq!(cost(&[]), 1_000_000.0);
        assert_eq!(cost(&[name]), 1_000_000.0, "a plain column is left to SQLite");
        assert_eq!(cost(&[key]), 1.0);
        assert_eq!(cost(&[Offer { usable: false, ..key }]), 1_000_000.0);
        assert_eq!(cost(&[Offer { op: Some(Op::LessThan), ..key }]), 1_000_010.0, "text does not order");
        assert_eq!(cost(&[key, Offer { op: Some(Op::LessThan), ..key }]), 11.0, "the rules apply in order");
        assert_eq!(cost(&[Offer { op: Some(Op::LessThan), ..key }, key]), 1.0);
        assert_eq!(cost(&[Offer { column: -1, ..key }]), 1_000_000.0, "the rowid is no column");
        assert_eq!(cost(&[offer(history(), "as_of", Op::Equals)]), 1.0);
        assert_eq!(cost(&[Offer { op: None, ..key }]), 1.0, "LIKE counts, though no table takes it");
    }

    #[test]
    fn only_optimized_columns_get_a_list_at_once() {
        let (key, as_of) = (offer(history(), "container_id", Op::Equals), offer(history(), "as_of", Op::Equals));
        let (plan, places, _) = choose(history(), &[Offer { list: true, ..as_of }, Offer { list: true, ..key }], 0);
        assert_eq!(places, [Some(0), Some(1)]);
        assert_eq!(plan.taken.iter().map(|t| t.list).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_plan_survives_its_text() {
        let plan = Plan {
            taken: vec![Taken { column: 0, op: Some(Op::Equals), list: true }, Taken { column: 12, op: None, list: false }],
            read: u64::MAX,
        };
        assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
        assert_eq!("0".parse::<Plan>().unwrap(), Plan::default());
        assert!("x 1".parse::<Plan>().is_err());
    }

    #[test]
    fn the_last_bit_stands_for_all_columns_past_the_63rd() {
        let wanted = Plan { taken: Vec::new(), read: 1 << 63 | 1 }.wanted(66);
        assert_eq!(wanted.iter().filter(|w| **w).count(), 4);
        assert!(wanted[0] && wanted[63] && wanted[65] && !wanted[1]);
    }
}
