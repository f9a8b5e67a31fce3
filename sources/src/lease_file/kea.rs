//! Kea's memfile: CSV, appended to; the last line of an address counts. The header names the columns, which differ by version and family.

use std::net::IpAddr;

use mayfly_history::Nanos;

use super::parse::{Entry, Parsed, hex, mac, number};

const SECOND: Nanos = 1_000_000_000;
/// The state of a lease that is given; declined, expired-reclaimed and released ones have others.
const GIVEN: &str = "0";

pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut lines = text.lines().enumerate();
    let names: Vec<&str> = lines.next().map(|(_, header)| header.trim().split(',').collect()).unwrap_or_default();
    let column = |name: &str| names.iter().position(|n| *n == name);
    let [address, hardware, client, duid, lifetime, expire, hostname, state] =
        ["address", "hwaddr", "client_id", "duid", "valid_lifetime", "expire", "hostname", "state"].map(column);
    for (index, line) in lines {
        if line.trim().is_empty() || line.starts_with("address,") {
            continue;
        }
        let fields: Vec<&str> = line.split(',').collect();
        let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).map_or("", |field| field.trim());
        let (Ok(ip), Some(expire)) = (field(address).parse::<IpAddr>(), number::<i64>(field(expire))) else {
            parsed.faults.push((index + 1, "neither an address nor an expiry"));
            continue;
        };
        // The end of a line that is being written.
        if fields.len() < names.len().min(10) {
            parsed.faults.push((index + 1, "fewer fields than the header"));
            continue;
        }
        let seconds = number::<i64>(field(lifetime)).unwrap_or(0);
        let id = Some(field(client)).filter(|id| !id.is_empty()).unwrap_or_else(|| field(duid));
        let is_endless = seconds >= i64::from(u32::MAX);
        parsed.add(Entry {
            ip: Some(ip),
            mac: mac(field(hardware)),
            client_id: hex(&id.replace(':', "")),
            // Kea escapes commas.
            hostname: Some(field(hostname).replace("&#x2c", ",").trim_end_matches('.').to_owned()).filter(|name| !name.is_empty()),
            since_ns: Some(expire.saturating_sub(seconds).saturating_mul(SECOND)),
            until_ns: (!is_endless).then(|| expire.saturating_mul(SECOND)),
            is_over: seconds == 0 || !matches!(field(state), GIVEN | ""),
            ..Entry::default()
        });
    }
    parsed
}
