//! Instants as someone types them in an incident.

use mayfly_history::Nanos;

const SECOND: i64 = 1_000_000_000;

/// The text is no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not an instant; write '2026-03-01T14:05:00Z', UNIX seconds, `now`, or how long ago: -90s, -15m, -2h, -3d")]
pub struct NotAnInstant {
    value: String,
}

/// Reads what `as_of` takes, `now`, and `-15m`.
pub(super) fn parse(text: &str, now: Nanos) -> Result<Nanos, NotAnInstant> {
    let text = text.trim();
    let found = if text == "now" { Some(now) } else { ago(text, now).or_else(|| mayfly_tables::instant(text)) };
    found.ok_or_else(|| NotAnInstant { value: text.chars().take(40).collect() })
}

fn ago(text: &str, now: Nanos) -> Option<Nanos> {
    let text = text.strip_prefix('-')?;
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let count = text.strip_suffix(unit)?;
    let count: i64 = if count.bytes().all(|byte| byte.is_ascii_digit()) { count.parse().ok()? } else { return None };
    now.checked_sub(count.checked_mul(seconds)?.checked_mul(SECOND)?)
}

/// As `as_of` takes it back, to the nanosecond.
pub(super) fn spelt(instant: Nanos) -> String {
    format!("{}.{:09}", instant.max(0) / SECOND, instant.max(0) % SECOND)
}

/// For a person.
pub(super) fn readable(instant: Nanos) -> String {
    jiff::Timestamp::from_nanosecond(instant.into()).map_or_else(|_| spelt(instant), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_as_of_takes_and_how_long_ago() {
        let now = 1_738_317_600 * SECOND;
        for (text, seconds) in [("now", 0), ("-90s", -90), ("-15m", -900), ("-2h", -7200), (" -3d ", -259_200), ("1738317000", -600)] {
            assert_eq!(parse(text, now), Ok(now + seconds * SECOND), "{text}");
        }
        assert_eq!(parse("2025-01-31T10:00:00Z", now), Ok(now));
        for text in ["", "-", "yesterday", "-5", "-m", "--5m", "-+5m", "-5y", "5m", "-99999999999999999999d"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_spelt_is_read_back() {
        for instant in [0, 1, SECOND - 1, 1_738_317_600_123_456_789] {
            assert_eq!(mayfly_tables::instant(&spelt(instant)), Some(instant));
        }
    }
}
