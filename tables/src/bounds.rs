//! Time constraints as a range of nanoseconds.

use mayfly_history::Nanos;

use crate::query::{Constraint, Op};

/// Nanoseconds in one step of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Second = 1_000_000_000,
    Nano = 1,
}

/// Inclusive bounds in nanoseconds; `None` is unbounded.
///
/// They are never narrower than the constraints: SQLite checks each row again, so that a superset is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from: Option<Nanos>,
    pub(crate) to: Option<Nanos>,
}

impl Bounds {
    /// What the constraints leave of a column. `=` several times means any of the values.
    pub(crate) fn of<'c>(constraints: impl Iterator<Item = &'c Constraint>, unit: Unit) -> Self {
        let mut bounds = Self::default();
        let mut equal: Option<Self> = None;
        for constraint in constraints {
            let Some(value) = Value::parse(&constraint.value, unit) else {
                if constraint.op == Op::Equals {
                    equal = Some(Self::default());
                }
                continue;
            };
            let Value { first, last, exact } = value;
            bounds = bounds.both(match constraint.op {
                Op::Equals => {
                    let this = Self { from: Some(first), to: Some(last) };
                    equal = Some(equal.map_or(this, |others| others.either(this)));
                    Self::default()
                }
                Op::GreaterThan if exact => Self { from: Some(last.saturating_add(1)), to: None },
                Op::GreaterThan | Op::GreaterThanOrEquals => Self { from: Some(first), to: None },
                Op::LessThan if exact => Self { from: None, to: Some(first.saturating_sub(1)) },
                Op::LessThan | Op::LessThanOrEquals => Self { from: None, to: Some(last) },
            });
        }
        equal.map_or(bounds, |values| bounds.both(values))
    }

    /// What lies in both ranges.
    pub(crate) fn both(self, other: Self) -> Self {
        let from = self.from.max(other.from);
        let to = match (self.to, other.to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { from, to }
    }

    /// The range around both.
    fn either(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.zip(other.to).map(|(a, b)| a.max(b)) }
    }
}

/// The nanoseconds that a number of some unit covers.
struct Value {
    first: Nanos,
    last: Nanos,
    /// A whole number: `>` leaves it out entirely.
    exact: bool,
}

impl Value {
    fn parse(text: &str, unit: Unit) -> Option<Self> {
        let text = text.trim();
        if let Ok(whole) = text.parse::<i64>() {
            return Some(Self::between(whole, whole, unit, true));
        }
        let real = text.parse::<f64>().ok().filter(|r| r.is_finite())?;
        // SQLite hands a real over with 15 digits: the number that it compares with may lie a little beside.
        let slack = real.abs() * 1e-14;
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and what is past 64 bits is past every time")]
        let (low, high) = ((real - slack).floor() as i64, (real + slack).floor() as i64);
        Some(Self::between(low, high, unit, false))
    }

    fn between(low: i64, high: i64, unit: Unit, exact: bool) -> Self {
        let width = unit as i64;
        Self { first: low.saturating_mul(width), last: high.saturating_mul(width).saturating_add(width - 1), exact }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPS: [Op; 5] = [Op::Equals, Op::GreaterThan, Op::LessThanOrEquals, Op::LessThan, Op::GreaterThanOrEquals];

    fn bounds(constraints: &[(Op, &str)], unit: Unit) -> Bounds {
        let constraints: Vec<_> = constraints.iter().map(|&(op, value)| Constraint { column: 0, op, value: value.into() }).collect();
        Bounds::of(constraints.iter(), unit)
    }

    #[test]
    fn a_second_is_a_billion_nanoseconds_wide() {
        let range = |from, to| Bounds { from, to };
        assert_eq!(bounds(&[(Op::LessThanOrEquals, "5")], Unit::Second), range(None, Some(5_999_999_999)));
        assert_eq!(bounds(&[(Op::LessThan, "5")], Unit::Second), range(None, Some(4_999_999_999)));
        assert_eq!(bounds(&[(Op::GreaterThan, "5")], Unit::Second), range(Some(6_000_000_000), None));
        assert_eq!(bounds(&[(Op::GreaterThanOrEquals, "5")], Unit::Second), range(Some(5_000_000_000), None));
        assert_eq!(bounds(&[(Op::Equals, "5"), (Op::Equals, "3")], Unit::Second), range(Some(3_000_000_000), Some(5_999_999_999)));
        assert_eq!(bounds(&[(Op::Equals, "5"), (Op::LessThan, "4")], Unit::Nano), range(Some(5), Some(3)));
    }

    #[test]
    fn what_is_no_number_never_narrows() {
        assert_eq!(bounds(&[(Op::LessThan, "abc"), (Op::Equals, "nan"), (Op::Equals, "5")], Unit::Second), Bounds::default());
        assert_eq!(bounds(&[(Op::GreaterThan, &i64::MAX.to_string())], Unit::Second).from, Some(i64::MAX));
    }

    proptest! {
        /// The law: a time that satisfies all constraints lies within the bounds.
        #[test]
        fn no_row_that_matches_is_left_out(time in -5_000i64..5_000, list in prop::collection::vec((0usize..5, -50i64..50, 0i64..4), 0..5)) {
            let unit = Unit::Second;
            let time_ns = time * 10_000_000;
            let seconds = time_ns.div_euclid(1_000_000_000);
            let texts: Vec<_> = list.iter().map(|&(op, whole, quarters)| {
                (OPS[op], if quarters == 0 { whole.to_string() } else { (whole as f64 + quarters as f64 / 4.0).to_string() })
            }).collect();
            let number = |text: &str| text.parse::<f64>().unwrap();
            let equals: Vec<_> = texts.iter().filter(|(op, _)| *op == Op::Equals).collect();
            let matches = texts.iter().all(|(op, text)| match op {
                Op::Equals => true,
                Op::GreaterThan => seconds as f64 > number(text),
                Op::LessThanOrEquals => seconds as f64 <= number(text),
                Op::LessThan => (seconds as f64) < number(text),
                Op::GreaterThanOrEquals => seconds as f64 >= number(text),
            }) && (equals.is_empty() || equals.iter().any(|(_, text)| seconds as f64 == number(text)));
            let borrowed: Vec<_> = texts.iter().map(|(op, text)| (*op, text.as_str())).collect();
            let found = bounds(&borrowed, unit);
            if matches {
                prop_assert!(found.from.is_none_or(|from| from <= time_ns) && found.to.is_none_or(|to| time_ns <= to), "{found:?}");
            }
        }
    }
}
