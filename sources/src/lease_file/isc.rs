//! The files of ISC's dhclient and dhcpd, of both families: blocks, appended; the last of an address counts, and one that is not closed is still
//! being written.

use std::net::IpAddr;

use jiff::{civil::DateTime, tz::TimeZone};
use mayfly_history::Nanos;

use super::parse::{Entry, Parsed, SECOND, mac, number, prefix_length};

/// What such a file may begin with, comments apart.
const BEGINNINGS: [&str; 8] = ["lease ", "lease6 ", "ia-na ", "ia-ta ", "ia-pd ", "authoring-byte-order ", "server-duid ", "default-duid "];
/// Bytes of an association's id before the client's, as dhcpd writes them: hexadecimal, with colons.
const ASSOCIATION_ID: usize = 4 * 3;

pub(super) fn is_ours(line: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| line.starts_with(beginning))
}

pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(head) = line.strip_suffix('{').map(str::trim) {
            match Block::begin(head) {
                Some(block) if open.as_ref().is_none_or(|open| !open.may_hold(head)) => {
                    // Its writer died.
                    if open.replace(block).is_some() {
                        parsed.fault(index, "the lease before is not closed");
                    }
                    if head.strip_prefix("lease ").is_some_and(|ip| ip.trim().parse::<IpAddr>().is_err()) {
                        parsed.fault(index, "not the address of a lease");
                    }
                }
                _ => open.iter_mut().for_each(|block| block.enter(head)),
            }
        } else if line == "}" {
            if let Some(block) = open.take_if(Block::leave) {
                block.into_entries().for_each(|entry| parsed.add(entry));
            }
        } else if let (Some(block), Some(statement)) = (&mut open, line.strip_suffix(';')) {
            block.take(statement);
        }
    }
    parsed
}

/// A lease, or what one client has of IPv6: then the addresses are in blocks within.
#[derive(Debug, Default)]
struct Block {
    whole: Entry,
    is_six: bool,
    /// When the client spoke last, where a server says it.
    spoke_ns: Option<Nanos>,
    /// And what it said was that it needs the address no more.
    is_given_back: bool,
    /// How many blocks within are open, and the one of an address with its depth.
    depth: usize,
    address: Option<(usize, Entry)>,
    addresses: Vec<Entry>,
}

impl Block {
    /// `lease {` and `lease6 {` are a client's own, `lease 10.0.0.9 {` and `ia-na "…" {` what a server gave.
    fn begin(head: &str) -> Option<Self> {
        let (kind, rest) = head.split_once(' ').unwrap_or((head, ""));
        let whole = match kind {
            "lease" => Entry { ip: rest.trim().parse().ok(), is_own: rest.trim().is_empty(), ..Entry::default() },
            "lease6" => Entry { is_own: true, ..Entry::default() },
            "ia-na" | "ia-ta" | "ia-pd" => {
                Entry { client_id: identifier(rest.trim()).get(ASSOCIATION_ID..).map(ToOwned::to_owned), ..Entry::default() }
            }
            _ => return None,
        };
        Some(Self { whole, is_six: kind != "lease", ..Self::default() })
    }

    /// A client's lease of IPv6 holds associations; nothing else is within another.
    fn may_hold(&self, head: &str) -> bool {
        self.is_six && self.whole.is_own && head.starts_with("ia-")
    }

    fn enter(&mut self, head: &str) {
        self.depth += 1;
        if let Some(ip) = head.strip_prefix("iaaddr ").filter(|_| self.is_six && self.address.is_none()) {
            self.address = Some((self.depth, Entry { ip: ip.trim().parse().ok(), ..Entry::default() }));
        }
    }

    /// Leaves the innermost block; true: it was the outermost.
    fn leave(&mut self) -> bool {
        if let Some((_, address)) = self.address.take_if(|(depth, _)| *depth == self.depth) {
            self.addresses.push(address);
        }
        self.depth.checked_sub(1).is_none_or(|depth| {
            self.depth = depth;
            false
        })
    }

