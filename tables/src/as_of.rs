//! Instants as people and joins write them.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use mayfly_history::Nanos;

const SECOND: i64 = 1_000_000_000;

/// The value is none of the accepted forms, or outside of what 64 bits of nanoseconds hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "as_of = {value:?} is not an instant; write UNIX seconds (1738317600 or 1738317600.25), \
     19 digits of nanoseconds, or RFC 3339 ('2025-01-31T10:00:00Z')"
)]
pub(crate) struct NotAnInstant {
    /// The start of the text that was refused.
    value: String,
}

/// Reads UNIX seconds with or without a fraction, 19 digits of nanoseconds, RFC 3339, or what SQLite's `datetime()`
/// gives (which is UTC).
pub(crate) fn parse(text: &str) -> Result<Nanos, NotAnInstant> {
    let instant = if text.starts_with(|c: char| c.is_ascii_digit()) { number(text).or_else(|| date(text)) } else { None };
    instant.ok_or_else(|| NotAnInstant { value: text.chars().take(40).collect() })
}

/// The instant that a text means to `as_of`.
pub fn instant(text: &str) -> Option<Nanos> {
    parse(text).ok()
}

fn number(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // Shorter numbers are seconds: ten digits reach past what 64 bits of nanoseconds hold, so no length means two things.
    if whole.len() == 19 && !text.contains('.') {
        return whole.parse().ok();
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    whole.parse::<i64>().ok()?.checked_mul(SECOND)?.checked_add(nanos)
}

fn date(text: &str) -> Option<Nanos> {
    // Every form has at most 64 characters; a longer text is not worth a parser's time.
    if text.len() > 64 {
        return None;
    }
    let zoned = text.parse::<Timestamp>().ok();
    let instant =
        zoned.or_else(|| DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp()))?;
    instant.as_nanosecond().try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_accepted_form_means_the_same_instant() {
        for text in [
            "1738317600",
            "1738317600.0",
            "1738317600.",
            "1738317600000000000",
            "2025-01-31T10:00:00Z",
            "2025-01-31t10:00:00z",
            "2025-01-31 10:00:00Z",
            "2025-01-31T12:00:00+02:00",
            "2025-01-31T10:00:00.000000000Z",
            "2025-01-31 10:00:00",
        ] {
            let expected = if text.ends_with('.') { None } else { Some(1_738_317_600 * SECOND) };
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn fractions_keep_nine_digits_and_cut_the_rest() {
        assert_eq!(parse("5.25"), Ok(5_250_000_000));
        assert_eq!(parse("5.0000000019"), Ok(5_000_000_001));
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("2025-01-31T10:00:00.123456789Z"), Ok(1_738_317_600_123_456_789));
    }

    #[test]
    fn refuses_what_means_nothing_and_names_it() {
        for text in
            ["", " ", "now", "-5", "+5", "1e9", "0x10", "1738317600000", "9223372036854775808", "99999999999999999999", "٣", "1.2.3"]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("RFC 3339"), "{text}: {error}");
        }
        let long = parse(&"9".repeat(1 << 20)).unwrap_err().to_string();
        assert!(long.len() < 300, "the message stays short");
    }

    proptest! {
        #[test]
        fn never_panics_and_every_recorded_time_round_trips(text in ".{0,48}", time in 1_000_000_000_000_000_000..i64::MAX) {
            let _ = parse(&text);
            prop_assert_eq!(parse(&time.to_string()), Ok(time));
            prop_assert_eq!(parse(&Timestamp::from_nanosecond(time.into()).unwrap().to_string()), Ok(time));
        }
    }
}
