//! A store as large as years of use make it, written straight through the store's writer.

use std::{fs, path::Path};

use mayfly_benches::fleet::Fleet;
use mayfly_history::store::{RowBuf, StoreOptions, Writer};
use mayfly_tables::CONTAINER_LIFECYCLE_EVENTS as TABLE;
use mayfly_tests::Result;

/// When the events of the store begin: long before the recorder's own.
const BEGIN: i64 = 1_700_000_000_000_000_000;
const BATCH: usize = 4096;

/// Adds lifecycle events until the store in `dir` has `bytes`; returns how many.
pub(crate) fn fill(dir: &Path, bytes: u64) -> Result<usize> {
    let mut writer = Writer::open(dir, &StoreOptions { max_size_mib: 16 * 1024, ..StoreOptions::default() })?.writer;
    let log = writer.events(&TABLE.schema())?;
    let (mut fleet, mut row, mut written) = (Fleet::new(1, BEGIN), RowBuf::default(), 0);
    while fs::metadata(dir.join("history.db"))?.len() < bytes {
        let mut tx = writer.begin()?;
        for event in fleet.by_ref().take(BATCH) {
            row.encode(TABLE.columns, &event);
            tx.append(log, event.time_ns, &row)?;
        }
        tx.commit()?;
        written += BATCH;
        while writer.maintain()? <= std::time::Instant::now() {}
    }
    Ok(written)
}
