//! Floods, full disks and damaged files: what is lost is said, and recording goes on.

use std::{fs, io::Write, os::unix::fs::FileExt, path::Path, process::Command};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{
    recorded::{EVENTS, intervals, life, push, rows, start, wait_until},
    *,
};
use crate::{feed::Gap, store::Reader, time::now};

pub(in crate::recorder) fn gaps(dir: &Path, cause: &str) -> Vec<Gap> {
    Reader::open(dir).unwrap().gaps().unwrap().into_iter().filter(|g| g.cause == cause).collect()
}

/// The number that a detail begins with.
fn lost(gap: &Gap) -> u64 {
    gap.detail.split_once(' ').unwrap().0.parse().unwrap()
}

/// A small file system of its own, where this user may mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("not tried: this user may not mount a file system");
        None
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.path().join("ballast")
    }

    /// Takes a piece of what is free, or all of it.
    fn fill(&self) {
        let _ = fs::OpenOptions::new().append(true).create(true).open(self.ballast()).and_then(|mut f| f.write_all(&[0; 1 << 20]));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_hundred_thousand_execs_of_one_container_are_counted_in_its_own_row() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    let (key, begins) = (docker("noisy"), now());
    push(&handle, &feed, event(&key, Witness::Docker, Action::Create, begins));
    for n in 0..100_000 {
        let mut exec = event(&key, Witness::Docker, Action::ExecCreate, begins + n);
        exec.exec_id = Some(format!("e{n}"));
        push(&handle, &feed, exec);
    }
    push(&handle, &feed, with_run(event(&key, Witness::Docker, Action::Die, begins + MS), exit(1)));
    push(&handle, &feed, event(&key, Witness::Docker, Action::Destroy, begins + 2 * MS));
    recorder.stop().unwrap();
    let rows = rows(dir.path(), &EVENTS);
    let of = |action: &str| rows.iter().filter(|r| r[1] == action).collect::<Vec<_>>();
    assert_eq!((of("create").len(), of("die").len(), of("destroy").len()), (1, 1, 1), "its life is told");
    let shed: u64 = of("throttled").iter().map(|r| r[4].parse::<u64>().unwrap()).sum();
    assert_eq!(of("exec_create").len() as u64 + shed, 100_000);
    assert!(shed >= 90_000, "{shed}");
    let status = feed.status();
    assert_eq!((status.received, status.rejected, status.evicted), (100_003, shed, 0));
    assert_eq!(status.events, 100_003 - shed);
    assert_eq!(gaps(dir.path(), "ring_full"), [], "one container's flood blinds for nothing else");
}

#[test]
fn a_ring_that_ran_over_is_a_gap_that_counts_what_was_evicted() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", "unix:///run/docker.sock"));
    let mut n = 0;
    wait_until("the ring runs over", || {
        for _ in 0..10_000 {
            push(&handle, &feed, event(&docker(&format!("c{}", n % 64)), Witness::Docker, Action::HealthStatus, now()));
            n += 1;
        }
        feed.status().evicted > 0
    });
    let mut asked = std::pin::pin!(feed.resync_wanted());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    wait_until("the source is asked for what exists", || asked.as_mut().poll(&mut context).is_ready());
    recorder.stop().unwrap();
    let (status, gaps) = (feed.status(), gaps(dir.path(), "ring_full"));
    assert_eq!(status.received, status.events + status.evicted + status.rejected);
    assert_eq!(gaps.iter().map(lost).sum::<u64>(), status.evicted);
    for gap in gaps {
        assert_eq!((&*gap.source, &*gap.endpoint), ("docker", "unix:///run/docker.sock"));
        assert!(gap.to_ns.is_some_and(|to| gap.from_ns < to), "{gap:?}");
    }
}