    fn take(&mut self, statement: &str) {
        let words: Vec<&str> = statement.split_ascii_whitespace().collect();
        let rest = |words: &[&str]| words.join(" ");
        let entry = self.address.as_mut().map_or(&mut self.whole, |(_, address)| address);
        match &words[..] {
            ["interface", name] => entry.interface = Some(unquoted(name)),
            ["fixed-address", ip] => entry.ip = ip.parse().ok(),
            ["starts" | "renewed", time @ ..] if self.is_six || !entry.is_own => entry.since_ns = self::time(&rest(time)),
            ["cltt", time @ ..] => self.spoke_ns = self::time(&rest(time)),
            ["ends", "never"] => entry.until_ns = None,
            // dhclient calls it `expire`.
            ["ends" | "expire", time @ ..] => entry.until_ns = self::time(&rest(time)).or(entry.until_ns),
            ["max-life", seconds] | ["option", "dhcp-lease-time", seconds] => entry.lease_seconds = number(seconds),
            ["hardware", "ethernet", mac] => entry.mac = self::mac(mac),
            ["client-hostname", name @ ..] | ["option", "host-name", name @ ..] => entry.hostname = Some(unquoted(&rest(name))),
            ["uid", ..] => entry.client_id = statement.trim_start().strip_prefix("uid").map(|id| identifier(id.trim())),
            ["option", "dhcp6.client-id", id] => entry.client_id = Some(identifier(id)),
            ["binding", "state", state] => {
                entry.is_over = *state != "active";
                self.is_given_back |= *state == "released";
            }
            ["released"] => entry.is_over = true,
            ["option", "dhcp-server-identifier", server] => entry.server = number(server),
            ["option", "subnet-mask", mask] => entry.prefix_length = number(mask).and_then(prefix_length),
            _ => {}
        }
    }

    fn into_entries(self) -> impl Iterator<Item = Entry> {
        let Self { whole, is_six, addresses, .. } = &self;
        let entries = if *is_six { addresses.iter().map(|address| self.of_six(address)).collect() } else { vec![whole.clone()] };
        entries.into_iter()
    }

    /// What is said of all addresses of a client, and of one of them.
    fn of_six(&self, address: &Entry) -> Entry {
        let whole = &self.whole;
        let since_ns = address.since_ns.or(self.spoke_ns);
        let is_over = address.is_over || whole.is_over;
        let lasts = address.lease_seconds.filter(|seconds| *seconds < i64::from(u32::MAX));
        let until_ns = match (is_over, whole.is_own) {
            // A client does not say when; and a server leaves the end as it was.
            (true, true) => None,
            (true, false) if self.is_given_back => self.spoke_ns,
            _ => address.until_ns.or_else(|| since_ns?.checked_add(lasts?.checked_mul(SECOND)?)),
        };
        let Entry { is_own, client_id, interface, .. } = whole.clone();
        Entry { since_ns, until_ns, is_over, is_own, client_id, interface, ..address.clone() }
    }
}

/// `2 2026/03/03 10:20:30`, the day of the week first, UTC; `epoch 1772533230`, with a comment; or the number alone.
fn time(text: &str) -> Option<Nanos> {
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let Some(second) = words.next() else { return number::<i64>(first)?.checked_mul(SECOND) };
    if first == "epoch" {
        return number::<i64>(second.trim_end_matches(';'))?.checked_mul(SECOND);
    }
    let time: DateTime = format!("{}T{}", second.replace('/', "-"), words.next()?).parse().ok()?;
    Nanos::try_from(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_nanosecond()).ok()
}

fn unquoted(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

/// A client identifier as it is written elsewhere: from a string with octal escapes, or from hexadecimal bytes with colons, which lack
/// leading zeros.
fn identifier(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.split(':').map(|byte| format!("{byte:0>2}")).collect::<Vec<_>>().join(":").to_ascii_lowercase();
    };
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
