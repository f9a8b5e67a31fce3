use std::{fs, io::Write, sync::Arc, time::Instant};

use mayfly_history::{
    Feed,
    lease::{LeaseEvent, LeaseReport},
    now,
    recorder::{Handle, Sinks},
    sink::Bell,
};

use super::*;
use crate::config::{LeaseFileConfig, SourcesConfig};

/// What was told until `done` says that it suffices.
async fn until(handle: &Handle, seen: &mut Vec<LeaseEvent>, done: impl Fn(&[LeaseEvent]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(seen) {
        assert!(Instant::now() < deadline, "{seen:?}");
        for received in handle.sinks().of::<LeaseReport>().drain(64) {
            match received.item {
                LeaseReport::Event(event) => seen.push(*event),
                LeaseReport::Present(present) => assert!(present.leases.len() <= 1),
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn line(seconds: i64, mac: u8, ip: u8) -> String {
    format!("{} 02:00:00:00:00:{mac:02x} 10.0.0.{ip} host-{mac} *\n", now() / 1_000_000_000 + seconds)
}

#[tokio::test]
async fn what_changes_in_a_file_is_told_however_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    // Not even its directory exists yet.
    let path = dir.path().join("lib/dnsmasq.leases");
    let paths = vec![path.to_string_lossy().into_owned()];
    let config = SourcesConfig { lease_file: LeaseFileConfig { enabled: true, paths }, ..SourcesConfig::default() };
    let handle = Handle::detached(Sinks::new(Bell::default()));
    let feed = Feed::new("lease_file", "");
    let site = Site { endpoint: "".into(), feed: feed.clone(), recorder: handle.clone(), config: Arc::new(config) };
    let stop = CancellationToken::new();
    let mut source = LeaseFiles::new(site);
    let work = async {
        let mut seen = Vec::new();
        let count =
            |action: &'static str, n: usize| move |seen: &[LeaseEvent]| seen.iter().filter(|e| e.action.as_str() == action).count() >= n;
        while feed.status().state != "running" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fs::create_dir(path.parent().unwrap()).unwrap();
        let first = line(600, 10, 10);
        fs::write(&path, "").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        fs::write(&path, &first).unwrap();
        until(&handle, &mut seen, count("assigned", 1)).await;
        // Appended.
        fs::File::options().append(true).open(&path).unwrap().write_all(line(600, 11, 11).as_bytes()).unwrap();
        until(&handle, &mut seen, count("assigned", 2)).await;
        // Replaced; one is gone.
        let other = path.with_extension("new");
        fs::write(&other, &first).unwrap();
        fs::rename(&other, &path).unwrap();
        until(&handle, &mut seen, count("released", 1)).await;
        // Emptied for a moment while it is written anew.
        fs::write(&path, "").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(&path, format!("{first}nonsense\n")).unwrap();
        while feed.status().rejected == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Removed.
        fs::remove_file(&path).unwrap();
        until(&handle, &mut seen, count("released", 2)).await;
        stop.cancel();
        seen
    };
    let (followed, seen) = tokio::join!(source.follow(stop.clone()), work);
    followed.unwrap();
    let told: Vec<_> = seen.iter().map(|e| (e.action.as_str(), e.lease.ip_address.unwrap().to_string())).collect();
    let ten = || "10.0.0.10".to_owned();
    let eleven = || "10.0.0.11".to_owned();
    assert_eq!(told, [("assigned", ten()), ("assigned", eleven()), ("released", eleven()), ("released", ten())]);
    assert!(feed.status().last_error.ends_with("dnsmasq.leases:2: a lease has five fields"), "{}", feed.status().last_error);
}
