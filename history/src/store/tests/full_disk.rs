//! A full disk stops the recording of that moment and nothing else.

use std::{fs, io::Write, path::Path, process::Command};

use tempfile::TempDir;

use super::{THINGS, append, open_again, seen, thing};
use crate::{
    feed::Gap,
    store::{EventScan, Reader, RowBuf, StoreError, Writer},
};

/// A small file system of its own.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir.path()).status().ok()?;
        mounted.success().then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn write(writer: &mut Writer, log: crate::store::EventLog, n: i64) -> Result<(), StoreError> {
    let mut row = RowBuf::default();
    row.encode(THINGS.columns, &thing("x".repeat(2000), n));
    let mut tx = writer.begin()?;
    tx.append(log, 1_700_000_000_000_000_000, &row)?;
    tx.commit()
}

#[test]
fn a_gap_can_be_written_and_recording_goes_on_once_there_is_space() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not tried: this user may not mount a file system");
        return;
    };
    let mut writer = open_again(disk.path()).writer;
    let log = writer.events(&THINGS.schema()).unwrap();
    let mut stored = 0;
    let error = loop {
        match write(&mut writer, log, stored) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10_000, "the disk never fills");
    };
    assert!(error.is_full() && !error.is_corrupt(), "{error:?}");
    assert!(stored > 100);

    let gap = Gap {
        source: "store".into(),
        endpoint: String::new(),
        cause: "store_failed".into(),
        from_ns: 1_700_000_000_000_000_000,
        to_ns: None,
        recovered: 0,
        detail: error.to_string(),
    };
    let mut tx = writer.begin().unwrap();
    tx.put_gap(&gap).unwrap();
    tx.commit().expect("the reserve makes room for a gap");

    // Another tenant of the disk goes; the writer, still the same one, goes on.
    while write(&mut writer, log, stored).is_ok() {
        stored += 1;
    }
    Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk.path()).status().unwrap();
    for _ in 0..50 {
        write(&mut writer, log, stored).unwrap();
        stored += 1;
    }
    let (rows, _) = seen(&Reader::open(disk.path()).unwrap(), &THINGS.schema(), &EventScan::default());
    assert!(rows.iter().map(|s| s.thing.number.unwrap()).eq(0..stored), "all that was committed, once");
    assert!(rows.windows(2).all(|w| w[0].eid.sequence + 1 == w[1].eid.sequence), "no number was wasted");
    assert_eq!(Reader::open(disk.path()).unwrap().gaps().unwrap().last(), Some(&gap));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_an_error_that_says_so() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not tried: this user may not mount a file system");
        return;
    };
    let mut filler = fs::File::create(disk.path().join("filler")).unwrap();
    while filler.write_all(&[7; 4096]).is_ok() {}
    let error = Writer::open(disk.path(), &crate::store::StoreOptions::default()).unwrap_err();
    assert!(error.is_full(), "{error:?}");
    drop(filler);
    fs::remove_file(disk.path().join("filler")).unwrap();
    let mut opened = open_again(disk.path());
    assert_eq!(opened.set_aside, None);
    let log = opened.writer.events(&THINGS.schema()).unwrap();
    append(&mut opened.writer, log, &[(5, thing("a", 1))]);
}

#[test]
fn a_disk_that_becomes_read_only_is_an_error_until_it_is_writable_again() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not tried: this user may not mount a file system");
        return;
    };
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        Command::new("mount").args(["-o", &options]).arg(disk.path()).status().unwrap().success()
    };
    let mut writer = open_again(disk.path()).writer;
    let log = writer.events(&THINGS.schema()).unwrap();
    write(&mut writer, log, 0).unwrap();
    drop(writer);
    assert!(remount("ro"));
    let error = Writer::open(disk.path(), &crate::store::StoreOptions::default()).unwrap_err();
    assert!(!error.is_full() && !error.is_corrupt(), "{error:?}");
    assert!(error.to_string().contains(&*disk.path().to_string_lossy()), "{error}");
    assert!(remount("rw"));
    let mut opened = open_again(disk.path());
    assert_eq!(opened.set_aside, None);
    let log = opened.writer.events(&THINGS.schema()).unwrap();
    write(&mut opened.writer, log, 1).unwrap();
    let (rows, _) = seen(&Reader::open(disk.path()).unwrap(), &THINGS.schema(), &EventScan::default());
    assert_eq!(rows.len(), 2);
}
