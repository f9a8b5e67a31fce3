//! A recorder that is killed loses nothing that it committed.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{THINGS, append, open_again, seen, thing};
use crate::store::{EventScan, Reader};

const DIR: &str = "MAYFLY_TEST_STORE";
const TEST: &str = "store::tests::crash::every_commit_of_a_killed_process_is_there_once";

/// The process that is killed: commits rows numbered on from what is there, and says how far it is.
fn write_until_killed(dir: &Path) {
    let mut writer = open_again(dir).writer;
    let log = writer.events(&THINGS.schema()).unwrap();
    let mut next = rows(dir).len() as i64;
    loop {
        let batch: Vec<_> = (next..next + 97).map(|n| (1_700_000_000_000_000_000 + n, thing(format!("id {n}"), n))).collect();
        append(&mut writer, log, &batch);
        next += 97;
        println!("committed {next}");
        std::io::stdout().flush().unwrap();
        writer.maintain().unwrap();
    }
}

fn rows(dir: &Path) -> Vec<i64> {
    let (rows, scanned) = seen(&Reader::open(dir).unwrap(), &THINGS.schema(), &EventScan::default());
    assert_eq!(scanned.damaged, 0);
    rows.into_iter().map(|seen| seen.thing.number.unwrap()).collect()
}

#[test]
fn every_commit_of_a_killed_process_is_there_once() {
    if let Some(dir) = env::var_os(DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let dir = TempDir::new().unwrap();
    for kill_after in [1, 60, 150, 45, 90] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let committed = said.filter_map(|line| line.strip_prefix("committed ")?.parse::<i64>().ok()).nth(kill_after).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let found = rows(dir.path());
        assert!(found.len() as i64 >= committed, "{} of {committed} rows are there", found.len());
        assert_eq!(found.len() % 97, 0, "transactions are whole");
        assert!(found.iter().copied().eq(0..found.len() as i64), "each once, in order");
        let opened = open_again(dir.path());
        assert_eq!(opened.set_aside, None);
        assert!(opened.last_alive.is_some());
    }
    assert_eq!(
        fs::metadata(dir.path().join("history.db")).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777).unwrap(),
        0o600
    );
}
