//! What was mounted where, what was behind it and who did it is known of every time, on the host and within containers.

use std::{fs, path::PathBuf};

use mayfly_tests::{
    IMAGE, Loop, Mayfly, Result, Verdict,
    devices::{FakeHost, Stick},
    run,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::{containerd, turn};

#[test]
fn what_a_container_mounts_is_told_and_ends_with_it() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let endpoint = containerd.endpoint();
    let mayfly = Mayfly::with(&format!("[containerd]\nendpoints = [\"{endpoint}\"]\n[mounts]\nenabled = true\n"))?;
    let recording = mayfly.record()?;
    let script = "busybox mkdir /m; sleep 1; busybox mount -t tmpfs inner /m; sleep 600";
    run(containerd.cli().args(["run", "--detach", "--privileged", IMAGE, "mounts-within", "sh", "-c", script]))?;
    let open = "SELECT count(*) AS n FROM mounts_history WHERE container_id = 'mounts-within' AND valid_to IS NULL";
    mayfly.wait_for_count(&format!("{open} AND path = '/m'"), 1)?;

    let mut verdict = Verdict::default();
    let mounted =
        mayfly.query("SELECT action, device, path, type FROM mount_events WHERE container_id = 'mounts-within' AND path = '/m'")?;
    let told = format!("{mounted:?}");
    verdict.check(mounted.len() == 1 && ["inner", "tmpfs"].iter().all(|word| told.contains(word)), "mount within", || told);
    let by = "SELECT count(*) AS n FROM mount_events WHERE container_id = 'mounts-within' AND path = '/m' AND pid > 0";
    verdict.check(!who_is_told(&mayfly)? || mayfly.count(by)? == 1, "by whom", String::new);
    // The container's root, and what the runtime mounts for it, were there before its first program ran.
    let roots = mayfly.count(&format!("{open} AND path IN ('/', '/proc') AND mnt_namespace <> ''"))?;
    verdict.check(roots == 2, "root and /proc", || roots.to_string());
    let early = "SELECT count(*) AS n FROM mounts_history m JOIN container_lifecycle_events e ON e.container_id = m.container_id \
                 WHERE e.action = 'start' AND m.path = '/proc' AND m.valid_from_ns <= e.time_ns AND m.container_id = 'mounts-within'";
    verdict.check(mayfly.count(early)? == 1, "known from the container's start", String::new);
    run(containerd.cli().args(["tasks", "delete", "--force", "mounts-within"]))?;
    mayfly.wait_for_count(&format!("SELECT 1 - count(*) AS n FROM ({})", open.replace("count(*) AS n", "*")), 1)?;
    recording.stop()?;
    verdict.pass()
}

/// A folder at which something is mounted; nothing is once this is dropped.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    fn text(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while unmount(&self.0, UnmountFlags::DETACH).is_ok() {}
    }
}

/// Whether this kernel tells who mounts; older ones do not.
pub(crate) fn who_is_told(mayfly: &Mayfly) -> Result<bool> {
    let told = mayfly.command("doctor")?.output()?;
    Ok(String::from_utf8_lossy(&told.stdout).contains("who mounts: the kernel tells"))
}

