//! Brings the lines of a batch to osquery's logger, one after the other over one connection.

use std::{
    mem,
    time::{Duration, Instant},
};

use mayfly_history::{Eid, Feed, chain, now};

use super::{
    batch::{Batch, Ready},
    envelope::Envelope,
};
use crate::{
    line::Line,
    manager::{ManagerError, Session},
};

/// The longest line. The limits of loggers begin here (Kafka; Kinesis, Firehose and TLS take a little more), and they drop in silence.
const LONGEST_LINE: usize = 1_000_000;
/// How long a batch may take before what was sent of it is noted.
const LONGEST_BATCH: Duration = Duration::from_secs(2);
/// How much longer a single line may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so many failures the line behind is tried: if that one is taken, the fault is the line's.
const SUSPICIOUS: u32 = 3;

/// What keeps a batch from being sent.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: ManagerError,
    /// Which event it was that was not taken.
    pub(super) eid: Eid,
}

/// What is known of the event that was not taken last.
#[derive(Debug)]
struct Suspect {
    eid: Eid,
    failures: u32,
    /// How many of several loggers have taken it.
    taken_by: usize,
}

/// Sends lines; remembers the one that failed.
#[derive(Debug)]
pub(super) struct Courier {
    line: Line,
    feed: Feed,
    suspect: Option<Suspect>,
    /// The same of the one behind, which was tried instead: what took it is not given it again.
    behind: Option<Suspect>,
}

impl Courier {
    pub(super) fn new(line: Line, feed: Feed) -> Self {
        Self { line, feed, suspect: None, behind: None }
    }

    /// Sends what it can within its time; gives how many events of the batch are done with, and why not more.
    pub(super) fn send(&mut self, batch: &Batch, envelope: &Envelope, ends_by: Option<Instant>) -> (usize, Result<(), Refusal>) {
        let patience = ends_by.map_or(LONGEST_BATCH + PATIENCE, |at| at.saturating_duration_since(Instant::now()));
        let until = Instant::now() + LONGEST_BATCH;
        let manager = self.line.manager(patience);
        let mut session = None;
        let mut done = 0;
        while let Some(event) = batch.events.get(done) {
            if Instant::now() >= until {
                break;
            }
            if event.line.len() > LONGEST_LINE {
                self.reject(event, format!("its line would have {} bytes, more than {LONGEST_LINE}", event.line.len()));
                done += 1;
                continue;
            }
            let sent = match &mut session {
                Some(session) => self.hand_over(session, event, envelope),
                none => manager.session().and_then(|opened| self.hand_over(none.insert(opened), event, envelope)),
            };
            match sent {
                Ok(()) => {
                    self.count(event);
                    done += 1;
                }
                Err(error) => {
                    session = None;
                    let behind = batch.events.get(done + 1).filter(|_| self.is_suspicious(event, &error));
                    let taken = behind.is_some_and(|behind| {
                        behind.line.len() <= LONGEST_LINE
                            && manager.session().is_ok_and(|mut session| self.hand_over_anew(&mut session, behind, envelope))
                    });
                    if !taken {
                        return (done, Err(Refusal { error, eid: event.eid }));
                    }
                    // It may have been taken in this very moment: then the logger was the fault after all, and this one is late.
                    let again = manager.session().and_then(|mut session| self.hand_over(&mut session, event, envelope));
                    match again {
                        Ok(()) => self.count(event),
                        Err(error) => self.reject(event, chain(&error)),
                    }
                    self.count(&batch.events[done + 1]);
                    done += 2;
                }
            }
        }
        (done, Ok(()))
    }

