use std::{
    process::{Child, Command, Stdio},
    time::Instant,
};

use mayfly_history::{
    Change,
    mounted::{Mount, MountChange},
    recorder::{Handle, Sinks},
    sink::Bell,
};

use super::*;
use crate::config::SourcesConfig;

/// A process in a mount namespace of its own, in which nothing that is mounted is seen elsewhere. Needs root, as the recorder does.
struct Apart {
    child: Child,
    place: tempfile::TempDir,
}

impl Apart {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        let child = command.args(["--mount", "--propagation", "private", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let apart = Self { child, place };
        let deadline = Instant::now() + Duration::from_secs(20);
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let sleeps = || std::fs::read_to_string(format!("/proc/{}/comm", apart.pid())).unwrap() == "sleep\n";
        while !sleeps() || std::fs::read_link(format!("/proc/{}/ns/mnt", apart.pid())).unwrap() == own {
            assert!(Instant::now() < deadline, "unshare did not make a namespace: run the tests as root");
            std::thread::sleep(Duration::from_millis(1));
        }
        apart
    }

    fn pid(&self) -> i64 {
        self.child.id().into()
    }

    /// Runs a command there.
    fn run(&self, command: &[&str]) {
        let target = self.pid().to_string();
        let status = Command::new("nsenter").args(["--target", &target, "--mount"]).args(command).status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }

    fn folder(&self, name: &str) -> String {
        let folder = self.place.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder.to_str().unwrap().to_owned()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Heard {
    site: Site,
    events: Vec<MountEvent>,
    changes: Vec<Change<Mount>>,
}

impl Heard {
    fn of(process: i64) -> Self {
        let recorder = Handle::detached(Sinks::new(Bell::default()));
        let config =
            SourcesConfig { mounts: MountsConfig { process: Some(process), ..MountsConfig::default() }, ..SourcesConfig::default() };
        let feed = recorder.feed("mounts", "");
        Self { site: Site { endpoint: "".into(), feed, recorder, config: Arc::new(config) }, events: Vec::new(), changes: Vec::new() }
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let sinks = self.site.recorder.sinks();
            self.events.extend(sinks.of::<MountEvent>().drain(usize::MAX).into_iter().map(|r| r.item));
            self.changes.extend(sinks.of::<Change<Mount>>().drain(usize::MAX).into_iter().map(|r| r.item));
            if what(self) {
                return;
            }
            assert!(Instant::now() < deadline, "not in time: {:?}", self.events);
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn next(&mut self) -> MountEvent {
        self.until(|heard| !heard.events.is_empty()).await;
        self.events.remove(0)
    }
}

async fn beside(site: &Site, work: impl Future<Output = ()>) {
    let mut mounts = Mounts::new(site.clone());
    let stop = CancellationToken::new();
    let working = async {
        work.await;
        stop.cancel();
    };
    let (followed, ()) = tokio::join!(mounts.follow(stop.clone()), working);
    followed.unwrap();
}

#[tokio::test]
async fn tells_mounts_binds_moves_remounts_and_lazy_unmounts() {
    let apart = Apart::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| apart.folder(name));
    let mut heard = Heard::of(apart.pid());
    let site = heard.site.clone();
    beside(&site, async {
        heard.until(|heard| !heard.changes.is_empty()).await;
        let Change::Present { group, facts, evidence: "startup", .. } = heard.changes.remove(0) else { panic!("{:?}", heard.changes) };
        assert!(group == "host" && facts.iter().any(|mount| mount.path == "/proc" && mount.hardware.bus == "none"));
        let [mount, unmount] = [MountChange::Mount, MountChange::Unmount];
        for (command, change, path) in [
            (&["mount", "-t", "tmpfs", "-o", "size=1m", "stick", &a][..], mount, &a),
            (&["mount", "--bind", &format!("{a}/."), &b], mount, &b),
            (&["mount", "-o", "remount,ro,nosuid", &a], MountChange::Remount, &a),
            (&["mount", "--move", &b, &c], MountChange::Move, &c),
            (&["umount", "--lazy", &a], unmount, &a),
            (&["umount", &c], unmount, &c),
        ] {
            apart.run(command);
            let is_it = |event: &&MountEvent| (event.action, &event.mount.path) == (change, path);
            heard.until(|heard| heard.events.iter().any(|event| is_it(&event))).await;
        }
        assert!(heard.events.iter().all(|event| (event.mount.device.as_str(), event.mount.fs_type.as_str()) == ("stick", "tmpfs")));
        // The filesystem itself became read-only, so that its bind mount shows it too.
        let count = |change| heard.events.iter().filter(|event| event.action == change).count();
        assert_eq!((count(mount), count(MountChange::Move), count(unmount)), (2, 1, 2), "{:?}", heard.events);
        let remounted = |path: &str, flags: &str| {
            let is_it = |event: &&MountEvent| event.action == MountChange::Remount && event.mount.path == path;
            heard.events.iter().rfind(is_it).is_some_and(|event| event.mount.flags.starts_with(flags))
        };
        assert!(remounted(&a, "ro,nosuid") && remounted(&b, "ro"), "{:?}", heard.events);
        heard.until(|heard| heard.changes.iter().filter(|c| matches!(c, Change::Ended { reason: "unmounted", .. })).count() == 2).await;
    })
    .await;
}

/// A filesystem in a file of the host's disk.
#[tokio::test]
async fn a_loop_device_is_named_by_its_filesystem_and_the_disk_below() {
    let apart = Apart::new();
    let (image, at) = (apart.place.path().join("image"), apart.folder("at"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let uuid = "12345678-9abc-4ef0-8234-56789abcdef0";
    let made = Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-U", uuid, "-L", "stick"]).arg(&image).status().unwrap();
    assert!(made.success());
    let mut heard = Heard::of(apart.pid());
    let site = heard.site.clone();
    beside(&site, async {
        heard.until(|heard| !heard.changes.is_empty()).await;
        apart.run(&["mount", "-o", "loop", image.to_str().unwrap(), &at]);
        let event = heard.next().await;
        apart.run(&["umount", &at]);
        assert_eq!((event.mount.fs_uuid.as_str(), event.mount.fs_label.as_str(), event.mount.path.as_str()), (uuid, "stick", at.as_str()));
        assert!(event.mount.device.starts_with("/dev/loop") && event.mount.device_number.starts_with("7:"), "{event:?}");
        // What the temporary folder lies on is the machine's affair; a loop device it is not.
        assert_ne!(event.mount.hardware.bus, "loop");
        let unmounted = heard.next().await;
        assert_eq!((unmounted.action, &unmounted.mount), (MountChange::Unmount, &event.mount), "what was behind it is still known");
    })
    .await;
}

/// Needs a kernel that gives notice of mounts; says so where it does not.
#[tokio::test]
async fn what_is_undone_at_once_is_told_with_who_did_it() {
    if let Err(error) = tells_who_mounts() {
        return eprintln!("not shown: this kernel does not tell who mounts ({error})");
    }
    let apart = Apart::new();
    let at = apart.folder("at");
    let mut heard = Heard::of(apart.pid());
    let site = heard.site.clone();
    beside(&site, async {
        heard.until(|heard| !heard.changes.is_empty()).await;
        let script = format!("for i in 1 2 3 4 5 6 7 8 9; do mount -t tmpfs quick {at} && umount {at}; done");
        let child = Command::new("nsenter").args(["--target", &apart.pid().to_string(), "--mount", "sh", "-c", &script]).spawn().unwrap();
        heard.until(|heard| heard.events.len() >= 18).await;
        child.wait_with_output().unwrap();
        let told: Vec<_> = heard.events.iter().map(|event| event.action).collect();
        assert_eq!(told, [MountChange::Mount, MountChange::Unmount].repeat(9), "each is told, and in order");
        let by: Vec<_> = heard.events.iter().map(|event| event.by.as_ref().unwrap()).collect();
        assert!(by.windows(2).all(|two| two[0].pid != two[1].pid), "{by:?}");
        // Where, and by which program: unless it was gone before anybody could look, which takes a loaded machine.
        let places = heard.events.iter().map(|event| event.mount.path.as_str()).filter(|path| !path.is_empty());
        assert!(places.clone().count() >= 6 && places.clone().all(|path| path == at), "{:?}", places.collect::<Vec<_>>());
        let named = by.iter().filter(|by| by.path.ends_with("mount") && by.uid == Some(0)).count();
        assert!(named >= 4, "{by:?}");
        let periods = |heard: &Heard| heard.changes.iter().filter(|c| matches!(c, Change::Ended { reason: "unmounted", .. })).count();
        assert!((1..=9).contains(&periods(&heard)), "{}", periods(&heard));
    })
    .await;
}

#[tokio::test]
async fn mounts_without_end_keep_nothing_else_from_being_told() {
    let apart = Apart::new();
    let [at, other] = ["at", "other"].map(|name| apart.folder(name));
    let stop = apart.place.path().join("stop");
    let mut heard = Heard::of(apart.pid());
    let site = heard.site.clone();
    beside(&site, async {
        heard.until(|heard| !heard.changes.is_empty()).await;
        apart.run(&["mount", "-t", "tmpfs", "other", &other]);
        let script = format!("until [ -e {} ]; do mount -t tmpfs endless {at} && umount {at}; sleep 0.01; done", stop.display());
        let mut child =
            Command::new("nsenter").args(["--target", &apart.pid().to_string(), "--mount", "sh", "-c", &script]).spawn().unwrap();
        heard.until(|heard| heard.events.len() >= 50).await;
        apart.run(&["mount", "-o", "remount,ro", &other]);
        let is_it = |event: &MountEvent| event.action == MountChange::Remount && event.mount.path == other;
        heard.until(|heard| heard.events.iter().any(is_it)).await;
        std::fs::write(&stop, "").unwrap();
        child.wait().unwrap();
        let is_told = tells_who_mounts().is_err() || heard.events.iter().all(|event| is_it(event) || event.by.is_some());
        assert!(is_told, "the table was before its notice: {:?}", heard.events);
    })
    .await;
}
