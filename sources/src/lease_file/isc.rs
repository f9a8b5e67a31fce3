//! The files of ISC's dhclient and dhcpd: blocks, appended; the last of an address counts, and one that is not closed is still being written.

use std::net::IpAddr;

use jiff::{civil::DateTime, tz::TimeZone};
use mayfly_history::Nanos;

use super::parse::{Entry, Parsed, mac, number, prefix_length};

pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut block: Option<Entry> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        match &mut block {
            None => {
                // `lease {` is a client's, `lease 10.0.0.9 {` one that a server gave; what else there is concerns no address.
                if let Some(head) = line.strip_prefix("lease ").and_then(|rest| rest.strip_suffix('{')) {
                    let head = head.trim();
                    let ip = head.parse::<IpAddr>().ok();
                    if ip.is_none() && !head.is_empty() {
                        parsed.faults.push((index + 1, "not the address of a lease"));
                    }
                    block = Some(Entry { ip, is_own: head.is_empty(), ..Entry::default() });
                }
            }
            Some(entry) if line == "}" => {
                let entry = std::mem::take(entry);
                block = None;
                parsed.add(entry);
            }
            // A block that was never closed: its writer died.
            Some(_) if line.starts_with("lease ") && line.ends_with('{') => {
                parsed.faults.push((index + 1, "the lease before is not closed"));
                let head = line["lease ".len()..line.len() - 1].trim();
                block = Some(Entry { ip: head.parse().ok(), is_own: head.is_empty(), ..Entry::default() });
            }
            Some(entry) => {
                if let Some(statement) = line.strip_suffix(';') {
                    take(entry, statement);
                }
            }
        }
    }
    parsed
}

fn take(entry: &mut Entry, statement: &str) {
    let mut words = statement.split_ascii_whitespace();
    let rest = |statement: &str, words: usize| statement.split_ascii_whitespace().skip(words).collect::<Vec<_>>().join(" ");
    match (words.next(), words.next()) {
        (Some("interface"), Some(name)) => entry.interface = Some(unquoted(name)),
        (Some("fixed-address"), Some(ip)) => entry.ip = ip.parse().ok(),
        (Some("starts" | "renewed"), Some(_)) if !entry.is_own => entry.since_ns = time(&rest(statement, 1)),
        (Some("ends"), Some("never")) => entry.until_ns = None,
        // dhclient calls it `expire`.
        (Some("ends" | "expire"), Some(_)) => entry.until_ns = time(&rest(statement, 1)).or(entry.until_ns),
        (Some("hardware"), Some("ethernet")) => entry.mac = mac(&rest(statement, 2)),
        (Some("client-hostname"), Some(_)) => entry.hostname = Some(unquoted(&rest(statement, 1))),
        (Some("uid"), Some(_)) => entry.client_id = Some(unescaped(&rest(statement, 1))),
        (Some("binding"), Some("state")) => entry.is_over = words.next() != Some("active"),
        (Some("released"), _) => entry.is_over = true,
        (Some("option"), Some("dhcp-server-identifier")) => entry.server = number(&rest(statement, 2)),
        (Some("option"), Some("subnet-mask")) => entry.prefix_length = number(&rest(statement, 2)).and_then(prefix_length),
        (Some("option"), Some("host-name")) => entry.hostname = Some(unquoted(&rest(statement, 2))),
        _ => {}
    }
}

/// `2 2026/03/03 10:20:30`, the day of the week first, UTC; or `epoch 1772533230`, with a comment.
fn time(text: &str) -> Option<Nanos> {
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    if first == "epoch" {
        return words.next()?.trim_end_matches(';').parse::<i64>().ok()?.checked_mul(1_000_000_000);
    }
    let (date, clock) = (words.next()?, words.next()?);
    let time: DateTime = format!("{}T{clock}", date.replace('/', "-")).parse().ok()?;
    Nanos::try_from(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_nanosecond()).ok()
}

fn unquoted(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

/// A client identifier: a string with octal escapes, or hexadecimal bytes with colons.
fn unescaped(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.to_ascii_lowercase() };
    let mut bytes = Vec::new();
    let mut rest = quoted.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| (b'0'..=b'7').contains(&b)))?;
            u8::from_str_radix(digits, 8).ok()
        };
        match (byte, rest) {
            (b'\\', [a, b, c, tail @ ..]) if octal(&[*a, *b, *c]).is_some() => {
                bytes.push(octal(&[*a, *b, *c]).unwrap_or(0));
                rest = tail;
            }
            (b'\\', [escaped, tail @ ..]) => {
                bytes.push(*escaped);
                rest = tail;
            }
            _ => bytes.push(*byte),
        }
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
