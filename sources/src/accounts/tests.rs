use std::{fs, path::Path, time::Instant};

use mayfly_history::{
    Change, Fact,
    account::{AccountEvent, User},
    recorder::{Handle, Sinks},
    sink::Bell,
};

use super::*;
use crate::config::SourcesConfig;

const SOON: Duration = Duration::from_secs(20);

struct Host {
    root: tempfile::TempDir,
    site: Site,
    events: Vec<AccountEvent>,
    changes: Vec<Change<User>>,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let config = AccountsConfig { root: root.path().to_owned(), ..AccountsConfig::default() };
        let recorder = Handle::detached(Sinks::new(Bell::default()));
        let feed = recorder.feed("accounts", "");
        let config = Arc::new(SourcesConfig { accounts: config, ..SourcesConfig::default() });
        Self { root, site: Site { endpoint: "".into(), feed, recorder, config }, events: Vec::new(), changes: Vec::new() }
    }

    /// As every tool does it: another file is renamed over the one that is there.
    fn write(&self, name: &str, content: &str) {
        let path = self.root.path().join("etc").join(name);
        let beside = path.with_extension("new");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, path).unwrap();
    }

    /// Waits for the next event that is told.
    async fn next(&mut self) -> AccountEvent {
        self.until(|host| !host.events.is_empty()).await;
        self.events.remove(0)
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let sinks = self.site.recorder.sinks();
            self.events.extend(sinks.of::<AccountEvent>().drain(usize::MAX).into_iter().map(|r| r.item));
            self.changes.extend(sinks.of::<Change<User>>().drain(usize::MAX).into_iter().map(|r| r.item));
            if what(self) {
                return;
            }
            assert!(Instant::now() < deadline, "not in time: {:?} {:?}", self.events, self.changes);
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn watched(&mut self) {
        self.until(|host| host.site.feed.status().state == "running").await;
    }
}

/// Runs the source beside `work`, and hands it back.
async fn beside(site: &Site, accounts: Option<Accounts>, work: impl Future<Output = ()>) -> Accounts {
    let mut accounts = accounts.unwrap_or_else(|| Accounts::new(site.clone()));
    let stop = CancellationToken::new();
    let working = async {
        work.await;
        stop.cancel();
    };
    let (followed, ()) = tokio::join!(accounts.follow(stop.clone()), working);
    followed.unwrap();
    accounts
}

fn told(event: &AccountEvent) -> (&str, &str, &str, Option<i64>) {
    (event.action.as_str(), &event.username, &event.groupname, event.uid)
}

#[tokio::test]
async fn tells_what_each_rename_changed_and_nothing_twice() {
    let mut host = Host::new();
    host.write("passwd", "root:x:0:0::/:\n");
    host.write("group", "root:x:0:\n");
    host.write("shadow", "root:$6$a$b:19000::::::\n");
    let site = host.site.clone();
    beside(&site, None, async {
        host.watched().await;
        let begun = now();
        host.write("passwd", "root:x:0:0::/:\njoe:x:1000:1000::/home/joe:/bin/sh\n");
        let event = host.next().await;
        assert_eq!(told(&event), ("user_added", "joe", "", Some(1000)));
        assert!((begun..=now()).contains(&event.time_ns));
        host.write("group", "root:x:0:\njoe:x:1000:\n");
        assert_eq!(told(&host.next().await), ("group_added", "", "joe", None));
        host.write("shadow", "root:$6$secret$secret:19001::::::\n");
        let event = host.next().await;
        assert_eq!(
            (told(&event).0, event.changed_json().unwrap().as_str()),
            ("user_changed", r#"{"password_changed_day":{"new":19001,"old":19000}}"#)
        );
        // The same content again, and files that are nobody's.
        host.write("passwd", "root:x:0:0::/:\njoe:x:1000:1000::/home/joe:/bin/sh\n");
        host.write("hosts", "127.0.0.1 localhost\n");
        fs::remove_file(host.root.path().join("etc/passwd")).unwrap();
        assert_eq!(told(&host.next().await), ("user_removed", "joe", "", Some(1000)));
        assert_eq!(told(&host.next().await), ("user_removed", "root", "", Some(0)));
        // Written in place, as an editor may.
        fs::write(host.root.path().join("etc/passwd"), "root:x:0:0::/:\n").unwrap();
        assert_eq!(told(&host.next().await), ("user_added", "root", "", Some(0)));
    })
    .await;
    let status = site.feed.status();
    assert_eq!((status.received, status.rejected, host.events.len()), (6, 0, 0));
}

#[tokio::test]
async fn an_id_that_another_name_takes_ends_the_first_ones_interval() {
    let mut host = Host::new();
    host.write("passwd", "joe:x:1000:1000::/:\n");
    let site = host.site.clone();
    beside(&site, None, async {
        host.until(|host| !host.changes.is_empty()).await;
        let Change::Present { group, facts, evidence: "startup", blind_since: None, .. } = host.changes.remove(0) else {
            panic!("what is there at the start is a list")
        };
        assert_eq!((group.as_str(), facts.len(), facts[0].name.as_str()), ("host", 1, "joe"));
        host.write("passwd", "ann:x:1000:1000::/:\n");
        host.until(|host| host.changes.len() == 2).await;
        let Change::Ended { key, scope, reason: "removed", at_ns: ended_ns, .. } = &host.changes[0] else { panic!("{:?}", host.changes) };
        assert_eq!((key.as_str(), scope.as_str()), ("1000", &*facts[0].scope()));
        let Change::Holds { fact, at_ns, .. } = &host.changes[1] else { panic!("{:?}", host.changes) };
        assert_eq!((fact.name.as_str(), fact.uid, at_ns), ("ann", Some(1000), ended_ns));
    })
    .await;
}

#[tokio::test]
async fn what_changed_while_nobody_watched_is_listed_with_its_gap() {
    let mut host = Host::new();
    host.write("passwd", "joe:x:1000:1000::/:\n");
    let site = host.site.clone();
    let accounts = beside(&site, None, host.watched()).await;
    host.write("passwd", "ann:x:1000:1000::/:\n");
    host.changes.clear();
    beside(&site, Some(accounts), async {
        host.until(|host| !host.changes.is_empty()).await;
        let Change::Present { facts, blind_since: Some(lost_ns), taken_ns, .. } = &host.changes[0] else { panic!("{:?}", host.changes) };
        assert_eq!(facts.iter().map(|u| &*u.name).collect::<Vec<_>>(), ["ann"]);
        assert!(lost_ns <= taken_ns);
    })
    .await;
    let gaps = site.feed.take_gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_followed_anew() {
    let mut host = Host::new();
    host.write("passwd", "joe:x:1000:1000::/:\n");
    let site = host.site.clone();
    let mut accounts = Accounts::new(site.clone());
    let replace = |root: &Path| {
        fs::rename(root.join("etc"), root.join("old")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
    };
    let work = async {
        host.watched().await;
        replace(host.root.path());
    };
    let (followed, ()) = tokio::join!(accounts.follow(CancellationToken::new()), work);
    assert!(followed.unwrap_err().to_string().contains("inotify"));
    beside(&site, Some(accounts), async {
        assert_eq!(told(&host.next().await), ("user_removed", "joe", "", Some(1000)));
    })
    .await;
}