    /// Gives an event's line to each logger that has not taken it yet.
    fn hand_over(&mut self, session: &mut Session, event: &Ready, envelope: &Envelope) -> Result<(), ManagerError> {
        if self.behind.as_ref().is_some_and(|behind| behind.eid == event.eid) {
            self.suspect = self.behind.take();
        }
        let taken_by = self.suspect.as_ref().filter(|suspect| suspect.eid == event.eid).map_or(0, |suspect| suspect.taken_by);
        for (at, logger) in envelope.loggers.iter().enumerate().skip(taken_by) {
            if let Err(error) = session.call("logger", logger, &[("string", &event.line), ("category", "event")]) {
                let failures = self.suspect.as_ref().filter(|suspect| suspect.eid == event.eid).map_or(0, |suspect| suspect.failures);
                self.suspect = Some(Suspect { eid: event.eid, failures, taken_by: at });
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same for an event that was not tried before; leaves the suspicion where it is.
    fn hand_over_anew(&mut self, session: &mut Session, event: &Ready, envelope: &Envelope) -> bool {
        let suspect = self.suspect.take();
        let taken = self.hand_over(session, event, envelope).is_ok();
        self.behind = mem::replace(&mut self.suspect, suspect).filter(|_| !taken);
        taken
    }

    /// Whether the event may be at fault, not osquery: it has failed often, and osquery was there each time.
    fn is_suspicious(&mut self, event: &Ready, error: &ManagerError) -> bool {
        match &mut self.suspect {
            Some(suspect) if suspect.eid == event.eid && !matches!(error, ManagerError::Unreachable { .. }) => {
                suspect.failures += 1;
                suspect.failures >= SUSPICIOUS
            }
            _ => false,
        }
    }

    fn reject(&self, event: &Ready, why: String) {
        tracing::warn!(table = event.table, eid = %event.eid, why, "an event cannot be pushed; left out");
        self.feed.reject(format!("event {} of {} was left out: {why}", event.eid, event.table));
    }

    fn count(&self, event: &Ready) {
        self.feed.count_received();
        self.feed.count_stored(event.time_ns, (now() - event.time_ns) / 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::{
        asking::push::envelope::Flags,
        thrift::{Limits, Reply, Server, Service, Strings},
    };

    fn envelope(loggers: &[&str]) -> Envelope {
        let loggers = loggers.iter().map(|&logger| logger.to_owned()).collect();
        Envelope { flags: Flags::of(&BTreeMap::new()), host: String::new(), decorations: BTreeMap::new(), loggers }
    }

    fn event(sequence: u64, length: usize) -> Ready {
        Ready { eid: Eid { generation: 1, sequence }, time_ns: 0, table: "mount_events", line: "x".repeat(length) }
    }

    /// An osquery with loggers of which the one called `full` takes nothing; remembers the lengths of the lines that others took.
    #[derive(Default)]
    struct Loggers(Mutex<Vec<usize>>);

    impl Service for Loggers {
        fn uuid(&self) -> i64 {
            0
        }

        fn call(&self, _: &str, logger: &str, request: &Strings) -> Reply {
            if logger == "full" {
                return Reply::failure("the log is full");
            }
            self.0.lock().unwrap().push(request[b"string".as_slice()].len());
            Reply::success(Vec::new())
        }

        fn shutdown(&self) {}
    }

    #[test]
    fn of_several_loggers_none_gets_a_line_again_for_another_that_refuses_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let loggers = Arc::new(Loggers::default());
        let _server = Server::start(&socket, Arc::clone(&loggers) as Arc<dyn Service>, Limits::default()).unwrap();
        let mut courier = Courier::new(Line::new(&socket), Feed::new("push", "events"));
        let batch = Batch { events: vec![event(1, 1), event(2, 2), event(3, 3)], ends: BTreeMap::new() };
        for _ in 0..3 * SUSPICIOUS {
            assert_eq!(courier.send(&batch, &envelope(&["takes", "full"]), None).0, 0);
        }
        assert_eq!(*loggers.0.lock().unwrap(), [1, 2], "each once, the one behind too, though it was tried often");
        assert_eq!(courier.send(&batch, &envelope(&["takes", "takes too"]), None).0, 3);
        assert_eq!(*loggers.0.lock().unwrap(), [1, 2, 1, 2, 3, 3], "then each goes on where it was");
    }

    #[test]
    fn a_line_that_no_logger_would_take_is_counted_and_keeps_nobody_waiting() {
        let feed = Feed::new("push", "events");
        let mut courier = Courier::new(Line::new("/nowhere"), feed.clone());
        let batch = Batch { events: vec![event(1, LONGEST_LINE + 1), event(2, 10)], ends: BTreeMap::new() };
        let (done, sent) = courier.send(&batch, &envelope(&[""]), None);
        assert_eq!((done, feed.status().rejected), (1, 1), "the next one waits: osquery is not there");
        assert!(matches!(sent, Err(Refusal { error: ManagerError::Unreachable { .. }, eid }) if eid.sequence == 2));
        assert!(feed.status().last_error.contains("of mount_events was left out"), "{:?}", feed.status());
    }
}
