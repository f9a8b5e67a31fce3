//! Kea's memfile: CSV, appended to; the last line of an address counts. The header names the columns, which differ by version and family.

use std::net::IpAddr;

use super::parse::{Entry, Parsed, SECOND, hex, mac, number};

/// The state of a lease that is given; declined, expired-reclaimed and released ones have others.
const GIVEN: &str = "0";
/// Of IPv6, a prefix that a router passes on: nobody's address.
const PREFIX: &str = "2";

pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut lines = text.lines().enumerate();
    let names: Vec<&str> = lines.next().map(|(_, header)| header.trim().split(',').collect()).unwrap_or_default();
    let column = |name: &str| names.iter().position(|n| *n == name);
    let [address, hardware, client, duid, lifetime, expire, hostname, state, kind] =
        ["address", "hwaddr", "client_id", "duid", "valid_lifetime", "expire", "hostname", "state", "lease_type"].map(column);
    for (index, line) in lines {
        if line.trim().is_empty() || line.starts_with("address,") {
            continue;
        }
        let fields: Vec<&str> = line.split(',').collect();
        let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).map_or("", |field| field.trim());
        let (Ok(ip), Some(expire)) = (field(address).parse::<IpAddr>(), number::<i64>(field(expire))) else {
            parsed.fault(index, "neither an address nor an expiry");
            continue;
        };
        // The end of a line that is being written.
        if fields.len() < names.len().min(10) {
            parsed.fault(index, "fewer fields than the header");
            continue;
        }
        if field(kind) == PREFIX {
            continue;
        }
        let seconds = number::<i64>(field(lifetime)).unwrap_or(0);
        let id = Some(field(client)).filter(|id| !id.is_empty()).unwrap_or_else(|| field(duid));
        // Without a lifetime it was given back, at a time that is not told; else the last second counts.
        let ends = (1..i64::from(u32::MAX)).contains(&seconds);
        parsed.add(Entry {
            ip: Some(ip),
            mac: mac(field(hardware)),
            client_id: hex(&id.replace(':', "")),
            // Kea escapes commas.
            hostname: Some(field(hostname).replace("&#x2c", ",").trim_end_matches('.').to_owned()).filter(|name| !name.is_empty()),
            since_ns: Some(expire.saturating_sub(seconds).saturating_mul(SECOND)),
            until_ns: ends.then(|| expire.saturating_mul(SECOND)),
            is_over: seconds == 0 || !matches!(field(state), GIVEN | ""),
            ..Entry::default()
        });
    }
    parsed
}
