//! Calls that mount, in a mount namespace of the test's own thread.

use std::fs;

use crate::probing::{Probing, everything, leave_mounts_of_others};
use mayfly_history::mount::{MountAction, MountCall};
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_change, mount_move, mount_remount, move_mount, unmount,
    },
};

/// A folder of its own below /tmp, with the probes that hear what is mounted there.
fn start(name: &str) -> Option<(Probing, String)> {
    leave_mounts_of_others();
    let folder = format!("/tmp/mayfly-mounts-{}-{name}", std::process::id());
    for below in ["", "a", "b"] {
        fs::create_dir_all(format!("{folder}/{below}")).unwrap();
    }
    Probing::start_with_mounts(&everything()).map(|probing| (probing, fs::canonicalize(folder).unwrap().to_str().unwrap().to_owned()))
}

/// What every call here has in common.
fn is_ours(call: &MountCall) {
    assert_eq!((call.pid, call.uid), (i64::from(std::process::id()), Some(0)), "{call:?}");
    assert!(call.mnt_namespace.is_some() && &*call.path == std::env::current_exe().unwrap().to_str().unwrap(), "{call:?}");
    let namespace = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    assert_eq!(namespace.to_str().unwrap(), format!("mnt:[{}]", call.mnt_namespace.unwrap()));
}

#[test]
fn tells_who_mounted_what_where_and_undid_it() {
    let Some((mut probing, folder)) = start("classic") else { return };
    let (a, b) = (format!("{folder}/a"), format!("{folder}/b"));
    mount("some words", &*a, "tmpfs", MountFlags::NOSUID, None).unwrap();
    mount_bind(&*a, &*b).unwrap();
    mount_remount(&*a, MountFlags::NODEV, "").unwrap();
    unmount(&*b, UnmountFlags::empty()).unwrap();
    mount_move(&*a, &*b).unwrap();
    unmount(&*b, UnmountFlags::DETACH).unwrap();

    let call = probing.mount(|c| c.action == MountAction::Mount && c.target == a);
    is_ours(&call);
    assert_eq!((call.source.as_str(), call.fs_type.as_str(), call.flags & 2, call.result), ("some words", "tmpfs", 2, 0), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Mount && c.target == b);
    assert_eq!((call.source.as_str(), call.flags & 0x1000), (&*a, 0x1000), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Remount && c.target == a);
    assert_eq!((call.target.as_str(), call.flags & 4), (&*a, 4), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Unmount && c.target == b);
    assert_eq!((call.target.as_str(), call.source.as_str(), call.result), (&*b, "", 0), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Move && c.target == b);
    assert_eq!((call.source.as_str(), call.target.as_str()), (&*a, &*b), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Unmount && c.target == b);
    is_ours(&call);
    assert_eq!((call.flags, call.result), (2, 0), "{call:?}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tells_the_error_of_a_call_that_failed_and_no_mount_of_a_change_of_propagation() {
    let Some((mut probing, folder)) = start("failed") else { return };
    let a = format!("{folder}/a");
    mount("none", &*a, "nosuchfs", MountFlags::empty(), None).unwrap_err();
    unmount(&*a, UnmountFlags::empty()).unwrap_err();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let call = probing.mount(|c| c.target == a);
    assert_eq!((call.action, call.fs_type.as_str(), call.result), (MountAction::Mount, "nosuchfs", -19), "{call:?}");
    let call = probing.mount(|c| c.target == a);
    assert_eq!((call.action, call.result), (MountAction::Unmount, -22), "{call:?}");
    let call = probing.mount(|c| c.target == "/");
    assert_eq!((call.action, call.result), (MountAction::Propagation, 0), "{call:?}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn finds_out_where_paths_of_folders_and_descriptors_lead() {
    let Some((mut probing, folder)) = start("places") else { return };
    std::env::set_current_dir(&folder).unwrap();
    mount("x", "a", "tmpfs", MountFlags::empty(), None).unwrap();
    fs::create_dir("a/deep").unwrap();
    let held = fs::File::open("a/deep").unwrap();
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    mount("y", &*through, "tmpfs", MountFlags::empty(), None).unwrap();
    mount_bind("./a", "b").unwrap();

    let call = probing.mount(|c| c.source == "x");
    assert_eq!(call.target, format!("{folder}/a"), "{call:?}");
    let call = probing.mount(|c| c.source == "y");
    assert_eq!(call.target, format!("{folder}/a/deep"), "over the edge of a mount: {call:?}");
    let call = probing.mount(|c| c.flags & 0x1000 != 0 && c.target.starts_with(&folder));
    assert_eq!((call.source, call.target), (format!("{folder}/a"), format!("{folder}/b")));
    for place in ["b", "a/deep", "a"] {
        unmount(place, UnmountFlags::DETACH).unwrap();
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tells_what_the_newer_calls_mounted() {
    let Some((mut probing, folder)) = start("newer") else { return };
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&filesystem, "source", "by parts").unwrap();
    fsconfig_create(&filesystem).unwrap();
    let made = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV).unwrap();
    let target = format!("{folder}/a");
    move_mount(&made, "", CWD, &*target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    let other = format!("{folder}/b");
    move_mount(CWD, &*target, CWD, &*other, MoveMountFlags::empty()).unwrap();

    let call = probing.mount(|c| c.action == MountAction::Make && c.source == "by parts");
    is_ours(&call);
    assert_eq!((call.source.as_str(), call.fs_type.as_str(), call.target.as_str()), ("by parts", "tmpfs", ""), "{call:?}");
    assert_eq!((call.flags, call.result), (4, 0), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Mount && c.target == target);
    is_ours(&call);
    assert_eq!((call.source.as_str(), call.fs_type.as_str(), call.result), ("by parts", "tmpfs", 0), "{call:?}");
    let call = probing.mount(|c| c.action == MountAction::Move && c.target == other);
    assert_eq!((call.source, call.result), (target, 0));
    unmount(&*other, UnmountFlags::DETACH).unwrap();
    fs::remove_dir_all(folder).unwrap();
}
