//! What a store does beside recording, one short step at a time.

use std::time::{Duration, Instant};

use super::{
    block::MAX_ROWS,
    damage,
    dictionary::{Packer, Training},
    error::StoreError,
    integrity::Integrity,
    layout::register_dictionary,
    open::FILE,
    retention,
    seal::{MAX_BYTES, Sealer},
    status,
    writer::{Tail, Writer},
};
use crate::time::boot_nanos;

/// How often it is looked whether something expired, and whether the integrity check has ended.
const PERIOD: Duration = Duration::from_secs(60);
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// A log of this size (256 KiB) is emptied once its store is idle: what little comes would go on making it longer, to sixteen times a megabyte.
pub(super) const IDLE_LOG: u64 = 256 << 10;
/// A store to which at most so many rows come in a period is idle: what it keeps of itself, and now and then how the sources fare.
const IDLE_ROWS: u64 = 256;

/// What is due, and when.
#[derive(Debug)]
pub(super) struct Chores {
    integrity: Option<Integrity>,
    pub(super) sealer: Sealer,
    pub(super) retention_at: Instant,
    /// All rows that were written when it was last looked.
    rows: u64,
}

impl Chores {
    pub(super) fn new(integrity: Integrity) -> Result<Self, StoreError> {
        Ok(Self { integrity: Some(integrity), sealer: Sealer::new()?, retention_at: Instant::now() + CHECK_PERIOD, rows: 0 })
    }
}

impl Tail {
    fn is_long(&self) -> bool {
        self.rows >= MAX_ROWS as u64 || self.bytes >= MAX_BYTES as u64
    }
}

/// One step; returns when the next is wanted.
pub(super) fn step(writer: &mut Writer) -> Result<Instant, StoreError> {
    take_finding(writer)?;
    if let Some(index) = writer.logs.iter().position(Tail::is_long) {
        seal(writer, index)?;
        return Ok(Instant::now());
    }
    take_dictionaries(writer)?;
    let now = Instant::now();
    if writer.chores.retention_at <= now {
        if retention::step(writer)? {
            return Ok(now);
        }
        note_damage(writer)?;
        writer.reserve.hold();
        let age = writer.clock.age(boot_nanos());
        writer.keep_state(age)?;
        writer.chores.retention_at = now + PERIOD;
        rest(writer)?;
    }
    let waits = writer.chores.integrity.is_some() || writer.histories.iter().any(|history| history.training.is_some());
    let check_at = waits.then(|| now + CHECK_PERIOD);
    Ok(check_at.map_or(writer.chores.retention_at, |at| at.min(writer.chores.retention_at)))
}

/// Empties the log of a store that is idle.
fn rest(writer: &mut Writer) -> Result<(), StoreError> {
    let rows = writer.conn.total_changes();
    let before = std::mem::replace(&mut writer.chores.rows, rows);
    if rows - before > IDLE_ROWS {
        return Ok(());
    }
    let emptied = retention::empty_log(writer, IDLE_LOG);
    writer.checked("empty the log", emptied)
}

pub(super) fn seal(writer: &mut Writer, index: usize) -> Result<(), StoreError> {
    let tx = writer.conn.unchecked_transaction().map_err(StoreError::database("begin a transaction"));
    let sealed = tx.and_then(|tx| {
        writer.chores.sealer.seal(&tx, &writer.logs[index].log)?;
        tx.commit().map_err(StoreError::database("commit"))
    });
    writer.freeing(sealed)?;
    let counted = writer.logs[index].count(&writer.conn);
    writer.checked("count the tail", counted)
}

/// Notes as gaps what readers found to be damaged.
fn note_damage(writer: &mut Writer) -> Result<(), StoreError> {
    let places = match damage::take_words(&writer.dir) {
        Ok(places) => places,
        Err(error) => {
            tracing::warn!(%error, "cannot read what readers found to be damaged");
            return Ok(());
        }
    };
    let age = writer.clock.age(boot_nanos());
    let is_ours = |place: &&damage::Place| writer.logs.iter().any(|tail| tail.log.name == place.table);
    let noted = places.iter().filter(is_ours).try_for_each(|place| damage::note(&writer.conn, place, age));
    writer.checked("note damaged events", noted)
}

/// Has dictionaries made for histories that want one, and takes what is made.
fn take_dictionaries(writer: &mut Writer) -> Result<(), StoreError> {
    let path = writer.dir.join(FILE);
    for history in &mut writer.histories {
        let Some(training) = &history.training else {
            if history.packer.wants_dictionary() {
                let training = Training::begin(&path, &history.log.name, history.log.layout);
                history.training = Some(training.map_err(StoreError::database("read rows to make a dictionary of"))?);
            }
            continue;
        };
        let Some(made) = training.finished() else { continue };
        history.training = None;
        history.packer.put_off();
        let Some(dictionary) = made else { continue };
        let layout =
            register_dictionary(&writer.conn, history.log.layout, &dictionary).map_err(StoreError::database("store a dictionary"))?;
        history.packer = Packer::new(Some(&dictionary)).map_err(StoreError::file("prepare to compress rows of", FILE))?;
        history.log.layout = layout;
    }
    Ok(())
}

/// Notes the result of the integrity check, once it is there.
fn take_finding(writer: &mut Writer) -> Result<(), StoreError> {
    let Some(finding) = writer.chores.integrity.as_ref().and_then(Integrity::finding) else { return Ok(()) };
    writer.chores.integrity = None;
    match finding.as_str() {
        "" => Ok(()),
        "ok" => writer.run("note the integrity check", |conn| status::put_note(conn, "integrity", "ok")),
        _ => Err(StoreError::Integrity { path: writer.dir.join(FILE), finding }),
    }
}