#[test]
fn a_full_disk_is_said_and_what_fits_into_memory_is_stored_later() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path();
    let recorder = start(dir);
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    // What is written until the recorder notices: more than the store can have freed for itself.
    let mut pushed = 0;
    wait_until("the recorder says that it cannot store", || {
        disk.fill();
        for _ in 0..4 {
            let mut create = event(&docker(&format!("c{pushed}")), Witness::Docker, Action::Create, now());
            create.details.command = Some("x".repeat(20_000));
            push(&handle, &feed, create);
            pushed += 1;
        }
        feed.status().last_error.starts_with("cannot store: ")
    });
    fs::remove_file(disk.ballast()).unwrap();
    wait_until("all rows", || rows(dir, &EVENTS).len() == pushed);
    assert_eq!(feed.status().evicted, 0);
    recorder.stop().unwrap();
}

#[test]
fn a_disk_that_is_full_for_too_long_is_a_gap_that_counts_what_was_lost() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path();
    let recorder = start(dir);
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    let begins = now();
    let mut containers = 0;
    while feed.status().evicted == 0 {
        disk.fill();
        let id = format!("c{containers}");
        for n in 0..100 {
            push(&handle, &feed, event(&docker(&id), Witness::Docker, Action::HealthStatus, begins + n));
        }
        // The ring itself never runs over.
        wait_until("the recorder took them", || !handle.directory().by_id(&id).is_empty());
        containers += 1;
        assert!(containers < 2000, "the store never failed");
    }
    fs::remove_file(disk.ballast()).unwrap();
    wait_until("the gap", || !gaps(dir, "store_failed").is_empty());
    recorder.stop().unwrap();
    assert_eq!(gaps(dir, "ring_full"), []);
    let (status, gaps) = (feed.status(), gaps(dir, "store_failed"));
    assert_eq!(gaps.iter().map(lost).sum::<u64>(), status.evicted);
    assert!(gaps.iter().all(|g| g.source == "recorder" && g.from_ns >= begins && g.to_ns.is_some()), "{gaps:?}");
    assert_eq!(rows(dir, &EVENTS).len() as u64 + status.evicted, status.received);
}

/// Overwrites the first page of a table.
pub(in crate::recorder) fn damage(dir: &Path, table: &str) {
    let path = dir.join("history.db");
    let conn = Connection::open(&path).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let page = |sql: &str| u64::from(conn.query_row(sql, [], |r| r.get::<_, u32>(0)).unwrap());
    let root = page(&format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'"));
    let size = page("PRAGMA page_size");
    drop(conn);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xa5; usize::try_from(size).unwrap()], (root - 1) * size).unwrap();
}

fn is_set_aside(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|f| f.unwrap().file_name().to_string_lossy().starts_with("history.db.corrupt-"))
}

#[test]
fn damage_that_is_found_while_recording_is_a_gap_and_what_lives_is_written_again() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    life("c1", now()).into_iter().take(2).for_each(|event| push(&handle, &feed, event));
    recorder.stop().unwrap();
    damage(dir.path(), "container_image_events_blocks");

    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    wait_until("the file is set aside", || is_set_aside(dir.path()));
    wait_until("the gap", || Reader::open(dir.path()).is_ok_and(|r| r.gaps().is_ok_and(|g| g.iter().any(|g| g.cause == "store_failed"))));
    life("c2", now()).into_iter().for_each(|event| push(&handle, &feed, event));
    recorder.stop().unwrap();
    assert_eq!(rows(dir.path(), &EVENTS).iter().map(|r| &*r[0]).collect::<Vec<_>>(), ["c2"; 4]);
    let running = intervals(dir.path(), "c1").into_iter().next_back().unwrap();
    assert_eq!((&*running.0, running.1), ("running", true));
    assert!(gaps(dir.path(), "store_failed")[0].detail.contains("set aside as"));
}

#[test]
fn damage_in_what_is_read_at_the_start_does_not_keep_the_recorder_from_starting() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    life("c1", now()).into_iter().for_each(|event| push(&handle, &feed, event));
    recorder.stop().unwrap();
    damage(dir.path(), "subjects");

    let recorder = start(dir.path());
    assert!(is_set_aside(dir.path()));
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    assert!(handle.blind_since().is_some());
    life("c2", now()).into_iter().for_each(|event| push(&handle, &feed, event));
    recorder.stop().unwrap();
    assert_eq!(rows(dir.path(), &EVENTS).len(), 4);
    assert_eq!(gaps(dir.path(), "recorder_down").len(), 1);
}
