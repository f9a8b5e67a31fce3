//! The forms of lease files, told apart by what is in them. A file may be cut off anywhere, or be read while it is written: what is there counts,
//! and what is not understood is told by its line.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use mayfly_history::Nanos;

use super::{isc, kea};

/// Most addresses of one file, and most entries of one address: the newest.
const MOST: usize = 65_536;
const MOST_ENTRIES: usize = 4;
/// Wrong lines of one file that are told.
const MOST_FAULTS: usize = 100;
pub(super) const SECOND: Nanos = 1_000_000_000;

/// What a file says of one address. Later ones in a file override earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) ip: Option<IpAddr>,
    /// Lower case, with colons.
    pub(super) mac: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) hostname: Option<String>,
    /// Of a client's own file: the interface that has the lease.
    pub(super) interface: Option<String>,
    pub(super) server: Option<IpAddr>,
    pub(super) prefix_length: Option<u8>,
    pub(super) since_ns: Option<Nanos>,
    /// Of a lease that is over: when it ended. `None`: it does not end, or it is not told when.
    pub(super) until_ns: Option<Nanos>,
    pub(super) lease_seconds: Option<i64>,
    /// It was given back, or taken away.
    pub(super) is_over: bool,
    /// The host's own lease, not one that it gave.
    pub(super) is_own: bool,
}

/// What a file says of each address, in its order: of a journal the last few words, of other files one.
pub(super) type Page = BTreeMap<IpAddr, Vec<Entry>>;

/// A file's leases, and the lines that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) page: Page,
    /// Number of the line, and what is wrong with it.
    pub(super) faults: Vec<(usize, &'static str)>,
}

impl Parsed {
    pub(super) fn add(&mut self, entry: Entry) {
        let Some(ip) = entry.ip else { return };
        if self.page.len() >= MOST && !self.page.contains_key(&ip) {
            return;
        }
        let entries = self.page.entry(ip).or_default();
        if entries.len() >= MOST_ENTRIES {
            entries.remove(0);
        }
        entries.push(entry);
    }

    /// Notes what is wrong with the line of that index.
    pub(super) fn fault(&mut self, index: usize, what: &'static str) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push((index + 1, what));
        }
    }
}

/// Reads a file of any of the forms.
pub(super) fn parse(text: &str) -> Parsed {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    if first.starts_with("address,") {
        kea::parse(text)
    } else if text.lines().take(64).any(|line| isc::is_ours(line.trim_start())) {
        isc::parse(text)
    } else if text.lines().take(64).any(|line| line.trim_start().starts_with("ADDRESS=")) {
        assignments(text)
    } else {
        dnsmasq(text)
    }
}

/// dnsmasq: `expiry mac address name client-id`; 0 is no expiry, `*` nothing. Lines of IPv6 have an association id for the MAC.
fn dnsmasq(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [expiry, mac, address, name, client, ..] = fields[..] else {
            // `duid …`, and the end of what is being written.
            if !(fields.is_empty() || fields[0] == "duid") {
                parsed.fault(index, "a lease has five fields");
            }
            continue;
        };
        let (Ok(expiry), Ok(ip)) = (expiry.parse::<i64>(), address.parse::<IpAddr>()) else {
            parsed.fault(index, "neither an expiry nor an address");
            continue;
        };
        let known = |text: &str| (text != "*").then(|| text.to_owned());
        parsed.add(Entry {
            ip: Some(ip),
            // Of another kind of hardware it begins with its type.
            mac: self::mac(mac),
            client_id: known(client).map(|id| id.to_ascii_lowercase()),
            hostname: known(name),
            until_ns: (expiry > 0).then(|| expiry.saturating_mul(SECOND)),
            ..Entry::default()
        });
    }
    parsed
}

/// systemd-networkd and NetworkManager: `KEY=VALUE`, one lease a file. How long it lasts at a time is known, but not since when; renewals are not
/// written: networkd's file is there for as long as the lease, and goes with it.
fn assignments(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut entry = Entry { is_own: true, ..Entry::default() };
    for (index, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once('=') else {
            if !(line.trim().is_empty() || line.starts_with('#')) {
                parsed.fault(index, "neither a comment nor KEY=VALUE");
            }
            continue;
        };
        match key.trim() {
            "ADDRESS" => entry.ip = value.trim().parse().ok(),
            "NETMASK" => entry.prefix_length = value.trim().parse().ok().and_then(prefix_length),
            "SERVER_ADDRESS" => entry.server = value.trim().parse().ok(),
            "HOSTNAME" => entry.hostname = Some(value.trim().to_owned()),
            "LIFETIME" => entry.lease_seconds = value.trim().parse().ok(),
            "CLIENTID" => entry.client_id = hex(value.trim()),
            _ => {}
        }
    }
    parsed.add(entry);
    parsed
}

pub(super) fn prefix_length(netmask: std::net::Ipv4Addr) -> Option<u8> {
    let bits = netmask.to_bits();
    (bits.leading_ones() == bits.count_ones()).then(|| u8::try_from(bits.count_ones()).ok())?
}

/// Hexadecimal digits, with colons between the bytes.
pub(super) fn hex(digits: &str) -> Option<String> {
    let plain = !digits.is_empty() && digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_ascii_lowercase()).collect::<Vec<_>>().join(":"))
}

/// A MAC of six bytes, lower case.
pub(super) fn mac(text: &str) -> Option<String> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() <= 2)).collect::<Option<_>>()?;
    let bytes: [u8; 6] = bytes.try_into().ok()?;
    Some(bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

/// A number at the beginning of what follows the name.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

/// Reads what may be a lease file; for fuzzing.
pub fn decode_lease_file(bytes: &[u8]) {
    let _ = parse(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
