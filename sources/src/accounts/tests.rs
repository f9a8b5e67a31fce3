use std::{fs, path::Path, process::Command, time::Instant};

use mayfly_history::{
    Change, Fact,
    account::{AccountEvent, Group, User},
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
    groups: Vec<Change<Group>>,
}

/// A folder with a `getent` that does this. Another process writes it: a fork of another test would hold the file open, and the kernel
/// runs no program that may yet be written.
pub(crate) fn script(what: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#;
    let written = Command::new("sh").args(["-c", write]).arg(folder.path().join("getent")).arg(what).status().unwrap();
    assert!(written.success());
    folder
}

impl Host {
    fn new() -> Self {
        Self::asking(None)
    }

    fn asking(getent: Option<PathBuf>) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let config = AccountsConfig { root: root.path().to_owned(), getent, ..AccountsConfig::default() };
        let recorder = Handle::detached(Sinks::new(Bell::default()));
        let feed = recorder.feed("accounts", "");
        let config = Arc::new(SourcesConfig { accounts: config, ..SourcesConfig::default() });
        let site = Site { endpoint: "".into(), feed, recorder, config };
        Self { root, site, events: Vec::new(), changes: Vec::new(), groups: Vec::new() }
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
            self.groups.extend(sinks.of::<Change<Group>>().drain(usize::MAX).into_iter().map(|r| r.item));
            if what(self) {
                return;
            }
            assert!(Instant::now() < deadline, "not in time: {:?} {:?}", self.events, self.changes);
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// A process shows an id; so much later that it is news again.
    fn show(&self, uid: i64, at_ns: Nanos, later: u64) {
        self.site.recorder.seen_users().see(uid, at_ns, Instant::now() + Duration::from_secs(later));
    }