#[test]
fn a_path_at_a_past_time_was_this_partition_of_that_stick_mounted_by_this_process_of_that_user() -> Result<()> {
    let _turn = turn();
    let home = tempfile::tempdir()?;
    let device = Loop::with(&Loop::image(home.path(), "first")?)?;
    let [at, beside] = ["at", "beside"].map(|name| Place(home.path().join(name)));
    for place in [&at, &beside] {
        fs::create_dir(&place.0)?;
    }
    let host = FakeHost::default();
    let number = device.number()?;
    let stick = |serial, sequence| Stick { serial, disk: "8:16", partition: &number, sequence };
    let named = |label: &str| host.write(&format!("run/udev/data/b{number}"), &format!("E:ID_FS_UUID=ABCD-EF01\nE:ID_FS_LABEL={label}"));
    host.plug(stick("4C530001", 1));
    named("FIRST");
    host.write("etc/passwd", "admin:x:0:0::/root:/bin/sh");
    let root = host.root().display();
    let mayfly = Mayfly::with(&format!("[mounts]\nroot = \"{root}\"\n[accounts]\nroot = \"{root}\"\n"))?;
    let is_told = who_is_told(&mayfly)?;
    let recording = mayfly.record()?;
    let events = format!("SELECT count(*) AS n FROM mount_events WHERE device = '{}'", device.device());
    let told = |count| mayfly.wait_for_count(&events, count);
    mount(device.device(), &at.0, "ext4", MountFlags::empty(), None)?;
    told(1)?;
    mount_bind(&at.0, &beside.0)?;
    told(2)?;
    mount_remount(&at.0, MountFlags::RDONLY, c"")?;
    // The filesystem itself became read-only: its other place shows it too.
    told(4)?;
    unmount(&beside.0, UnmountFlags::DETACH)?;
    told(5)?;
    unmount(&at.0, UnmountFlags::empty())?;
    told(6)?;
    // Another stick under the same name, at the same place.
    host.unplug(stick("4C530001", 1));
    device.replace(&Loop::image(home.path(), "second")?)?;
    host.plug(stick("4C530002", 2));
    named("SECOND");
    mount(device.device(), &at.0, "ext4", MountFlags::empty(), None)?;
    told(7)?;
    recording.stop()?;

    let mut verdict = Verdict::default();
    let mut check = |what: &str, sql: &str, expected: &[&str]| -> Result<()> {
        let found = mayfly.lines(sql)?;
        verdict.check(found == expected, what, || format!("{found:?} instead of {expected:?}"));
        Ok(())
    };
    let (device, at, beside) = (device.device(), at.text(), beside.text());
    let changes = format!(
        "SELECT concat_ws(' ', action, path, substr(flags, 1, 2)) FROM mount_events WHERE device = '{device}' ORDER BY time_ns, eid"
    );
    let mut expected =
        vec![format!("mount {at} rw"), format!("mount {beside} rw"), format!("remount {at} ro"), format!("remount {beside} ro")];
    expected.extend([format!("unmount {beside} ro"), format!("unmount {at} ro"), format!("mount {at} rw")]);
    check("what happened", &changes, &expected.iter().map(String::as_str).collect::<Vec<_>>())?;
    let periods = format!(
        "SELECT concat_ws(' ', substr(flags, 1, 2), device_serial, fs_label, ended_reason, complete) FROM mounts_history WHERE path = '{at}' ORDER BY valid_from_ns"
    );
    check("periods", &periods, &["rw 4C530001 FIRST changed 1", "ro 4C530001 FIRST unmounted 1", "rw 4C530002 SECOND  1"])?;
    // The instants: while it was the first stick, when nothing was there, and while it was the second.
    let instant = |nth: usize| {
        format!("(SELECT time_ns FROM mount_events WHERE path = '{at}' AND device = '{device}' ORDER BY time_ns LIMIT 1 OFFSET {nth})")
    };
    let behind = |nth: usize| {
        format!(
            "SELECT concat_ws(' ', device, bus, usb_vendor_id, usb_product_id, device_serial, complete) FROM mounts_history \
             WHERE path = '{at}' AND container_id = '' AND as_of = {}",
            instant(nth)
        )
    };
    check("the first", &behind(0), &[&format!("{device} usb 0781 5583 4C530001 1")])?;
    check("nothing in between", &behind(2), &[])?;
    check("the second", &behind(3), &[&format!("{device} usb 0781 5583 4C530002 1")])?;
    if is_told {
        let own = format!("{} {} 0", std::process::id(), std::env::current_exe()?.display());
        let by = format!(
            "SELECT DISTINCT concat_ws(' ', pid, process_path, uid) FROM mount_events WHERE device = '{device}' AND action <> 'remount'"
        );
        check("by whom", &by, &[&own])?;
        let user = format!(
            "SELECT concat_ws(' ', e.pid, u.username) FROM mounts_history m JOIN mount_events e ON e.device = m.device \
             AND e.path = m.path AND e.action = 'mount' AND e.time_ns <= m.valid_from_ns \
             LEFT JOIN users_history u ON u.uid = e.uid AND u.container_id = '' AND u.as_of = e.time_ns \
             WHERE m.path = '{at}' AND m.as_of = {} ORDER BY e.time_ns DESC LIMIT 1",
            instant(0)
        );
        check("of whom", &user, &[&format!("{} admin", std::process::id())])?;
    }
    verdict.pass()
}

/// As many as a script can do, each undone before anybody could read a table.
#[test]
fn no_mount_that_is_undone_at_once_is_lost() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let mayfly = Mayfly::with(&format!("[containerd]\nendpoints = [\"{}\"]\n[mounts]\nenabled = true\n", containerd.endpoint()))?;
    if !who_is_told(&mayfly)? {
        eprintln!("not shown: this kernel gives no notice of mounts");
        return Ok(());
    }
    let recording = mayfly.record()?;
    let script =
        "busybox mkdir /m; sleep 2; for i in $(busybox seq 200); do busybox mount -t tmpfs quick /m; busybox umount /m; done; sleep 600";
    run(containerd.cli().args(["run", "--detach", "--privileged", IMAGE, "mounts-quick", "sh", "-c", script]))?;
    // What was gone before anybody could look has no place and no device; who did it is told of all.
    let within = "FROM mount_events WHERE container_id = 'mounts-quick' AND device IN ('quick', '') AND path IN ('/m', '') AND pid > 0";
    let mut verdict = Verdict::default();
    for action in ["mount", "unmount"] {
        let told = mayfly.wait_for_count(&format!("SELECT count(*) AS n {within} AND action = '{action}'"), 200)?;
        verdict.check(told == 200, action, || told.to_string());
    }
    let count = |what: &str| mayfly.count(&format!("SELECT count(*) AS n {within} AND {what}"));
    let (placed, named) = (count("path = '/m' AND action = 'mount'")?, count("process_path LIKE '%busybox' AND uid = 0")?);
    println!("of 200 mounts {placed} have a place; of 400 changes {named} have program and user");
    // How many depends on what else the machine does.
    verdict.check(placed >= 20 && named >= 20, "looked at in time", || format!("{placed} of 200, {named} of 400"));
    let periods = "SELECT count(*) AS n FROM mounts_history WHERE device = 'quick' AND ended_reason = 'unmounted'";
    let told = mayfly.wait_for_count(periods, usize::try_from(placed)?)?;
    verdict.check(told == placed, "intervals", || format!("{told} of {placed}"));
    run(containerd.cli().args(["tasks", "delete", "--force", "mounts-quick"]))?;
    recording.stop()?;
    verdict.pass()
}
