use std::fs;

use tempfile::TempDir;

use super::{places::MOST_SUBFOLDERS, *};

struct Tree {
    dir: TempDir,
    watches: Watches,
}

impl Tree {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for folder in ["etc/cron.d", "root", "var/lib"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnone:x:1:1::/:/bin/false\n").unwrap();
        let watches = Watches::below(dir.path(), Feed::new("tables", "")).unwrap();
        Self { dir, watches }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The names of what changed, until `name` is among them.
    fn until(&mut self, name: &str) -> BTreeSet<&'static str> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut names = BTreeSet::new();
        while !names.contains(name) {
            assert!(Instant::now() < deadline, "{name} is not among {names:?}");
            let Woken::Changed(changed) = self.watches.wait(Some(deadline)).unwrap() else { panic!("nobody called") };
            names.extend(changed.into_iter().map(|at| FILES[at].name()));
        }
        names
    }
}

#[test]
fn a_file_that_is_replaced_or_written_tells_and_its_neighbours_do_not() {
    let mut tree = Tree::new();
    fs::write(tree.path("etc/other"), "x").unwrap();
    fs::write(tree.path("etc/hosts.new"), "x").unwrap();
    fs::rename(tree.path("etc/hosts.new"), tree.path("etc/hosts")).unwrap();
    assert_eq!(tree.until("/etc/hosts"), BTreeSet::from(["/etc/hosts"]));
    fs::write(tree.path("etc/cron.d/job"), "x").unwrap();
    assert_eq!(tree.until("/etc/cron.d"), BTreeSet::from(["/etc/cron.d"]));
    fs::remove_file(tree.path("etc/hosts")).unwrap();
    tree.until("/etc/hosts");
}

#[test]
fn what_appears_later_tells_too_and_so_does_what_is_in_it() {
    let mut tree = Tree::new();
    fs::create_dir_all(tree.path("etc/systemd/system/multi-user.target.wants")).unwrap();
    tree.until("/etc/systemd/system");
    fs::write(tree.path("etc/systemd/system/multi-user.target.wants/x.service"), "x").unwrap();
    tree.until("/etc/systemd/system");
    fs::create_dir_all(tree.path("var/lib/dpkg")).unwrap();
    fs::write(tree.path("var/lib/dpkg/status"), "x").unwrap();
    tree.until("/var/lib/dpkg/status");
    fs::remove_dir_all(tree.path("etc/cron.d")).unwrap();
    tree.until("/etc/cron.d");
    fs::create_dir(tree.path("etc/cron.d")).unwrap();
    tree.until("/etc/cron.d");
}

#[test]
fn homes_are_watched_of_users_that_come_later_too() {
    let mut tree = Tree::new();
    fs::create_dir(tree.path("root/.ssh")).unwrap();
    tree.until(".ssh");
    fs::write(tree.path("root/.ssh/authorized_keys"), "x").unwrap();
    tree.until(".ssh");
    fs::create_dir_all(tree.path("home/ann/.ssh")).unwrap();
    let passwd = fs::read_to_string(tree.path("etc/passwd")).unwrap();
    fs::write(tree.path("etc/passwd"), passwd + "ann:x:2:2::/home/ann:/bin/sh\n").unwrap();
    tree.until(".ssh");
    fs::write(tree.path("home/ann/.ssh/authorized_keys"), "x").unwrap();
    tree.until(".ssh");
}

#[test]
fn a_home_that_is_made_after_its_user_is_watched_once_it_is_there() {
    let mut tree = Tree::new();
    fs::write(tree.path("etc/null"), "").unwrap();
    let passwd = fs::read_to_string(tree.path("etc/passwd")).unwrap();
    let more = "ann:x:2:2::/home/ann:/bin/sh\nnull:x:3:3::/etc/null:/bin/false\n";
    fs::write(tree.path("etc/passwd"), passwd + more).unwrap();
    // Nothing that the user's coming tells is left to be read.
    tree.watches.read().unwrap();
    tree.watches.look().unwrap();
    let mut interests = tree.watches.folders[&tree.path("etc")].iter();
    assert!(interests.all(|interest| interest.name.as_deref() != Some("null".as_ref())), "what is no folder becomes none");
    fs::create_dir_all(tree.path("home/ann/.ssh")).unwrap();
    tree.until(".ssh");
    fs::write(tree.path("home/ann/.ssh/authorized_keys"), "x").unwrap();
    tree.until(".ssh");
}

