//! Whether the sources could see: `complete` of a history row.

use mayfly_history::{Nanos, feed::Gap};

/// The blind periods that matter to one history table.
#[derive(Debug, Default)]
pub(crate) struct Blindness {
    gaps: Vec<Gap>,
}

/// What [`Blindness`] needs to know of an interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'a> {
    pub(crate) from: Nanos,
    /// `None` while it holds.
    pub(crate) to: Option<Nanos>,
    pub(crate) ended_reason: &'a str,
    /// Endpoint that could tell of it; gaps of other endpoints do not matter. Empty: all matter.
    pub(crate) endpoint: &'a str,
}

impl Blindness {
    /// Keeps the gaps of `witnesses`, and those that the recorder had itself.
    pub(crate) fn of(mut gaps: Vec<Gap>, witnesses: &[&str]) -> Self {
        gaps.retain(|gap| matters(&gap.source) || witnesses.contains(&gap.source.as_str()));
        Self { gaps }
    }

    /// Whether an interval is known to have held at `as_of`; without one, at both of its ends.
    pub(crate) fn complete(&self, interval: &Interval<'_>, as_of: Option<Nanos>) -> bool {
        match as_of {
            Some(instant) => self.known_at(interval, instant),
            // While it holds, its end is now: what blinds the sources at present has no end.
            None => self.known_at(interval, interval.from) && self.known_at(interval, interval.to.unwrap_or(Nanos::MAX)),
        }
    }

    fn known_at(&self, interval: &Interval<'_>, instant: Nanos) -> bool {
        let relevant =
            || self.gaps.iter().filter(|gap| gap.endpoint.is_empty() || interval.endpoint.is_empty() || gap.endpoint == interval.endpoint);
        // Nobody saw it after the last gap before its end, if its end is unknown.
        let seen_until = match interval.to {
            Some(to) if interval.ended_reason == "unknown" => relevant().map(|gap| gap.from_ns).filter(|&from| from < to).max(),
            _ => None,
        };
        if seen_until.is_some_and(|until| instant >= until) {
            return false;
        }
        // The same start on both sides of a gap bridges it.
        relevant().filter(|gap| covers(gap, instant)).all(|gap| {
            let ended = interval.to.unwrap_or(Nanos::MAX);
            interval.from < gap.from_ns && seen_again(gap, relevant).is_some_and(|seen_again| seen_again < ended)
        })
    }
}

/// When somebody looked again after a gap: those that overlap are one. `None`: nobody has.
fn seen_again<'g, G: Iterator<Item = &'g Gap>>(gap: &Gap, all: impl Fn() -> G) -> Option<Nanos> {
    let mut until = gap.to_ns?;
    loop {
        let further = all().filter(|other| other.from_ns <= until).map(|other| other.to_ns.unwrap_or(Nanos::MAX)).max();
        match further {
            Some(Nanos::MAX) => return None,
            Some(further) if further > until => until = further,
            _ => return Some(until),
        }
    }
}

/// Whether a gap is the recorder's own: it blinds all sources.
fn matters(source: &str) -> bool {
    source.is_empty() || source == "recorder"
}

/// Whether the source was blind at that instant; a gap without an end lasts.
pub(crate) fn covers(gap: &Gap, instant: Nanos) -> bool {
    gap.from_ns <= instant && gap.to_ns.is_none_or(|to| instant < to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from_ns: Nanos, to_ns: Option<Nanos>) -> Gap {
        Gap {
            source: "docker".into(),
            endpoint: "unix:///run/docker.sock".into(),
            cause: "daemon_down".into(),
            from_ns,
            to_ns,
            recovered: 0,
            detail: String::new(),
        }
    }

    fn complete(gaps: Vec<Gap>, (from, to, ended_reason): (Nanos, Option<Nanos>, &str), as_of: Option<Nanos>) -> bool {
        let interval = Interval { from, to, ended_reason, endpoint: "unix:///run/docker.sock" };
        Blindness::of(gaps, &["docker"]).complete(&interval, as_of)
    }

    #[test]
    fn the_same_start_on_both_sides_bridges_a_gap() {
        let gaps = || vec![gap(100, Some(200))];
        assert!(complete(gaps(), (50, None, ""), Some(150)));
        assert!(complete(gaps(), (50, Some(300), "die"), Some(150)));
        assert!(complete(gaps(), (50, Some(300), "die"), None));
    }

    #[test]
    fn what_begins_or_ends_within_a_gap_is_incomplete_there() {
        let gaps = || vec![gap(100, Some(200))];
        assert!(!complete(gaps(), (120, None, ""), Some(150)), "began inside");
        assert!(complete(gaps(), (120, None, ""), Some(250)), "but was seen later");
        assert!(!complete(gaps(), (120, None, ""), None));
        assert!(!complete(gaps(), (50, Some(150), "die"), Some(120)), "ended inside");
        assert!(complete(gaps(), (50, Some(150), "die"), Some(80)));
        assert!(!complete(gaps(), (50, Some(150), "die"), None));
    }

    #[test]
    fn an_unknown_end_is_not_seen_again() {
        let gaps = || vec![gap(60, Some(70)), gap(100, Some(200))];
        assert!(!complete(gaps(), (50, Some(201), "unknown"), Some(150)));
        assert!(!complete(gaps(), (50, Some(201), "unknown"), Some(200)));
        assert!(complete(gaps(), (50, Some(201), "unknown"), Some(65)), "the gap before was bridged");
        assert!(!complete(gaps(), (50, Some(201), "unknown"), None));
    }

    #[test]
    fn a_gap_that_lasts_is_bridged_by_nothing() {
        assert!(!complete(vec![gap(100, None)], (50, None, ""), Some(150)));
        assert!(!complete(vec![gap(100, None)], (50, None, ""), None));
        assert!(complete(vec![gap(100, None)], (50, None, ""), Some(99)));
    }

    #[test]
    fn gaps_of_others_do_not_matter_but_those_of_the_recorder_do() {
        let other_endpoint = Gap { endpoint: "unix:///run/podman/podman.sock".into(), ..gap(100, Some(200)) };
        let other_source = Gap { source: "netlink".into(), endpoint: String::new(), ..gap(100, Some(200)) };
        let recorder = Gap { source: "recorder".into(), endpoint: String::new(), ..gap(100, Some(200)) };
        assert!(complete(vec![other_endpoint, other_source], (120, Some(150), "die"), None));
        assert!(!complete(vec![recorder], (120, Some(150), "die"), None));
    }

    #[test]
    fn gaps_that_overlap_are_one() {
        let two = || vec![gap(100, Some(200)), gap(190, Some(300))];
        assert!(!complete(two(), (50, Some(250), "unknown"), Some(150)), "nobody saw it between the two");
        assert!(complete(two(), (50, Some(400), "die"), Some(150)), "it was seen after both");
        assert!(!complete(vec![gap(100, Some(200)), gap(190, None)], (50, None, ""), Some(150)), "nobody has looked since");
    }
}