    /// What was told of users that the name service gave, in words; waits for so many.
    async fn named(&mut self, many: usize) -> Vec<String> {
        let say = |change: &Change<User>| match change {
            Change::Holds { fact, at_ns, evidence: "nss" } => Some(format!("{} {} from {at_ns}", fact.name, fact.uid.unwrap_or(-1))),
            Change::Ended { key, scope, at_ns, reason, evidence: "nss" } => Some(format!("{scope} {key} to {at_ns}, {reason}")),
            _ => None,
        };
        self.until(|host| host.changes.iter().filter_map(say).count() >= many).await;
        self.changes.drain(..).collect::<Vec<_>>().iter().filter_map(say).collect()
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
        // The time of a file is that of the kernel's last tick.
        assert!((begun - 21_000_000..=now()).contains(&event.time_ns));
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

#[tokio::test]
async fn whom_no_file_names_is_asked_for_when_a_process_shows_the_id() {
    let program = script("echo $2 >> \"$0.asked\"; [ $2 = 7 ] && echo 'ann:x:7:100:Ann:/home/ann:/bin/sh' && exit; exit 2");
    let mut host = Host::asking(Some(program.path().join("getent")));
    host.write("passwd", "joe:x:1000:1000::/:\n");
    let site = host.site.clone();
    beside(&site, None, async {
        for (uid, at_ns) in [(1000, 1), (7, 2), (8, 3), (7, 4)] {
            host.show(uid, at_ns, 0);
        }
        assert_eq!(host.named(1).await, ["ann 7 from 2"]);
        // Nobody has it, and so it is for a while.
        host.show(8, 5, 61);
        host.show(9, 6, 0);
        let asked = || fs::read_to_string(program.path().join("getent.asked")).unwrap_or_default();
        host.until(|_| asked().lines().count() == 3).await;
        assert_eq!(asked(), "7\n8\n9\n", "one in a file is not asked for");
    })
    .await;
}

#[tokio::test]
async fn a_group_that_no_file_names_is_asked_for_when_a_process_shows_it() {
    let program = script("echo $* >> \"$0.asked\"; [ \"$*\" = 'group 7' ] && echo 'team:x:7:joe,ann' && exit; exit 2");
    let mut host = Host::asking(Some(program.path().join("getent")));
    host.write("group", "wheel:x:10:\n");
    let site = host.site.clone();
    beside(&site, None, async {
        host.watched().await;
        for (gid, at_ns) in [(10, 1), (7, 2), (7, 3)] {
            site.recorder.seen_groups().see(gid, at_ns, Instant::now());
        }
        let named = |change: &Change<Group>| matches!(change, Change::Holds { evidence: "nss", .. });
        host.until(|host| host.groups.iter().any(named)).await;
        let Some(Change::Holds { fact, at_ns, .. }) = host.groups.iter().find(|change| named(change)) else { panic!("{:?}", host.groups) };
        assert_eq!((fact.name.as_str(), fact.gid, *at_ns), ("team", Some(7), 2));
        assert_eq!((&*fact.members, &*fact.scope()), (&["ann".to_owned(), "joe".to_owned()][..], "team name service"));
        assert_eq!(fs::read_to_string(program.path().join("getent.asked")).unwrap(), "group 7\n", "one in a file is not asked for");
    })
    .await;
}

#[tokio::test]
async fn what_the_name_service_says_no_longer_ends_when_a_process_shows_it() {
    let program = script("cat \"$0.answer\" 2> /dev/null || exit 2");
    let mut host = Host::asking(Some(program.path().join("getent")));
    let answer = |line: &str| {
        let beside = program.path().join("new");
        fs::write(&beside, line).unwrap();
        fs::rename(beside, program.path().join("getent.answer")).unwrap();
    };
    answer("ann:x:7:7::/:/bin/sh\n");
    let site = host.site.clone();
    beside(&site, None, async {
        host.watched().await;
        host.show(7, 2, 0);
        assert_eq!(host.named(1).await, ["ann 7 from 2"]);
        answer("ann:x:7:7::/:/bin/zsh\n");
        host.show(7, 3, 61);
        assert_eq!(host.named(1).await, ["ann 7 from 3"], "another shell");
        answer("bob:x:7:7:::\n");
        host.show(7, 4, 122);
        assert_eq!(host.named(2).await, ["ann name service 7 to 4, unknown", "bob 7 from 4"]);
        fs::remove_file(program.path().join("getent.answer")).unwrap();
        host.show(7, 5, 183);
        assert_eq!(host.named(1).await, ["bob name service 7 to 5, unknown"]);
        answer("eve:x:8:8:::\n");
        host.show(8, 6, 0);
        assert_eq!(host.named(1).await, ["eve 8 from 6"]);
        host.write("passwd", "eve:x:8:8:::\n");
        assert_eq!(told(&host.next().await), ("user_added", "eve", "", Some(8)));
        host.show(8, 7, 61);
        assert_eq!(host.named(1).await, ["eve name service 8 to 7, changed"], "a file names it now");
    })
    .await;
}

#[tokio::test]
async fn whoever_is_asked_for_again_is_due_only_after_another_while() {
    let program = script("echo 'ann:x:7:7:::'");
    let host = Host::asking(Some(program.path().join("getent")));
    host.site.recorder.seen_users().on_seen(|| ());
    let mut names = name_service::NameService::<User>::new(host.site.clone(), &host.site.config.accounts);
    host.show(7, 2, 0);
    names.look(&book::Book::default());
    let answer = names.answer().await;
    names.take(answer);

    let first = names.due().unwrap();
    names.look_again(first);
    assert!(names.due().unwrap() > first, "the question is out, and its time has come once");
    let answer = names.answer().await;
    names.take(answer);

    fs::remove_file(program.path().join("getent")).unwrap();
    names.look_again(names.due().unwrap());
    let answer = names.answer().await;
    names.take(answer);
    assert_eq!(names.due(), None, "there is nobody to be asked");
}

#[tokio::test]
async fn a_name_service_that_fails_once_is_asked_again() {
    let program = script("echo . >> \"$0.asked\"; [ $(wc -l < \"$0.asked\") = 1 ] && exit 1; echo 'ann:x:7:7:::'");
    let root = tempfile::tempdir().unwrap();
    let user: Option<User> = name_service::ask(program.path().join("getent").as_path().into(), root.path().to_owned(), 7).await.unwrap();
    assert_eq!(user.map(|user| user.name).as_deref(), Some("ann"));
}

#[tokio::test]
async fn a_user_in_a_file_that_is_yet_to_be_read_is_the_files() {
    let program = script("[ $2 = 7 ] && echo 'ann:x:7:7:::' || echo 'bob:x:8:8:::'");
    let host = Host::new();
    host.write("passwd", "ann:x:7:7::/:\nbob:x:9:9:::\n");
    let ask = |uid| name_service::ask::<User>(program.path().join("getent").as_path().into(), host.root.path().to_owned(), uid);
    assert_eq!(ask(7).await.unwrap(), None);
    assert_eq!(ask(8).await.unwrap().map(|user| (user.name, user.by_name_service)), Some(("bob".into(), true)));
}

#[tokio::test]
async fn a_change_has_the_time_of_its_file_whatever_delays_the_source() {
    let mut host = Host::new();
    host.write("passwd", "joe:x:1000:1000::/:\n");
    let site = host.site.clone();
    beside(&site, None, async {
        host.watched().await;
        host.changes.clear();
        host.write("passwd", "ann:x:1000:1000::/:\n");
        use std::os::unix::fs::MetadataExt;
        let file = fs::metadata(host.root.path().join("etc/passwd")).unwrap();
        let written_ns = file.ctime() * 1_000_000_000 + file.ctime_nsec();
        // The source runs on this very thread.
        std::thread::sleep(Duration::from_millis(100));
        host.until(|host| host.events.len() == 2).await;
        for event in &host.events {
            assert!((written_ns - event.time_ns).abs() < 21_000_000, "{} is not {written_ns}", event.time_ns);
        }
    })
    .await;
}