#[test]
fn a_folder_that_gets_another_name_is_followed_no_further_and_the_next_of_its_name_is() {
    let mut tree = Tree::new();
    fs::create_dir(tree.path("root/.ssh")).unwrap();
    tree.until(".ssh");
    fs::rename(tree.path("root"), tree.path("old")).unwrap();
    fs::create_dir_all(tree.path("root/.ssh")).unwrap();
    tree.until(".ssh");
    fs::write(tree.path("root/.ssh/authorized_keys"), "x").unwrap();
    tree.until(".ssh");
}

#[test]
fn what_nothing_tells_of_is_found_when_it_is_looked_at_anyway() {
    let mut tree = Tree::new();
    fs::create_dir_all(tree.path("home/ann/.ssh")).unwrap();
    let passwd = fs::read_to_string(tree.path("etc/passwd")).unwrap();
    fs::write(tree.path("etc/passwd"), passwd + "ann:x:2:2::/home/ann:/bin/sh\n").unwrap();
    tree.until(".ssh");
    let watched = |tree: &Tree| tree.watches.known.len();
    let before = watched(&tree);
    // As a file system that is mounted over it hides it.
    fs::rename(tree.path("home"), tree.path("old")).unwrap();
    fs::create_dir_all(tree.path("home/ann/.ssh")).unwrap();
    tree.watches.looked_at -= LOOK_ANYWAY;
    tree.until(".ssh");
    assert_eq!(watched(&tree), before, "in place of the other");
    fs::write(tree.path("home/ann/.ssh/authorized_keys"), "x").unwrap();
    tree.until(".ssh");
}

#[test]
fn what_happens_in_a_folder_where_something_is_awaited_tells_nothing() {
    let mut tree = Tree::new();
    // `spool` is awaited there, of `/var/spool/cron`.
    fs::write(tree.path("var/other"), "x").unwrap();
    fs::create_dir(tree.path("var/folder")).unwrap();
    fs::write(tree.path("etc/hosts"), "x").unwrap();
    assert_eq!(tree.until("/etc/hosts"), BTreeSet::from(["/etc/hosts"]));
    assert!(!tree.watches.is_stale, "a folder that nobody waits for is none to look at");
}

#[test]
fn folders_of_a_users_are_not_watched_and_those_of_root_to_a_bound() {
    let mut tree = Tree::new();
    for at in 0..MOST_SUBFOLDERS + 10 {
        fs::create_dir_all(tree.path(&format!("root/.ssh/{at}"))).unwrap();
        fs::create_dir_all(tree.path(&format!("etc/systemd/system/{at}.d"))).unwrap();
    }
    tree.until("/etc/systemd/system");
    tree.watches.look().unwrap();
    let watched = |path: &str| {
        let path = tree.path(path);
        tree.watches.folders.keys().filter(|folder| folder.parent() == Some(&path)).count()
    };
    assert_eq!((watched("root/.ssh"), watched("etc/systemd/system")), (0, MOST_SUBFOLDERS));
    let said = tree.watches.feed.status().last_error;
    assert!(said.contains("only 256 of the folders in") && said.contains("etc/systemd/system"), "{said}");
}

#[test]
fn a_folder_that_took_the_place_of_another_between_two_looks_tells() {
    let mut tree = Tree::new();
    fs::create_dir(tree.path("etc/new")).unwrap();
    fs::rename(tree.path("etc/cron.d"), tree.path("etc/old")).unwrap();
    fs::rename(tree.path("etc/new"), tree.path("etc/cron.d")).unwrap();
    assert_eq!(tree.until("/etc/cron.d"), BTreeSet::from(["/etc/cron.d"]));
}

#[test]
fn a_wait_is_ended_by_a_call() {
    let mut tree = Tree::new();
    tree.watches.waker().wake();
    assert_eq!(tree.watches.wait(None).unwrap(), Woken::Called);
}
