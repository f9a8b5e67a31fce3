//! Keeps the envelope fresh: asks osquery for it when we registered, and for what may change while we are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mayfly_history::chain;

use super::{
    decorators::{self, Decorator},
    envelope::{Envelope, Flags},
};
use crate::{
    asking::{
        Office,
        recovery::{self, recovering},
    },
    manager::{Manager, ManagerError},
};

/// How long osquery may take to tell one of these things.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often names and flags are asked for again: both may change while osquery runs.
const REFRESH: Duration = Duration::from_secs(60);
/// How long before osquery is asked again that did not tell.
const PAUSE: Duration = Duration::from_secs(2);

/// The envelope of the present registration, for all who push. Asks nothing until it is needed.
#[derive(Clone, Debug)]
pub(super) struct Envelopes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    office: Office,
    begun: Once,
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    /// With the number of the registration that it was asked in.
    envelope: Option<(u64, Arc<Envelope>)>,
    /// Why there is none.
    error: String,
}

impl Envelopes {
    pub(super) fn new(office: &Office) -> Self {
        let inner = Inner { office: office.clone(), begun: Once::new(), known: Mutex::default(), changed: Condvar::new() };
        Self(Arc::new(inner))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The envelope of that registration; an error, with the reason, if there is none by the deadline.
    pub(super) fn current(&self, number: u64, deadline: Instant) -> Result<Arc<Envelope>, String> {
        self.0.begun.call_once(|| {
            let keeper = self.clone();
            let keep = move || {
                // Who pushes shows it, as why there is no envelope.
                let say = |why: String, hint: String| keeper.known().error = format!("{why}; {hint}");
                recovering(keeper.0.office.line(), recovery::PAUSES, say, || keeper.keep());
            };
            if let Err(error) = thread::Builder::new().name("push-envelope".into()).spawn(keep) {
                self.known().error = format!("cannot start a thread: {error}");
            }
        });
        let mut known = self.known();
        loop {
            match &known.envelope {
                Some((of, envelope)) if *of == number => return Ok(Arc::clone(envelope)),
                _ => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.0.office.line().is_hung_up() {
                // The last flush, and nothing was sent before: nobody keeps the envelope any longer.
                drop(known);
                let envelope = Inquiry::default().ask(&self.0.office.line().manager(left), self.installs_pack());
                return envelope.map(Arc::new).map_err(|error| chain(&error));
            }
            if left.is_zero() {
                return Err(if known.error.is_empty() { "osquery has not told its flags yet".into() } else { known.error.clone() });
            }
            known = self.0.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn installs_pack(&self) -> bool {
        self.0.office.config().osquery.install_pack
    }

    fn publish(&self, number: u64, envelope: Envelope) {
        let mut known = self.known();
        known.envelope = Some((number, Arc::new(envelope)));
        known.error.clear();
        self.0.changed.notify_all();
    }

    /// Asks at each registration, and again while it holds; ends with the process.
    fn keep(&self) {
        let line = self.0.office.line();
        let mut number = 0;
        let mut inquiry = Inquiry::default();
        let mut ask_at = None;
        while !line.is_hung_up() {
            if let Some(up) = line.wait_for_other(number, ask_at) {
                number = up.number;
                inquiry = Inquiry::default();
            } else if line.up().is_none() {
                // Down: the next registration is the next to be asked.
                ask_at = None;
                continue;
            }
            let manager = line.manager(PATIENCE);
            ask_at = Some(match inquiry.ask(&manager, self.installs_pack()) {
                Ok(envelope) => {
                    self.publish(number, envelope);
                    inquiry.next()
                }
                Err(error) => {
                    self.known().error = chain(&error);
                    Instant::now() + PAUSE
                }
            });
        }
    }
}

/// What was asked in this registration, and when.
#[derive(Debug, Default)]
struct Inquiry {
    config_hash: Option<String>,
    decorators: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    decorator: Decorator,
    /// What it gave last, and when it is due again.
    row: BTreeMap<String, String>,
    again: Option<Instant>,
}

impl Inquiry {
    fn ask(&mut self, manager: &Manager, installs_pack: bool) -> Result<Envelope, ManagerError> {
        let options = manager.options()?;
        let is = |flag: &str| options.get(flag).is_some_and(|value| value == "true");
        let info = manager.query("SELECT instance_id, uuid, config_hash FROM osquery_info")?.into_iter().next().unwrap_or_default();
        let told = |column: &str| info.get(column).cloned().unwrap_or_default();
        if is("disable_decorators") {
            self.decorators.clear();
        } else if self.config_hash.as_ref() != Some(&told("config_hash")) {
            // A configuration that comes from a server is fetched for this: once, and when it has changed.
            let declared = match decorators::of(manager, installs_pack) {
                Err(error @ ManagerError::Refused { .. }) => {
                    tracing::warn!(error = chain(&error), "osquery does not tell its decorators; pushed lines have none");
                    Vec::new()
                }
                told => told?,
            };
            self.decorators =
                declared.into_iter().map(|decorator| Asked { decorator, row: BTreeMap::new(), again: Some(Instant::now()) }).collect();
            self.config_hash = Some(told("config_hash"));
        }
        for asked in &mut self.decorators {
            asked.refresh(manager);
        }
        let host = match options.get("host_identifier").map(String::as_str) {
            Some("uuid") => told("uuid"),
            // osquery tells nobody what it calls itself while it lives; its instance is the nearest.
            Some("instance" | "ephemeral") => told("instance_id"),
            Some("specified") => options.get("specified_identifier").cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let loggers = options.get("logger_plugin").map_or("", String::as_str).split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut loggers: Vec<_> = loggers.map(str::to_owned).collect();
        if loggers.len() < 2 {
            // The active one, whatever its name. Of several, osquery would not tell which refused.
            loggers = vec![String::new()];
        }
        if is("disable_logging") {
            loggers.clear();
        }
        Ok(Envelope {
            flags: Flags::of(&options),
            host: if host.is_empty() { host_name() } else { host },
            decorations: self.decorators.iter().flat_map(|asked| asked.row.clone()).collect(),
            loggers,
        })
    }

    /// When something is to be asked again.
    fn next(&self) -> Instant {
        let refresh = Instant::now() + REFRESH;
        self.decorators.iter().filter_map(|asked| asked.again).chain([refresh]).min().unwrap_or(refresh)
    }
}

impl Asked {
    fn refresh(&mut self, manager: &Manager) {
        if self.again.is_none_or(|again| again > Instant::now()) {
            return;
        }
        self.again = self.decorator.every.map(|every| Instant::now() + every);
        match manager.query(&self.decorator.sql) {
            // Only the first row counts.
            Ok(rows) => self.row = rows.into_iter().next().unwrap_or_default(),
            Err(error) => {
                let sql = &self.decorator.sql;
                tracing::warn!(sql, error = chain(&error), "a decorator failed; pushed lines lack it");
                // As osquery, which tries those of the load never again.
            }
        }
    }
}

/// As osquery takes it: the kernel's, whole or not.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
