//! Addresses of containers that only the kernel told: an interface in a run's network namespace had them, and no runtime says which the run
//! has. Who was in which namespace when is worked out with the addresses; here it only fills what the runtimes left open.

use std::{borrow::Cow, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::subject::Subject;
use crate::{container::ContainerKey, time::Nanos};

/// Most that one container keeps.
const MOST: usize = 64;

/// An address that the kernel gave to an interface in the network namespace of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Heard {
    /// When the run began.
    #[serde(rename = "t")]
    pub(super) run_ns: Nanos,
    #[serde(rename = "i")]
    pub(super) ip: IpAddr,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<String>,
}

/// What was found out about a container, or turned out to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) container: ContainerKey,
    pub(super) heard: Heard,
    pub(super) holds: bool,
}

impl Subject {
    /// Takes what was found out of its addresses; false: it is known, or too much.
    pub(super) fn hear(&mut self, Finding { heard, holds, .. }: Finding) -> bool {
        if self.sealed_ns.is_some() {
            return false;
        }
        match self.heard.binary_search(&heard) {
            Ok(at) if !holds => drop(self.heard.remove(at)),
            Err(at) if holds && self.heard.len() < MOST => self.heard.insert(at, heard),
            _ => return false,
        }
        true
    }

    /// As its runtimes tell it: what is worked out from this must not follow from itself.
    pub(super) fn unheard(&self) -> Cow<'_, Self> {
        if self.heard.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut told = self.clone();
        told.heard.clear();
        Cow::Owned(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        container::{Action, ContainerEvent, Run, State, Witness},
        recorder::tests::{Bench, MS, S, T0, docker, event, with_run},
    };

    fn finding(run_ns: Nanos, ip: &str, holds: bool) -> Finding {
        let heard = Heard { run_ns, ip: ip.parse().unwrap(), mac: Some("02:42:ac:11:00:02".into()) };
        Finding { container: docker("c1"), heard, holds }
    }

    fn start(at: Nanos, ip: Option<&str>) -> ContainerEvent {
        let ip_addresses = ip.into_iter().map(ToOwned::to_owned).collect();
        let start = with_run(event(&docker("c1"), Witness::Docker, Action::Start, at), Run { ip_addresses, ..Run::default() });
        ContainerEvent { settled: false, ..start }
    }

    fn running(bench: &Bench) -> Vec<Vec<String>> {
        let spans = bench.spans(&docker("c1")).into_iter().filter(|span| span.state == State::Running);
        spans.map(|span| span.details.run.ip_addresses).collect()
    }

    #[test]
    fn a_run_of_which_no_runtime_tells_the_address_has_the_kernels_and_its_row_too() {
        let mut bench = Bench::new();
        bench.live([start(T0, None)]);
        bench.find(finding(T0, "172.17.0.2", true));
        bench.live([event(&docker("c1"), Witness::Docker, Action::Die, T0 + 10 * MS), start(T0 + S, None)]);
        bench.find(finding(T0 + S, "172.17.0.3", true));
        bench.finish();
        let told: Vec<_> = bench.rows.iter().map(|told| (told.event.action, told.event.details.run.ip_addresses.join(" "))).collect();
        let first = "172.17.0.2".to_owned();
        assert_eq!(told, [(Action::Start, first.clone()), (Action::Die, first), (Action::Start, "172.17.0.3".into())]);
        assert_eq!(running(&bench), [["172.17.0.2"], ["172.17.0.3"]], "each run has its own");
        assert_eq!(bench.rows[0].event.details.run.mac_addresses, ["02:42:ac:11:00:02"]);
    }

    #[test]
    fn what_its_runtime_tells_stands_whichever_came_first() {
        for order in [[0, 1], [1, 0]] {
            let mut bench = Bench::new();
            bench.live([start(T0, None)]);
            for which in order {
                match which {
                    0 => bench.live([start(T0, Some("10.0.0.9"))]),
                    _ => bench.find(finding(T0, "172.17.0.2", true)),
                }
            }
            assert_eq!(running(&bench), [["10.0.0.9"]]);
        }
    }

    #[test]
    fn what_turns_out_to_be_anothers_is_taken_back() {
        let mut bench = Bench::new();
        bench.live([start(T0, None)]);
        bench.find(finding(T0, "172.17.0.2", true));
        bench.find(finding(T0, "172.17.0.2", false));
        assert_eq!(running(&bench), [[""; 0]]);
        bench.find(Finding { container: docker("another"), ..finding(T0, "172.17.0.2", true) });
        assert!(bench.ledger.subject(&docker("another")).is_none(), "nobody told of it");
        (0..200).for_each(|n| bench.find(finding(T0, &format!("fd00::{n}"), true)));
        assert_eq!(running(&bench)[0].len(), MOST);
    }
}
